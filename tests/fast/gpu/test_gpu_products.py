"""Matrix products in a named precision, without the twins that use them."""

import sys

import cupy_stand_in
import numpy as np
import pytest

from tinymixer.errors import TinymixerError
from tinymixer.fast.gpu import products


@pytest.fixture
def cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)
    return cupy_stand_in


@pytest.mark.parametrize(("name", "bits"), [("fp32", 23), ("tf32", 10), ("bf16", 7)])
def test_operands_keep_as_many_bits_as_the_name_says(cupy, name, bits):
    """1 + 2^-k and a half of that step more: the product with 1 shows what is left of it."""
    pytest.importorskip("ml_dtypes", reason="no ml_dtypes to round to bfloat16 with")
    x = np.array([[1 + 2.0**-bits, 1 + 1.5 * 2.0**-bits - 2.0**-23]], np.float32)
    with products.precision(name):
        dtype = products.operand_type()
        A, B = cupy.asarray(x).astype(dtype), cupy.asarray(np.eye(2)).astype(dtype)
        y = products.product(A, B)
        assert products.product(A, B, dtype).dtype == dtype
    assert y.dtype == np.float32
    expected = x if name == "fp32" else [[1 + 2.0**-bits] * 2]
    np.testing.assert_array_equal(y.get(), expected)
    assert products.operand_type() == np.float32  # the setting is gone
    exact = cupy.asarray(x)
    np.testing.assert_array_equal(
        products.product(exact, cupy.asarray(np.eye(2, dtype="f"))).get(), x
    )


def test_bf16_without_its_type_says_what_to_install(cupy, monkeypatch):
    monkeypatch.setattr(products, "find_spec", lambda name: None)
    with pytest.raises(TinymixerError, match="pip install ml_dtypes"), products.precision("bf16"):
        pass


def test_without_a_gpu_precision_says_why(monkeypatch):
    monkeypatch.setattr(products, "why_no_gpu", lambda: "no GPU")
    with pytest.raises(TinymixerError, match="'tf32' cannot be used: no GPU"):
        products.precision("tf32").__enter__()


def test_an_unknown_precision_is_refused():
    with pytest.raises(TinymixerError, match="fp32 or tf32 or bf16"), products.precision("fp8"):
        pass
