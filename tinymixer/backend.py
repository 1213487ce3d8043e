"""Floor 0. Which array library? And where does an array live?

There is no global device: every array is on one, and `array_module` tells which. Whatever
else a GPU needs (kernels, products, graphs) is in `fast/gpu`.
"""

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from inspect import signature
from types import ModuleType
from typing import Any

import numpy as np

from tinymixer.errors import TinymixerError

Array = Any  # numpy.ndarray or cupy.ndarray: they share their methods, not a base class


def array_module(x: Array) -> ModuleType:
    """The library that `x` belongs to: the top package of its type, `numpy` or `cupy`.

    Python numbers and lists are NumPy's. Nothing is imported: where there is a CuPy array, CuPy
    has been imported.
    """
    if isinstance(x, np.ndarray | np.generic) or not hasattr(x, "dtype"):
        return np
    return sys.modules[type(x).__module__.partition(".")[0]]


def device_of(x: Array) -> str:
    """`"cpu"` for what NumPy holds, `"gpu"` for everything else."""
    return "cpu" if array_module(x) is np else "gpu"


def common_device(arrays: Sequence[Any], function: Callable[..., Any], name: str) -> str:
    """The one device of a function's arguments; plain numbers, NumPy's too, fit either.

    Raises TypeError that says which argument of `name` is elsewhere.
    """
    numbers = (int, float, complex, np.generic)
    devices = [None if isinstance(x, numbers) else device_of(x) for x in arrays]
    found = [d for d in devices if d]
    if len(set(found)) > 1:
        names = list(signature(function).parameters)
        odd = next(i for i, d in enumerate(devices) if d and d != found[0])
        raise TypeError(
            f"{name}: argument {names[min(odd, len(names) - 1)]!r} is on the {devices[odd]}, the "
            f"ones before it on the {found[0]}. Move it first: "
            f"tinymixer.backend.to_device(x, {found[0]!r})"
        )
    return found[0] if found else "cpu"


def to_numpy(x: Array) -> np.ndarray:
    """`x` as a NumPy array; copied from the device if it lives there."""
    return np.asarray(x) if array_module(x) is np else x.get()


def as_index(x: Array) -> Array:
    """`x` in the integers that `take` and `bincount` want: as wide as an address, 32 bits in a
    browser. `x[i]` takes any.
    """
    return x.astype(np.intp, copy=False)


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


def read_scalars(scalars: Sequence[Array]) -> list[Any]:
    """Arrays of one number each as Python numbers: one copy from the device, however many."""
    return to_numpy(array_module(scalars[0]).stack(scalars)).tolist()


def device_constant(table: Callable[..., np.ndarray]) -> Callable[..., Array]:
    """Decorates a function that makes a table, which is then made and moved to a device once.

    `f(*arguments)` becomes `f(like, *arguments)`, with the table where the array `like` is. All
    callers share it, so do not write to it.
    """

    @lru_cache
    def kept(xp: ModuleType, *arguments: Any) -> Array:
        return xp.asarray(table(*arguments))

    @wraps(table)
    def beside(like: Array, *arguments: Any) -> Array:
        return kept(array_module(like), *arguments)

    return beside


def synchronize(device: str) -> None:
    """Wait until `device` has finished its work. On a CPU there is nothing to wait for."""
    if device == "gpu":
        import cupy

        cupy.cuda.Device().synchronize()


def why_no_gpu() -> str | None:
    """Why CuPy cannot compute here and what to do about it, in one line; None if it can.

    A working import is not enough (CuPy imports without a driver), nor is a driver (each kernel
    is compiled on first use): so one small sum is really computed.
    """
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed; pip install 'tinymixer[gpu13]' (CUDA 13) or [gpu] (CUDA 12)"
    if not cupy.cuda.is_available():
        return "CuPy finds no NVIDIA GPU or driver; install the driver, or use --device cpu"
    try:
        if int(cupy.arange(3).sum()) != 3:
            return "CuPy computes a wrong sum on this GPU; check driver and CUDA versions"
    except Exception as error:  # CuPy, CUDA and the dynamic loader raise unrelated types here
        first = str(error).partition("\n")[0]
        return f"CuPy is installed but cannot compute ({type(error).__name__}: {first})"
    return None
