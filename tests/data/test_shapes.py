"""The built-in data set: reproducible, balanced, honest (no linear classifier reads it), quick."""

import numpy as np
import pytest

from tinymixer.data import shapes
from tinymixer.errors import TinymixerError


@pytest.fixture(scope="module")
def drawn():
    return shapes.draw(np.arange(12_000))


def test_an_image_is_a_function_of_seed_and_index():
    indices = np.array([600, 3, 2**32 + 1, 3])
    images, labels, masks = shapes.draw(indices, seed=4)
    for row, i in enumerate(indices):
        image, label, mask = shapes.draw(np.array([i]), seed=4)
        np.testing.assert_array_equal(images[row], image[0])
        np.testing.assert_array_equal(masks[row], mask[0])
        assert labels[row] == label[0] == i % 10
    assert not np.array_equal(images, shapes.draw(indices, seed=5)[0])


def test_types_and_sizes():
    images, labels, masks = shapes.draw(np.arange(7))
    assert (images.shape, images.dtype) == ((7, 32, 32, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((7,), np.int64)
    assert (masks.shape, masks.dtype) == ((7, 32, 32), bool)
    assert shapes.draw(np.arange(0))[0].shape == (0, 32, 32, 3)


def test_a_negative_index_is_refused():
    with pytest.raises(TinymixerError, match="-1: expected 0 or more"):
        shapes.draw(np.array([3, -1]))


def test_mean_and_std_are_those_of_the_images(drawn):
    pixels = drawn[0].reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(0), shapes.MEAN, atol=1.0)
    np.testing.assert_allclose(pixels.std(0), shapes.STD, atol=1.0)


def test_the_shape_stands_out_of_its_ground(drawn):
    """Inside and outside of the mask differ in brightness, to either side equally often."""
    images, labels, masks = drawn
    grey = images.mean(-1)
    inside = (grey * masks).sum((1, 2)) / masks.sum((1, 2))
    outside = (grey * ~masks).sum((1, 2)) / (~masks).sum((1, 2))
    contrast = inside - outside
    assert np.quantile(abs(contrast), 0.01) > 50
    assert abs((contrast > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(len(images))
    for label, name in enumerate(shapes.CLASS_NAMES):
        area = masks[labels == label].sum((1, 2))
        assert area.min() > 20, name
        assert area.max() < 500, name


def test_a_mask_has_the_area_of_its_shape(drawn):
    """Circles: the mean of pi (0.88 r)**2 over r from 8 to 12.5 pixels."""
    area = drawn[2][drawn[1] == 0].sum((1, 2))
    expected = np.pi * 0.88**2 * (12.5**3 - 8**3) / (3 * 4.5)
    assert abs(area.mean() - expected) < 5 * area.std() / np.sqrt(len(area))


def test_a_linear_classifier_on_pixels_fails(drawn):
    """Ridge regression on the ten indicators; the best of several penalties, on 10,000 images."""
    x = drawn[0].reshape(len(drawn[0]), -1).astype(np.float32) / 255 - 0.5
    x = np.column_stack([x, np.ones(len(x), np.float32)])
    train, test = slice(10_000), slice(10_000, None)
    target = np.eye(10, dtype=np.float32)[drawn[1]]
    gram, right = x[train].T @ x[train], x[train].T @ target[train]
    accuracy = []
    for penalty in (1.0, 100.0, 1e4):
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram), dtype=np.float32), right)
        accuracy.append(((x[test] @ weights).argmax(1) == drawn[1][test]).mean())
    assert max(accuracy) < 0.45
    assert max(accuracy) > 0.1  # else the test itself is broken
