"""Arrays put on a device, and what comes back compared."""

import cupy_stand_in
import numpy as np

from tinymixer.backend import to_numpy
from tinymixer.fast.gpu import kernels

LAYOUTS = {
    "C": lambda a: a,
    "reversed": lambda a: a[(slice(None, None, -1),) * a.ndim],
    "transposed": lambda a: a.transpose(*range(a.ndim)[::-1]).copy().transpose(),
}


def on(cupy, arrays, layout="C"):
    """The arrays on the device, read-only in the stand-in."""
    placed = [LAYOUTS[layout](cupy.asarray(a)) for a in arrays]
    for a in placed:
        if cupy is cupy_stand_in:
            a._host.flags.writeable = False
    return placed


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def swap_source(monkeypatch, source):
    """Compile other kernels from here on, on the stand-in."""

    def kernel(xp, name, variant):
        return kernels.cuda_module(xp, source, kernels.constants(variant)).get_function(name)

    monkeypatch.setattr(kernels, "_kernel", kernel)
