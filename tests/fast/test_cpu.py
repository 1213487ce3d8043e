"""Each CPU twin against the Function it stands for.

The yardstick is the reference in float64. A float32 result is judged by its largest error over the
largest value of that array. One product of K random terms loses about √K roundings of 6e-8, and
the chains here (two products of up to 157 terms, or two sums over 217 rows) about 1e-6; the twins
get 4e-6. A wrong term or factor is off by more than 1e-3.
"""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import twin_cases
from checks import assert_close_32
from twin_cases import ON_CPU, ignoring, options_in, run, truth

from tinymixer import create_model, engine, fast, ops
from tinymixer.fast import cpu

TOLERANCE = 4e-6
SIZES = [  # S, B, C, D_S, D_C
    (1, 1, 1, 1, 1),
    (7, 3, 5, 11, 13),
    (7, 31, 67, 167, 157),  # a hidden layer of more than one block, not a multiple of it
]
LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
}


TWINS = {
    reference: twin.code for (reference, device), twin in engine.twins.items() if device == "cpu"
}
EACH = [pytest.param(*case, id="-".join(map(str, (case[0].__name__, *case[1])))) for case in ON_CPU]
each_case = pytest.mark.parametrize(("reference", "options", "shapes"), EACH)


def frozen(a):
    a.flags.writeable = False
    return a


def inputs_of(reference, shapes, sizes, layout="C", dtype=np.float32):
    """All read-only."""
    arrays, dy = twin_cases.inputs_of(reference, shapes, sizes, dtype)
    return [frozen(LAYOUTS[layout](a)) for a in arrays], frozen(LAYOUTS[layout](dy))


def by_twin(reference, options, arrays, dy):
    return run(TWINS[reference], reference(*options), arrays, dy)


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@each_case
def test_twin_agrees_with_its_reference(reference, options, shapes, sizes, layout):
    arrays, dy = inputs_of(reference, shapes, sizes, layout)
    got = by_twin(reference, options, arrays, dy)
    assert_close_32(got, truth(reference, options, arrays, dy), TOLERANCE, least=1.0)
    for result in got:
        assert not any(np.shares_memory(result, a) for a in [*arrays, dy])


@pytest.mark.parametrize(("reference", "option"), options_in(ON_CPU))
def test_a_twin_that_ignores_an_option_is_caught(monkeypatch, reference, option):
    monkeypatch.setitem(TWINS, reference, ignoring(TWINS[reference], reference, option))

    def all_agree():
        for function, options, shapes in ON_CPU:
            if function is reference:
                test_twin_agrees_with_its_reference(function, options, shapes, SIZES[1], "C")

    with pytest.raises(AssertionError):
        all_agree()


@pytest.mark.parametrize("odd_one", [None, 0, -1])
@each_case
def test_other_precisions_are_the_reference(reference, options, shapes, odd_one):
    """All float64, or a single input of another precision: bit for bit what ops computes."""
    arrays, dy = inputs_of(
        reference, shapes, SIZES[1], dtype=np.float64 if odd_one is None else np.float32
    )
    if odd_one is not None:
        arrays[odd_one] = arrays[odd_one].astype(np.float16)
    dy = dy.astype(np.result_type(*arrays))
    op, tensors = reference(*options), [engine.Tensor(a) for a in arrays]
    y = op(*tensors)
    assert op.implementation is reference
    gradients = op.backward(dy)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert_same([y.data, *gradients], run(reference, reference(*options), arrays, dy))


