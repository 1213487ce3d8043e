"""CUDA kernels on a CPU: the very same source, compiled by g++, under a strict watch.

It proves what a kernel computes, not how fast. `cuda_on_cpu.h` runs the threads of a block as
coroutines, so barriers and shuffles mean what they mean on a GPU, and a launch raises CudaError

    when a thread leaves or waits elsewhere while others wait for it at a barrier or in a shuffle
    when anything is written outside of an array, or to an array that the kernel calls const
    when results depend on the order in which threads and blocks run, as without a barrier they do
    when an argument has not exactly the type of its parameter: CuPy passes on the bytes it gets

Shared memory is NaN at first, and so is what lies around an array, so a result made of it shows.
Around each array it is a signalling NaN, another for each, which shows if computed with or copied.
Rounding is not imitated: g++ and nvcc fuse products and sums differently.
"""

import ctypes
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_suffix(".h")
GUARD = 1 << 14  # bytes on each side of an array
LARGEST_GRID, LARGEST_BLOCK = (2**31 - 1, 65535, 65535), (1024, 1024, 64)


class CudaError(Exception):
    """What a GPU would not do, or do differently each time."""


def why_not():
    """What keeps kernels from running here; None if nothing does."""
    return None if shutil.which("g++") else "no g++ to compile CUDA kernels for the CPU with"


@cache
def _library(code, options):
    """`code`, compiled, and the names of its kernels."""
    names = re.findall(r'extern "C" __global__ void (\w+)\(', code)
    offers = "\n".join(f"OFFER({name})" for name in names)
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        # nothing of one library may be taken for another's, as what a name stands for differs
        inside = f'namespace {{\n#line 1 "source.cu"\n{code}\n}}'
        source.write_text(f'#include "{HEADER}"\n{inside}\n{offers}\n', "utf-8")
        command = ["g++", *options, "-O1", "-shared", "-fPIC", "-o", library, source]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CudaError(done.stderr)
        return ctypes.CDLL(str(library)), names


def kernel(code, name, options):
    """The kernel `name` of `code`: call it with (grid, block, arguments), NumPy's throughout.

    Of options g++ understands the same as NVRTC: -std=c++17, -DNAME=VALUE.
    """
    library, names = _library(code, options)
    if name not in names:
        raise CudaError(f"no kernel {name!r}; there are {', '.join(names)}")
    types_of = getattr(library, f"types_of_{name}")
    types_of.restype = ctypes.c_char_p
    run = getattr(library, f"launch_{name}")
    run.restype = ctypes.c_char_p
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_bool]
    types = types_of().decode().split(",")

    def launch(grid, block, arguments):
        grid, block = _size("grid", grid, LARGEST_GRID), _size("block", block, LARGEST_BLOCK)
        if block.prod() > 1024:
            raise CudaError(f"{name}: a block of {block} threads; at most 1024")
        _check(name, types, arguments)
        first, then = (_run(name, run, types, grid, block, arguments, d) for d in (False, True))
        for i, (a, b) in enumerate(zip(first, then, strict=True)):
            if a.tobytes() != b.tobytes():
                raise CudaError(f"{name}: argument {i} depends on the order in which threads run")
        for argument, result in zip(arguments, first, strict=True):
            if isinstance(argument, np.ndarray) and argument.tobytes() != result.tobytes():
                argument[...] = result

    return launch


def _size(what, size, largest):
    if not isinstance(size, tuple) or not all(type(n) is int for n in size):
        raise CudaError(f"{what}: expected a tuple of ints, got {size!r}")
    size = (*size, 1, 1)[:3]
    if not all(1 <= n <= most for n, most in zip(size, largest, strict=True)):
        raise CudaError(f"{what}: {size} is not within 1 and {largest}")
    return np.array(size, np.uint32)


def _check(name, types, arguments):
    if len(arguments) != len(types):
        raise CudaError(f"{name}: expected {len(types)} arguments, got {len(arguments)}")
    for i, (type_, x) in enumerate(zip(types, arguments, strict=True)):
        wanted = type_.removeprefix("const ").removesuffix("*")
        right = np.ndarray if type_.endswith("*") else np.generic
        if not isinstance(x, right) or x.dtype.name != wanted:
            got = f"{x.dtype} {np.shape(x)}" if hasattr(x, "dtype") else type(x).__name__
            raise CudaError(f"{name}: argument {i} is {got}; expected {type_}")
        if isinstance(x, np.ndarray) and not x.flags.c_contiguous:
            raise CudaError(f"{name}: argument {i} is not C-contiguous")
    arrays = [x for x in arguments if isinstance(x, np.ndarray) and x.size]
    for x in arrays:
        for y in arrays:
            if np.may_share_memory(x, y) and _place(x) != _place(y):
                raise CudaError(f"{name}: two arguments overlap in part")


def _place(x):
    return x.ctypes.data if x.size else id(x), x.nbytes


def _run(name, run, types, grid, block, arguments, descending):
    """The arguments as one launch leaves them; the ones given stay as they are."""
    memory, before, pointers, kept = {}, {}, [], []
    for x in arguments:
        if isinstance(x, np.ndarray):
            if _place(x) not in memory:
                words = (2 * GUARD + x.nbytes) // 4
                around = np.full(words, 0x7FA00001 + len(memory), np.uint32).view(np.uint8)
                around[GUARD : GUARD + x.nbytes] = np.frombuffer(x.tobytes(), np.uint8)
                memory[_place(x)], before[_place(x)] = around, around.copy()
            value = np.array(memory[_place(x)].ctypes.data + GUARD, np.uintp)
        else:
            value = np.array(x)
        kept.append(value)
        pointers.append(value.ctypes.data)
    table = np.array(pointers, np.uintp)
    wrong = run(table.ctypes.data, grid.ctypes.data, block.ctypes.data, descending).decode()
    if wrong:
        raise CudaError(f"{name}: {wrong}")
    results, written = (
        [],
        {
            _place(x)
            for type_, x in zip(types, arguments, strict=True)
            if type_.endswith("*") and not type_.startswith("const")
        },
    )
    for i, x in enumerate(arguments):
        if not isinstance(x, np.ndarray):
            results.append(x)
            continue
        around = memory[_place(x)]
        inside, touched = around[GUARD : GUARD + x.nbytes], around != before[_place(x)]
        if touched[:GUARD].any() or touched[GUARD + x.nbytes :].any():
            raise CudaError(f"{name}: writes outside of argument {i}, an array {x.shape}")
        if _place(x) not in written and touched.any():
            raise CudaError(f"{name}: writes to argument {i}, which is const")
        results.append(inside.view(x.dtype).reshape(x.shape))
    return results
