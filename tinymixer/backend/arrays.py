"""Where an array lives, and how it gets elsewhere.

There is no global device: an array says where it lives, and `array_module` reads it off.
"""

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from types import ModuleType
from typing import Any

import numpy as np

from tinymixer.backend.doctor import why_no_gpu
from tinymixer.errors import TinymixerError

Array = Any  # numpy.ndarray or cupy.ndarray: they share their methods, not a base class


def array_module(x: Array) -> ModuleType:
    """The library that `x` belongs to: the top package of its type, `numpy` or `cupy`.

    Python numbers and lists are NumPy's. Nothing is imported: whoever holds a CuPy array has
    imported CuPy already.
    """
    if isinstance(x, np.ndarray | np.generic) or not hasattr(x, "dtype"):
        return np
    return sys.modules[type(x).__module__.partition(".")[0]]


def device_of(x: Array) -> str:
    """`"cpu"` for what NumPy holds, `"gpu"` for everything else."""
    return "cpu" if array_module(x) is np else "gpu"


def to_numpy(x: Array) -> np.ndarray:
    """`x` as a NumPy array; copied from the device if it lives there."""
    return np.asarray(x) if array_module(x) is np else x.get()


def to_device(x: Array, device: str) -> Array:
    """`x` on `device`, `"cpu"` or `"gpu"`; copied only if it has to move.

    Raises TinymixerError for an unknown device and, in plain words, where no GPU can be used.
    """
    if device == "cpu":
        return to_numpy(x)
    if device != "gpu":
        raise TinymixerError(f"unknown device {device!r}: expected 'cpu' or 'gpu'")
    if device_of(x) == "gpu":
        return x
    missing = why_no_gpu()
    if missing:
        raise TinymixerError(f"device 'gpu' cannot be used: {missing}")
    import cupy

    return cupy.asarray(x)


def cuda_module(xp: ModuleType, source: str, constants: dict[str, int | str]) -> Any:
    """CUDA C++ as a module of kernels, `module.get_function(name)(grid, block, arguments)`.

    xp is CuPy. The source is compiled on first use of a kernel, for the GPU at hand, with its
    constants defined; CuPy keeps on disk what it compiled.
    """
    defined = (f"-D{name}={value}" for name, value in constants.items())
    return xp.RawModule(code=source, options=("-std=c++17", *defined))


def synchronize(device: str) -> None:
    """Wait until `device` has done all that was asked of it. A CPU always has."""
    if device == "gpu":
        import cupy

        cupy.cuda.Device().synchronize()


def gpu_ms(again: Callable[[], Any], times: int, ahead: Callable[[], Any]) -> float:
    """What a GPU needs for `again()`, called so many times in a row, by its own clock.

    `ahead()` gives it work for longer than it takes to ask for them all: the calls queue up behind
    it, and what is measured never waits for the program.
    """
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    again()  # the first may compile
    ahead()
    start.record()
    for _ in range(times):
        again()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / times


def read_scalars(scalars: Sequence[Array]) -> list[Any]:
    """Arrays of one number each as Python numbers: one copy from the device, however many."""
    return to_numpy(array_module(scalars[0]).stack(scalars)).tolist()


def device_constant(table: Callable[..., np.ndarray]) -> Callable[..., Array]:
    """Decorates a function that makes a table, which is then made and moved to a device once.

    `f(*arguments)` becomes `f(like, *arguments)`, with the table where the array `like` is. It is
    shared by all who ask: read it only.
    """

    @lru_cache
    def kept(xp: ModuleType, *arguments: Any) -> Array:
        return xp.asarray(table(*arguments))

    @wraps(table)
    def beside(like: Array, *arguments: Any) -> Array:
        return kept(array_module(like), *arguments)

    return beside
