"""CuPy with the twins on, and kernels of our own; or what stands in for both."""

import sys

import cuda_on_cpu
import cupy_stand_in
import pytest

from tinymixer import backend


@pytest.fixture(params=["stand_in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request, monkeypatch):
    """CuPy, or what stands in for it; the twins are on."""
    if request.param == "stand_in":
        if missing := cuda_on_cpu.why_not():
            pytest.skip(missing)
        monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)
        return cupy_stand_in
    if missing := backend.why_no_gpu():
        pytest.skip(missing)
    import cupy

    return cupy
