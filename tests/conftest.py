"""Fixtures that every test can ask for."""

import sys

import cupy_stand_in
import numpy as np
import pytest

from tinymixer import engine
from tinymixer.backend import why_no_gpu


@pytest.fixture(params=["cpu", "stand_in", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """The array library that a test runs on: NumPy, the stand-in for CuPy, or CuPy.

    `device.asarray(x)` puts a NumPy array there. Faster twins are off: the clear code is tested.
    """
    monkeypatch.setattr(engine, "twins", {})
    if request.param == "cpu":
        return np
    if request.param == "stand_in":
        monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)  # `to_device(x, "gpu")` finds it
        return cupy_stand_in
    if missing := why_no_gpu():
        pytest.skip(missing)
    import cupy

    return cupy


@pytest.fixture
def rng():
    """The same random numbers for a test, every time."""
    return np.random.default_rng(20)
