"""cuBLAS on a CPU: `cublas_on_cpu.cpp`, compiled by g++ on first use, in the place of the library.

It proves that what is asked of cuBLAS is what was meant, not how fast it is answered.
"""

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tinymixer.backend import cublas

SOURCE = Path(__file__).with_suffix(".cpp")


def why_not():
    """What keeps it from running here; None if nothing does."""
    return None if shutil.which("g++") else "no g++ to compile a cuBLAS for the CPU with"


@cache
def library():
    """The path of the compiled library."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder, "libcublas_on_cpu.so")
    command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", "-o", path, SOURCE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return str(path)


def put_in_place(monkeypatch):
    """What is opened as cuBLAS is this, until the test ends."""
    monkeypatch.setattr(cublas, "library_name", lambda version: library())
    monkeypatch.setattr(cublas, "_opened", {})
