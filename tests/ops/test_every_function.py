"""What every Function must do, whatever it computes; whether its gradients are right is not asked.

The table is that of the gradient check: a Function without a line there, without one for a single
element or without a planted bug fails.
"""

import gc
import pkgutil
import weakref
from copy import copy
from importlib import import_module

import numpy as np
import pytest
from checks import assert_close, frozen

from tinymixer import ops
from tinymixer.engine import Function, Tensor, no_grad
from tinymixer.gradcheck.cases import CASES
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
    """Class numbers, rows and masks stay what they are."""
    return x.astype(dtype) if x.dtype.kind == "f" else x


def tuple_of(gradients):
    return gradients if isinstance(gradients, tuple) else (gradients,)


def cotangent(y):
    return np.asarray(np.random.default_rng(0).standard_normal(np.shape(y)), y.dtype)


def run(case, arrays):
    """(y, dy, gradients) on the CPU, by a Function of its own, for a random dy."""
    op = copy(case.op)
    y = op.forward(*arrays)
    dy = cotangent(y)
    return y, dy, tuple_of(op.backward(dy))


def variable(case):
    """The positions of the inputs that get a gradient."""
    _, _, gradients = run(case, case.arrays)
    return [i for i, dx in enumerate(gradients) if dx is not None]


@pytest.mark.parametrize("function", sorted(FUNCTIONS, key=lambda f: f.__name__))
def test_it_has_cases_and_a_planted_bug(function):
    cases = [case for case in CASES if type(case.op) is function]
    assert cases, f"write a line for {function.__name__} in gradcheck/cases.py"
    assert any(all(x.size == 1 for x in case.arrays) for case in cases), "no one-element case"
    assert any(mutant.op is function for mutant in MUTANTS), "plant a bug in gradcheck/mutants.py"


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_writes_into_nothing_and_each_gradient_is_like_its_input(device, case, dtype):
    """A second backward gives the same bits, so what was saved is whole, too."""
    host = [cast(x, dtype) for x in case.arrays]
    expected_y, dy, expected = run(case, host)
    arrays = [frozen(device, x) for x in host]
    dy = frozen(device, dy)
    op = copy(case.op)
    y = op.forward(*arrays)
    first, second = (tuple_of(op.backward(dy)) for _ in range(2))
    assert y.dtype == dtype
    assert len(first) == len(arrays)
    for x, dx in zip(arrays, first, strict=True):
        if dx is not None:
            assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
    assert_close(second, first, within=0)
    assert_close(arrays, host, within=0)
    # Another device may add up in another order: a few roundings of some 100 terms.
    assert_close([y, *first], [expected_y, *expected], within=1000 * np.finfo(dtype).eps)


@every_case
def test_float32_is_float64_with_fewer_digits(device, case):
    y, dy, gradients = run(case, case.arrays)
    op = copy(case.op)
    y_32 = op.forward(*(device.asarray(cast(x, np.float32)) for x in case.arrays))
    gradients_32 = tuple_of(op.backward(device.asarray(dy.astype(np.float32))))
    # 1e-7 per rounding; LayerNorm near variance 0 and sums over 105 elements lose one digit more.
    assert_close([y_32, *gradients_32], [y, *gradients], within=1e-5, least=1.0)


LAYOUTS = {
    "fortran": np.asfortranarray,
    "stepped": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: np.flip(np.flip(x).copy()),
    "fortran, stepped": lambda x: np.asfortranarray(np.repeat(x, 2, axis=0))[::2],
}


@every_case
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_memory_layout_does_not_matter(case, layout):
    y, dy, gradients = run(case, case.arrays)
    op = copy(case.op)
    other_y = op.forward(*map(layout, case.arrays))
    others = tuple_of(op.backward(layout(dy) if dy.ndim else dy))
    # Sums may run in another order.
    assert_close([other_y, *others], [y, *gradients], within=1e-14, least=1.0)


@every_case
def test_on_the_tape_it_is_the_same_as_by_hand(device, case):
    wanted = variable(case)
    arrays = [device.asarray(x) for x in case.arrays]
    op = copy(case.op)
    expected_y = op.forward(*arrays)
    dy = device.asarray(cotangent(expected_y))
    expected = tuple_of(op.backward(dy))
    inputs = [Tensor(x) if i in wanted else x for i, x in enumerate(arrays)]
    y = copy(case.op)(*inputs)
    y.backward(dy)
    assert_close(y.data, expected_y, within=0)
    for i in wanted:
        assert_close(inputs[i].grad, expected[i], within=0)


@every_case
def test_only_the_gradients_asked_for_are_computed(device, case):
    """One alone, and all but one: the others are None, and what is asked for keeps its bits."""
    arrays = [device.asarray(x) for x in case.arrays]
    _, dy, _ = run(case, case.arrays)
    dy = device.asarray(dy)
    op = copy(case.op)
    op.forward(*arrays)
    expected = tuple_of(op.backward(dy))
    wanted = set(variable(case))
    for asked in [{i} for i in wanted] + [wanted - {i} for i in wanted if len(wanted) > 2]:
        y = copy(case.op)(*(Tensor(x) if i in asked else x for i, x in enumerate(arrays)))
        gradients = tuple_of(y.creator.backward(dy))
        assert {i for i, dx in enumerate(gradients) if dx is not None} == asked
        for i in asked:
            assert_close(gradients[i], expected[i], within=0)


@every_case
def test_backward_reads_all_that_was_saved(case):
    """Without one of the saved things backward fails: it cannot do without it."""
    _, dy, _ = run(case, case.arrays)
    op = copy(case.op)
    before = set(vars(op))
    op.forward(*case.arrays)
    kept = set(vars(op)) - before - {"saved"}
    assert kept <= {"statistics"}, "keep arrays with self.save, which the walk releases"
    whole = op.saved or ()
    for i, saved in enumerate(whole):
        if saved is not None:
            op.saved = (*whole[:i], Untouchable(), *whole[i + 1 :])
            with pytest.raises(Touched):
                op.backward(dy)


class Touched(Exception):
    """What was saved is read."""


class Untouchable:
    """Raises Touched whatever is done with it."""

    __array_ufunc__ = None  # an operator with an array asks here

    def __getattr__(self, name):
        raise Touched

    def refuse(self, *others):
        raise Touched

    __iter__ = __len__ = __bool__ = __index__ = __getitem__ = __array__ = __neg__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = refuse
    __rtruediv__ = __pow__ = __matmul__ = __rmatmul__ = __eq__ = __lt__ = __le__ = __gt__ = (
        __ge__
    ) = refuse
    __hash__ = None


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
