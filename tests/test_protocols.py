"""Every protocol of Python's data model: a Tensor has it whole, or refuses it in a sentence."""

import copy
import linecache
import math
import operator
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from checks import assert_close

import tinymixer
from tinymixer import create_model
from tinymixer.engine import Tensor
from tinymixer.ops.primitives import Power

PACKAGE = str(Path(tinymixer.__file__).parent)
NUMBERS = np.array([[1.5, 2.0, 0.5], [3.0, 0.25, 1.0]])


def recorded():
    """A recorded Tensor, and the leaf that it was computed from."""
    leaf = Tensor(NUMBERS.copy())
    return leaf * 1.0, leaf


# What works: an expression of a Tensor, and the same of an array. The gradient is compared, too.
WORKS = {
    "x + 2": lambda x: x + 2,
    "2 + x": lambda x: 2 + x,
    "x - 2": lambda x: x - 2,
    "2 - x": lambda x: 2 - x,
    "x * 3": lambda x: x * 3,
    "3 * x": lambda x: 3 * x,
    "x / 2": lambda x: x / 2,
    "2 / x": lambda x: 2 / x,
    "array + x": lambda x: NUMBERS + x,
    "array / x": lambda x: NUMBERS / x,
    "x @ array": lambda x: x @ NUMBERS.T,
    "array @ x": lambda x: NUMBERS.T @ x,
    "-x": lambda x: -x,
    "+x": lambda x: +x,
    "x ** 2": lambda x: x**2,
    "x ** 5": lambda x: x**5,
    "x ** 0": lambda x: x**0,
    "x ** -3": lambda x: x**-3,
    "x ** 0.5": lambda x: x**0.5,
    "x ** 1.7": lambda x: x**1.7,
    "x ** 11": lambda x: x**11,
    "x[1]": lambda x: x[1],
    "x[-1, 1:]": lambda x: x[-1, 1:],
    "unpacking": lambda x: (lambda a, b: a * b)(*x),
    "iteration": lambda x: sum(row * row for row in x),
    "sum(x)": sum,
    "reversed": lambda x: next(iter(reversed(x))) * 2.0,
    "list": lambda x: list(x)[1],
}


@pytest.mark.parametrize("expression", WORKS.values(), ids=WORKS)
def test_what_works_is_recorded(expression):
    y, leaf = recorded()
    z = expression(y)
    assert_close(z.data, np.asarray(expression(NUMBERS)))
    dz = np.random.default_rng(0).standard_normal(z.shape)
    z.backward(dz)
    h, v = 1e-6, np.random.default_rng(1).standard_normal(NUMBERS.shape)
    # Truncation is h² = 1e-12 of the third derivative, at most 1e6 here; rounding ε/h = 2e-10.
    up, down = (np.sum(dz * expression(NUMBERS + s * h * v)) for s in (1, -1))
    assert (leaf.grad * v).sum() == pytest.approx((up - down) / (2 * h), rel=1e-5)


def tell(x):
    """What a Tensor tells of itself is what its array tells."""
    return len(x), x.shape, x.ndim, x.size, x.dtype


def test_what_a_tensor_tells_of_itself():
    y, _ = recorded()
    assert tell(y) == tell(NUMBERS)
    assert str(y) == repr(y) == f"{y}"
    assert y.sum().item() == NUMBERS.sum()
    assert bool(dir(y))
    assert y.__sizeof__() > 0
    assert operator.length_hint(y) == 2


def test_a_tensor_is_equal_to_itself_alone_and_so_a_key():
    x, y = Tensor(NUMBERS), Tensor(NUMBERS)
    assert x == x
    assert x != y
    assert {x: 1, y: 2}[x] == 1
    assert x is not None
    assert x != None  # noqa: E711
    assert x in [y, x]
    assert x not in [y]
    assert hash(x) != hash(y)


