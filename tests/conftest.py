"""Fixtures that every test can ask for."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys

import browser
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


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """The book, built; its lessons run in a page where TINYMIXER_PYODIDE has what they need."""
    site = browser.ROOT / "lessons" / "site"
    missing = [name for name in ("sphinx", "myst_nb", "furo") if not importlib.util.find_spec(name)]
    missing += ["node"] * (not shutil.which("node"))
    missing += ["KaTeX"] * (not (site / "node_modules" / "katex").exists())
    if missing:
        pytest.skip(f"{', '.join(missing)} missing; see lessons/site/build.py")
    target = tmp_path_factory.mktemp("book")
    command = [sys.executable, str(site / "build.py"), str(target)]
    if browser.why_not() is None:
        command += ["--pyodide", os.environ["TINYMIXER_PYODIDE"]]
    done = subprocess.run(command, cwd=browser.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return target
