"""AutoAugment: each operation does what Pillow's does, and the policy draws what the paper says."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from own_policy import add_policy
from PIL import Image, ImageEnhance, ImageOps

from tinymixer.backend import array_module, to_numpy
from tinymixer.data import Augment, autoaugment, shapes
from tinymixer.data.augment import IGNORED
from tinymixer.data.autoaugment import GREY, POLICIES, auto_augment
from tinymixer.data.autoaugment import Operation as Op
from tinymixer.data.draws import Stream, draws

MOVES, LEVELS, BLENDS = list(Op)[:5], list(Op)[5:10], list(Op)[10:14]
SIZES = [(32, 32), (7, 13), (13, 7), (3, 3), (2, 5), (1, 1)]


def pictures(height, width):
    """Noise, a narrow band of it, few levels, one level, black and white, a ramp; and shapes."""
    rng = np.random.default_rng(height * width)
    noise = rng.integers(0, 256, (height, width, 3))
    plain = np.ones((height, width, 3), int)
    ramp = np.arange(plain.size).reshape(plain.shape) * 255 // plain.size
    kinds = [noise, 90 + noise // 5, noise // 64 * 85, noise // 128 * 255, ramp, ramp[::-1] // 2]
    kinds += [plain * level for level in (0, 1, 128, 254, 255)] + [plain * [3, 99, 250]]
    kinds = np.stack(kinds).astype(np.uint8)
    if (height, width) == (32, 32):
        kinds = np.concatenate([kinds, shapes.draw(np.arange(20))[0]])
    kinds.flags.writeable = False
    return kinds


def only(monkeypatch, operation, magnitude, batch, *, negative=False, outside=GREY):
    """Every image after this operation, and nothing else."""
    name = f"{operation.name} {magnitude}"
    monkeypatch.setitem(POLICIES, name, (((operation, 10, magnitude), (Op.INVERT, 0, 0)),))
    bits = np.random.default_rng(0).integers(0, 2**32, (4, len(batch)), np.uint32)
    bits[3] = bits[3] // 2 * 2 + negative
    return auto_augment(batch, bits, name, outside)


def by_pillow(change, batch):
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in batch])


# The operations -----------------------------------------------------------------------------------

THRESHOLDS = 256, 228, 199, 171, 142, 114, 85, 57, 28, 0  # ninths of 256, rounded
BITS = 8, 8, 7, 7, 6, 6, 5, 5, 4, 4
OF_LEVELS = {
    Op.INVERT: lambda image, m: ImageOps.invert(image),
    Op.SOLARIZE: lambda image, m: ImageOps.solarize(image, THRESHOLDS[m]),
    Op.POSTERIZE: lambda image, m: ImageOps.posterize(image, BITS[m]),
    Op.EQUALIZE: lambda image, m: ImageOps.equalize(image),
}
BLENDED = {
    Op.BRIGHTNESS: ImageEnhance.Brightness,
    Op.CONTRAST: ImageEnhance.Contrast,
    Op.COLOR: ImageEnhance.Color,
    Op.SHARPNESS: ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operation", OF_LEVELS)
def test_levels_become_what_they_do_in_pillow(monkeypatch, operation, size):
    batch = pictures(*size)
    for magnitude in range(10):
        found = only(monkeypatch, operation, magnitude, batch)
        change = OF_LEVELS[operation]
        expected = by_pillow(lambda image, m=magnitude, change=change: change(image, m), batch)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_autocontrast_is_pillows_but_for_its_rounding(monkeypatch, size):
    """Pillow multiplies by 255 / (highest - lowest) in floats, and cuts off.

    So where the true level is whole it may be one less.
    """
    batch = pictures(*size)
    found = only(monkeypatch, Op.AUTOCONTRAST, 4, batch).astype(int)
    less = found - by_pillow(ImageOps.autocontrast, batch)
    lowest, highest = batch.min((1, 2), keepdims=True), batch.max((1, 2), keepdims=True)
    spread = np.maximum(highest.astype(int) - lowest, 1)
    whole = 255 * (batch.astype(int) - lowest) % spread == 0
    assert set(np.unique(less)) <= {0, 1}
    assert not less[~whole].any()
    assert (found.max((1, 2)) - found.min((1, 2)))[(highest > lowest)[:, 0, 0]].min(
        initial=255
    ) == 255


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operation", BLENDED)
def test_blends_are_pillows_but_for_its_rounding(monkeypatch, operation, size):
    """Pillow adds in float32 and cuts off, so where the true level is whole it may be one less."""
    batch = pictures(*size)
    for magnitude in range(10):
        factor = (1 + 2 * magnitude) / 10  # 0.1 to 1.9
        found = only(monkeypatch, operation, magnitude, batch).astype(int)
        enhanced, others = (
            by_pillow(lambda image, f=f: BLENDED[operation](image).enhance(f), batch).astype(int)
            for f in (factor, 0.0)
        )
        whole = (others * (9 - 2 * magnitude) + batch.astype(int) * (1 + 2 * magnitude)) % 10 == 0
        less = found - enhanced
        assert set(np.unique(less)) <= {0, 1}
        assert not less[~whole].any()


def linear_and_shift(operation, share, height, width):
    """Of the map to where a pixel comes from, about the middle: what the paper's table 6 allows."""
    angle = np.radians(30 * share)
    return {
        Op.SHEAR_X: ((1, 0.3 * share, 0, 1), (0, 0)),
        Op.SHEAR_Y: ((1, 0, 0.3 * share, 1), (0, 0)),
        Op.TRANSLATE_X: ((1, 0, 0, 1), (width * 150 / 331 * share, 0)),
        Op.TRANSLATE_Y: ((1, 0, 0, 1), (0, height * 150 / 331 * share)),
        Op.ROTATE: ((np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)), (0, 0)),
    }[operation]


