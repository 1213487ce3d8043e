"""Products by cuBLAS, called directly: on a GPU, and on a stand-in for the library without one.

Sums of K terms in float32 are off by about √K roundings of 6e-8; a wrong element, type or step
is off by far more than what is allowed.
"""

import ctypes
import itertools
import sys
from types import SimpleNamespace

import cublas_on_cpu
import cupy_stand_in
import numpy as np
import pytest

from tinymixer.backend import to_numpy
from tinymixer.errors import TinymixerError
from tinymixer.fast.gpu import cublas, products
from tinymixer.fast.gpu.doctor import gpu_parts

CDLL = ctypes.CDLL
TINY, TF32, BF16 = 1e-5, 2.0**-10, 2.0**-8  # of the sum of all terms, without their signs


@pytest.fixture
def cupy(with_cublas):
    return with_cublas


@pytest.fixture
def direct(cupy, monkeypatch):
    """The library; and CuPy multiplies no more."""
    library = cublas.opened(cupy)
    assert isinstance(library, cublas.Cublas)
    if cupy is cupy_stand_in:
        monkeypatch.setattr(cupy.ndarray, "__matmul__", lambda *_: pytest.fail("through CuPy"))
    return library


SIZES = [
    *((1, 1, 1), (1, 7, 5), (7, 1, 5), (7, 5, 1), (1, 1, 5), (1, 5, 1), (5, 1, 1)),
    *((3, 5, 7), (8, 16, 4), (67, 13, 37), (2, 131, 3)),
]
LAYOUTS = {
    "as it lies": lambda x: x,
    "transposed": lambda x: x.T.copy().T,
    "a part": lambda x: x.repeat(2, 1)[:, ::2],
    "reversed": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
}
KINDS = [  # precision, operands, result, what is allowed
    ("fp32", "float32", "float32", TINY),
    ("fp32", "float32", "bfloat16", BF16),
    ("tf32", "float32", "float32", TF32),
    ("bf16", "bfloat16", "float32", TINY),
    ("bf16", "bfloat16", "bfloat16", BF16),
    ("tf32", "bfloat16", "float32", TINY),
]


def matrices(M, K, N, dtype):
    rng = np.random.default_rng([M, K, N])
    return (
        rng.standard_normal(shape).astype(np.float32).astype(cublas.named(dtype))
        for shape in ((M, K), (K, N))
    )


