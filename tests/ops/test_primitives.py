"""The primitives: values against NumPy, gradients against central differences.

Every other backward is compared with a composition of these, so these are compared with numbers
alone.
"""

import numpy as np
import pytest
from checks import B, C, S, assert_close, frozen, normal, slopes

from tinymixer.engine import Tensor
from tinymixer.ops.primitives import Index, unbroadcast

# Central differences with step 1e-5 are good to about 1e-9 of values and derivatives of order 1.
NUMERICAL = 1e-8


def check(device, on_tensors, on_numpy, arrays):
    """Value and gradients of an expression of Tensors, one after the other input."""
    tensors = [Tensor(frozen(device, x)) for x in arrays]
    y = on_tensors(*tensors)
    expected = on_numpy(*arrays)
    assert_close(y.data, np.asarray(expected))
    dy = np.random.default_rng(22).standard_normal(y.shape)
    y.backward(frozen(device, dy))
    for i, (x, tensor) in enumerate(zip(arrays, tensors, strict=True)):

        def along(xi, i=i):
            return on_numpy(*arrays[:i], xi, *arrays[i + 1 :])

        assert_close(tensor.grad, slopes(along, dy, x), within=NUMERICAL)


BINARY = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
}
SHAPE_PAIRS = [
    ((), ()),
    ((), (3,)),
    ((3,), ()),
    ((3,), (3,)),
    ((1,), (5,)),
    ((5,), (1,)),
    ((3, 5), (5,)),
    ((5,), (3, 5)),
    ((3, 5), (3, 1)),
    ((3, 1), (1, 5)),
    ((1, 5), (3, 1)),
    ((1, 1), (3, 5)),
    ((2, 3, 5), (5,)),
    ((2, 3, 5), (3, 1)),
    ((2, 3, 5), (2, 1, 1)),
    ((2, 1, 5), (3, 1)),
    ((1, 3, 1), (2, 1, 5)),
    ((1, 1, 1), (1,)),
    ((2, 3, 5), (1, 1, 1)),
]


@pytest.mark.parametrize("operator", BINARY.values(), ids=BINARY)
@pytest.mark.parametrize("shapes", SHAPE_PAIRS, ids=str)
def test_arithmetic_broadcasts_and_its_gradients_sum(device, operator, shapes, rng):
    x, y = normal(rng, *shapes)
    y = y + 2 * np.copysign(1, y)  # away from 0, to divide by
    check(device, operator, operator, [x, y])


@pytest.mark.parametrize("operator", BINARY.values(), ids=BINARY)
@pytest.mark.parametrize("number", [3, 0.7, np.float64(1.3)], ids=["int", "float", "NumPy's"])
def test_numbers_stand_on_either_side(device, operator, number, rng):
    (x,) = normal(rng, (B, C))
    x = x + 2 * np.copysign(1, x)
    check(device, lambda x: operator(x, number), lambda x: operator(x, number), [x])
    check(device, lambda x: operator(number, x), lambda x: operator(number, x), [x])


@pytest.mark.parametrize("operator", [*BINARY.values(), lambda x, y: x @ y], ids=[*BINARY, "@"])
def test_arrays_stand_on_either_side(device, operator, rng):
    constant, x = normal(rng, (C, C), (C, C))
    x = x + 2 * np.copysign(1, x)
    there = device.asarray(constant)
    check(device, lambda x: operator(x, there + 5), lambda x: operator(x, constant + 5), [x])
    check(device, lambda x: operator(there, x), lambda x: operator(constant, x), [x])


@pytest.mark.parametrize(
    "shapes",
    [((3, 5), (5, 7)), ((2, 3, 5), (5, 7)), ((3, 5), (2, 5, 7)), ((2, 1, 3, 5), (11, 5, 7))],
    ids=str,
)
def test_matrix_products_broadcast_their_leading_axes(device, shapes, rng):
    check(device, lambda x, y: x @ y, lambda x, y: x @ y, normal(rng, *shapes))


@pytest.mark.parametrize("shapes", [((5,), (5, 7)), ((3, 5), (5,)), ((), (5, 7))], ids=str)
def test_a_vector_in_a_matrix_product_is_refused_with_the_cure(shapes, rng):
    x, y = normal(rng, *shapes)
    with pytest.raises(
        ValueError, match=r"MatMul: [xy] is .*expected \(\*, [mk], [kn]\).*v.reshape\(1, -1\)"
    ):
        Tensor(x) @ Tensor(y)


UNARY = {
    "neg": (lambda x: -x, lambda x: -x),
    "exp": (lambda x: x.exp(), np.exp),
    "log": (lambda x: x.log(), np.log),
    "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "tanh": (lambda x: x.tanh(), np.tanh),
}


