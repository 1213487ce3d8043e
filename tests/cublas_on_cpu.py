"""cuBLAS on a CPU: `cublas_on_cpu.cpp`, compiled by g++ on first use, in the place of the library.

It proves that what is asked of cuBLAS is what was meant, not how fast it is answered.
"""

import atexit
import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import cupy_memory
import cupy_stand_in

from tinymixer.fast.gpu import cublas, products

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
    """What is opened as cuBLAS is this, until the test ends; in fp32, whatever was left set."""
    monkeypatch.setattr(products, "_product_type", "fp32")
    monkeypatch.setitem(cupy_stand_in._compute_types, "float32", 1)
    monkeypatch.setattr(cublas, "library_name", lambda version: library())
    monkeypatch.setattr(cublas, "_opened", {})
    monkeypatch.setattr(cupy_memory, "on_capture", [_record])


_told = ctypes.CFUNCTYPE(None, ctypes.c_int)
_kept = []  # what the library may call


def _record(stream, add):
    """From here on, products on that stream are not computed: what computes them goes to `add`."""
    shared = ctypes.CDLL(library())
    tell = _told(lambda i: add(lambda: shared.run_recorded(i))) if add else _told()
    _kept.append(tell)
    shared.record(ctypes.c_void_p(stream), tell)