@pytest.mark.parametrize("size", [*SIZES, (20, 331), (331, 20)], ids=str)  # 331: whole shifts
@pytest.mark.parametrize("operation", MOVES)
def test_moves_are_pillows(monkeypatch, operation, size):
    """All pixels, but those whose source is on the border of two pixels up to rounding.

    There, which of them is taken is decided by a rounding: ours, once, to 65536ths, or Pillow's,
    which adds up 65536ths as well or, for a shift, counts in floats.
    """
    batch = pictures(*size)
    height, width = size
    middle = np.array([width / 2, height / 2])
    y, x = np.mgrid[:height, :width] + 0.5
    for magnitude, negative in product(range(10), (False, True)):
        share = magnitude / 9 * (-1 if negative else 1)
        (a, b, d, e), shift = linear_and_shift(operation, share, *size)
        c, f = middle - np.array([[a, b], [d, e]]) @ middle + shift
        found = only(monkeypatch, operation, magnitude, batch, negative=negative)
        expected = by_pillow(
            lambda image, affine=(a, b, c, d, e, f): image.transform(
                image.size, Image.Transform.AFFINE, affine, fillcolor=(GREY,) * 3
            ),
            batch,
        )
        column, row = a * x + b * y + c, d * x + e * y + f
        border = np.minimum(abs(column - np.rint(column)), abs(row - np.rint(row)))
        sure = border > (height + width + 1) / 65536  # half of one for each coefficient, twice
        assert sure.mean() > 0.5
        np.testing.assert_array_equal(found[:, sure], expected[:, sure])


@pytest.mark.parametrize("magnitude", [1, 4, 9])
def test_a_rotation_is_counterclockwise_and_in_degrees(monkeypatch, magnitude):
    batch = pictures(32, 32)
    found = only(monkeypatch, Op.ROTATE, magnitude, batch)
    expected = by_pillow(lambda i: i.rotate(magnitude * 30 / 9, fillcolor=(GREY,) * 3), batch)
    assert (found != expected).mean() < 0.01  # borders, as above; a wrong way changes half


# The policy ---------------------------------------------------------------------------------------


def test_the_policy_has_the_papers_form():
    assert len(POLICIES["cifar10"]) == 25
    for pair in POLICIES["cifar10"]:
        assert len(pair) == 2
        for operation, tenths, magnitude in pair:
            assert operation in MOVES + LEVELS + BLENDS
            assert tenths in range(10)
            assert magnitude in range(10)


