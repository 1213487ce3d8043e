"""Each GPU twin against the Function it stands for: on a GPU, and without one.

On the stand-in for CuPy the kernels are the same source, run by `cuda_on_cpu`, which refuses races,
stray writes and wrong types. `-m gpu` runs the same tests on the real thing.

The yardstick is the reference in float64. A sum of n terms in float32 is off by about √n roundings
of 6e-8; the longest here have 1519 terms, and a few follow one another: 1e-5 is generous, and a
wrong term or factor is off by more than 1e-3.
"""

import itertools
import re
import shutil
import subprocess
import sys
from collections import Counter

import cuda_on_cpu
import cupy_stand_in
import numpy as np
import pytest
from checks import channel_shapes, gelu_shapes, norm_shapes, token_shapes

from tinymixer import backend, create_model, data, engine, fast, ops, optim
from tinymixer.backend import to_device, to_numpy
from tinymixer.data import autoaugment
from tinymixer.fast import gpu
from tinymixer.ops.primitives import MatMul
from tinymixer.train import Config, Trainer

TOLERANCE = 1e-5
SOURCE = gpu.SOURCE.read_text("utf-8")
SIZES = [  # S, B, C, D_S, D_C; K is C
    (1, 1, 1, 1, 1),
    (7, 3, 5, 11, 13),
    (7, 31, 67, 37, 43),  # more than one block, whole ones and others, along each axis
    (9, 16, 136, 24, 280),  # the same, in packs
]
LONG_ROWS = [(2, 67, 67, 3, 2), (2, 40, 136, 4, 8)]  # B*C more than a block takes of a row
LAYOUTS = {
    "C": lambda a: a,
    "reversed": lambda a: a[(slice(None, None, -1),) * a.ndim],
    "transposed": lambda a: a.transpose(*range(a.ndim)[::-1]).copy().transpose(),
}


def soft_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (S, B, C)]


def token_linear_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (D_S, S), (D_S,)]


def channel_linear_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (C, D_C), (D_C,)]


def unbiased_shapes(S, B, C, D_S, D_C):
    return channel_linear_shapes(S, B, C, D_S, D_C)[:2]


def hard_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (S, B)]


def matrix_shapes(S, B, C, D_S, D_C):
    return [(S * B, C), (C, D_C)]


def resample_shapes(S, B, C, D_S, D_C):
    return [(S, B, 2, C), (D_S, S), (D_C, B)]


FORMS = [("tanh",), ("erf",)]
CASES = [  # reference, its options, the shapes of its inputs
    *((ops.GELU, form, gelu_shapes) for form in FORMS),
    *((ops.TokenMLP, form, token_shapes) for form in FORMS),
    *((ops.ChannelMLP, form, channel_shapes) for form in FORMS),
    (ops.TokenLinear, (), token_linear_shapes),
    (ops.ChannelLinear, (), channel_linear_shapes),
    (ops.ChannelLinear, (), unbiased_shapes),
    (ops.LayerNorm, (), norm_shapes),
    *((ops.SoftmaxCrossEntropy, (alpha,), soft_shapes) for alpha in (0.0, 0.1)),
    *((ops.SoftmaxCrossEntropy, (alpha,), hard_shapes) for alpha in (0.0, 0.1)),
    (ops.SoftmaxCrossEntropy, (0.1, 0), hard_shapes),  # class 0 is ignored,
    (ops.SoftmaxCrossEntropy, (0.1, 0), soft_shapes),  # of which probabilities know nothing
    (MatMul, (), matrix_shapes),
    (ops.Resample, (), resample_shapes),
]
OF_TOKENS = ops.TokenLinear, ops.TokenMLP, ops.Resample
TWINS = {reference: twin for (reference, device), twin in engine.twins.items() if device == "gpu"}
EACH = [
    pytest.param(*case, id="-".join(map(str, (case[0].__name__, *case[1], case[2].__name__))))
    for case in CASES
]
each_case = pytest.mark.parametrize(("reference", "options", "shapes"), EACH)


