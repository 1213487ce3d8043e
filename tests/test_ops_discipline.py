"""What every Function must do whatever it computes, over all cases; gradients are not judged here.

A Function without a case, without a one-element case or without a planted bug fails.
"""

import gc
import pkgutil
import weakref
from copy import copy
from importlib import import_module

import numpy as np
import pytest

from tinymixer import ops
from tinymixer.engine import Function, Tensor, no_grad
from tinymixer.gradcheck.cases import CASES, Case
from tinymixer.gradcheck.mutants import MUTANTS

FUNCTIONS = {
    thing
    for module in pkgutil.iter_modules(ops.__path__)
    for thing in vars(import_module(f"tinymixer.ops.{module.name}")).values()
    if isinstance(thing, type) and issubclass(thing, Function) and thing is not Function
}
FUNCTIONS -= {base for function in FUNCTIONS for base in function.__mro__[1:]}

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def cast(x, dtype):
    return x.astype(dtype) if x.dtype.kind == "f" else x


def run(case: Case, arrays, dy=None):
    """(y, dy, gradients) of a fresh copy of the Function; dy is random unless given."""
    op = copy(case.op)
    y = op.forward(*arrays)
    if dy is None:
        dy = np.random.default_rng(0).standard_normal(np.shape(y)).astype(y.dtype)
    gradients = op.backward(dy)
    return y, dy, gradients if isinstance(gradients, tuple) else (gradients,)


def variable(case: Case) -> list[int]:
    """The positions of the inputs that get a gradient."""
    _, _, gradients = run(case, case.arrays)
    return [i for i, dx in enumerate(gradients) if dx is not None]


def distance(a, b) -> float:
    """Largest difference, relative to the largest element (to 1, if all are smaller)."""
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("function", sorted(FUNCTIONS, key=lambda f: f.__name__))
def test_every_function_has_cases_and_a_mutant(function):
    cases = [case for case in CASES if type(case.op) is function]
    assert cases, f"write a line for {function.__name__} in gradcheck/cases.py"
    assert any(all(x.size == 1 for x in case.arrays) for case in cases), "no one-element case"
    assert any(mutant.op is function for mutant in MUTANTS), "plant a bug in gradcheck/mutants.py"


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_stay_and_gradients_match_them(case, dtype):
    arrays = [cast(x, dtype).copy() for x in case.arrays]
    y, dy, _ = run(case, arrays)
    assert y.dtype == dtype
    for x in (*arrays, dy):
        x.flags.writeable = False
    op = copy(case.op)
    op.forward(*arrays)
    first, second = op.backward(dy), op.backward(dy)
    first, second = (g if isinstance(g, tuple) else (g,) for g in (first, second))
    assert len(first) == len(arrays)
    for x, dx, again in zip(arrays, first, second, strict=True):
        if dx is not None:
            assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
            assert dx.tobytes() == again.tobytes()


@every_case
def test_float32_agrees_with_float64(case):
    y, dy, gradients = run(case, case.arrays)
    y32, _, gradients32 = run(
        case, [cast(x, np.float32) for x in case.arrays], dy.astype(np.float32)
    )
    # 1e-7 per rounding; LayerNorm near variance 0 and sums over 105 elements lose one digit more.
    assert distance(y32, y) < 1e-5
    for i in variable(case):
        assert distance(gradients32[i], gradients[i]) < 1e-5


LAYOUTS = {
    "fortran": np.asfortranarray,
    "stepped": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: np.flip(np.flip(x).copy()),
}


@every_case
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_memory_layout_does_not_matter(case, layout):
    y, dy, gradients = run(case, case.arrays)
    arrays = [layout(x) for x in case.arrays]
    y_other, _, others = run(case, arrays, layout(dy) if np.ndim(dy) else dy)
    assert distance(y_other, y) < 1e-14  # sums may run in another order
    for i in variable(case):
        assert distance(others[i], gradients[i]) < 1e-14


@every_case
def test_unneeded_gradients_are_not_computed(case):
    wanted = variable(case)
    _, dy, gradients = run(case, case.arrays)
    for skipped in wanted if len(wanted) > 1 else []:
        op = copy(case.op)
        op.needs = tuple(i != skipped for i in range(len(case.arrays)))
        op.forward(*case.arrays)
        found = op.backward(dy)
        assert found[skipped] is None
        for i in set(wanted) - {skipped}:
            assert found[i].tobytes() == gradients[i].tobytes()


@every_case
def test_nothing_is_kept_alive(case):
    """Neither after the walk nor, for the collector of cycles to find, after the last use."""
    wanted = variable(case)
    inputs = [Tensor(x.copy()) if i in wanted else x for i, x in enumerate(case.arrays)]
    given = [x.data if isinstance(x, Tensor) else x for x in inputs]
    op = copy(case.op)
    gc.disable()
    try:
        y = op(*inputs)
        kept = [
            a
            for a in op.saved or ()
            if isinstance(a, np.ndarray) and all(a is not x for x in given)
        ]
        watched = [weakref.ref(a) for a in (op, y, *kept) if a is not y.data]
        del kept
        y.backward(np.ones(y.shape))
        assert op.saved is None
        assert op.inputs is None
        del op, y
        assert [ref() for ref in watched if ref() is not None] == []
    finally:
        gc.enable()


@every_case
def test_no_grad_keeps_nothing(case):
    op = copy(case.op)
    with no_grad():
        op(*(Tensor(x) if x.dtype.kind == "f" else x for x in case.arrays))
    assert op.saved is None
    assert op.inputs is None