TABLE_7 = """
Invert 0.1 7        Contrast 0.2 6
Rotate 0.7 2        TranslateX 0.3 9
Sharpness 0.8 1     Sharpness 0.9 3
ShearY 0.5 8        TranslateY 0.7 9
AutoContrast 0.5 8  Equalize 0.9 2
ShearY 0.2 7        Posterize 0.3 7
Color 0.4 3         Brightness 0.6 7
Sharpness 0.3 9     Brightness 0.7 9
Equalize 0.6 5      Equalize 0.5 1
Contrast 0.6 7      Sharpness 0.6 5
Color 0.7 7         TranslateX 0.5 8
Equalize 0.3 7      AutoContrast 0.4 8
TranslateY 0.4 3    Sharpness 0.2 6
Brightness 0.9 6    Color 0.2 8
Solarize 0.5 2      Invert 0.0 3
Equalize 0.2 0      AutoContrast 0.6 0
Equalize 0.2 8      Equalize 0.6 4
Color 0.9 9         Equalize 0.6 6
AutoContrast 0.8 4  Solarize 0.2 8
Brightness 0.1 3    Color 0.7 0
Solarize 0.4 5      AutoContrast 0.9 3
TranslateY 0.9 9    TranslateY 0.7 9
AutoContrast 0.9 2  Solarize 0.8 3
Equalize 0.8 8      Invert 0.1 3
TranslateY 0.7 9    AutoContrast 0.9 1
"""  # of the paper: operation, probability, magnitude, twice; CIFAR-10's 25 sub-policies, 0 to 24


def test_the_policy_of_cifar10_is_the_papers_table():
    rows = [row.split() for row in TABLE_7.strip().splitlines()]
    expected = [((o1, p1, m1), (o2, p2, m2)) for o1, p1, m1, o2, p2, m2 in rows]

    def as_printed(operation, tenths, magnitude):
        return Op(operation).name.replace("_", ""), str(tenths / 10), str(magnitude)

    found = [tuple(as_printed(*step) for step in pair) for pair in POLICIES["cifar10"]]
    assert found == [tuple((o.upper(), p, m) for o, p, m in pair) for pair in expected]


def shares(condition):
    """How often, and five standard deviations of a coin that is tossed as often."""
    return np.mean(condition), 5 * np.sqrt(0.25 / len(condition))


def test_operations_happen_as_often_as_the_policy_says():
    bits = draws(3, Stream.AUTO, 1, np.arange(40_000))
    drawn = list(autoaugment._drawn(bits, "cifar10"))
    steps = autoaugment.policy(bits, "cifar10")
    for step, (operation, strength) in enumerate(drawn):
        expected = {}
        for which, tenths, number in steps[:, step].tolist():
            key = which, number
            expected[key] = expected.get(key, 0) + tenths / 10 / len(steps)
        for (which, number), probability in expected.items():
            share, within = shares((operation == which) & (abs(strength) == number))
            assert abs(share - probability) < 2 * within * np.sqrt(probability) + 1e-9
        moved = (operation <= Op.ROTATE) & (strength != 0)
        share, within = shares(strength[moved] < 0)
        assert abs(share - 0.5) < within
        assert (strength[(operation > Op.ROTATE) & (operation != Op.NOTHING)] >= 0).all()
    (first, way), (second, way_back) = drawn
    share, within = shares((first != Op.NOTHING) & (second != Op.NOTHING))
    assert abs(share - (steps[:, 0, 1] * steps[:, 1, 1]).mean() / 100) < within
    both = (first <= Op.ROTATE) & (second <= Op.ROTATE)
    share, within = shares((way < 0)[both] == (way_back < 0)[both])
    assert abs(share - 0.5) < within