@pytest.fixture(params=["stand_in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request, monkeypatch):
    """CuPy, or what stands in for it; the twins are on."""
    if request.param == "stand_in":
        if missing := cuda_on_cpu.why_not():
            pytest.skip(missing)
        monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)
        return cupy_stand_in
    if missing := backend.why_no_gpu():
        pytest.skip(missing)
    import cupy

    return cupy


def inputs_of(reference, shapes, sizes, dtype=np.float32):
    """Standard normal inputs, weights scaled by their fan-in, and a cotangent of y."""
    rng = np.random.default_rng(sizes)
    x, *others = [rng.standard_normal(shape).astype(dtype) for shape in shapes(*sizes)]
    S, B, _, D_S, D_C = sizes
    of_y = {
        ops.TokenLinear: (D_S, *x.shape[1:]),
        ops.ChannelLinear: (S, B, D_C),
        MatMul: (S * B, D_C),
        ops.Resample: (D_S, D_C, *x.shape[2:]),
    }
    dy = rng.standard_normal(of_y.get(reference, x.shape)).astype(dtype)
    if reference is ops.SoftmaxCrossEntropy:
        K, dy = x.shape[-1], np.asarray(rng.standard_normal(), dtype)
        q = np.abs(others[0])
        soft = shapes is soft_shapes
        others = [q / q.sum(-1, keepdims=True) if soft else rng.integers(0, K, x.shape[:-1])]
    else:
        for a in others:
            a /= np.sqrt(a.shape[-1] if reference in OF_TOKENS else len(a)).astype(dtype)
    return [x, *others], dy


def run(op, arrays, dy):
    """y and the gradients, as a list."""
    y = op.forward(*arrays)
    gradients = op.backward(dy)
    return [y, *(gradients if isinstance(gradients, tuple) else (gradients,))]


def truth(reference, options, arrays, dy):
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    return run(reference(*options), wide, dy.astype(np.float64))


def on(cupy, arrays, layout="C"):
    """The arrays on the device, read-only in the stand-in."""
    placed = [LAYOUTS[layout](cupy.asarray(a)) for a in arrays]
    for a in placed:
        if cupy is cupy_stand_in:
            a._host.flags.writeable = False
    return placed


def run_on(cupy, op, arrays, dy, layout="C"):
    *arrays, dy = on(cupy, [*arrays, dy], layout)
    return run(op, arrays, dy)


def assert_close(got, expected, tolerance=TOLERANCE):
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            assert a.shape == b.shape
            assert a.dtype == np.float32
            assert np.abs(to_numpy(a) - b).max() <= tolerance * max(1e-30, np.abs(b).max())


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def swap_source(monkeypatch, source):
    """Compile other kernels from here on, on the stand-in."""

    def kernel(xp, name, variant):
        return backend.cuda_module(xp, source, gpu.constants(variant)).get_function(name)

    monkeypatch.setattr(gpu, "_kernel", kernel)


def test_every_twin_has_its_case():
    assert set(TWINS) == {reference for reference, _, _ in CASES}
    for reference, twin in TWINS.items():
        assert twin.__base__ is reference


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@each_case
def test_twin_agrees_with_its_reference(cupy, reference, options, shapes, sizes, layout):
    arrays, dy = inputs_of(reference, shapes, sizes)
    got = run_on(cupy, TWINS[reference](*options), arrays, dy, layout)
    turned = [to_numpy(a) for a in on(cupy, [*arrays, dy], layout)]
    expected = truth(reference, options, turned[:-1], turned[-1])
    if (
        sizes == SIZES[0]
    ):  # a norm or a softmax of one number: gradients that are 0 but for rounding
        largest = max(1.0, *(np.abs(a).max() for a in expected if a is not None))
        for a, b in zip(got, expected, strict=True):
            assert a is b is None or np.abs(to_numpy(a) - b).max() <= TOLERANCE * largest
    else:
        assert_close(got, expected)


@pytest.mark.parametrize("sizes", LONG_ROWS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_a_row_longer_than_a_block_takes(cupy, form, sizes):
    arrays, dy = inputs_of(ops.TokenMLP, token_shapes, sizes)
    assert arrays[0][0].size > gpu.WIDE
    got = run_on(cupy, TWINS[ops.TokenMLP](*form), arrays, dy)
    assert_close(got, truth(ops.TokenMLP, form, arrays, dy))


@each_case
def test_the_same_bits_every_time(cupy, reference, options, shapes):
    arrays, dy = inputs_of(reference, shapes, SIZES[2])
    first, again = (run_on(cupy, TWINS[reference](*options), arrays, dy) for _ in range(2))
    assert_same(first, again)


@each_case
def test_other_precisions_are_the_reference(cupy, reference, options, shapes):
    arrays, dy = inputs_of(reference, shapes, SIZES[1], np.float64)
    op = TWINS[reference](*options)
    got = run_on(cupy, op, arrays, dy)
    assert type(op) is reference
    assert_same(got, run_on(cupy, reference(*options), arrays, dy))


@pytest.mark.parametrize(("reference", "options", "shapes"), EACH[:6])
def test_an_empty_input_is_the_references(cupy, reference, options, shapes):
    """As an expert has it that no row is sent to."""
    arrays, dy = inputs_of(reference, shapes, (7, 0, 5, 11, 13))
    got = run_on(cupy, TWINS[reference](*options), arrays, dy)
    assert_same(got, run(reference(*options), arrays, dy))


@each_case
def test_gradients_that_nobody_needs_change_nothing(cupy, reference, options, shapes):
    arrays, dy = inputs_of(reference, shapes, SIZES[1])
    everything = run_on(cupy, TWINS[reference](*options), arrays, dy)
    if reference in (ops.GELU, ops.SoftmaxCrossEntropy, ops.Resample):
        return  # one gradient: it is needed, or backward is not called
    *placed, placed_dy = on(cupy, [*arrays, dy])
    for needs in itertools.product([False, True], repeat=len(arrays)):
        op = TWINS[reference](*options)
        op.needs = needs
        assert_same([op.forward(*placed)], everything[:1])
        for got, wanted, needed in zip(op.backward(placed_dy), everything[1:], needs, strict=True):
            assert_same([got], [wanted if needed else None])


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 1e-40, 1e-20])
@pytest.mark.parametrize(("reference", "options", "shapes"), EACH[:7])
def test_extreme_values(cupy, reference, options, shapes, value):
    arrays, dy = inputs_of(reference, shapes, SIZES[1])
    arrays[0].reshape(-1)[::3] = value
    got = run_on(cupy, TWINS[reference](*options), arrays, dy)
    assert_close(got, truth(reference, options, arrays, dy))


