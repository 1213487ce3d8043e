"""Each GPU twin against the Function it stands for: on a GPU, and without one.

On the stand-in for CuPy the kernels are the same source, run by `cuda_on_cpu`, which refuses races,
stray writes and wrong types. `-m gpu` runs the same tests on the real thing.

The yardstick is the reference in float64. A sum of n terms in float32 is off by about √n roundings
of 6e-8; the longest here have 1519 terms, and a few follow one another: 1e-5 is generous, and a
wrong term or factor is off by more than 1e-3.
"""

import itertools

import cuda_on_cpu
import cupy_stand_in
import numpy as np
import pytest
from checks import assert_close_32, channel_shapes, norm_shapes, token_shapes
from on_device import LAYOUTS, assert_same, on, swap_source
from twin_cases import (
    FORMS,
    ON_GPU,
    channel_linear_shapes,
    grid_norm_shapes,
    hard_shapes,
    ignoring,
    inputs_of,
    matrix_shapes,
    options_in,
    resample_shapes,
    run,
    soft_shapes,
    token_linear_shapes,
    truth,
)

from tinymixer import create_model, data, engine, fast, ops
from tinymixer.backend import to_device, to_numpy
from tinymixer.engine import chosen
from tinymixer.fast import gpu
from tinymixer.fast.gpu import kernels
from tinymixer.fast.gpu.products import precision, product
from tinymixer.ops.primitives import Add, MatMul
from tinymixer.train import Config, Trainer

TOLERANCE = 1e-5
SOURCE = kernels.sources()["ops.cu"]
SIZES = [  # S, B, C, D_S, D_C; K is C
    (1, 1, 1, 1, 1),
    (7, 3, 5, 11, 13),
    (7, 31, 67, 37, 43),  # more than one block, whole ones and others, along each axis
    (9, 16, 136, 24, 280),  # the same, in packs
]
LONG_ROWS = [(2, 67, 67, 3, 2), (2, 40, 136, 4, 8)]  # B*C more than a block takes of a row


EACH = [
    pytest.param(*case, id="-".join(map(str, (case[0].__name__, *case[1], case[2].__name__))))
    for case in ON_GPU
]
each_case = pytest.mark.parametrize(("reference", "options", "shapes"), EACH)


def run_on(cupy, op, arrays, dy, layout="C"):
    """y and the gradients of a Function, by its twin if that takes them, as a list."""
    *arrays, dy = on(cupy, [*arrays, dy], layout)
    return run(chosen(type(op), "gpu", *arrays), op, arrays, dy)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@each_case
def test_twin_agrees_with_its_reference(cupy, reference, options, shapes, sizes, layout):
    arrays, dy = inputs_of(reference, shapes, sizes)
    *placed, placed_dy = on(cupy, [*arrays, dy], layout)
    twin = engine.twins[reference, "gpu"].code
    assert chosen(reference, "gpu", *placed) is twin
    got = run(twin, reference(*options), placed, placed_dy)
    turned = [to_numpy(a) for a in on(cupy, [*arrays, dy], layout)]
    expected = truth(reference, options, turned[:-1], turned[-1])
    if (
        sizes == SIZES[0]
    ):  # a norm or a softmax of one number: gradients that are 0 but for rounding
        largest = max(1.0, *(np.abs(a).max() for a in expected if a is not None))
        for a, b in zip(got, expected, strict=True):
            assert a is b is None or np.abs(to_numpy(a) - b).max() <= TOLERANCE * largest
    else:
        assert_close_32(got, expected)


@pytest.mark.parametrize(("reference", "option"), options_in(ON_GPU))
def test_a_twin_that_ignores_an_option_is_caught(cupy, monkeypatch, reference, option):
    twin, takes = engine.twins[reference, "gpu"]
    wrong = engine.Twin(ignoring(twin, reference, option), takes)
    monkeypatch.setitem(engine.twins, (reference, "gpu"), wrong)

    def all_agree():
        for function, options, shapes in ON_GPU:
            if function is reference:
                test_twin_agrees_with_its_reference(cupy, function, options, shapes, SIZES[1], "C")

    with pytest.raises(AssertionError):
        all_agree()