def test_two_operations_follow_one_another(monkeypatch):
    batch = pictures(32, 32)
    twice = (((Op.SOLARIZE, 10, 5), (Op.COLOR, 10, 0)),)
    monkeypatch.setitem(POLICIES, "two", twice)
    found = auto_augment(batch, draws(0, Stream.AUTO, 0, np.arange(len(batch))), "two")
    first = only(monkeypatch, Op.SOLARIZE, 5, batch)
    np.testing.assert_array_equal(found, only(monkeypatch, Op.COLOR, 0, first))


# As an option of Augment --------------------------------------------------------------------------

AUTO = Augment(auto_augment="cifar10")
PLACE = {"epoch": 2, "seed": 7, "num_classes": 5}


def augmented(augment, images, labels=None, indices=None):
    indices = np.arange(len(images)) if indices is None else indices
    labels = np.arange(len(images)) % 5 if labels is None else labels
    return augment(images, labels, indices, **PLACE)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_an_image_does_not_depend_on_its_batch(size):
    images = np.concatenate([pictures(*size)] * 3)
    batch, _ = augmented(AUTO, images)
    assert (batch.shape, batch.dtype) == (images.shape, np.uint8)
    for i in range(len(images)):
        alone, _ = augmented(AUTO, images, indices=np.array([i]))
        np.testing.assert_array_equal(alone[0], batch[i])


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_all_devices_agree_to_the_last_bit(device, size):
    images = np.concatenate([pictures(*size)] * 3)
    for labels in (np.arange(len(images)), images[..., 0].copy()):
        expected = augmented(AUTO, images, labels)
        found = augmented(AUTO, device.asarray(images), device.asarray(labels))
        for ours, theirs in zip(expected, found, strict=True):
            assert array_module(theirs) is device
            np.testing.assert_array_equal(ours, to_numpy(theirs))


def test_it_comes_after_crop_and_flip():
    images = np.concatenate([pictures(32, 32)] * 3)
    before = Augment(crop_padding=4, padding="zero", flip="random")
    found, _ = augmented(replace(before, auto_augment="cifar10"), images)
    cropped, _ = augmented(before, images)
    words = draws(PLACE["seed"], Stream.AUTO, PLACE["epoch"], np.arange(len(images)))
    np.testing.assert_array_equal(found, auto_augment(cropped, words, "cifar10"))


def test_it_comes_before_holes_which_stay_where_they_are():
    images = np.concatenate([pictures(32, 32)] * 3)
    with_holes = Augment(cutout=9, random_erasing=0.5)
    plain, _ = augmented(AUTO, images)
    found, _ = augmented(replace(with_holes, auto_augment="cifar10"), images)
    one, other = (augmented(with_holes, np.full_like(images, level))[0] for level in (10, 20))
    hole = (one == other).all(-1)
    np.testing.assert_array_equal(found[hole], one[hole])
    np.testing.assert_array_equal(found[~hole], plain[~hole])


def test_mixing_draws_the_same_partners_and_shares():
    images = np.concatenate([pictures(32, 32)] * 3)
    for mixing in (Augment(mixup=1.0), Augment(cutmix=1.0)):
        _, expected = augmented(mixing, images)
        _, found = augmented(replace(mixing, auto_augment="cifar10"), images)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("operation", MOVES + LEVELS + BLENDS)
def test_the_classes_of_pixels_go_where_their_pixels_go(monkeypatch, operation):
    """An image whose colour is its pixels' class tells where each came from."""
    labels = np.random.default_rng(0).integers(0, 100, (50, 12, 9)).astype(np.uint8)
    images = np.repeat(labels[..., None], 3, -1)
    pairs = tuple(((operation, 10, m), (Op.INVERT, 0, 0)) for m in range(10))
    add_policy(monkeypatch, f"any {operation.name}", pairs)
    augment = Augment(auto_augment=f"any {operation.name}")
    batch, targets = augmented(augment, images, labels)
    assert (targets.shape, targets.dtype) == (labels.shape, np.uint8)
    if operation in MOVES:
        beyond = batch[..., 0] == GREY
        np.testing.assert_array_equal(targets[~beyond], batch[..., 0][~beyond])
        assert (targets[beyond] == IGNORED).all()
        assert 0.02 < beyond.mean() < 0.5
    else:
        np.testing.assert_array_equal(targets, labels)