@pytest.mark.parametrize("middle", [0, 1e4, -1e4])
def test_cross_entropy_of_large_logits(cupy, middle):
    arrays, dy = inputs_of(ops.SoftmaxCrossEntropy, hard_shapes, SIZES[1])
    arrays[0] = 1000 * arrays[0] + np.float32(middle)
    got = run_on(cupy, TWINS[ops.SoftmaxCrossEntropy](), arrays, dy)
    assert_close(got, truth(ops.SoftmaxCrossEntropy, (), arrays, dy))


@pytest.mark.parametrize("label", [-1, 5, 2**32])
def test_a_class_that_is_none_makes_the_loss_nan(cupy, label):
    logits, classes = cupy.asarray(np.ones((3, 5), np.float32)), np.array([0, label, 1])
    op = TWINS[ops.SoftmaxCrossEntropy](0.1)
    assert np.isnan(float(op.forward(logits, cupy.asarray(classes))))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_labels_of_any_integer_type(cupy, dtype):
    arrays, dy = inputs_of(ops.SoftmaxCrossEntropy, hard_shapes, SIZES[1])
    expected = truth(ops.SoftmaxCrossEntropy, (), arrays, dy)
    arrays[1] = arrays[1].astype(dtype)
    assert_close(run_on(cupy, TWINS[ops.SoftmaxCrossEntropy](), arrays, dy), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize(("ignore", "places"), [(255, slice(4, 9)), (255, slice(0)), (2, ...)])
def test_what_is_to_be_ignored_loses_nothing_and_is_not_counted(cupy, ignore, places, dtype):
    """A part of all pixels, none of them, all: then the loss is 0."""
    arrays, dy = inputs_of(ops.SoftmaxCrossEntropy, hard_shapes, SIZES[1])
    arrays[1] = arrays[1].astype(dtype)
    arrays[1].reshape(-1)[places] = ignore
    expected = truth(ops.SoftmaxCrossEntropy, (0.1, ignore), arrays, dy)
    op = TWINS[ops.SoftmaxCrossEntropy](0.1, ignore)
    assert_close(run_on(cupy, op, arrays, dy), expected)
    assert type(op) is TWINS[ops.SoftmaxCrossEntropy]
    assert (expected[0] == 0) == (places is ...)


def test_a_class_that_is_none_makes_the_loss_nan_where_others_are_ignored(cupy):
    logits, classes = cupy.asarray(np.ones((3, 5), np.float32)), np.array([0, 255, 6])
    op = TWINS[ops.SoftmaxCrossEntropy](0.1, 255)
    assert np.isnan(float(op.forward(logits, cupy.asarray(classes))))


def test_wrong_shapes_of_labels_are_told_by_the_reference(cupy):
    arrays, _ = inputs_of(ops.SoftmaxCrossEntropy, hard_shapes, SIZES[1])
    for options in ((), (0.1, 3)):
        with pytest.raises(ValueError, match="SoftmaxCrossEntropy"):
            TWINS[ops.SoftmaxCrossEntropy](*options).forward(*on(cupy, [arrays[0], arrays[1][0]]))


def test_wrong_shapes_are_told_as_the_reference_tells_them(cupy):
    shapes = (4, 2, 3), (5, 5), (5,), (5, 5), (5,)
    arrays = on(cupy, [np.zeros(shape, np.float32) for shape in shapes])
    for reference in (ops.TokenMLP, ops.ChannelMLP):
        with pytest.raises(ValueError, match=reference.__name__) as expected:
            reference().forward(*arrays)
        with pytest.raises(ValueError, match=reference.__name__) as got:
            TWINS[reference]().forward(*arrays)
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
    with backend.precision(name):
        got = run_on(cupy, TWINS[reference](), arrays, dy)
    assert_close(got, exact, within)
    if name != "fp32":  # and it is not float32 by another name
        with pytest.raises(AssertionError):
            assert_close(got, exact, within / 100)
    plain = run_on(cupy, TWINS[reference](), arrays, dy)
    assert_close(plain, exact)  # the setting is gone


@pytest.mark.parametrize("reference", [MatMul, ops.Resample])
def test_products_that_decide_or_interpolate_are_not_in_bfloat16(cupy, reference):
    pytest.importorskip("ml_dtypes", reason="no ml_dtypes to round to bfloat16 with")
    shapes = {MatMul: matrix_shapes, ops.Resample: resample_shapes}[reference]
    arrays, dy = inputs_of(reference, shapes, SIZES[2])
    plain = run_on(cupy, TWINS[reference](), arrays, dy)
    for name, same in (("bf16", True), ("tf32", False)):
        with backend.precision(name):
            got = run_on(cupy, TWINS[reference](), arrays, dy)
        assert np.array_equal(*(to_numpy(y) for y in (got[0], plain[0]))) == same
        assert_close(got, truth(reference, (), arrays, dy), 1e-3)


def test_only_products_of_two_matrices_are_left_to_the_library(cupy, monkeypatch):
    """Stacks of them are not: for these the reference is taken."""
    shapes = []
    monkeypatch.setattr(
        gpu, "product", lambda A, B, *d: shapes.append((A.ndim, B.ndim)) or backend.product(A, B)
    )
    for reference, shape in ((MatMul, matrix_shapes), (ops.Resample, resample_shapes)):
        run_on(cupy, TWINS[reference](), *inputs_of(reference, shape, SIZES[1]))
    assert shapes == [(2, 2)] * (3 + 4)
    stacks = on(cupy, [np.ones(shape, np.float32) for shape in ((2, 3, 4), (4, 5))])
    op = TWINS[MatMul]()
    assert op.forward(*stacks).shape == (2, 3, 5)
    assert type(op) is MatMul
    with pytest.raises(ValueError, match="MatMul: expected matrices"):
        TWINS[MatMul]().forward(stacks[1], stacks[1][0])
    with pytest.raises(ValueError, match="Resample: the matrices resize"):
        TWINS[ops.Resample]().forward(cupy.zeros((2, 3, 4, 5), np.float32), *stacks[1:] * 2)


def test_what_a_tape_keeps_for_bf16_is_half_as_large(cupy):
    """And its gradients are those of the operands, whatever precision is set by then."""
    bfloat16 = pytest.importorskip("ml_dtypes", reason="no ml_dtypes").bfloat16
    arrays, dy = inputs_of(ops.ChannelMLP, channel_shapes, SIZES[3])
    op = TWINS[ops.ChannelMLP]()
    *placed, placed_dy = on(cupy, [*arrays, dy])
    with backend.precision("bf16"):
        op.forward(*placed)
        again = TWINS[ops.ChannelMLP]()
        expected = run(again, placed, placed_dy)[1:]
    X, W1, h, _, a, W2 = op.saved
    assert {x.dtype for x in (X, W1, h, a, W2)} == {np.dtype(bfloat16)}
    assert_same(op.backward(placed_dy), expected)


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
    got = to_numpy(gpu._operand(placed, np.dtype(bfloat16))).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(got, x.astype(bfloat16).astype(np.float32))
    assert np.signbit(got[3:4]).all()


def test_only_what_lies_in_packs_is_read_in_packs(cupy):
    x = cupy.zeros(8 * 16 + 1, np.float32)
    whole, shifted, odd = x[:-1].reshape(8, 16), x[1:].reshape(8, 16), x[:-3].reshape(9, 14)
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes", reason="no ml_dtypes").bfloat16)
    for matrices, stored, pack in [
        ([whole], whole.dtype, 4),
        ([whole], bfloat16, 8),
        ([whole, shifted], whole.dtype, 1),
        ([odd], whole.dtype, 1),
    ]:
        for axis in (0, 1):
            assert gpu._walk(axis, stored, *matrices).variant == (stored.name, pack, 1)


# Augmentation -------------------------------------------------------------------------------------

HOLES = {"cutout": 4, "random_erasing": 0.5}
AUGMENTS = [
    *(
        data.Augment(crop_padding=margin, padding=padding, flip=flip)
        for margin in (0, 3, 6)
        for padding in ("reflect", "zero")
        for flip in ("none", "random", "alternating")
    ),
    data.Augment(crop_padding=2, flip="random", **HOLES),
    data.Augment(auto_augment="cifar10"),
    data.Augment(crop_padding=2, flip="random", auto_augment="cifar10", **HOLES, mixup=0.4),
    data.Augment(crop_padding=2, padding="zero", flip="alternating", **HOLES, mixup=0.4, cutmix=1),
]
PIXELS = [(11, 7, 7, 3), (11, 7, 13, 3), (11, 41, 37, 3)]  # the last is more than one block's
SOME = np.array([9, 0, 3, 3, 10, 1, 6])  # of eleven
PLACES = [{"epoch": 0, "seed": 0}, {"epoch": 1, "seed": 5}, {"epoch": 6, "seed": 2**64 - 3}]


def pixels_of(shape):
    return np.random.default_rng(shape).integers(1, 255, shape, np.uint8)  # nothing is black


def augmented(augment, images, labels, place, cupy=None):
    """What augmentation makes of SOME of the images: on the CPU, or by its twin on a device."""
    arrays = images, labels, SOME
    if cupy:
        augment, arrays = fast.augment(augment, "gpu"), on(cupy, arrays)
    return [to_numpy(a) for a in augment(*arrays, **place, num_classes=5)]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("shape", PIXELS, ids=str)
@pytest.mark.parametrize("augment", AUGMENTS, ids=str)
def test_augmentation_is_that_of_the_cpu_to_the_last_bit(cupy, augment, shape, place):
    images, classes = pixels_of(shape), np.arange(11) % 5
    expected = augmented(augment, images, classes, place)
    assert_same(augmented(augment, images, classes, place, cupy), expected)
    if not augment.mixes:  # classes of pixels
        labels = images[..., 0].copy()
        expected = augmented(augment, images, labels, place)
        assert_same(augmented(augment, images, labels, place, cupy), expected)


@pytest.mark.parametrize("layout", ["reversed", "transposed"])
def test_augmentation_of_images_in_any_memory_order(cupy, layout):
    arrays, options = (pixels_of(PIXELS[1]), np.arange(11), SOME), {**PLACES[1], "num_classes": 11}
    expected = AUGMENTS[9](*map(LAYOUTS[layout], arrays), **options)
    assert_same(fast.augment(AUGMENTS[9], "gpu")(*on(cupy, arrays, layout), **options), expected)


def test_crop_and_flip_are_one_launch_and_so_are_a_policy_and_each_draw(cupy, monkeypatch):
    launched, launch = Counter(), gpu.launch
    monkeypatch.setattr(
        gpu, "launch", lambda name, *a, **v: launched.update([name]) or launch(name, *a, **v)
    )
    arrays = pixels_of(PIXELS[0]), np.arange(11) % 5, PLACES[0]
    augmented(AUGMENTS[9], *arrays, cupy)
    assert launched == {"crop_and_flip": 1}
    augmented(AUGMENTS[-1], *arrays, cupy)  # holes and noise in images and in partners; the mixing
    assert launched == {"crop_and_flip": 1 + 2, "random_words": 2 * 3 + 2}
    launched.clear()
    augmented(data.Augment(auto_augment="cifar10"), *arrays, cupy)
    assert launched == {"crop_and_flip": 1, "auto_augment": 1}


@pytest.mark.parametrize("shape", [(1,), (257,), (31, 67)], ids=str)
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_random_words_are_those_of_philox(cupy, shape, place):
    index = np.random.default_rng(0).integers(0, 2**63 - 1, shape)
    where = place["seed"], data.draws.Stream.CUTOUT, place["epoch"]
    words = gpu.Augment._draws(*where, *on(cupy, [index]))
    assert_same([words], [data.draws.draws(*where, index)])


@pytest.mark.parametrize(
    ("margin", "dtype", "most"),
    [(7, np.uint8, 7), (2, np.float32, 7), (2, np.uint8, 6)],
    ids=["a margin beyond the mirror", "other numbers than bytes", "more images than a grid takes"],
)
def test_what_the_kernel_cannot_do_is_the_references(cupy, monkeypatch, margin, dtype, most):
    monkeypatch.setattr(gpu, "MOST_IMAGES", most)
    launched, launch = set(), gpu.launch
    monkeypatch.setattr(
        gpu, "launch", lambda name, *a, **v: launched.add(name) or launch(name, *a, **v)
    )
    augment = data.Augment(crop_padding=margin, padding="zero", flip="random")
    images, classes = pixels_of(PIXELS[1]).astype(dtype), np.arange(11)
    expected = augmented(augment, images, classes, PLACES[1])
    assert_same(augmented(augment, images, classes, PLACES[1], cupy), expected)
    assert launched == {"random_words"}


SIZES_DRAWN = [(1,), (7,), (0,), (3, 5), (2051,), (8,), (16,), (4100,)]
STARTS = [(0, ()), (2**64 - 1, (2**63, 7, 2**64 - 1)), (5, (1, 2, 3))]


@pytest.mark.parametrize(("seed", "position"), STARTS)
def test_a_generator_draws_what_numpys_draws(cupy, seed, position):
    start = seed, data.draws.Stream.DROPOUT, *position
    place = fast.place(cupy.zeros(1), *start)
    assert_same([place], [data.draws.place(*start)])
    there, here = fast.generator_at(place), data.draws.generator(*start)
    for shape in SIZES_DRAWN:
        drawn = there.random(shape, dtype=np.float32)
        assert backend.device_of(drawn) == "gpu"
        assert_same([drawn], [here.random(shape, dtype=np.float32)])


WRONG = {  # what is taken out of the kernel, and what is put in its place
    "a round": ("round < 10; round++, key0", "round < 9; round++, key0"),
    "a word of the key": ("key1 += 0xBB67AE85u", "key1 += 0"),
    "the index's high half": ("(unsigned)(index >> 32)", "0"),
    "the last index": ("    if (i >= n) return;\n    Words", "    Words"),
    "the words' order": (
        "words[n + i] = w.b, words[2 * n + i] = w.c",
        "words[n + i] = w.c, words[2 * n + i] = w.b",
    ),
    "the seed's high half": ("(unsigned)(seed >> 32)", "0"),
    "the two axes": ("integer(shift.a,", "integer(shift.b,"),
    "the widest shift": ("shift.b, 2 * padding + 1", "shift.b, 2 * padding"),
    "the way of the shift": (
        "- padding;\n    bool",
        "- padding, unused = right = -right;\n    bool",
    ),
    "the mirror about the edge": (
        "n - 1 - abs(n - 1 - abs(i))",
        "n - 1 - abs(n - 1 - abs(i + (i < 0)))",
    ),
    "the coin's epoch": ("draws(seed, FLIP, coin_epoch", "draws(seed, FLIP, epoch"),
    "the other way round": ("(coin.a + turns) % 2", "coin.a % 2"),
    "flip after crop": ("width - 1 - x : x) + right", "width - 1 - x - 2 * right : x) + right"),
    "the border below": ("row != y || column", "column"),
    "a border where there is none": ("filled && outside", "outside"),
    "the stream": ("draws(seed, CROP", "draws(seed, FLIP"),
    "colours": ("element % colours, place", "colours - 1 - element % colours, place"),
    "its own index": ("indices[blockIdx.y]", "blockIdx.y"),
    "a row of pixels": ("place % width", "place % height"),
}


@pytest.mark.parametrize(("taken", "left"), WRONG.values(), ids=WRONG)
def test_a_planted_bug_in_augmentation_is_caught(monkeypatch, taken, left):
    if missing := cuda_on_cpu.why_not():
        pytest.skip(missing)
    assert SOURCE.count(taken) == 1
    swap_source(monkeypatch, SOURCE.replace(taken, left))
    gpu._kernel(cupy_stand_in, "crop_and_flip", gpu.PLAIN)  # it does compile

    def all_agree():
        for augment, place in itertools.product(AUGMENTS[:18], PLACES):
            expected = augmented(augment, pixels_of(PIXELS[1]), np.arange(11), place)
            found = augmented(augment, pixels_of(PIXELS[1]), np.arange(11), place, cupy_stand_in)
            assert_same(found, expected)

        for place in PLACES:
            test_random_words_are_those_of_philox(cupy_stand_in, (257,), place)

    with pytest.raises((AssertionError, cuda_on_cpu.CudaError)):
        all_agree()


OPERATIONS = list(autoaugment.Operation)[:-1]
PICTURES = {  # noise, a narrow band of it, two levels, one; a single pixel, and no inside
    "noise": lambda rng: rng.integers(0, 256, (50, 6, 9, 3)),
    "a band": lambda rng: rng.integers(60, 90, (12, 29, 31, 3)),
    "two levels": lambda rng: 250 * rng.integers(0, 2, (20, 20, 13, 3)),
    "one level": lambda rng: rng.integers(0, 256, (20, 1, 1, 3)).repeat(4, 1).repeat(3, 2),
    "one pixel": lambda rng: rng.integers(0, 256, (20, 1, 1, 3)),
    "two rows": lambda rng: rng.integers(0, 256, (20, 2, 5, 3)),
}


def operated(monkeypatch, operation, kind, cupy=None):
    """Pictures and pixels' classes after `operation` in all magnitudes, and perhaps another."""
    name, second = operation.name, OPERATIONS[(operation * 3 + 1) % len(OPERATIONS)]
    pairs = tuple(((operation, 9, m), (second, 5, 9 - m)) for m in range(10))
    monkeypatch.setitem(autoaugment.POLICIES, name, pairs)
    images = PICTURES[kind](np.random.default_rng(0)).astype(np.uint8)
    augment, arrays = data.Augment(auto_augment=name), (images, images[..., 0].copy())
    arrays = *arrays, np.arange(len(images))
    if cupy:
        augment, arrays = fast.augment(augment, "gpu"), on(cupy, arrays)
    return [to_numpy(a) for a in augment(*arrays, **PLACES[2], num_classes=5)]


each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)


