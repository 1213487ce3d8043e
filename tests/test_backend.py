"""Which library an array belongs to, and how it crosses."""

import sys
from types import SimpleNamespace

import cupy_stand_in
import numpy as np
import pytest

from tinymixer import backend
from tinymixer.errors import TinymixerError


@pytest.mark.parametrize("x", [np.zeros(3), np.float32(1), np.array(2), 1.5, True, [1, 2], (3,)])
def test_numbers_lists_and_numpy_arrays_are_numpys(x):
    assert backend.array_module(x) is np
    assert backend.device_of(x) == "cpu"


def test_an_array_says_itself_where_it_lives(device):
    x = device.asarray(np.arange(3.0))
    assert backend.array_module(x) is device
    assert backend.array_module(x.sum()) is device  # NumPy's reductions are not even arrays
    assert backend.device_of(x) == ("cpu" if device is np else "gpu")


def test_a_round_trip_to_the_device_keeps_every_bit(device, rng):
    x = rng.standard_normal((3, 5)).astype(np.float32)
    there = backend.to_device(x, backend.device_of(device.zeros(1)))
    assert backend.array_module(there) is device
    back = backend.to_numpy(there)
    assert type(back) is np.ndarray
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(back, x)


def test_what_is_there_already_is_not_copied(device):
    x = device.zeros(3)
    assert backend.to_device(x, backend.device_of(x)) is x


def test_an_unknown_device_is_an_error():
    with pytest.raises(TinymixerError, match="unknown device 'tpu': expected 'cpu' or 'gpu'"):
        backend.to_device(np.zeros(3), "tpu")


def test_numbers_come_in_one_copy(device, rng):
    x = rng.standard_normal(5).astype(np.float32)
    assert backend.read_scalars([device.asarray(x)[i] for i in range(5)]) == x.tolist()
    assert backend.read_scalars([device.asarray(x).max()]) == [x.max()]


def test_a_constant_is_made_and_moved_once(device):
    made = []

    @backend.device_constant
    def powers(base, n):
        """Of a base."""
        made.append((base, n))
        return base ** np.arange(n)

    like = device.zeros(1)
    table = powers(like, 3, 4)
    assert backend.array_module(table) is device
    np.testing.assert_array_equal(backend.to_numpy(table), [1, 3, 9, 27])
    assert powers(device.zeros(2), 3, 4) is table
    assert powers(like, 2, 4) is not table
    assert made == [(3, 4), (2, 4)]
    assert powers.__doc__ == "Of a base."


def test_a_device_is_waited_for_and_the_cpu_needs_no_cupy(monkeypatch):
    waited = []
    device = SimpleNamespace(synchronize=lambda: waited.append(1))
    cupy = SimpleNamespace(cuda=SimpleNamespace(Device=lambda: device))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    backend.synchronize("gpu")
    assert waited == [1]
    monkeypatch.setitem(sys.modules, "cupy", None)
    backend.synchronize("cpu")


# --- what is missing for a GPU ---


def cupy_that(available=True, **functions):
    """A module in CuPy's place."""
    cuda = SimpleNamespace(is_available=lambda: available)
    return SimpleNamespace(cuda=cuda, **functions)


def fails(*_args):
    raise RuntimeError("cudaErrorNoKernelImageForDevice: no kernel\nand a second line")


@pytest.mark.parametrize(
    ("cupy", "says"),
    [
        (None, "CuPy is not installed; pip install"),  # None in sys.modules: ImportError
        (cupy_that(available=False), "finds no NVIDIA GPU or driver; install the driver"),
        (cupy_that(arange=lambda n: np.zeros(n)), "computes a wrong sum"),
        (cupy_that(arange=fails), "cannot compute (RuntimeError: cudaErrorNoKernelImageForDevice"),
    ],
    ids=["not installed", "no driver", "wrong sum", "cannot compile"],
)
def test_whatever_keeps_cupy_from_computing_is_told_in_one_line(monkeypatch, cupy, says):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    line = backend.why_no_gpu()
    assert says in line
    assert "\n" not in line
    with pytest.raises(TinymixerError, match="device 'gpu' cannot be used"):
        backend.to_device(np.zeros(3), "gpu")


def test_a_library_that_computes_has_no_excuse(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)
    assert backend.why_no_gpu() is None


def test_on_this_machine_the_answer_is_one_line_or_none():
    line = backend.why_no_gpu()
    assert line is None or (line.startswith("CuPy ") and "\n" not in line)
