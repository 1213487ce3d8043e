"""CuPy with a cuBLAS that is called directly, or what stands in for both."""

import sys

import cublas_on_cpu
import cupy_stand_in
import pytest

from tinymixer import backend


@pytest.fixture
def stand_in(monkeypatch):
    if missing := cublas_on_cpu.why_not():
        pytest.skip(missing)
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)
    cublas_on_cpu.put_in_place(monkeypatch)
    return cupy_stand_in


@pytest.fixture(params=["stand_in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request):
    if request.param == "stand_in":
        return request.getfixturevalue("stand_in")
    if missing := backend.why_no_gpu():
        pytest.skip(missing)
    import cupy

    return cupy