@pytest.mark.parametrize("kind", PICTURES)
@each_operation
def test_each_operation_is_that_of_the_cpu_to_the_last_bit(cupy, monkeypatch, operation, kind):
    expected = operated(monkeypatch, operation, kind)
    assert_same(operated(monkeypatch, operation, kind, cupy), expected)


ASTRAY = {  # an operation that shows it, what is taken out of its kernel, and what is left
    "the stream": ("ROTATE", "draws(seed, AUTO", "draws(seed, FLIP"),
    "which pair": ("ROTATE", "integer(w.a, pairs)", "integer(w.b, pairs)"),
    "the last pair": ("ROTATE", "integer(w.a, pairs)", "integer(w.a, pairs - 1)"),
    "the second's word": ("ROTATE", "step ? w.c : w.b", "w.b"),
    "its probability": ("ROTATE", "w.b, 10) >= policy[1]", "w.b, 10) > policy[1]"),
    "the second's sign": ("SHEAR_X", "w.d >> step & 1", "w.d & 1"),
    "the second operation": (
        "ROTATE",
        "step < 2; step++, policy += 3",
        "step < 2; step++, policy += 0",
    ),
    "the way back": ("ROTATE", "(step ? batch : between) + image", "between + image"),
    "the barrier between": ("ROTATE", "__syncthreads();  /* what a thread", "/* what a thread"),
    "the image": ("ROTATE", "blockIdx.x * height * width * colours", "blockIdx.x * height * width"),
    "no magnitudes below zero": ("ROTATE", "strength + MOST) * 6", "strength) * 6"),
    "a row of the map": ("ROTATE", "map[3] * x + map[4] * y", "map[4] * x + map[3] * y"),
    "half a pixel": (
        "ROTATE",
        "map[0] * x + map[1] * y + map[2]",
        "map[0] * x + map[1] * y + map[2] + 32768",
    ),
    "the left edge": ("ROTATE", "bool inside = column >= 0 && ", "bool inside = "),
    "the right edge": ("ROTATE", "column < width && row >= 0", "column <= width && row >= 0"),
    "the lower edge": ("ROTATE", "row >= 0 && row < height;", "row >= 0 && row <= height;"),
    "beyond the edge": ("ROTATE", "+ c] : outside;", "+ c] : 0;"),
    "a sign where there is none": ("BRIGHTNESS", "if (operation <= ROTATE && w.d", "if (w.d"),
    "the other's share": ("COLOR", "(10 - tenths) * other", "(9 - tenths) * other"),
    "above white": ("BRIGHTNESS", "min(max(level, 0), 2550) / 10", "max(level, 0) / 10"),
    "the classes of pixels": ("INVERT", "(colours == 1 && operation > ROTATE)", "false"),
    "the threshold": ("SOLARIZE", "level < strength ? level", "level <= strength ? level"),
    "the bits": ("POSTERIZE", "return level & strength", "return level | strength"),
    "the lowest level": (
        "AUTOCONTRAST",
        "lowest = min(lowest, k), highest = k",
        "lowest = min(lowest, 99), highest = k",
    ),
    "one level alone": ("AUTOCONTRAST", "(highest - lowest) : level", "(highest - lowest) : 0"),
    "a colour's counts": (
        "AUTOCONTRAST",
        "count += from[3 * i + colour] == level",
        "count += from[3 * i] == level",
    ),
    "a pixel not counted": (
        "AUTOCONTRAST",
        "for (int i = 0; i < pixels; i++) count",
        "for (int i = 1; i < pixels; i++) count",
    ),
    "counts before they are there": (
        "AUTOCONTRAST",
        "counts[level] = count;\n        __syncthreads();",
        "counts[level] = count;",
    ),
    "the table before it is there": (
        "AUTOCONTRAST",
        "strength);\n        __syncthreads();\n        walk",
        "strength);\n        walk",
    ),
    "itself below itself": ("EQUALIZE", "if (k < level) below", "if (k <= level) below"),
    "the highest level": ("EQUALIZE", "(pixels - counts[highest]) / 255", "pixels / 255"),
    "half a step": ("EQUALIZE", "(below + step / 2) / step", "below / step"),
    "beyond white": (
        "EQUALIZE",
        "min(255, (below + step / 2) / step)",
        "(below + step / 2) / step",
    ),
    "a step of nothing": ("EQUALIZE", "/ step) : level", "/ step) : 0"),
    "the luma of green": ("COLOR", "38470 * pixel[1]", "38469 * pixel[1]"),
    "the luma's rounding": (
        "COLOR",
        " + 0x8000) >> 16;\n}\n\n/* The level",
        ") >> 16;\n}\n\n/* The level",
    ),
    "contrast with color's grey": (
        "COLOR",
        "other = operation == COLOR ?",
        "other = operation == CONTRAST ?",
    ),
    "below black": ("COLOR", "min(max(level, 0), 2550)", "min(level, 2550)"),
    "the mean's rounding": (
        "CONTRAST",
        "(2 * sum_of_block(mean) + pixels)",
        "(2 * sum_of_block(mean))",
    ),
    "a part of the sum": ("CONTRAST", "part < WARPS * LANES; part++", "part < LANES; part++"),
    "the sum before it is there": (
        "CONTRAST",
        "= x;\n    __syncthreads();\n    int sum",
        "= x;\n    int sum",
    ),
    "the edge of sharpness": ("SHARPNESS", "|| x == width - 1) return", ") return"),
    "the upper edge of sharpness": ("SHARPNESS", "if (y == 0 || y ==", "if (y =="),
    "the middle of the smoothing": ("SHARPNESS", "int sum = 4 * *middle", "int sum = 5 * *middle"),
    "its rounding": ("SHARPNESS", "(sum + 6) / 13", "sum / 13"),
    "its neighbours": ("SHARPNESS", "(down * width + right) * 3", "(down * width + right)"),
}


