"""cuBLAS, called without CuPy in between.

CuPy multiplies by cuBLAS too. But it spends tens of microseconds of Python on each product, makes
no float32 out of bfloat16, and refuses while a CUDA graph is recorded. So the library that it has
loaded is called here directly, with a handle and a workspace of our own.

cuBLAS reads matrices column after column. Row after row, as ours lie, a matrix (M, K) is to it the
transpose (K, M). So it is asked for Cᵀ = Bᵀ Aᵀ, which in its reading is C = A B in ours.
"""

import ctypes
import sys
from ctypes import c_char_p, c_float, c_int, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from tinymixer.errors import TinymixerError

WORKSPACE = 32 * 2**20  # bytes, what cuBLAS takes on the newest cards
AS_IT_LIES, TRANSPOSED = 0, 1  # cublasOperation_t
TYPES = {"float32": 0, "bfloat16": 14}  # cudaDataType_t, by NumPy's names
IN_FLOAT32, IN_TF32 = 68, 77  # cublasComputeType_t
USUAL_ALGORITHM = -1  # cublasGemmAlgo_t
WHOLE_SUMS = 16  # cublasMath_t: no sums of parts in bfloat16
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (c_void_p,),
    "cublasSetMathMode": (c_void_p, c_int),
    "cublasSetStream_v2": (c_void_p, c_void_p),
    "cublasSetWorkspace_v2": (c_void_p, c_void_p, c_size_t),
    "cublasGemmEx": (
        *(c_void_p, c_int, c_int, c_int, c_int, c_int),  # handle, two operations, m, n, k
        *(c_void_p, c_void_p, c_int, c_int, c_void_p, c_int, c_int),  # alpha; A and B, type, step
        *(c_void_p, c_void_p, c_int, c_int),  # beta; C, type, step
        *(c_int, c_int),  # computed in, algorithm
    ),
}


class Cublas:
    """The library, with a handle and a workspace. For one thread, and one stream at a time."""

    def __init__(self, cupy: Any, library: Any):
        self._cupy, self._library = cupy, library
        for name, types in SIGNATURES.items():
            getattr(library, name).argtypes = types
        self._multiply = library.cublasGemmEx
        library.cublasGetStatusName.argtypes = (c_int,)
        library.cublasGetStatusName.restype = c_char_p
        self._one, self._zero = c_float(1), c_float(0)
        self._alpha, self._beta = map(ctypes.addressof, (self._one, self._zero))
        self._handle = c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetMathMode", self._handle, WHOLE_SUMS)
        self._workspace = cupy.empty(WORKSPACE, np.uint8)
        self._stream: Any = None

    def product(self, A: Any, B: Any, dtype: np.dtype, compute: int) -> Any:
        """A @ B, (M, K) (K, N) -> (M, N); of float32 as float32, or of bfloat16 as either.

        Raises ValueError for other shapes and types, and TinymixerError with what cuBLAS says.
        """
        (M, K), (rows, N) = A.shape, B.shape
        operands = _code(A.dtype)
        if rows != K or A.dtype != B.dtype or operands is None:
            raise ValueError(
                f"product: expected (M, K) and (K, N), both float32 or both bfloat16; got "
                f"{A.shape} {A.dtype} and {B.shape} {B.dtype}"
            )
        if 0 in (M, N, K):
            return self._cupy.zeros((M, N), dtype)
        (A, a_lies, a_step), (B, b_lies, b_step) = map(self._operand, (A, B))
        C = self._cupy.empty((M, N), dtype)
        self._use_current_stream()
        status = self._multiply(
            *(self._handle, b_lies, a_lies, N, M, K),
            *(self._alpha, B.data.ptr, operands, b_step, A.data.ptr, operands, a_step),
            *(self._beta, C.data.ptr, _code(dtype), N),
            *(compute, USUAL_ALGORITHM),
        )
        self._check("cublasGemmEx", status)
        return C

    def _operand(self, X: Any) -> tuple[Any, int, int]:
        """X, copied only if it has to be; how cuBLAS is to take it, and the step to a neighbour."""
        rows, columns = X.shape
        if X.flags.f_contiguous:
            return X, TRANSPOSED, rows
        return self._cupy.ascontiguousarray(X), AS_IT_LIES, columns

    def _use_current_stream(self) -> None:
        stream = self._cupy.cuda.get_current_stream()
        if stream != self._stream:
            self._call("cublasSetStream_v2", self._handle, stream.ptr)  # it forgets the workspace
            self._call("cublasSetWorkspace_v2", self._handle, self._workspace.data.ptr, WORKSPACE)
            self._stream = stream  # kept, so that no other one is given its address

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, getattr(self._library, name)(*arguments))

    def _check(self, name: str, status: int) -> None:
        if status:
            said = self._library.cublasGetStatusName(status).decode()
            raise TinymixerError(f"cuBLAS fails: {name} answers {said} ({status})")


@cache
def _code(dtype: np.dtype) -> int | None:
    return TYPES.get(dtype.name)


def library_name(cuda_version: int) -> str:
    """Under which cuBLAS of that CUDA, such as 13000, is loaded."""
    major = cuda_version // 1000
    return f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"


_opened: dict[Any, Cublas | str] = {}  # by array library


def opened(cupy: Any) -> Cublas | str:
    """The library, opened once; or, in one line, why CuPy is to multiply instead.

    Before anything relies on it, it is compared with CuPy.
    """
    if id(cupy) not in _opened:
        _opened[id(cupy)] = _open(cupy)
    return _opened[id(cupy)]


def _open(cupy: Any) -> Cublas | str:
    try:
        cupy.ones((2, 2), np.float32) @ cupy.ones((2, 2), np.float32)  # CuPy loads the library
        cublas = Cublas(cupy, ctypes.CDLL(library_name(cupy.cuda.runtime.runtimeGetVersion())))
        _compare(cupy, cublas)
    except Exception as error:  # the dynamic loader, ctypes and CuPy raise unrelated types here
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return cublas


def _compare(cupy: Any, cublas: Cublas) -> None:
    """Raises TinymixerError if a product of small whole numbers, exact in any type, is wrong."""
    kinds = [("float32", "float32", IN_FLOAT32), ("float32", "float32", IN_TF32)]
    if find_spec("ml_dtypes"):
        kinds += [("bfloat16", result, IN_FLOAT32) for result in ("bfloat16", "float32")]
    for operands, result, compute in kinds:
        A, B = (cupy.arange(n).reshape(-1, 5) % 7 - 3.0 for n in (15, 10))  # (3, 5), (2, 5)
        A, B = (X.astype(np.float32).astype(named(operands)) for X in (A, B))
        expected = A @ B.T
        for left in (A, A.T.copy().T):
            for right in (B.T, B.T.copy()):
                found = cublas.product(left, right, named(result), compute)
                if not (found.astype(np.float32) == expected.astype(np.float32)).all():
                    raise TinymixerError(f"it multiplies {operands} to a wrong {result}")


@cache
def named(dtype: str) -> np.dtype:
    """NumPy's type of that name, or the one of ml_dtypes that NumPy lacks."""
    if dtype != "bfloat16":
        return np.dtype(dtype)
    from ml_dtypes import bfloat16

    return np.dtype(bfloat16)