@pytest.mark.parametrize(("precision", "operands", "result", "allowed"), KINDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_product_is_that_of_float64(cupy, direct, sizes, precision, operands, result, allowed):
    A, B = matrices(*sizes, operands)
    wide = [X.astype(np.float64) for X in (A, B)]
    exact, terms = wide[0] @ wide[1], abs(wide[0]) @ abs(wide[1])
    with products.precision(precision):
        for left, right in itertools.product(LAYOUTS.values(), repeat=2):
            placed = left(cupy.asarray(A)), right(cupy.asarray(B))
            C = products.product(*placed, cublas.named(result))
            assert (C.shape, C.dtype) == (exact.shape, cublas.named(result))
            assert C.flags.c_contiguous
            assert (abs(to_numpy(C).astype(np.float64) - exact) <= allowed * terms).all()


@pytest.mark.parametrize(("precision", "held"), [("fp32", 24), ("tf32", 11)])
def test_as_many_bits_are_seen_as_were_asked_for(stand_in, precision, held):
    one = stand_in.ones((1, 1), np.float32)
    with products.precision(precision):
        for bits in (8, 11, 12, 24):
            x = stand_in.full((1, 1), 2.0**bits - 1, np.float32)
            assert (products.product(x, one).item() == 2**bits - 1) == (bits <= held)


def test_bfloat16_is_summed_in_float32(cupy, direct):
    """255 + 1/2 + ... is not a bfloat16 on the way; its end, 256 + 1, is not either."""
    narrow = cublas.named("bfloat16")
    x = cupy.asarray(np.array([[255.0, 0.5, 0.5, 0.5, 0.5]], np.float32)).astype(narrow)
    ones = cupy.ones((5, 1), np.float32).astype(narrow)
    assert products.product(x, ones).item() == 257
    assert products.product(x, ones, narrow).item() == 256  # to even
    quarters = cupy.asarray(np.array([[250.0] + 16 * [0.25]], np.float32)).astype(narrow)
    ones = cupy.ones((17, 1), np.float32).astype(narrow)
    assert products.product(quarters, ones, narrow).item() == 254  # and not each one by itself


@pytest.mark.parametrize("sizes", [(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_rows_no_columns_no_terms(cupy, direct, sizes, dtype):
    M, K, N = sizes
    A, B = (cupy.zeros(shape, cublas.named(dtype)) for shape in ((M, K), (K, N)))
    C = products.product(A, B)
    assert (C.shape, C.dtype) == ((M, N), np.float32)
    assert not to_numpy(C).any()


def test_operands_are_copied_only_if_they_have_to_be(cupy, direct, monkeypatch):
    copied = []

    def watched(x):
        copied.append(not x.flags.c_contiguous)
        return ascontiguousarray(x)

    ascontiguousarray = cupy.ascontiguousarray
    monkeypatch.setattr(cupy, "ascontiguousarray", watched)
    A, B = map(cupy.asarray, matrices(3, 5, 7, "float32"))
    for left, right in itertools.product((A, A.T.copy().T), (B, B.T.copy().T)):
        products.product(left, right)
    assert not any(copied)
    products.product(A[:, ::-1], B)
    assert sum(copied) == 1


@pytest.mark.parametrize(
    ("A", "B"),
    [
        (np.ones((3, 4), np.float32), np.ones((5, 2), np.float32)),
        (np.ones((3, 4)), np.ones((4, 2))),
        (np.ones((3, 4), np.float32), np.ones((4, 2))),
    ],
    ids=["sides", "float64", "two types"],
)
def test_what_is_no_product_is_told_before_memory_is_read(cupy, direct, A, B):
    with pytest.raises(ValueError, match=r"expected \(M, K\) and \(K, N\), both float32 or both"):
        products.product(cupy.asarray(A), cupy.asarray(B))


# --- the library ---


class Watched:
    """The library; what is called is noted, and what is not in it is put to it by name."""

    def __init__(self, **instead):
        self.library, self.calls, self.instead = CDLL(cublas_on_cpu.library()), [], instead

    def __getattr__(self, name):
        inside = self.instead.get(name) or getattr(self.library, name)

        class Function:
            def __setattr__(_, attribute, value):
                setattr(inside, attribute, value)

            def __call__(_, *arguments):
                self.calls.append((name, arguments))
                return inside(*arguments)

        return Function()


def test_the_stream_is_set_when_it_changes_and_then_the_workspace(stand_in, monkeypatch):
    watched = Watched()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: watched)
    library = cublas.opened(stand_in)
    watched.calls.clear()
    x = stand_in.ones((2, 2), np.float32)
    none, one, other = cupy_stand_in.cuda.Stream(null=True), *map(stand_in.cuda.Stream, (0, 0))
    for stream in (none, none, one, one, other, one):
        with stream:
            products.product(x, x)
    settings = [(name, a[1]) for name, a in watched.calls if "GemmEx" not in name]
    place = library._workspace.data.ptr
    assert settings == [
        setting
        for stream in (one, other, one)
        for setting in (("cublasSetStream_v2", stream.ptr), ("cublasSetWorkspace_v2", place))
    ]
    assert place % 256 == 0
    assert library._workspace.nbytes == 32 * 2**20


def test_what_cublas_refuses_is_one_clear_error(stand_in, monkeypatch):
    library = cublas.opened(stand_in)
    x = stand_in.ones((2, 2), np.float32)
    with pytest.raises(
        TinymixerError, match=r"cublasGemmEx answers CUBLAS_STATUS_NOT_SUPPORTED \(15\)"
    ):
        library.product(x, x, x.dtype, 999)
    monkeypatch.setattr(library, "_stream", None)
    monkeypatch.setattr(library._workspace, "_host", library._workspace._host[1:])
    with pytest.raises(TinymixerError, match=r"cublasSetWorkspace_v2 answers .*INVALID_VALUE"):
        products.product(x, x)
    assert library._stream is None  # so it is tried again


def fails(*_):
    raise OSError("libcublas.so.13: cannot open\nshared object")


INSTEAD = {  # of the library, and what is said
    "no library": (fails, "OSError: libcublas.so.13: cannot open"),
    "no such function": (lambda name: SimpleNamespace(), "AttributeError: "),
    "no handle": (
        lambda name: Watched(cublasCreate_v2=lambda *_: 1),
        "TinymixerError: cuBLAS fails: cublasCreate_v2 answers CUBLAS_STATUS_NOT_INITIALIZED (1)",
    ),
    "it computes nothing": (
        lambda name: Watched(cublasGemmEx=lambda *_: 0),
        "TinymixerError: it multiplies float32 to a wrong float32",
    ),
}


@pytest.mark.parametrize(("load", "says"), INSTEAD.values(), ids=INSTEAD)
def test_without_it_cupy_multiplies_and_the_doctor_says_so(stand_in, monkeypatch, load, says):
    monkeypatch.setattr(ctypes, "CDLL", load)
    A, B = map(stand_in.asarray, matrices(3, 5, 7, "float32"))
    np.testing.assert_array_equal(to_numpy(products.product(A, B)), to_numpy(A @ B))
    narrow = [X.astype(cublas.named("bfloat16")) for X in (A, B)]
    assert products.product(*narrow).dtype == np.float32
    assert f"through CuPy ({says}" in dict(gpu_parts())["cuBLAS"]


@pytest.mark.parametrize(
    "wrong",
    [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")],
    ids=" to ".join,
)
def test_each_type_is_compared_before_it_is_relied_on(stand_in, monkeypatch, wrong):
    right = cublas.Cublas.product

    def product(self, A, B, dtype, compute):
        C = right(self, A, B, dtype, compute)
        if (A.dtype.name, dtype.name) == wrong:
            C[0, 0] += 1
        return C

    monkeypatch.setattr(cublas.Cublas, "product", product)
    assert "it multiplies {} to a wrong {}".format(*wrong) in cublas.opened(stand_in)


def test_the_doctor_says_that_it_is_called_directly(stand_in):
    assert dict(gpu_parts())["cuBLAS"] == "multiplies matrices, called directly"


@pytest.mark.parametrize(
    ("platform", "version", "name"),
    [
        ("linux", 12090, "libcublas.so.12"),
        ("linux", 13000, "libcublas.so.13"),
        ("win32", 13020, "cublas64_13.dll"),
    ],
)
def test_the_library_is_that_of_the_cuda_at_hand(monkeypatch, platform, version, name):
    monkeypatch.setattr(sys, "platform", platform)
    assert cublas.library_name(version) == name