@pytest.mark.parametrize(("on_tensors", "on_numpy"), UNARY.values(), ids=UNARY)
def test_functions_of_one_number(device, on_tensors, on_numpy, rng):
    x = rng.uniform(0.3, 2.0, (B, C))  # where log and sqrt are smooth
    check(device, on_tensors, on_numpy, [x])


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (1, -1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_sums_and_means_over_any_axes(device, name, axis, keepdims, rng):
    def reduce(x):
        return getattr(x, name)(axis=axis, keepdims=keepdims)

    check(device, reduce, reduce, normal(rng, (S, B, C)))


def test_no_means_at_all_are_differentiated_too(device):
    x = Tensor(device.zeros((0, 3)))
    x.mean(axis=1).backward(device.zeros(0))
    assert x.grad.shape == (0, 3)


@pytest.mark.parametrize("shape", [(S * B, C), (-1,), (C, B, S), (1, S, B, C)], ids=str)
def test_reshape(device, shape, rng):
    check(device, lambda x: x.reshape(*shape), lambda x: x.reshape(shape), normal(rng, (S, B, C)))


@pytest.mark.parametrize(
    "axes", [(), (1, 0, 2), (2, 0, 1), (1, 2, 0), (0, -1, 1), (-1, 0, -2)], ids=str
)
@pytest.mark.parametrize("shape", [(S, B, C), (4, 4, 4)], ids=["primes", "cube"])
def test_transpose(device, axes, shape, rng):
    check(device, lambda x: x.transpose(*axes), lambda x: x.transpose(*axes), normal(rng, shape))


KEYS = {
    "row": 2,
    "last": -1,
    "slice": slice(1, 4),
    "every second, backwards": slice(None, None, -2),
    "element": (0, 1, 2),
    "ellipsis": (..., 1),
    "column": (slice(None), 1),
    "new axis": (None, slice(None), 0),
    "list with repetition": [1, 1, 3, 1],
    "list in a tuple": (slice(None), [2, 0, 2]),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_slices_and_lists_as_index(device, key, rng):
    check(device, lambda x: x[key], lambda x: x[key], normal(rng, (S, B, C)))


def test_index_arrays_and_masks_on_the_device(device, rng):
    (x,) = normal(rng, (S, C))
    rows, mask = np.array([[0, 6], [6, 6]]), x > 0
    there, mask_there = device.asarray(rows), device.asarray(mask)
    check(device, lambda x: x[there], lambda x: x[rows], [x])
    check(device, lambda x: x[mask_there], lambda x: x[mask], [x])


def test_a_tensor_can_be_iterated_like_an_array():
    rows = list(Tensor(np.ones((3, 2))))
    assert [row.shape for row in rows] == [(2,)] * 3


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (3, 1), (2, 1, 5), (1, 1, 1)], ids=str)
def test_unbroadcast_is_the_adjoint_of_broadcasting(device, shape, rng):
    x, dy = normal(rng, shape, (2, 3, 5))
    dx = unbroadcast(frozen(device, dy), shape)
    # <broadcast(x), dy> = <x, unbroadcast(dy)>: 30 products each way, no step size
    assert dx.shape == shape
    assert_close((frozen(device, x) * dx).sum(), (np.broadcast_to(x, dy.shape) * dy).sum())


def test_a_composition_of_primitives_differentiates(device, rng):
    x, W = normal(rng, (B, C), (C, 2))

    def network(x, W):
        return ((x @ W).tanh() * 2.0 - 1.0).exp().sum(axis=1) / 3.0

    def in_numpy(x, W):
        return np.exp(np.tanh(x @ W) * 2.0 - 1.0).sum(axis=1) / 3.0

    check(device, network, in_numpy, [x, W])


def test_float32_stays_float32(device, rng):
    x, y = [Tensor(device.asarray(a.astype(np.float32))) for a in normal(rng, (B, C), (C,))]
    z = ((2.0 * x + y) / 3 - 1).tanh().mean()
    assert z.dtype == np.float32
    z.backward()
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float32)


def test_indexing_keeps_no_array_for_backward():
    index = Index(0)
    index.forward(np.ones(3))
    assert not any(isinstance(kept, np.ndarray) for kept in index.saved)


@pytest.mark.parametrize(("method", "argument"), [("reshape", (5, 3)), ("transpose", (1, 0))])
def test_shapes_and_axes_may_come_as_a_tuple(method, argument):
    x = Tensor(np.arange(15.0).reshape(3, 5))
    y = getattr(x, method)(argument)
    np.testing.assert_array_equal(y.data, getattr(x.data, method)(argument))
    y.backward(np.ones((5, 3)))
    assert x.grad.shape == x.shape