@pytest.mark.parametrize(("operation", "taken", "left"), ASTRAY.values(), ids=ASTRAY)
def test_a_planted_bug_in_a_policys_kernel_is_caught(monkeypatch, operation, taken, left):
    if missing := cuda_on_cpu.why_not():
        pytest.skip(missing)
    assert SOURCE.count(taken) == 1
    source = SOURCE[: SOURCE.index("/* GELU")] + SOURCE[SOURCE.index("/* Augmentation") :]
    swap_source(monkeypatch, source.replace(taken, left))
    gpu._kernel(cupy_stand_in, "auto_augment", gpu.PLAIN)  # it does compile

    def all_agree():
        for kind in PICTURES:
            test_each_operation_is_that_of_the_cpu_to_the_last_bit(
                cupy_stand_in, monkeypatch, autoaugment.Operation[operation], kind
            )

    with pytest.raises((AssertionError, cuda_on_cpu.CudaError)):
        all_agree()


# The optimizer and whole models -------------------------------------------------------------------


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("n", [1, 255, 1031])
def test_adamw_follows_the_plain_lines(cupy, n, averaged):
    rng = np.random.default_rng(n)
    weights, decay = rng.standard_normal(n), rng.integers(0, 2, n).astype(float)
    plain = optim.AdamW(decay, weight_decay=0.3)
    fused = gpu.AdamW(cupy.asarray(decay.astype(np.float32)), weight_decay=0.3)
    w, average = cupy.asarray(weights.astype(np.float32)), weights.copy() if averaged else None
    a = cupy.asarray(weights.astype(np.float32)) if averaged else None
    for step in range(5):
        g = rng.standard_normal(n)
        plain.step_and_average(weights, g, 0.01, step, average, 0.9)
        placed = on(cupy, [g.astype(np.float32)])[0]
        if averaged:
            fused.step_and_average(w, placed, 0.01, step, a, 0.9)
        else:
            fused.step(w, placed, 0.01, step)
    got = [w, fused.state["m"], fused.state["v"]]
    assert_close(got, [weights, plain.state["m"], plain.state["v"]])
    if averaged:
        assert_close([a], [average])