@each_case
def test_gradients_that_nobody_needs_change_nothing(reference, options, shapes):
    arrays, dy = inputs_of(reference, shapes, SIZES[1])
    everything = by_twin(reference, options, arrays, dy)
    for needs in itertools.product([False, True], repeat=len(arrays)):
        op, twin = reference(*options), TWINS[reference]
        op.needs = needs
        y = twin.forward(op, *arrays)
        assert_same([y], everything[:1])
        if any(needs) and len(needs) > 1:
            for got, expected, needed in zip(
                twin.backward(op, dy), everything[1:], needs, strict=True
            ):
                if needed:
                    assert_same([got], [expected])


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 1e-40, -1e-40, 1e-20])
@each_case
def test_extreme_values(reference, options, shapes, value):
    """Also mixed into ordinary ones; the gradient and every product stay finite, unwarned."""
    arrays, dy = inputs_of(reference, shapes, SIZES[1])
    for every in (1, 3):
        x = arrays[0].copy()
        x.reshape(-1)[::every] = value
        changed = [x, *arrays[1:]]
        # LayerNorm of a constant: its error is that of the mean, magnified by 1/√eps = 1000
        tolerance = TOLERANCE * (1000 if reference is ops.LayerNorm else 1)
        got = by_twin(reference, options, changed, dy)
        assert_close_32(got, truth(reference, options, changed, dy), tolerance, least=1.0)


@pytest.mark.parametrize("tanh_is_cheap", [True, False])
@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_gelu_to_rounding(form, tanh_is_cheap, monkeypatch):
    """On a fine grid, both tails included, by the way that is fast here and by the other.

    y is a product with x: 2.5e-7 for each unit of x, of which 9e-8 is the approximation of Φ and
    the rest three roundings. So is the erf derivative. The tanh one multiplies the rounding of
    1 - s, half of 6e-8 where s is just below 1, by y 2u', there about 40 (the reference reaches
    1.2e-6).
    """
    monkeypatch.setattr(cpu, "TANH_IS_CHEAP", tanh_is_cheap)
    x = np.linspace(-30, 30, 1_200_001, dtype=np.float32)
    y = x.copy()
    derivative = cpu.gelu_in_place(y, form, with_derivative=True)
    wide = x.astype(np.float64)
    y_error = np.abs(y - ops.gelu.gelu(wide, form)) / np.maximum(1, np.abs(x))
    derivative_error = np.abs(derivative - ops.gelu.gelu_derivative(wide, form))
    assert y_error.max() < 2.5e-7
    assert derivative_error.max() < (2.5e-7 if form == "erf" else 2.5e-6)
    assert np.all(y[x > 9] == x[x > 9])
    assert np.all(np.abs(y[x < -15]) < 1e-30)


def test_erf_gelu_far_away_is_a_ramp():
    x = np.array([-3e38, -1e20, -33, 33, 1e20, 3e38], np.float32)
    y = x.copy()
    derivative = cpu.gelu_in_place(y, "erf", with_derivative=True)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(derivative, x > 0)


@pytest.mark.parametrize("tanh_is_cheap", [True, False])
def test_tanh_gelu_is_a_ramp_as_far_away_as_the_reference(tanh_is_cheap, monkeypatch):
    """Beyond, x² overflows, and then the derivative is 0 times infinity in both."""
    monkeypatch.setattr(cpu, "TANH_IS_CHEAP", tanh_is_cheap)
    x = np.array([-1e19, -1e14, -33, 33, 1e14, 1e19], np.float32)
    y = x.copy()
    derivative = cpu.gelu_in_place(y, "tanh", with_derivative=True)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(derivative, x > 0)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(ops.gelu.gelu_derivative(x, "tanh"), derivative)


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_blocks_do_not_show(form):
    x = np.random.default_rng(0).standard_normal(70_001, dtype=np.float32)
    whole = x.copy()
    derivative = cpu.gelu_in_place(whole, form, with_derivative=True)
    pieces = [x[i : i + 997].copy() for i in range(0, x.size, 997)]
    derivatives = [cpu.gelu_in_place(piece, form, with_derivative=True) for piece in pieces]
    assert_same([np.concatenate(pieces), np.concatenate(derivatives)], [whole, derivative])


@each_case
def test_two_alive_at_once_do_not_disturb_each_other(reference, options, shapes):
    """The scratch buffers are shared by all Functions of a thread; nothing kept may lie in them."""
    first, second = inputs_of(reference, shapes, SIZES[2]), inputs_of(reference, shapes, SIZES[1])
    alone = [by_twin(reference, options, *case) for case in (first, second)]
    twin, op, other = TWINS[reference], reference(*options), reference(*options)
    y, z = twin.forward(op, *first[0]), twin.forward(other, *second[0])
    gradients, others = twin.backward(op, first[1]), twin.backward(other, second[1])
    for result, expected in zip([(y, gradients), (z, others)], alone, strict=True):
        gradients = result[1] if isinstance(result[1], tuple) else (result[1],)
        assert_same([result[0], *gradients], expected)
    again = twin.backward(op, first[1])  # backward has changed nothing that it keeps
    assert_same(again if isinstance(again, tuple) else (again,), alone[0][1:])