@pytest.mark.parametrize("sizes", LONG_ROWS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_a_row_longer_than_a_block_takes(cupy, form, sizes):
    arrays, dy = inputs_of(ops.TokenMLP, token_shapes, sizes)
    assert arrays[0][0].size > kernels.WIDE
    got = run_on(cupy, ops.TokenMLP(*form), arrays, dy)
    assert_close_32(got, truth(ops.TokenMLP, form, arrays, dy))


@each_case
def test_the_same_bits_every_time(cupy, reference, options, shapes):
    arrays, dy = inputs_of(reference, shapes, SIZES[2])
    first, again = (run_on(cupy, reference(*options), arrays, dy) for _ in range(2))
    assert_same(first, again)


@each_case
def test_other_precisions_are_the_reference(cupy, reference, options, shapes):
    arrays, dy = inputs_of(reference, shapes, SIZES[1], np.float64)
    *placed, placed_dy = on(cupy, [*arrays, dy])
    assert chosen(reference, "gpu", *placed) is reference
    assert_same(
        run_on(cupy, reference(*options), arrays, dy),
        run(reference, reference(*options), placed, placed_dy),
    )


@pytest.mark.parametrize(("reference", "options", "shapes"), EACH[:6])
def test_an_empty_input_is_the_references(cupy, reference, options, shapes):
    """As an expert has it that no row is sent to."""
    arrays, dy = inputs_of(reference, shapes, (7, 0, 5, 11, 13))
    got = run_on(cupy, reference(*options), arrays, dy)
    assert_same(got, run(reference, reference(*options), arrays, dy))


@each_case
def test_gradients_that_nobody_needs_change_nothing(cupy, reference, options, shapes):
    arrays, dy = inputs_of(reference, shapes, SIZES[1])
    everything = run_on(cupy, reference(*options), arrays, dy)
    if reference in (ops.GELU, ops.SoftmaxCrossEntropy, ops.Resample):
        return  # one gradient: it is needed, or backward is not called
    *placed, placed_dy = on(cupy, [*arrays, dy])
    for needs in itertools.product([False, True], repeat=len(arrays)):
        op, twin = reference(*options), chosen(reference, "gpu", *placed)
        op.needs = needs
        assert_same([twin.forward(op, *placed)], everything[:1])
        found = twin.backward(op, placed_dy)
        for got, wanted, needed in zip(found, everything[1:], needs, strict=True):
            assert_same([got], [wanted if needed else None])


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 1e-40, 1e-20])
@pytest.mark.parametrize(("reference", "options", "shapes"), EACH[:7])
def test_extreme_values(cupy, reference, options, shapes, value):
    arrays, dy = inputs_of(reference, shapes, SIZES[1])
    arrays[0].reshape(-1)[::3] = value
    got = run_on(cupy, reference(*options), arrays, dy)
    assert_close_32(got, truth(reference, options, arrays, dy))


NORMS = [(ops.LayerNorm, norm_shapes)]
NORMS += [(norm, grid_norm_shapes) for norm in (ops.GroupNorm, ops.BatchNorm)]


@pytest.mark.parametrize(("reference", "shapes"), NORMS)
def test_norms_far_from_zero(cupy, reference, shapes):
    """A mean about 1000 is off by up to 6e-5; by a difference of squares, x̂ would be by 6e-2."""
    arrays, dy = inputs_of(reference, shapes, SIZES[2])
    arrays[0] += 1000
    got = run_on(cupy, reference(), arrays, dy)
    assert_close_32(got, truth(reference, (), arrays, dy), 1e-3)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("reference", "shapes"), NORMS[1:])
def test_statistics_are_those_of_the_reference(cupy, reference, shapes, sizes):
    (x, *others), _ = inputs_of(reference, shapes, sizes)
    op, exact = reference(), reference()
    op(*on(cupy, [x, *others]))
    assert op.implementation is engine.twins[reference, "gpu"].code
    exact.forward(x.astype(np.float64), *others)
    assert_close_32(op.statistics, exact.statistics)