def test_the_trainer_takes_it_where_the_weights_are(cupy):
    decay = np.ones(3, np.float32)
    assert type(Config().build_optimizer(decay)) is optim.AdamW
    assert type(Config().build_optimizer(cupy.asarray(decay))) is gpu.AdamW


def test_the_trainer_augments_where_the_images_are(cupy):
    dataset = data.load("shapes", train_size=8, test_size=2)
    for device, kind in (("cpu", data.Augment), ("gpu", gpu.Augment)):
        config = Config(dataset="shapes", augment=AUGMENTS[0])
        trainer = Trainer(config, dataset, device=device, workers=1, quiet=True)
        assert type(trainer.augment) is kind
        assert type(trainer.config.augment) is data.Augment


def test_the_trainer_ends_where_it_does_on_the_cpu(cupy):
    """Two updates, with an average of the weights.

    Judged by the length of the way: AdamW makes a whole step even of a gradient that is 0 but for
    rounding, so single weights may differ.
    """
    config = Config(dataset="shapes", epochs=1, batch_size=4, micro_batch=2, ema=0.5)
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
    used = {type(t.creator) for t in engine.tensors_below(model(images))}
    assert {gpu.FastTokenMLP, gpu.FastChannelMLP, gpu.FastLayerNorm} <= used

    def error(results):
        largest = max(np.abs(e).max() for e in exact[1:])
        return max(np.abs(r - e).max() for r, e in zip(results, exact, strict=True)) / largest

    assert error(plain) < 1e-5
    assert error(got) <= max(4 * error(plain), 1e-6)


