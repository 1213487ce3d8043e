"""Augmentation: each option does what it says, and an image's fate is its own."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tinymixer.backend import array_module, to_numpy
from tinymixer.data.augment import IGNORED, Augment, _beta, _beta_steps, _reflect, normalise
from tinymixer.data.draws import Stream, draws
from tinymixer.errors import TinymixerError

N, K = 40, 7
EVERYTHING = Augment(
    crop_padding=4, flip="random", cutout=8, random_erasing=0.5, mixup=0.4, cutmix=1.0
)
EACH = [
    Augment(),
    Augment(crop_padding=4),
    Augment(crop_padding=4, padding="zero"),
    Augment(flip="random"),
    Augment(flip="alternating"),
    Augment(auto_augment="cifar10"),
    Augment(cutout=8),
    Augment(random_erasing=0.5),
    Augment(mixup=0.4),
    Augment(cutmix=1.0),
    EVERYTHING,
]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 32, 32, 3), np.uint8)
    labels = rng.integers(0, K, N)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def run(augment, data, indices, epoch=1, seed=5):
    return augment(*data, np.asarray(indices), epoch=epoch, seed=seed, num_classes=K)


@pytest.mark.parametrize("augment", EACH)
def test_an_image_does_not_depend_on_its_batch(augment, data):
    batch, targets = run(augment, data, [3, 1, 17, 30, 3])
    for row, i in enumerate([3, 1, 17, 30, 3]):
        alone, target = run(augment, data, [i])
        np.testing.assert_array_equal(batch[row], alone[0])
        np.testing.assert_array_equal(targets[row], target[0])


@pytest.mark.parametrize("augment", EACH)
def test_shapes_and_dtypes(augment, data):
    batch, targets = run(augment, data, range(6))
    assert (batch.shape, batch.dtype) == ((6, 32, 32, 3), np.uint8)
    if augment.mixes:
        assert (targets.shape, targets.dtype) == ((6, K), np.float32)
        np.testing.assert_allclose(targets.sum(1), 1, rtol=0, atol=2e-7)  # two roundings
    else:
        np.testing.assert_array_equal(targets, data[1][:6])


@pytest.mark.parametrize("augment", [a for a in EACH if a not in (Augment(), EACH[4])])
def test_epoch_and_seed_matter(augment, data):
    base, _ = run(augment, data, range(20))
    for other in (run(augment, data, range(20), epoch=2), run(augment, data, range(20), seed=6)):
        assert not np.array_equal(base, other[0])


def test_nothing_is_the_default(data):
    batch, _ = run(Augment(), data, range(N))
    np.testing.assert_array_equal(batch, data[0])


@pytest.mark.parametrize(("padding", "mode"), [("reflect", "reflect"), ("zero", "constant")])
def test_crop_is_a_window_of_the_padded_image(data, padding, mode):
    images, _ = data
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode=mode)
    batch, _ = run(Augment(crop_padding=3, padding=padding), data, range(N))
    offsets = set()
    for i in range(N):
        windows = {(y, x): padded[i, y : y + 32, x : x + 32] for y in range(7) for x in range(7)}
        match = [offset for offset, window in windows.items() if np.array_equal(window, batch[i])]
        assert len(match) == 1
        offsets.add(match[0])
    assert {y for y, _ in offsets} == {x for _, x in offsets} == set(range(7))
    assert len(offsets) > 20  # of 49 by 40 images: 27 on average


@pytest.mark.parametrize("n", [1, 2, 3, 8, 32])
def test_a_padding_wider_than_the_image_is_mirrored_to_and_fro(n):
    i = np.arange(-70, 70)
    expected = np.pad(np.arange(n), (70, 70 - n), mode="reflect" if n > 1 else "edge")
    np.testing.assert_array_equal(_reflect(i, n), expected)


def test_flip_mirrors_half_of_the_images(data):
    batch, _ = run(Augment(flip="random"), data, range(N))
    mirrored = [np.array_equal(batch[i], data[0][i, :, ::-1]) for i in range(N)]
    straight = [np.array_equal(batch[i], data[0][i]) for i in range(N)]
    assert all(np.logical_xor(mirrored, straight))
    assert 8 < sum(mirrored) < 32  # binomial: 20 +- 3.2


def test_alternating_flip_shows_both_sides_in_any_two_epochs(data):
    augment = Augment(flip="alternating")
    first, second, third = (run(augment, data, range(N), epoch=e)[0] for e in (0, 1, 2))
    np.testing.assert_array_equal(second, first[:, :, ::-1])
    np.testing.assert_array_equal(third, first)
    assert 8 < sum(np.array_equal(first[i], data[0][i]) for i in range(N)) < 32


def test_cutout_greys_one_square(data):
    black = (np.zeros_like(data[0]), data[1])
    batch, _ = run(Augment(cutout=8), black, range(N))
    for image in batch:
        rows, columns = (np.flatnonzero(image[..., 0].any(axis)) for axis in (1, 0))
        assert max(len(rows), len(columns)) <= 8
        assert (image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 128).all()
        assert image[..., 0].astype(bool).sum() == len(rows) * len(columns)
    assert (batch[..., 0] > 0).sum((1, 2)).max() == 64


def test_random_erasing_replaces_one_rectangle_in_a_share_of_the_images(data):
    indices = np.arange(400) % N
    black = (np.zeros((400, 32, 32, 3), np.uint8), np.zeros(400, int))
    batch, _ = run(Augment(random_erasing=0.25), black, range(len(indices)))
    holes = batch.any(-1)
    erased = holes.any((1, 2))
    assert abs(erased.sum() - 100) < 5 * np.sqrt(400 * 0.25 * 0.75)
    area = holes[erased].mean((1, 2))
    assert area.min() > 0.015
    assert area.max() < 0.34
    assert batch[holes].std() > 60  # uniform bytes: 73.9


def test_mixup_is_the_stated_sum(data):
    """Every image and every target is the same convex combination of itself and one other."""
    images = data[0].astype(np.float64)
    batch, targets = run(Augment(mixup=1.0), (data[0], np.arange(N) % K), range(N))
    shares = []
    for i in range(N):
        error = []
        for j in range(N):  # least squares for the partner's share
            step = images[j] - images[i]
            share = (step * (batch[i] - images[i])).sum() / max((step**2).sum(), 1)
            error.append((abs(images[i] + share * step - batch[i]).max(), share, j))
        worst, share, j = min(error)
        assert worst < 1  # rounded to whole pixels, with a share estimated from them
        expected = np.zeros(K)
        expected[i % K] += 1 - share
        expected[j % K] += share
        np.testing.assert_allclose(targets[i], expected, atol=2e-3)
        shares.append(share)
    assert np.std(shares) > 0.15  # uniform: 0.29


def test_cutmix_pastes_a_rectangle_and_counts_it(data):
    plain = np.broadcast_to(np.arange(K, dtype=np.uint8)[:, None, None, None], (K, 32, 32, 3))
    batch, targets = run(Augment(cutmix=1.0), (plain.copy(), np.arange(K)), range(K))
    for i in range(K):
        shares = np.bincount(batch[i, ..., 0].ravel(), minlength=K) / 1024
        np.testing.assert_array_equal(targets[i], shares.astype(np.float32))
        other = batch[i, ..., 0] != i
        assert other.sum() == other.any(0).sum() * other.any(1).sum()
    assert (targets.max(1) < 1).sum() > 2


def test_partners_are_augmented_as_they_are_themselves(data):
    alone = Augment(crop_padding=4, flip="random", cutout=8)
    images, labels = data[0], np.arange(N)
    places = {"epoch": 2, "seed": 1, "num_classes": N}
    views, _ = alone(images, labels, labels, **places)
    batch, targets = replace(alone, cutmix=1.0)(images, labels, labels, **places)
    for i in range(N):
        partner = np.delete(targets[i], i).argmax()
        partner += partner >= i
        own, other = batch[i] == views[i], batch[i] == views[partner]
        assert (own.all(-1) | other.all(-1)).all()
    assert (targets.max(1) < 1).sum() > N / 2


def test_mix_probability_and_choice():
    n = 2000
    images = np.broadcast_to(np.arange(n).reshape(-1, 1, 1, 1) % 250, (n, 4, 4, 3)).astype(np.uint8)
    augment = Augment(mixup=8.0, cutmix=8.0, mix_probability=0.5)
    batch, targets = augment(images, np.arange(n), np.arange(n), epoch=0, seed=0, num_classes=n)
    mixed = targets.max(1) < 1
    one_colour = (batch == batch[:, :1, :1]).all((1, 2, 3))
    # Half are mixed; of these, half by CutMix, which alone leaves two colours in an image.
    assert abs(mixed.mean() - 0.5) < 5 * np.sqrt(0.25 / n)
    assert abs((~one_colour).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / n)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_beta_has_the_moments_of_its_distribution(alpha):
    n = 40_000
    x = _beta(alpha, draws(0, Stream.MIX, 0, np.arange(n // 4)).ravel()) / 256
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(x.mean() - 0.5) < 5 * np.sqrt(variance / n)
    # Kurtosis below 3, so the variance of a sample has a relative s.d. below sqrt(2 / n).
    assert abs(x.var() / variance - 1) < 5 * np.sqrt(2 / n) + 2e-3  # and the grid of 256ths
    assert x.min() >= 0
    assert x.max() <= 1


def test_inputs_are_left_alone_and_nothing_global_is_used(data):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    run(EVERYTHING, data, range(N))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("augment", EACH)
def test_all_devices_agree_to_the_last_bit(augment, data, device):
    there = device.asarray(data[0]), device.asarray(data[1])
    for ours, theirs in zip(
        run(augment, data, range(N)), run(augment, there, range(N)), strict=True
    ):
        assert array_module(theirs) is device
        np.testing.assert_array_equal(ours, to_numpy(theirs))


@pytest.mark.parametrize(
    "option",
    [
        {"crop_padding": -1},
        {"crop_padding": 32},
        {"crop_padding": 1.5},
        {"padding": "mirror"},
        {"flip": "vertical"},
        {"auto_augment": "imagenet"},
        {"cutout": -3},
        {"random_erasing": 1.5},
        {"mixup": -0.1},
        {"mixup": 1e-310},
        {"cutmix": 1e-4},
        {"cutmix": float("nan")},
        {"mix_probability": -1},
    ],
)
def test_options_out_of_range_are_refused_by_name(option):
    with pytest.raises(TinymixerError, match=f"{next(iter(option))}=.*expected"):
        Augment(**option)


def arcsine_law(x):
    return 2 / np.pi * np.arcsin(np.sqrt(x))


def binomial_tail(alpha):
    """The distribution function of Beta(alpha, alpha) for a whole alpha."""
    n = 2 * alpha - 1
    return lambda x: sum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(alpha, n + 1))


@pytest.mark.parametrize(
    ("alpha", "distribution"),
    [
        (0.001, lambda x: 0.5 + 0.0005 * np.log(x / (1 - x))),  # but for terms in alpha squared
        (0.5, arcsine_law),
        *((alpha, binomial_tail(alpha)) for alpha in (1, 2, 8, 32)),
    ],
)
def test_shares_of_mixing_follow_the_beta_law(alpha, distribution):
    steps = _beta_steps(np.zeros(1), alpha) / 2**32
    np.testing.assert_allclose(steps, distribution((np.arange(256) + 0.5) / 256), atol=2e-5)


def test_normalise(device):
    images = device.asarray(np.array([[0, 100, 255], [10, 90, 3]], np.uint8))
    y = normalise(images, (10, 100, 5), (2, 4, 50))
    assert y.dtype == np.float32
    np.testing.assert_allclose(to_numpy(y), [[-5, 0, 5], [0, -2.5, -0.04]], atol=1e-6)


@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("flip", ["none", "random", "alternating"])
@pytest.mark.parametrize("crop_padding", [0, 3])
def test_the_classes_of_pixels_go_where_their_pixels_go(padding, flip, crop_padding):
    """An image whose colour is its pixels' class, and never black, tells where each came from."""
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 255, (7, 12, 9)).astype(np.uint8)
    images = np.repeat(labels[..., None], 3, -1)
    augment = Augment(crop_padding=crop_padding, padding=padding, flip=flip)
    batch, targets = augment(
        images, labels, np.array([6, 2, 2, 0]), epoch=1, seed=5, num_classes=255
    )
    assert (targets.shape, targets.dtype) == ((4, 12, 9), np.uint8)
    black = batch[..., 0] == 0
    np.testing.assert_array_equal(targets[~black], batch[..., 0][~black])
    assert (targets[black] == IGNORED).all()
    assert black.any() == (crop_padding > 0 and padding == "zero")


def test_behind_a_hole_a_pixel_keeps_its_class():
    labels = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    images = np.repeat(labels[..., None], 3, -1)
    _, targets = Augment(cutout=4, random_erasing=1.0)(
        images, labels, np.array([1, 0]), epoch=0, seed=0, num_classes=128
    )
    np.testing.assert_array_equal(targets, labels[[1, 0]])