def test_what_is_repeated_is_added_by_the_reference(cupy):
    x, row, number = on(cupy, [np.ones(shape, np.float32) for shape in ((3, 4), (4,), ())])
    for inputs in ((x, row), (row, x), (x, number), (x, 1.0), (1.0, x), (number, number)):
        op = Add()
        z = op(*inputs).data
        assert op.implementation is Add
        assert to_numpy(z).tolist() == np.full(z.shape, 2).tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_cross_entropy_with_targets_that_do_not_sum_to_one(cupy, alpha):
    arrays, dy = inputs_of(ops.SoftmaxCrossEntropy, soft_shapes, SIZES[1])
    arrays[1] *= 3
    got = run_on(cupy, ops.SoftmaxCrossEntropy(alpha), arrays, dy)
    assert_close_32(got, truth(ops.SoftmaxCrossEntropy, (alpha,), arrays, dy))


def test_cross_entropy_of_a_class_that_is_ruled_out(cupy):
    arrays, dy = inputs_of(ops.SoftmaxCrossEntropy, hard_shapes, SIZES[1])
    arrays[0][..., 0] = -np.inf
    arrays[1][...] = arrays[1].clip(1)
    got = run_on(cupy, ops.SoftmaxCrossEntropy(), arrays, dy)
    assert_close_32(got, truth(ops.SoftmaxCrossEntropy, (), arrays, dy))


@pytest.mark.parametrize("middle", [0, 1e4, -1e4])
def test_cross_entropy_of_large_logits(cupy, middle):
    arrays, dy = inputs_of(ops.SoftmaxCrossEntropy, hard_shapes, SIZES[1])
    arrays[0] = 1000 * arrays[0] + np.float32(middle)
    got = run_on(cupy, ops.SoftmaxCrossEntropy(), arrays, dy)
    assert_close_32(got, truth(ops.SoftmaxCrossEntropy, (), arrays, dy))