# What the kernels are run by can itself fail ------------------------------------------------------

PLANTED = {
    "a write past the end": ("a[i + 1] = 0;", "outside of argument 1"),
    "a write before the start": ("a[i - 1] = 0;", "outside of argument 1"),
    "a write to an input": ("((float *)x)[i] = 0;", "const"),
    "a race for one element": ("a[0] = i;", "depends on the order"),
    "a missing barrier": (
        "__shared__ float s[64]; s[i] = x[i]; a[i] = s[63 - i];",
        "depends on the order",
    ),
    "a barrier for some": ("if (i < 40) __syncthreads();", "not every thread"),
    "two barriers for one": ("if (i < 32) __syncthreads();\nelse\n__syncthreads();", "not every"),
    "half a warp in a shuffle": (
        "if (i < 16) a[i] = __shfl_xor_sync(~0u, x[i], 1);",
        "without its whole warp",
    ),
}
PLANT = 'extern "C" __global__ void plant(const float *x, float *a, int n) {{\n\
int i = threadIdx.x; {} }}'


@pytest.fixture
def planted():
    """Launch a kernel of the given body on 64 threads, x and a of 64 elements."""
    if missing := cuda_on_cpu.why_not():
        pytest.skip(missing)

    def launch(body, **changes):
        x = cupy_stand_in.asarray(np.arange(64, dtype=np.float32))
        a = cupy_stand_in.empty(64, np.float32)
        given = {"x": x, "a": a, "n": np.int32(64), "grid": (1,), "block": (64,)} | changes
        module = backend.cuda_module(cupy_stand_in, PLANT.format(body), {})
        plant = module.get_function("plant")
        plant(given["grid"], given["block"], (given["x"], given["a"], given["n"]))
        return given["a"].get()

    return launch


