"""Where crops, holes and boxes lie: each place as often as its law says, each drawn for itself.

Pictures tell what was done to them: the colour of a pixel is the row and the column that it comes
from, or the number of its image. Frequencies are compared with exact probabilities, computed here
by loops over all places. Height and width differ, so that one cannot be taken for the other.

A frequency over n draws has a standard deviation of √(p (1 - p) / n), and chi-squared with k
degrees of freedom a mean of k and one of √(2k). Five of them are allowed: among the thousand or so
comparisons made here, chance passes that limit once in two thousand runs, and these runs are fixed.
"""

from itertools import combinations

import numpy as np
import pytest

from tinymixer.data.augment import Augment, _beta_steps
from tinymixer.data.autoaugment import GREY
from tinymixer.data.draws import Stream, draws

N, H, W = 20_000, 7, 11
LABELS = np.zeros(N, int)


def places(height=H, width=W):
    """N pictures: red is the row, green the column, and blue says nothing."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([y, x, np.zeros_like(y)], -1).astype(np.uint8)
    return np.broadcast_to(picture, (N, height, width, 3))


def numbered():
    """N pictures, each of a colour of its own: its number in two bytes."""
    number = np.arange(N)
    colour = np.stack([number & 255, number >> 8, np.zeros_like(number)], -1).astype(np.uint8)
    return np.broadcast_to(colour[:, None, None], (N, H, W, 3))


def run(augment, images, labels=LABELS, epoch=3, seed=5):
    batch, _ = augment(images, labels, np.arange(N), epoch=epoch, seed=seed, num_classes=2)
    return batch


def assert_frequencies(counts, probabilities, n=N):
    """Each of several counts, of n draws, is what its probability says."""
    p = np.asarray(probabilities)
    assert np.shape(counts) == p.shape
    spread = np.sqrt(n * p * (1 - p))
    worst = np.abs(counts - n * p) - 5 * spread
    assert worst.max() <= 1e-9, f"{np.unravel_index(worst.argmax(), p.shape)} is off"


def assert_uniform(numbers, k):
    """Numbers 0..k-1, all equally often."""
    assert numbers.min() >= 0
    counts = np.bincount(numbers, minlength=k)
    assert len(counts) == k
    chi2 = ((counts - len(numbers) / k) ** 2).sum() * k / len(numbers)
    assert abs(chi2 - (k - 1)) < 5 * np.sqrt(2 * (k - 1))


def assert_independent(a, b):
    """The table of how often each a meets each b is what their own frequencies give."""
    a, b = (np.unique(x, return_inverse=True)[1] for x in (a, b))
    table = np.bincount(a * (b.max() + 1) + b, minlength=(a.max() + 1) * (b.max() + 1))
    table = table.reshape(a.max() + 1, -1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / len(a)
    degrees = (table.shape[0] - 1) * (table.shape[1] - 1)
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert degrees > 0
    assert abs(chi2 - degrees) < 5 * np.sqrt(2 * degrees)


def covers(centres, side, before):
    """How likely each of `centres` pixels of a line lies under a piece of it.

    Any pixel is its centre, all alike; `before` of its `side` pixels lie before the centre.
    """
    chance = np.zeros(centres)
    for centre in range(centres):
        first = centre - before
        chance[max(0, first) : max(0, first + side)] += 1 / centres
    return chance


def test_every_crop_is_equally_likely_and_its_row_tells_nothing_of_its_column():
    batch = run(Augment(crop_padding=2), places())
    row, column = batch[:, 3, 5, 0] - 3.0 + 2, batch[:, 3, 5, 1] - 5.0 + 2  # each 0..4
    assert_uniform((5 * row + column).astype(int), 25)


@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_half_of_the_images_are_flipped_wherever_they_are_cropped(flip):
    batch = run(Augment(crop_padding=2, flip=flip), places())
    flipped = batch[:, 3, 4, 1] > batch[:, 3, 5, 1]
    assert_uniform(flipped.astype(int), 2)
    row = batch[:, 3, 5, 0]
    assert_independent(flipped, row)
    shift = batch[:, 3, 5, 1] - np.where(flipped, W - 1 - 5, 5)
    assert set(np.unique(shift.astype(np.int8))) == set(range(-2, 3))
    assert_independent(flipped, shift)
    assert_independent(flipped[1:], flipped[:-1])


@pytest.mark.parametrize("side", [1, 4, 5])
def test_a_hole_is_centred_on_any_pixel(side):
    grey = run(Augment(cutout=side), np.zeros((N, H, W, 3), np.uint8)).all(-1)
    chance = np.outer(covers(H, side, side // 2), covers(W, side, side // 2))
    assert_frequencies(grey.sum(0), chance)


def rectangles(height, width):
    """Of 2 to 33 % of an image, and at most 3.3 times as long as wide."""
    return [
        (h, w)
        for h in range(1, height + 1)
        for w in range(1, width + 1)
        if 0.02 <= h * w / (height * width) <= 0.33 and max(h / w, w / h) <= 3.3
    ]


def test_what_is_erased_is_any_rectangle_anywhere_inside_the_image():
    holes = run(Augment(random_erasing=0.75), np.full((N, H, W, 3), 7, np.uint8)) != 7
    holes = holes.any(-1)  # noise is 7 in all three colours once in 2**24 pixels
    sides = rectangles(H, W)
    chance = np.zeros((H, W))
    for h, w in sides:
        for top in range(H - h + 1):
            for left in range(W - w + 1):
                share = 1 / len(sides) / (H - h + 1) / (W - w + 1)
                chance[top : top + h, left : left + w] += 0.75 * share
    assert_frequencies(holes.sum(0), chance)
    erased = holes[holes.any((1, 2))]
    height, width = erased.any(2).sum(1), erased.any(1).sum(1)
    which = {side: i for i, side in enumerate(sides)}
    assert_uniform(np.array([which[side] for side in zip(height, width, strict=True)]), len(sides))
    assert_independent(erased.any(2).argmax(1)[height == 2], erased.any(1).argmax(1)[height == 2])
    assert_independent(holes.any((1, 2))[1:], holes.any((1, 2))[:-1])


def test_noise_is_fresh_for_every_image():
    batch = run(Augment(random_erasing=1.0), np.zeros((N, H, W, 3), np.uint8))
    a, b = batch[:-1].astype(float), batch[1:].astype(float)
    both = (a > 0) & (b > 0)
    assert abs(np.corrcoef(a[both], b[both])[0, 1]) < 5 / np.sqrt(both.sum())


def shares(alpha):
    """How likely an image keeps k 256ths of itself, k = 0..256."""
    steps = _beta_steps(np.zeros(1), alpha) / 2**32
    return np.diff(steps, prepend=0.0, append=1.0)


def test_a_box_is_centred_on_any_pixel_and_as_large_as_the_share_says():
    batch = run(Augment(cutmix=1.0, mix_probability=0.5), numbered())
    number = batch[..., 0] + 256 * batch[..., 1].astype(int)
    own = np.arange(N)[:, None, None]
    boxes = number != own
    chance = np.zeros((H, W))
    for k, likely in enumerate(shares(1.0)):
        h, w = (round(float(side * np.sqrt(1 - k / 256))) for side in (H, W))
        chance += likely * np.outer(covers(H, h, h // 2), covers(W, w, w // 2))
    assert_frequencies(boxes.sum(0), 0.5 * chance)
    mixed = boxes.any((1, 2))
    assert_independent(mixed[1:], mixed[:-1])
    some = boxes[mixed]
    height, width = some.any(2).sum(1), some.any(1).sum(1)
    small = (height <= 3) & (width <= 3)  # most of these lie inside, wherever their centres are
    top, left = some.any(2).argmax(1), some.any(1).argmax(1)
    assert_independent(top[small], left[small])


def test_shares_of_mixup_follow_their_law_also_beside_cutmix():
    """Black images mixed with white ones: their level tells their share, if it is one for all."""
    colour = np.where(np.arange(N) % 2, 255, 0).astype(np.uint8)
    images = np.broadcast_to(colour[:, None, None, None], (N, 2, 3, 3))
    batch = run(Augment(mixup=1.0, cutmix=1.0, mix_probability=0.5), images)[colour == 0]
    level = batch[:, 0, 0, 0].astype(int)
    level = level[(batch == batch[:, :1, :1]).all((1, 2, 3)) & (level > 0) & (level < 255)]
    levels = ((256 - np.arange(257)) * 255 + 128) >> 8
    likely = np.where((levels > 0) & (levels < 255), shares(1.0), 0.0)
    chance = np.bincount(levels // 51, likely, minlength=6)[:5] / likely.sum()
    assert len(level) > N / 2 * 0.5 * 0.5 * 0.5 * 0.9  # mixed, by mixup, with a white one
    assert_frequencies(np.bincount(level // 51, minlength=5), chance, len(level))


def test_partners_are_any_images_and_tell_nothing_of_the_box():
    batch = run(Augment(cutmix=1.0), numbered())
    number = batch[..., 0] + 256 * batch[..., 1].astype(int)
    boxes = number != np.arange(N)[:, None, None]
    mixed = boxes.any((1, 2))
    partner = np.where(boxes, number, 0).max((1, 2))[mixed]
    tenth = partner * 10 // N
    assert_uniform(tenth, 10)
    assert_independent(tenth, np.flatnonzero(mixed) * 10 // N)
    assert_independent(tenth[1:], tenth[:-1])
    assert_independent(tenth, boxes[mixed][:, 3, 5])


DECISIONS = {
    "flip": (Augment(flip="random"), lambda b: b[:, 3, 4, 1] > b[:, 3, 5, 1]),
    "crop, row": (Augment(crop_padding=2), lambda b: b[:, 3, 5, 0]),
    "crop, column": (Augment(crop_padding=2), lambda b: b[:, 3, 5, 1]),
    "cutout, row": (Augment(cutout=1), lambda b: (b == GREY).any((2, 3)).argmax(1)),
    "cutout, column": (Augment(cutout=1), lambda b: (b == GREY).any((1, 3)).argmax(1)),
    "erasing, whether": (Augment(random_erasing=0.5), lambda b: (b[..., 2] > 0).any((1, 2))),
    "erasing, row": (Augment(random_erasing=1.0), lambda b: (b[..., 2] > 0).any(2).argmax(1)),
}
PAIRS = list(combinations(DECISIONS, 2))
PAIRS.remove(("erasing, whether", "erasing, row"))  # the same words, at two probabilities


@pytest.fixture(scope="module")
def decided():
    return {name: read(run(augment, places())) for name, (augment, read) in DECISIONS.items()}


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=map(" and ".join, PAIRS))
def test_no_decision_is_tied_to_another(decided, one, other):
    assert_independent(decided[one], decided[other])


@pytest.mark.parametrize("name", DECISIONS)
def test_no_decision_is_tied_to_its_neighbours_or_to_the_epoch_before(decided, name):
    augment, read = DECISIONS[name]
    assert_independent(decided[name][1:], decided[name][:-1])
    assert_independent(decided[name], read(run(augment, places(), epoch=2)))
    assert_independent(decided[name], read(run(augment, places(), seed=4)))


STREAMS = [
    ({"crop_padding": 2}, {Stream.CROP}),
    ({"flip": "random"}, {Stream.FLIP}),
    ({"flip": "alternating"}, {Stream.FLIP}),
    ({"auto_augment": "cifar10"}, {Stream.AUTO}),
    ({"cutout": 3}, {Stream.CUTOUT}),
    ({"random_erasing": 0.5}, {Stream.ERASE, Stream.ERASE_FILL}),
    ({"mixup": 0.5}, {Stream.MIX, Stream.MIX_BOX}),
    ({"cutmix": 0.5}, {Stream.MIX, Stream.MIX_BOX}),
]


@pytest.mark.parametrize(("options", "streams"), STREAMS)
def test_every_word_is_of_this_image_epoch_and_seed_and_of_a_stream_of_its_own(options, streams):
    asked, indices = [], np.array([2, 0, 3, 1])

    class Asking(Augment):
        @staticmethod
        def _draws(seed, stream, epoch, index):
            asked.append((seed, stream, epoch))
            assert stream == Stream.ERASE_FILL or np.array_equal(index, indices)
            return draws(seed, stream, epoch, index)

    images = np.zeros((4, H, W, 3), np.uint8)
    Asking(**options)(images, LABELS[:4], indices, epoch=3, seed=5, num_classes=2)
    expected = 0 if options.get("flip") == "alternating" else 3  # its coin is tossed once for all
    assert {(seed, epoch) for seed, _, epoch in asked} == {(5, expected)}
    assert {stream for _, stream, _ in asked} == streams