@pytest.mark.parametrize("reference", [ops.GroupNorm, ops.BatchNorm])
def test_statistics_are_those_of_the_reference(reference):
    arrays, _ = inputs_of(reference, twin_cases.grid_norm_shapes, SIZES[1])
    op, exact = reference(), reference()
    TWINS[reference].forward(op, *arrays)
    exact.forward(*(a.astype(np.float64) for a in arrays))
    assert_close_32(op.statistics, exact.statistics, TOLERANCE, least=1.0)


def test_wrong_shapes_are_told_as_the_reference_tells_them():
    x, W, b = np.zeros((4, 2, 3), np.float32), np.zeros((5, 5), np.float32), np.zeros(5, np.float32)
    for reference in (ops.TokenMLP, ops.ChannelMLP):
        with fast.reference_ops(), pytest.raises(ValueError, match=reference.__name__) as expected:
            reference()(x, W, b, W, b)
        with pytest.raises(ValueError, match=reference.__name__) as got:
            reference()(engine.Tensor(x), W, b, W, b)
        assert str(got.value) == str(expected.value)


def loss_and_gradients(model, images, labels):
    gradients = {}
    loss = ops.SoftmaxCrossEntropy()(model(images), labels)
    loss.backward(into=gradients)
    return [loss.data, *(gradients[p] for p in model.parameters())]


def small_problem(name, form, dtype=np.float32):
    model = create_model(name, gelu=form)
    rng = np.random.default_rng(2)
    for p in model.parameters():  # heads and biases start at zero: nothing would flow
        p.data += 0.02 * rng.standard_normal(p.shape, dtype=np.float32)
    images = rng.standard_normal((3, 32, 32, 3), dtype=np.float32)
    return model.astype(dtype), images.astype(dtype), rng.integers(0, 10, 3)


@pytest.mark.parametrize("form", ["tanh", "erf"])
@pytest.mark.parametrize("name", ["mixer_pico", "mixer_nano"])
def test_a_whole_model_is_as_exact_with_twins(name, form):
    """Against float64, loss and every gradient: at most 4 times the reference's float32 error."""
    exact = loss_and_gradients(*small_problem(name, form, np.float64))
    fast_results = loss_and_gradients(*small_problem(name, form))
    with fast.reference_ops():
        reference_results = loss_and_gradients(*small_problem(name, form))

    def error(results):
        largest = max(np.abs(e).max() for e in exact[1:])
        return max(np.abs(r - e).max() for r, e in zip(results, exact, strict=True)) / largest

    assert error(reference_results) < 1e-5
    assert error(fast_results) <= max(4 * error(reference_results), 1e-6)


def test_the_same_bits_every_time_and_in_every_thread():
    problem = small_problem("mixer_pico", "tanh")
    expected = loss_and_gradients(*problem)
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda _: loss_and_gradients(*problem), range(8)):
            assert_same(results, expected)


def test_threads_within_a_kernel_at_once_have_buffers_of_their_own(monkeypatch):
    """A barrier waits until both are within it, so that chance decides nothing."""
    cpu.gelu_in_place(np.ones(5, np.float32), "tanh", with_derivative=False)
    both, seen = threading.Barrier(2, timeout=60), []

    def kernel(x, derivative, *buffers):
        both.wait()
        seen.append(buffers)

    monkeypatch.setitem(cpu.GELU_KERNELS, "tanh", kernel)
    arrays = np.ones((2, 5), np.float32)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda x: cpu.gelu_in_place(x, "tanh", with_derivative=False), arrays))
    assert not any(np.shares_memory(one, other) for one in seen[0] for other in seen[1])


def test_keeping_freed_memory_answers_without_harm():
    assert cpu.keep_freed_memory() in (True, False)
