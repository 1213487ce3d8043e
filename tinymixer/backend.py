"""Floor 0. Which array library? The only file that imports CuPy.

There is no global device: an array says where it lives, and `array_module` reads it off.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

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


PRECISIONS = ("fp32", "tf32", "bf16")
_product_type = "fp32"  # of all threads, as CuPy's own setting is


@contextmanager
def precision(name: str, device: str = "gpu") -> Iterator[None]:
    """Within it, matrix products of float32 arrays on a GPU see their operands rounded:

    "fp32"  not at all
    "tf32"  to 10 bits of mantissa instead of 23, by the tensor cores: every 2-D product
    "bf16"  to 7 bits, and their result too: the products that go through `product`

    Everything else stays float32: weights, sums, norms, the optimizer. On the `device` "cpu"
    nothing changes. The setting is of the whole process. Raises TinymixerError for any other name.
    """
    global _product_type
    if name not in PRECISIONS:
        raise TinymixerError(f"unknown precision {name!r}: expected {' or '.join(PRECISIONS)}")
    if device == "cpu" or (name == "fp32" and "cupy" not in sys.modules):
        yield  # nothing else could be set
        return
    missing = why_no_gpu()
    if name == "bf16" and not missing and find_spec("ml_dtypes") is None:
        missing = "ml_dtypes, which has the type, is not installed; pip install ml_dtypes"
    if missing:
        raise TinymixerError(f"precision {name!r} cannot be used: {missing}")
    import cupy

    # CuPy's COMPUTE_TYPE_TF32 is 7 and its COMPUTE_TYPE_FP32 is 4; CUPY_TF32=1 is overruled.
    before = _product_type, cupy._core.get_compute_type(np.float32)
    cupy._core.set_compute_type(np.float32, 7 if name == "tf32" else 4)
    _product_type = name
    try:
        yield
    finally:
        _product_type = before[0]
        cupy._core.set_compute_type(np.float32, before[1])


def product(A: Array, B: Array) -> Array:
    """A @ B of float32 matrices, (M, K) and (K, N), in the `precision` that is set."""
    if _product_type != "bf16":
        return A @ B
    from ml_dtypes import bfloat16

    return (A.astype(bfloat16) @ B.astype(bfloat16)).astype(np.float32)


def cuda_module(xp: ModuleType, source: str, constants: dict[str, int]) -> Any:
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


def numbers(scalars: Sequence[Array]) -> list[Any]:
    """Arrays of one number each as Python numbers: one copy from the device, however many."""
    return to_numpy(array_module(scalars[0]).stack(scalars)).tolist()


def constant(table: Callable[..., np.ndarray]) -> Callable[..., Array]:
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


def why_no_gpu() -> str | None:
    """What keeps CuPy from computing here, in one line with the cure; None if nothing does.

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


def gpu_parts() -> list[tuple[str, str]]:
    """What computing on a GPU takes, part by part: its name, and what is here or what would help.

    Each part is asked whatever the others have answered. Empty where CuPy is not installed, as
    `why_no_gpu` says.
    """
    try:
        import cupy
    except ImportError as error:
        return [] if error.name == "cupy" else [("CuPy", _missing(error, "install it again"))]
    parts = []
    for name, ask, cure in _GPU_PARTS:
        try:
            parts.append((name, ask(cupy)))
        except Exception as error:  # as in why_no_gpu
            parts.append((name, _missing(error, cure)))
    return parts


def _missing(error: Exception, cure: str) -> str:
    return f"not usable ({str(error).partition(chr(10))[0] or type(error).__name__}); {cure}"


def _driver(cupy: Any) -> str:
    runtime = cupy.cuda.runtime
    has, needs = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if not has:
        raise TinymixerError("there is none")
    if has // 1000 < needs // 1000:  # within one major version, older drivers will do
        raise TinymixerError(f"it knows CUDA {_cuda(has)}, this CuPy needs {_cuda(needs)}")
    return f"knows CUDA {_cuda(has)}; CuPy was built with {_cuda(needs)}"


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _card(cupy: Any) -> str:
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    *major, minor = cupy.cuda.Device().compute_capability  # "90" is 9.0
    return f"{name}, compute capability {''.join(major)}.{minor}"


def _memory(cupy: Any) -> str:
    free, total = (n / 2**30 for n in cupy.cuda.Device().mem_info)
    return f"{free:.1f} of {total:.1f} GiB free"


def _product(cupy: Any) -> str:
    ones = cupy.ones((2, 2), "float32")
    if float((ones @ ones).sum()) != 8:
        raise TinymixerError("it multiplies two matrices wrongly")
    return "multiplies matrices"


_TOOLKIT = "pip install 'tinymixer[gpu13]' (CUDA 13) or [gpu] (CUDA 12) brings it"
_GPU_PARTS: tuple[tuple[str, Callable[[Any], str], str], ...] = (
    ("CuPy", lambda cupy: cupy.__version__, "install it again"),
    ("driver", _driver, "install a newer NVIDIA driver, or the CuPy of an older CUDA"),
    ("card", _card, "look whether nvidia-smi shows one; --device cpu needs none"),
    ("memory", _memory, "look with nvidia-smi who holds it"),
    ("NVRTC", lambda cupy: "{}.{}".format(*cupy.cuda.nvrtc.getVersion()), _TOOLKIT),
    ("cuBLAS", _product, _TOOLKIT),
)
