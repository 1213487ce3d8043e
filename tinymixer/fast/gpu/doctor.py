"""What computing on a GPU takes, part by part, in plain words and with the cure."""

from collections.abc import Callable
from typing import Any

from tinymixer.errors import TinymixerError
from tinymixer.fast.gpu import cublas


def gpu_parts() -> list[tuple[str, str]]:
    """What computing on a GPU takes, part by part: its name, and what is here or what would help.

    Each part is asked whatever the others have answered. Empty where CuPy is not installed, as
    `backend.why_no_gpu` says.
    """
    try:
        import cupy
    except ImportError as error:
        return [] if error.name == "cupy" else [("CuPy", _missing(error, "install it again"))]
    parts = []
    for name, ask, cure in _GPU_PARTS:
        try:
            parts.append((name, ask(cupy)))
        except Exception as error:  # CuPy, CUDA and the dynamic loader raise unrelated types
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
    library = cublas.opened(cupy)
    how = f"through CuPy ({library})" if isinstance(library, str) else "called directly"
    return f"multiplies matrices, {how}"


_TOOLKIT = "pip install 'tinymixer[gpu13]' (CUDA 13) or [gpu] (CUDA 12) brings it"
_GPU_PARTS: tuple[tuple[str, Callable[[Any], str], str], ...] = (
    ("CuPy", lambda cupy: cupy.__version__, "install it again"),
    ("driver", _driver, "install a newer NVIDIA driver, or the CuPy of an older CUDA"),
    ("card", _card, "look whether nvidia-smi shows one; --device cpu needs none"),
    ("memory", _memory, "look with nvidia-smi who holds it"),
    ("NVRTC", lambda cupy: "{}.{}".format(*cupy.cuda.nvrtc.getVersion()), _TOOLKIT),
    ("cuBLAS", _product, _TOOLKIT),
)
