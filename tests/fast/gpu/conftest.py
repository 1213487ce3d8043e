"""CuPy with the twins on, and kernels of our own; or what stands in for both."""

import sys

import cublas_on_cpu
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


@pytest.fixture
def stand_in(monkeypatch):
    """The stand-in for CuPy, and for a cuBLAS that is called directly."""
    if missing := cublas_on_cpu.why_not():
        pytest.skip(missing)
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)
    cublas_on_cpu.put_in_place(monkeypatch)
    return cupy_stand_in


@pytest.fixture(params=["stand_in", pytest.param("gpu", marks=pytest.mark.gpu)])
def with_cublas(request):
    """CuPy with a cuBLAS that is called directly, or what stands in for both."""
    if request.param == "stand_in":
        return request.getfixturevalue("stand_in")
    if missing := backend.why_no_gpu():
        pytest.skip(missing)
    import cupy

    return cupy
