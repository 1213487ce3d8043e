"""Run a script in a Python that lacks what one in a browser lacks, which runs 32-bit WebAssembly.

    python tests/like_a_browser.py tests/in_a_browser.py

No thread or process starts, some modules and clocks are missing, integers have 32 bits where no
dtype is given, and `take` and `bincount` refuse wider ones. The methods of arrays are left as they
are here: test_browser.py runs the real thing too.
"""

import os
import runpy
import sys
import threading
import time

import numpy as np


def refused(*_: object, **__: object) -> None:
    raise RuntimeError("a thread or a process was started")


def narrow(make):
    """`make`, whose result has 32-bit integers where its dtype is left open."""

    def made(*arguments, **options):
        found = make(*arguments, **options)
        open_ = "dtype" not in options and not any(isinstance(x, np.ndarray) for x in arguments)
        if open_ and found.dtype == np.int64:
            assert found.size == 0 or abs(found).max() < 2**31, "Python integer too large"
            return found.astype(np.int32)
        return found

    return made


def indexed(name, at):
    """The function np.`name`, which takes integers in place `at`, of 32 bits at most."""
    function = getattr(np, name)

    def called(*arguments, **options):
        dtype = np.asarray(arguments[at]).dtype
        if not np.can_cast(dtype, np.int32):
            raise TypeError(f"{name}: Cannot cast array data from {dtype} to int32")
        found = function(*arguments, **options)
        return found.astype(np.int32) if name == "bincount" else found

    return called


sys.platform = "emscripten"
threading.Thread.start = refused
os.fork = os.posix_spawn = refused
for name in ("fcntl", "resource", "_multiprocessing", "_posixsubprocess", "lzma", "ssl"):
    sys.modules[name] = None
del time.thread_time
np.arange = narrow(np.arange)
np.intp = np.int32
nonzero = np.nonzero
np.nonzero = lambda x: tuple(i.astype(np.int32) for i in nonzero(x))
np.take, np.bincount = indexed("take", 1), indexed("bincount", 0)

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.getcwd())
    runpy.run_path(sys.argv[0], run_name="__main__")
