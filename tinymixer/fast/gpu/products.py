"""Matrix products on a GPU, in a named precision."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from tinymixer.backend import Array, array_module, why_no_gpu
from tinymixer.errors import TinymixerError
from tinymixer.fast.gpu import cublas

PRECISIONS = ("fp32", "tf32", "bf16")
_product_type = "fp32"  # of all threads, as CuPy's own setting is


@contextmanager
def precision(name: str, device: str = "gpu") -> Iterator[None]:
    """In its `with` block, matrix products on a GPU see their float32 operands rounded:

    "fp32"  not at all
    "tf32"  to 10 bits of mantissa instead of 23, by the tensor cores: every 2-D product
    "bf16"  to 7 bits: what fast/gpu stores as `operand_type` says, in half the memory

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


def product_type() -> str:
    """The `precision` that is set."""
    return _product_type


def operand_type() -> np.dtype:
    """What a product's operands are to be stored as in the `precision` that is set.

    bfloat16, in half the memory, for "bf16"; float32 for the others, where products round.
    """
    return cublas.named("bfloat16" if _product_type == "bf16" else "float32")


def product(A: Array, B: Array, dtype: Any = np.float32) -> Array:
    """A @ B as `dtype`, of matrices (M, K) and (K, N) that are both float32, or both bfloat16.

    Terms are added in float32 in either case; float32 operands are seen in the `precision` that is
    set. Raises TinymixerError if cuBLAS fails.
    """
    library = cublas.opened(array_module(A))
    if isinstance(library, str):
        return (A @ B).astype(dtype, copy=False)
    tf32 = _product_type == "tf32" and A.dtype == np.float32
    made = A.dtype if A.dtype == dtype else np.dtype(np.float32)
    C = library.product(A, B, made, cublas.IN_TF32 if tf32 else cublas.IN_FLOAT32)
    return C.astype(dtype, copy=False)