def test_a_leaf_is_copied_and_pickled_with_its_numbers():
    x = Tensor(NUMBERS.copy())
    x.grad = np.ones_like(NUMBERS)
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        np.testing.assert_array_equal(twin.data, NUMBERS)
        np.testing.assert_array_equal(twin.grad, 1)
    assert copy.deepcopy(x).data is not x.data
    model = create_model("mixer_pico")
    assert copy.deepcopy(model).num_parameters() == model.num_parameters()


def assign(x):
    x[0] = 1


def delete(x):
    del x[0]


def augmented(name):
    return lambda x: getattr(operator, f"__{name}__")(x, 2)


IN_PLACE = [
    "add",
    "sub",
    "mul",
    "truediv",
    "matmul",
    "floordiv",
    "mod",
    "pow",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
]
REFUSED = {
    "if x": bool,
    "not x": operator.not_,
    "x and x": lambda x: x and x,
    "x < 1": lambda x: x < 1,
    "1 < x": lambda x: x > 1,
    "x <= x": lambda x: x <= x,
    "x > array": lambda x: x > NUMBERS,
    "array > x": lambda x: x < NUMBERS,
    "x >= 0": lambda x: x >= 0,
    "sorted": sorted,
    "max": max,
    "x == 1": lambda x: x == 1,
    "x != 1": lambda x: x != 1,
    "x == array": lambda x: x == NUMBERS,
    "array == x": lambda x: x == NUMBERS,
    "x == list": lambda x: x == [1.0],
    "1 in x": lambda x: 1 in x,
    "float": float,
    "int": int,
    "complex": complex,
    "index": lambda x: [1, 2, 3][x],
    "range": range,
    "math.sqrt": math.sqrt,
    "bytes": bytes,
    ".3f": lambda x: f"{x:.3f}",
    "format": lambda x: format(x, "e"),
    "round": round,
    "round to 2": lambda x: round(x, 2),
    "trunc": math.trunc,
    "floor": math.floor,
    "ceil": math.ceil,
    "abs": abs,
    "divmod": lambda x: divmod(x, 2),
    "2 divmod": lambda x: divmod(2, x),
    "x // 2": lambda x: x // 2,
    "2 // x": lambda x: 2 // x,
    "x % 2": lambda x: x % 2,
    "2 % x": lambda x: 2 % x,
    "x ** x": lambda x: x**x,
    "x ** array": lambda x: x**NUMBERS,
    "2 ** x": lambda x: 2**x,
    "array ** x": lambda x: NUMBERS**x,
    "x & x": lambda x: x & x,
    "1 & x": lambda x: 1 & x,
    "x | x": lambda x: x | x,
    "1 | x": lambda x: 1 | x,
    "x ^ x": lambda x: x ^ x,
    "1 ^ x": lambda x: 1 ^ x,
    "~x": lambda x: ~x,
    "x << 1": lambda x: x << 1,
    "1 << x": lambda x: 1 << x,
    "x >> 1": lambda x: x >> 1,
    "1 >> x": lambda x: 1 >> x,
    "x[0] = 1": assign,
    "del x[0]": delete,
    **{f"i{name}": augmented(f"i{name}") for name in IN_PLACE},
    "np.sum": np.sum,
    "np.mean": np.mean,
    "np.stack": lambda x: np.stack([x, x]),
    "np.concatenate": lambda x: np.concatenate([x, x]),
    "np.where": lambda x: np.where(NUMBERS > 0, x, 0),
    "np.dot": lambda x: np.dot(NUMBERS.T, x),
    "np.shape": np.shape,
    "np.asarray": np.asarray,
    "np.array of two": lambda x: np.array([x, x]),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "x[9]": lambda x: x[9],
    "item": lambda x: x.item(),
}
OF_A_SCALAR = {
    "len": len,
    "iter": iter,
    "sum(loss)": sum,
    "list(loss)": list,
    "loss[0]": lambda x: x[0],
    "a, b = loss": lambda x: (lambda a, b: a)(*x),
}


def check_refused(act, x):
    with pytest.raises((TypeError, ValueError, IndexError)) as caught:
        act(x)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert frame.filename.startswith(PACKAGE), caught.value
    assert linecache.getline(frame.filename, frame.lineno).strip().startswith("raise ")
    assert len(str(caught.value)) > 40


