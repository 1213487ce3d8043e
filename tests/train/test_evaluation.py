"""What a model answers to images, by models that are known whole and treat no two things alike.

Colours, classes, rows and columns each have another weight, so that mean and standard deviation,
true and predicted, or height and width cannot be taken for one another unseen.
"""

import numpy as np
import pytest

from tinymixer import data, nn
from tinymixer.engine import Tensor
from tinymixer.train import evaluation
from tinymixer.train.evaluation import log_probabilities, measure, segments
from tinymixer.train.parallel import Workers
from tinymixer.train.tasks import TASKS

MEAN, STD = (20.0, 130.0, 75.0), (11.0, 3.0, 29.0)
N, H, W, K = 11, 3, 5, 4
WEIGHTS = np.array([[0.3, -0.2, 0.5, 0.1], [0.0, 0.03, -0.02, 0.01], [-0.7, 0.4, 0.2, -0.1]])


class OfColours(nn.Module):
    """The mean of the normalised pixels, each colour with its weight for each class."""

    def __init__(self):
        self.head = nn.ChannelLinear(3, K, rng=np.random.default_rng(0))
        self.head.W.data = WEIGHTS.astype(np.float32)

    def forward(self, images, rng=None):
        return self.head(Tensor(images.mean((1, 2))))


class OfPlaces(nn.Module):
    """Each pixel by itself; its row speaks for class 1 and its column for class 3."""

    def __init__(self):
        self.head = nn.ChannelLinear(3, K, rng=np.random.default_rng(0))
        self.head.W.data = WEIGHTS.astype(np.float32)

    def forward(self, images, rng=None):
        _, height, width, _ = images.shape
        place = np.zeros((height, width, 1, K), np.float32)
        place[..., 1] = 2.0 * np.arange(height)[:, None, None]
        place[..., 3] = 1.3 * np.arange(width)[:, None]
        return self.head(Tensor(images.transpose(1, 2, 0, 3))) + place


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (N, H, W, 3)).astype(np.uint8)


def softmax_by_hand(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dataset(images, labels):
    names = tuple("abcd")
    return data.Dataset("own", images, labels, images, labels, names, MEAN, STD)


def probabilities(images):
    """(N, K), in float64 and one number after the other."""
    x = (images.astype(np.float64) - MEAN) / STD
    return softmax_by_hand(x.mean((1, 2)) @ WEIGHTS)


def probabilities_of_pixels(images):
    """(N, H, W, K), likewise."""
    logits = (images.astype(np.float64) - MEAN) / STD @ WEIGHTS
    for row in range(H):
        for column in range(W):
            logits[:, row, column, 1] += 2.0 * row
            logits[:, row, column, 3] += 1.3 * column
    return softmax_by_hand(logits)


@pytest.mark.parametrize("workers", [1, 2])
def test_log_probabilities_are_those_of_the_normalised_images_in_their_order(
    images, monkeypatch, workers
):
    monkeypatch.setitem(evaluation.EVAL_BATCH, "cpu", 4)  # the last batch holds three
    with Workers(workers) as pool:
        found = log_probabilities(OfColours(), images, MEAN, STD, pool)
    # Float32 logits of up to about 30: a few roundings of 2e-6 each.
    np.testing.assert_allclose(np.exp(found), probabilities(images), rtol=0, atol=2e-5)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=0, atol=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
def test_loss_and_confusions_are_counted_image_by_image(images, rng, monkeypatch, workers):
    monkeypatch.setitem(evaluation.EVAL_BATCH, "cpu", 4)
    labels = rng.integers(0, K, N)
    p = probabilities(images)
    expected = np.zeros((K, K), int)
    for label, row in zip(labels, p, strict=True):
        expected[label, row.argmax()] += 1
    assert (expected != expected.T).any()
    with Workers(workers) as pool:
        loss, matrix = measure(TASKS["classify"], OfColours(), dataset(images, labels), pool)
    np.testing.assert_array_equal(matrix, expected)
    assert loss == pytest.approx(-np.log(p[np.arange(N), labels]).mean(), rel=1e-5)


def test_only_test_images_are_measured(images):
    labels = np.arange(N) % K
    other = data.Dataset(
        "own", images[:2], labels[:2], images[2:], labels[2:], tuple("abcd"), MEAN, STD
    )
    with Workers(1) as pool:
        found = measure(TASKS["classify"], OfColours(), other, pool)
        expected = measure(TASKS["classify"], OfColours(), dataset(images[2:], labels[2:]), pool)
    assert found[0] == expected[0]
    assert found[1].sum() == N - 2
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_map_of_segments_lies_as_its_image_does(images):
    found = segments(OfPlaces(), images, MEAN, STD)
    assert found.shape == (N, H, W)
    np.testing.assert_array_equal(found, probabilities_of_pixels(images).argmax(-1))


def test_confusions_of_pixels_are_counted_pixel_by_pixel(images, rng, monkeypatch):
    monkeypatch.setitem(evaluation.EVAL_BATCH, "cpu", 4)
    labels = rng.integers(0, K, (N, H, W)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = data.IGNORED
    p = probabilities_of_pixels(images)
    expected, losses = np.zeros((K, K), int), []
    for place in zip(*np.nonzero(labels != data.IGNORED), strict=True):
        expected[labels[place], p[place].argmax()] += 1
        losses.append(-np.log(p[place][labels[place]]))
    with Workers(1) as pool:
        loss, matrix = measure(TASKS["segment"], OfPlaces(), dataset(images, labels), pool)
    np.testing.assert_array_equal(matrix, expected)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)


class OfSides(OfColours):
    """As OfColours, but what is on the left counts more: a mirror image is another image."""

    def forward(self, images, rng=None):
        weights = np.linspace(2, 0, W, dtype=np.float32)[:, None]
        return self.head(Tensor((images * weights).mean((1, 2))))


def test_a_flip_takes_the_mean_of_the_probabilities_of_an_image_and_its_mirror_image(images):
    with Workers(1) as workers:
        alone, mirrored, both = (
            np.exp(log_probabilities(OfSides(), x, MEAN, STD, workers, tta))
            for x, tta in ((images, "none"), (images[:, :, ::-1], "none"), (images, "flip"))
        )
        assert abs(alone - mirrored).max() > 0.01
        np.testing.assert_allclose(both, (alone + mirrored) / 2, rtol=1e-5)
        labels = np.arange(N) % K
        loss, matrix = measure(
            TASKS["classify"], OfSides(), dataset(images, labels), workers, "flip"
        )
    assert matrix.trace() == (both.argmax(1) == labels).sum()
    np.testing.assert_allclose(loss, -np.log(both[np.arange(N), labels]).mean(), rtol=1e-5)


def test_of_pixels_the_mirrored_map_is_mirrored_back(images):
    model = OfPlaces()
    expected = (
        probabilities_of_pixels(images) + probabilities_of_pixels(images[:, :, ::-1])[:, :, ::-1]
    )
    found = segments(model, images, MEAN, STD, "flip")
    np.testing.assert_array_equal(found, expected.argmax(-1))
    assert (found != segments(model, images, MEAN, STD)).any()