def test_a_correct_kernel_passes(planted):
    body = "__shared__ float s[64]; s[i] = x[i]; __syncthreads(); a[i] = s[63 - i];"
    np.testing.assert_array_equal(planted(body), np.arange(64)[::-1])


@pytest.mark.parametrize(("body", "said"), PLANTED.values(), ids=PLANTED)
def test_a_planted_bug_is_caught(planted, body, said):
    with pytest.raises(cuda_on_cpu.CudaError, match=said):
        planted(body)


WRONG_ARGUMENTS = {
    "a host array": ({"x": np.zeros(64, np.float32)}, TypeError, "NumPy array"),
    "a Python number": ({"n": 64}, cuda_on_cpu.CudaError, "expected int32"),
    "a wide number": ({"n": np.int64(64)}, cuda_on_cpu.CudaError, "expected int32"),
    "float64": ({"x": cupy_stand_in.empty(64)}, cuda_on_cpu.CudaError, "float32"),
    "strides": (
        {"x": cupy_stand_in.empty((64, 2), np.float32)[:, 0]},
        cuda_on_cpu.CudaError,
        "contiguous",
    ),
    "an empty grid": ({"grid": (0,)}, cuda_on_cpu.CudaError, "grid"),
    "a huge block": ({"block": (64, 32)}, cuda_on_cpu.CudaError, "at most 1024"),
}


@pytest.mark.parametrize(
    ("changes", "error", "said"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS
)
def test_a_wrong_argument_is_refused(planted, changes, error, said):
    with pytest.raises(error, match=said):
        planted("a[i] = x[i];", **changes)


EXAMPLES = (
    (ops.LayerNorm, norm_shapes),
    (ops.TokenMLP, token_shapes),
    (ops.ChannelMLP, channel_shapes),
)
BREAKS = {  # what is taken out of kernels.cu, and what is left
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
            run_on(cupy, TWINS[reference](), arrays, dy)

    with pytest.raises(cuda_on_cpu.CudaError):
        whole_step()


# The real compiler, where it is installed ---------------------------------------------------------

VARIANTS = [gpu.PLAIN, *(gpu.Variant(pack=4, packs=n) for n in (1, 6))]
VARIANTS += [gpu.Variant("bfloat16", pack) for pack in (1, 8)]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_nvcc_compiles_every_kernel_and_keeps_it_in_registers(variant, tmp_path):
    """For an H100, which need not be there."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc, CUDA's compiler")
    module = backend.cuda_module(cupy_stand_in, SOURCE, gpu.constants(variant))
    words = [nvcc, *module._options, "-arch=sm_90", "-cubin", "-Xptxas", "-v", "-Werror"]
    words += ["all-warnings", "-o", tmp_path / "kernels", gpu.SOURCE]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = re.findall(r'extern "C" __global__ void (\w+)', SOURCE)
    assert sorted(re.findall(r"entry function '(\w+)'", done.stderr)) == sorted(kernels)
    spilled = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill", done.stderr)
    assert spilled == [("0", "0")] * len(kernels)
