"""What holds for every Function. A new one is added to the list here, or a test fails."""

import inspect

import numpy as np
import pytest
from checks import CLOSE_32, D_C, D_S, B, C, K, S, assert_close, by_hand, frozen

from tinymixer import ops
from tinymixer.engine import Function, Tensor
from tinymixer.ops import primitives

# How to make it, the shapes of its inputs, and what else it takes that has no gradient.
CASES = {
    "ChannelLinear": (ops.ChannelLinear, [(S, B, C), (C, D_C), (D_C,)], []),
    "TokenLinear": (ops.TokenLinear, [(S, B, C), (D_S, S), (D_S,)], []),
    "GELU, tanh": (lambda: ops.GELU("tanh"), [(S, B, C)], []),
    "GELU, erf": (lambda: ops.GELU("erf"), [(S, B, C)], []),
    "TokenMLP": (ops.TokenMLP, [(S, B, C), (D_S, S), (D_S,), (S, D_S), (S,)], []),
    "ChannelMLP": (ops.ChannelMLP, [(S, B, C), (C, D_C), (D_C,), (D_C, C), (C,)], []),
    "LayerNorm": (ops.LayerNorm, [(S, B, C), (C,), (C,)], []),
    "GroupNorm": (ops.GroupNorm, [(S, 2, B, C), (C,), (C,)], []),
    "BatchNorm": (ops.BatchNorm, [(S, 2, B, C), (C,), (C,)], []),
    "Unfold": (lambda: ops.Unfold(3, 2, 1), [(S, 2, B, C)], []),
    "AxialShift": (lambda: ops.AxialShift(0, 3), [(S, 2, B, C)], []),
    "Patchify": (lambda: ops.Patchify(2), [(B, 4, 10, 3)], []),
    "Dropout": (lambda: ops.Dropout(0.5), [(S, B, C)], [np.arange(B)[:, None] > 0]),
    "SoftmaxCrossEntropy": (ops.SoftmaxCrossEntropy, [(B, K)], [np.array([16, 0, 5])]),
    "Add": (primitives.Add, [(S, B, C), (B, 1)], []),
    "Subtract": (primitives.Subtract, [(S, B, C), (B, 1)], []),
    "Multiply": (primitives.Multiply, [(S, B, C), (B, 1)], []),
    "Divide": (primitives.Divide, [(S, B, C), (B, 1)], []),
    "MatMul": (primitives.MatMul, [(S, B, C), (C, K)], []),
    "Exp": (primitives.Exp, [(B, C)], []),
    "Log": (primitives.Log, [(B, C)], []),
    "Sqrt": (primitives.Sqrt, [(B, C)], []),
    "Tanh": (primitives.Tanh, [(B, C)], []),
    "Sum": (lambda: primitives.Sum(axis=1), [(S, B, C)], []),
    "Mean": (lambda: primitives.Mean(axis=0), [(S, B, C)], []),
    "Reshape": (lambda: primitives.Reshape(S * B, C), [(S, B, C)], []),
    "Transpose": (lambda: primitives.Transpose(2, 0, 1), [(S, B, C)], []),
    "Index": (lambda: primitives.Index((slice(1, 5), [0, 2, 0])), [(S, B, C)], []),
}
every_function = pytest.mark.parametrize(("make", "shapes", "more"), CASES.values(), ids=CASES)


def inputs(rng, shapes, dtype=np.float64):
    """Positive numbers, so that there are logarithms and roots."""
    return [rng.uniform(0.2, 1.5, shape).astype(dtype) for shape in shapes]


def cotangent(make, arrays, dtype=np.float64):
    shape = make().forward(*arrays).shape
    return np.asarray(np.random.default_rng(23).standard_normal(shape)).astype(dtype)


def test_no_function_is_forgotten():
    listed = {type(make()) for make, _, _ in CASES.values()}
    modules = [module for _, module in inspect.getmembers(ops, inspect.ismodule)]
    functions = {
        member
        for module in modules
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Function) and member.__module__ == module.__name__
    }
    bases = {base for function in functions for base in function.__mro__[1:]}
    assert functions - bases == listed


