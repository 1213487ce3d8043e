"""Fixtures that every test can ask for."""

import signal
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


@pytest.fixture(autouse=True, scope="session")
def signals_are_heard():
    """SIGINT and SIGTERM do what they do in a terminal, also where the tests' caller ignores them.

    A job in the background of a script ignores SIGINT, and so would every process started here.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def rng():
    """The same random numbers for a test, every time."""
    return np.random.default_rng(20)


@pytest.fixture(autouse=True)
def precision_is_given_back():
    """A test that leaves another precision set is found here, not by those that come after it."""
    yield
    left, cupy_stand_in._compute_types["float32"] = cupy_stand_in._compute_types["float32"], 1
    assert left == 1