@pytest.mark.parametrize("act", REFUSED.values(), ids=REFUSED)
def test_what_does_not_work_is_refused_in_our_words(act):
    y, leaf = recorded()
    check_refused(act, y)
    y.sum().backward()  # and nothing has happened to it
    assert_close(leaf.grad, np.ones_like(NUMBERS))


@pytest.mark.parametrize("act", OF_A_SCALAR.values(), ids=OF_A_SCALAR)
def test_a_scalar_has_no_items(act):
    y, _ = recorded()
    check_refused(act, y.sum())


def test_no_special_method_of_a_number_or_a_container_is_forgotten():
    """What Python would look for is there, whole or refusing: else its own words come out."""
    asked = {
        f"__{name}__"
        for name in [
            "lt",
            "le",
            "gt",
            "ge",
            "eq",
            "ne",
            "hash",
            "bool",
            "len",
            "length_hint",
            "getitem",
            "setitem",
            "delitem",
            "iter",
            "reversed",
            "contains",
            "add",
            "radd",
            "iadd",
            "sub",
            "rsub",
            "isub",
            "mul",
            "rmul",
            "imul",
            "matmul",
            "rmatmul",
            "imatmul",
            "truediv",
            "rtruediv",
            "itruediv",
            "floordiv",
            "rfloordiv",
            "ifloordiv",
            "mod",
            "rmod",
            "imod",
            "divmod",
            "rdivmod",
            "pow",
            "rpow",
            "ipow",
            "lshift",
            "rlshift",
            "ilshift",
            "rshift",
            "rrshift",
            "irshift",
            "and",
            "rand",
            "iand",
            "or",
            "ror",
            "ior",
            "xor",
            "rxor",
            "ixor",
            "neg",
            "pos",
            "abs",
            "invert",
            "complex",
            "int",
            "float",
            "index",
            "round",
            "trunc",
            "floor",
            "ceil",
            "bytes",
            "format",
            "repr",
            "str",
            "reduce_ex",
            "array",
            "array_ufunc",
            "array_function",
        ]
    }
    # By the sequence protocol: length and items.
    by_items = {"__reversed__", "__length_hint__"}
    assert {name for name in asked - by_items if not hasattr(Tensor, name)} == set()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, -1, -4, 0.5, 1.5, np.float64(2), np.int64(3), 12])
def test_a_power_keeps_its_precision(n):
    x = Tensor(NUMBERS.astype(np.float32))
    y = x**n
    y.backward(np.ones_like(y.data))
    assert y.dtype == x.grad.dtype == np.float32
    # Up to 12 products, each rounded once: 12 ε = 1.5e-6.
    np.testing.assert_allclose(y.data, NUMBERS ** float(n), rtol=2e-6)
    np.testing.assert_allclose(x.grad, float(n) * NUMBERS ** (float(n) - 1), rtol=2e-6)


def test_powers_at_zero_are_not_spoilt():
    x = Tensor(np.zeros(3))
    for n, expected in ((0, 0.0), (1, 1.0), (2, 0.0)):
        x.grad = None
        (x**n).sum().backward()
        np.testing.assert_array_equal(x.grad, expected)


def test_a_tensor_as_an_exponent_is_refused_with_the_cure():
    with pytest.raises(TypeError, match=r"Power: expected a number.*\(y \* x.log\(\)\).exp\(\)"):
        Power(Tensor(NUMBERS))


def test_a_tensor_alone_has_its_operators():
    """`ops` sets them, and nothing else need be imported for it."""
    code = "from tinymixer.engine import Tensor; x = Tensor(3.0); print(({}).item())"
    for expression in ("x * x", "12 - x", "-(-x) ** 2", "x.sum()", "(x + 6).sqrt() * x"):
        command = [sys.executable, "-c", code.format(expression)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert float(found.stdout) == {"x.sum()": 3.0, "-(-x) ** 2": -9.0}.get(expression, 9.0)