@every_function
def test_it_writes_into_nothing_and_forgets_nothing(device, make, shapes, more, rng):
    host = inputs(rng, shapes) + more
    arrays = [frozen(device, x) for x in host]
    dy = frozen(device, cotangent(make, host))
    function = make()
    y, first = by_hand(function, dy, *arrays)
    assert_close(y, make().forward(*host))
    function.backward(dy)
    second = function.backward(dy)  # so what it saved is whole, too
    second = second if isinstance(second, tuple) else (second,)
    for dx, dx_again in zip(first[: len(shapes)], second, strict=False):
        assert_close(dx_again, dx, within=0)
    for x, before in zip(arrays, host, strict=True):
        assert_close(x * 1, before * 1, within=0)


@every_function
def test_each_gradient_has_the_shape_and_dtype_of_its_input(device, make, shapes, more, rng):
    for dtype in (np.float32, np.float64):
        host = inputs(rng, shapes, dtype) + more
        arrays = [device.asarray(x) for x in host]
        y, gradients = by_hand(make(), device.asarray(cotangent(make, host, dtype)), *arrays)
        assert y.dtype == dtype
        assert [(dx.shape, dx.dtype) for dx in gradients[: len(shapes)]] == [
            (shape, dtype) for shape in shapes
        ]


@every_function
def test_float32_is_float64_with_fewer_digits(device, make, shapes, more, rng):
    host = inputs(rng, shapes, np.float32)
    dy = cotangent(make, host + more, np.float32)
    single = [device.asarray(x) for x in host + more]
    double = [device.asarray(x.astype(np.float64)) for x in host]
    double += [device.asarray(x) for x in more]
    y, gradients = by_hand(make(), device.asarray(dy), *single)
    exact_y, exact = by_hand(make(), device.asarray(dy.astype(np.float64)), *double)
    assert_close(y, exact_y, CLOSE_32)
    for dx, exact_dx in zip(gradients[: len(shapes)], exact, strict=False):
        assert_close(dx, exact_dx, CLOSE_32)


@every_function
def test_memory_layout_does_not_matter(make, shapes, more, rng):
    arrays = inputs(rng, shapes)
    dy = cotangent(make, arrays + more)
    scattered = [np.asfortranarray(np.repeat(x, 2, axis=0))[::2] for x in arrays]
    y, gradients = by_hand(make(), dy, *arrays, *more)
    y_2, gradients_2 = by_hand(make(), np.asfortranarray(dy), *scattered, *more)
    assert_close(y_2, y)
    for dx_2, dx in zip(gradients_2[: len(shapes)], gradients, strict=False):
        assert_close(dx_2, dx)


@every_function
def test_on_the_tape_it_is_the_same_as_by_hand(device, make, shapes, more, rng):
    host = inputs(rng, shapes)
    dy = device.asarray(cotangent(make, host + more))
    arrays, more = [device.asarray(x) for x in host], [device.asarray(x) for x in more]
    tensors = [Tensor(x) for x in arrays]
    y = make()(*tensors, *more)
    y.backward(dy)
    expected_y, expected = by_hand(make(), dy, *arrays, *more)
    assert_close(y.data, expected_y, within=0)
    for x, dx in zip(tensors, expected, strict=False):
        assert_close(x.grad, dx, within=0)


@every_function
def test_only_the_gradients_asked_for_are_computed(make, shapes, more, rng):
    arrays = inputs(rng, shapes) + more
    dy = cotangent(make, arrays)
    _, expected = by_hand(make(), dy, *arrays)
    for wanted in range(len(shapes)):
        mixed = [Tensor(x) if i == wanted else x for i, x in enumerate(arrays)]
        y = make()(*mixed)
        gradients = y.creator.backward(dy)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        assert [dx is not None for dx in gradients] == [i == wanted for i in range(len(arrays))]
        assert_close(gradients[wanted], expected[wanted], within=0)