@pytest.mark.parametrize("label", [-1, 5, 2**32])
def test_a_class_that_is_none_makes_the_loss_nan(cupy, label):
    logits, classes = cupy.asarray(np.ones((3, 5), np.float32)), np.array([0, label, 1])
    assert np.isnan(ops.SoftmaxCrossEntropy(0.1)(logits, cupy.asarray(classes)).item())


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_labels_of_any_integer_type(cupy, dtype):
    arrays, dy = inputs_of(ops.SoftmaxCrossEntropy, hard_shapes, SIZES[1])
    expected = truth(ops.SoftmaxCrossEntropy, (), arrays, dy)
    arrays[1] = arrays[1].astype(dtype)
    assert_close_32(run_on(cupy, ops.SoftmaxCrossEntropy(), arrays, dy), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize(("ignore", "places"), [(255, slice(4, 9)), (255, slice(0)), (2, ...)])
def test_what_is_to_be_ignored_loses_nothing_and_is_not_counted(cupy, ignore, places, dtype):
    """A part of all pixels, none of them, all: then the loss is 0."""
    arrays, dy = inputs_of(ops.SoftmaxCrossEntropy, hard_shapes, SIZES[1])
    arrays[1] = arrays[1].astype(dtype)
    arrays[1].reshape(-1)[places] = ignore
    expected = truth(ops.SoftmaxCrossEntropy, (0.1, ignore), arrays, dy)
    op = ops.SoftmaxCrossEntropy(0.1, ignore)
    assert_close_32(run_on(cupy, op, arrays, dy), expected)
    assert chosen(type(op), "gpu", *on(cupy, arrays)) is gpu.ops.FastSoftmaxCrossEntropy
    assert (expected[0] == 0) == (places is ...)


def test_a_class_that_is_none_makes_the_loss_nan_where_others_are_ignored(cupy):
    logits, classes = cupy.asarray(np.ones((3, 5), np.float32)), np.array([0, 255, 6])
    assert np.isnan(ops.SoftmaxCrossEntropy(0.1, 255)(logits, cupy.asarray(classes)).item())


def test_wrong_shapes_of_labels_are_told_by_the_reference(cupy):
    arrays, _ = inputs_of(ops.SoftmaxCrossEntropy, hard_shapes, SIZES[1])
    for options in ((), (0.1, 3)):
        with pytest.raises(ValueError, match="SoftmaxCrossEntropy"):
            ops.SoftmaxCrossEntropy(*options)(*on(cupy, [arrays[0], arrays[1][0]]))


def test_wrong_shapes_are_told_as_the_reference_tells_them(cupy):
    shapes = (4, 2, 3), (5, 5), (5,), (5, 5), (5,)
    arrays = on(cupy, [np.zeros(shape, np.float32) for shape in shapes])
    for reference in (ops.TokenMLP, ops.ChannelMLP):
        with fast.reference_ops(), pytest.raises(ValueError, match=reference.__name__) as expected:
            reference()(*arrays)
        with pytest.raises(ValueError, match=reference.__name__) as got:
            reference()(*arrays)
        assert str(got.value) == str(expected.value)


# Precision ----------------------------------------------------------------------------------------


PRODUCTS = {
    ops.TokenLinear: token_linear_shapes,
    ops.ChannelLinear: channel_linear_shapes,
    ops.TokenMLP: token_shapes,
    ops.ChannelMLP: channel_shapes,
}


@pytest.mark.parametrize("sizes", SIZES[2:], ids=str)
@pytest.mark.parametrize(("name", "within"), [("fp32", 1e-5), ("tf32", 1e-3), ("bf16", 2e-2)])
@pytest.mark.parametrize("reference", PRODUCTS)
def test_products_in_a_named_precision(cupy, reference, name, within, sizes):
    """Operands rounded to 10 and 7 bits are off by at most 2^-11 and 2^-8 each."""
    if name == "bf16":
        pytest.importorskip("ml_dtypes", reason="no ml_dtypes to round to bfloat16 with")
    arrays, dy = inputs_of(reference, PRODUCTS[reference], sizes)
    exact = truth(reference, (), arrays, dy)
    with precision(name):
        got = run_on(cupy, reference(), arrays, dy)
    assert_close_32(got, exact, within)
    if name != "fp32":  # and it is not float32 by another name
        with pytest.raises(AssertionError):
            assert_close_32(got, exact, within / 100)
    plain = run_on(cupy, reference(), arrays, dy)
    assert_close_32(plain, exact)  # the setting is gone


@pytest.mark.parametrize("reference", [MatMul, ops.Resample])
def test_products_that_decide_or_interpolate_are_not_in_bfloat16(cupy, reference):
    pytest.importorskip("ml_dtypes", reason="no ml_dtypes to round to bfloat16 with")
    shapes = {MatMul: matrix_shapes, ops.Resample: resample_shapes}[reference]
    arrays, dy = inputs_of(reference, shapes, SIZES[2])
    plain = run_on(cupy, reference(), arrays, dy)
    for name, same in (("bf16", True), ("tf32", False)):
        with precision(name):
            got = run_on(cupy, reference(), arrays, dy)
        assert np.array_equal(*(to_numpy(y) for y in (got[0], plain[0]))) == same
        assert_close_32(got, truth(reference, (), arrays, dy), 1e-3)


def test_only_products_of_two_matrices_are_left_to_the_library(cupy, monkeypatch):
    """Stacks of them are not: for these the reference is taken."""
    shapes = []
    monkeypatch.setattr(
        gpu.ops,
        "product",
        lambda A, B, *d: shapes.append((A.ndim, B.ndim)) or product(A, B),
    )
    for reference, shape in ((MatMul, matrix_shapes), (ops.Resample, resample_shapes)):
        run_on(cupy, reference(), *inputs_of(reference, shape, SIZES[1]))
    assert shapes == [(2, 2)] * (3 + 4)
    stacks = on(cupy, [np.ones(shape, np.float32) for shape in ((2, 3, 4), (4, 5))])
    op = MatMul()
    assert op(*stacks).shape == (2, 3, 5)
    assert op.implementation is MatMul
    with pytest.raises(ValueError, match=r"MatMul: y is .* expected"):
        MatMul()(stacks[1], stacks[1][0])
    with pytest.raises(ValueError, match=r"Resample: A_h is .* expected"):
        ops.Resample()(cupy.zeros((2, 3, 4, 5), np.float32), *stacks[1:] * 2)


def test_what_a_tape_keeps_for_bf16_is_half_as_large(cupy):
    """And its gradients are those of the operands, whatever precision is set by then."""
    bfloat16 = pytest.importorskip("ml_dtypes", reason="no ml_dtypes").bfloat16
    arrays, dy = inputs_of(ops.ChannelMLP, channel_shapes, SIZES[3])
    op, twin = ops.ChannelMLP(), gpu.ops.FastChannelMLP
    *placed, placed_dy = on(cupy, [*arrays, dy])
    with precision("bf16"):
        twin.forward(op, *placed)
        expected = run(twin, ops.ChannelMLP(), placed, placed_dy)[1:]
    X, W1, h, _, a, W2 = op.saved
    assert {x.dtype for x in (X, W1, h, a, W2)} == {np.dtype(bfloat16)}
    assert_same(twin.backward(op, placed_dy), expected)


@pytest.mark.parametrize("size", [1, 7, 8, 4097, 8192])
def test_numbers_are_stored_as_the_nearest_bfloat16(cupy, size):
    """Ties go to the even one; what is no number stays none, what is too large is infinite."""
    bfloat16 = pytest.importorskip("ml_dtypes", reason="no ml_dtypes").bfloat16
    bits = np.random.default_rng(size).integers(0, 2**32, size, np.uint32)
    bits[::3] = bits[::3] & 0xFFFF0000 | 0x8000  # half way
    special = [np.inf, -np.inf, np.nan, -0.0, 1e-45, 3.4e38, 1.0, -1.00390625]
    x = bits.view(np.float32)
    x[: min(size, 8)] = special[:size]
    (placed,) = on(cupy, [x])
    got = to_numpy(gpu.ops._operand(placed, np.dtype(bfloat16))).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(got, x.astype(bfloat16).astype(np.float32))
    assert np.signbit(got[3:4]).all()


def test_only_what_lies_in_packs_is_read_in_packs(cupy):
    x = cupy.zeros(8 * 256 + 1, np.float32)
    whole, shifted, odd = x[:-1].reshape(8, 256), x[1:].reshape(8, 256), x[:-3].reshape(11, 186)
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes", reason="no ml_dtypes").bfloat16)
    for matrices, stored, pack in [
        ([whole], whole.dtype, 4),
        ([whole], bfloat16, 8),
        ([whole, shifted], whole.dtype, 1),
        ([odd], whole.dtype, 1),
    ]:
        for axis in (0, 1):
            assert kernels.walk(axis, stored, *matrices).variant == (stored.name, pack, 1)


def test_packs_of_columns_leave_no_lane_idle(cupy):
    for columns, of_columns in [(128, 4), (64, 2), (32, 1), (16, 1)]:
        x = cupy.zeros((8, columns), np.float32)
        assert [kernels.walk(axis, x.dtype, x).variant.pack for axis in (0, 1)] == [4, of_columns]


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_gelu_far_away_is_a_ramp(cupy, form):
    x = np.array([-3e38, -1e20, -33, 33, 1e20, 3e38], np.float32)
    op = gpu.ops.FastGELU(form)
    y = op.forward(cupy.asarray(x))
    np.testing.assert_array_equal(to_numpy(y), np.maximum(x, 0))
    np.testing.assert_array_equal(to_numpy(op.backward(cupy.ones_like(y))), x > 0)


# Whole models -------------------------------------------------------------------------------------


def test_the_trainer_ends_where_it_does_on_the_cpu(cupy):
    """Two updates, with an average of the weights.

    Judged by the length of the way: AdamW makes a whole step even of a gradient that is 0 but for
    rounding, so single weights may differ.
    """
    config = Config(epochs=1, batch_size=4, micro_batch=2, ema=0.5)
    dataset = data.load("shapes", train_size=8, test_size=2)

    def moved(device):
        trainer = Trainer(config, dataset, device=device, workers=1, quiet=True)
        start = to_numpy(trainer.flat.weights).copy()
        trainer.run()
        return [to_numpy(trainer.flat.weights) - start, to_numpy(trainer.average) - start]

    for got, expected in zip(moved("gpu"), moved("cpu"), strict=True):
        assert np.linalg.norm(got - expected) < 1e-3 * np.linalg.norm(expected)


def small_problem(name, dtype=np.float32):
    model = create_model(name)
    rng = np.random.default_rng(2)
    for p in model.parameters():  # heads and biases start at zero: nothing would flow
        p.data += 0.02 * rng.standard_normal(p.shape, dtype=np.float32)
    images = rng.standard_normal((3, 32, 32, 3), dtype=np.float32)
    return model.astype(dtype), images.astype(dtype), rng.integers(0, 10, 3)


def loss_and_gradients(model, images, labels):
    gradients = {}
    loss = ops.SoftmaxCrossEntropy(0.1)(model(images), labels)
    loss.backward(into=gradients)
    return [loss.data, *(gradients[p] for p in model.parameters())]


def test_a_whole_model_is_as_exact_with_twins(cupy):
    """Against float64, loss and every gradient: at most 4 times the reference's float32 error."""
    with fast.reference_ops():
        exact = loss_and_gradients(*small_problem("mixer_pico", np.float64))
        plain = loss_and_gradients(*small_problem("mixer_pico"))
    model, images, labels = small_problem("mixer_pico")
    model.to("gpu")
    images, labels = to_device(images, "gpu"), to_device(labels, "gpu")
    got = [to_numpy(a) for a in loss_and_gradients(model, images, labels)]
    used = {t.creator.implementation for t in engine.tensors_below(model(images))}
    assert {gpu.ops.FastTokenMLP, gpu.ops.FastChannelMLP, gpu.ops.FastLayerNorm} <= used

    def error(results):
        largest = max(np.abs(e).max() for e in exact[1:])
        return max(np.abs(r - e).max() for r, e in zip(results, exact, strict=True)) / largest

    assert error(plain) < 1e-5
    assert error(got) <= max(4 * error(plain), 1e-6)


# What kernels need --------------------------------------------------------------------------------

EXAMPLES = (
    (ops.LayerNorm, norm_shapes),
    (ops.TokenMLP, token_shapes),
    (ops.ChannelMLP, channel_shapes),
)
BREAKS = {  # what is taken out of ops.cu, and what is left
    "the barrier": (
        " = s[k];\n    __syncthreads();\n    for",
        " = s[k];\n    for",
    ),
    "the barrier after": ("__syncthreads();  /* or a second", "/* or a second"),
    "the last column": ("if (column < columns)\n        for", "for"),
    "the last row": ("min(TALL, rows - start)", "TALL"),
    "the end of a row": ("min(WIDE, columns - start)", "WIDE"),
    "a warp of rows": ("if (row >= rows) return;  /* the whole warp leaves */", ""),
}


@pytest.mark.parametrize(("taken", "left"), BREAKS.values(), ids=BREAKS)
def test_kernels_without_what_they_need_are_caught(monkeypatch, cupy, taken, left):
    """Each line that is there for one reason is taken out, and the tests above have to notice."""
    assert SOURCE.count(taken) == 1
    swap_source(monkeypatch, SOURCE.replace(taken, left))
    if cupy is not cupy_stand_in:
        pytest.skip("a GPU forgives: it writes where it should not, or is quick enough")

    def whole_step():
        for reference, shapes in EXAMPLES:
            arrays, dy = inputs_of(reference, shapes, SIZES[1])
            run_on(cupy, reference(), arrays, dy)

    with pytest.raises(cuda_on_cpu.CudaError):
        whole_step()
