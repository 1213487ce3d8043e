"""The built-in data set: reproducible, balanced, honest (no linear classifier reads it), quick."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

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


# --- What is drawn is what it always was --------------------------------------------------------

# Of images 0 to 19 of seed 0: pixels of the shape, row and column of its middle, mean red, green
# and blue, spread of all, and the mean step to the next pixel in a row and in a column.
PINNED = (
    (244, 13.89, 19.54, 80.58, 127.52, 130.08, 49.13, 11.78, 11.16),
    (231, 19.74, 10.61, 149.14, 57.70, 111.19, 68.86, 15.92, 16.83),
    (121, 13.17, 8.04, 222.87, 178.73, 170.78, 49.84, 15.38, 15.22),
    (201, 17.68, 9.15, 146.79, 141.69, 176.68, 53.38, 10.82, 14.74),
    (173, 18.40, 15.90, 207.05, 150.99, 137.25, 58.19, 10.10, 14.41),
    (221, 16.90, 20.61, 179.45, 132.08, 200.62, 67.74, 15.35, 15.73),
    (152, 10.35, 20.86, 108.85, 99.83, 97.59, 43.69, 8.66, 9.06),
    (154, 11.73, 12.14, 68.16, 68.55, 82.83, 53.29, 17.96, 17.43),
    (106, 12.97, 13.36, 114.00, 89.53, 74.11, 42.92, 10.90, 13.80),
    (171, 13.55, 18.87, 57.16, 106.97, 51.69, 52.14, 10.28, 11.28),
    (205, 9.96, 18.77, 91.98, 63.65, 124.12, 54.86, 11.20, 12.62),
    (156, 16.69, 12.40, 100.80, 90.89, 84.29, 40.93, 14.08, 14.34),
    (153, 20.82, 13.59, 76.59, 131.49, 76.87, 61.27, 12.93, 14.28),
    (308, 20.54, 13.83, 143.77, 148.78, 208.96, 66.63, 13.41, 13.26),
    (97, 20.69, 18.91, 97.09, 34.77, 134.29, 55.56, 10.39, 13.93),
    (235, 20.32, 11.49, 166.58, 116.41, 150.44, 57.22, 14.33, 16.51),
    (115, 14.97, 9.48, 179.84, 172.89, 155.79, 46.88, 9.68, 9.27),
    (153, 15.16, 15.46, 37.38, 96.54, 73.79, 54.10, 12.97, 12.33),
    (202, 15.50, 14.52, 143.12, 183.29, 171.16, 62.84, 15.62, 15.48),
    (140, 20.97, 11.57, 25.20, 111.56, 109.93, 63.29, 12.49, 12.05),
)


def test_the_same_images_are_drawn_as_ever():
    """Another sine of another processor moves a level here and there by one, a mean by 1e-3."""
    images, _, masks = shapes.draw(np.arange(20))
    levels = images.astype(float)
    row, column = np.mgrid[:32, :32]
    area = masks.sum((1, 2))
    found = np.column_stack(
        [
            area,
            *((masks * place).sum((1, 2)) / area for place in (row, column)),
            levels.mean((1, 2)),
            levels.std((1, 2, 3)),
            *(abs(np.diff(levels, axis=axis)).mean((1, 2, 3)) for axis in (2, 1)),
        ]
    )
    np.testing.assert_allclose(found, PINNED, rtol=0, atol=0.02)


def polygon(*corners):
    return lambda draw, at: draw.polygon([at(*corner) for corner in corners], fill=255)


def disc(radius, fill, middle=0.0):
    def drawn(draw, at):
        draw.ellipse([*at(middle - radius, -radius), *at(middle + radius, radius)], fill=fill)

    return drawn


def rectangle(left, top, right, bottom):
    return lambda draw, at: draw.rectangle([*at(left, top), *at(right, bottom)], fill=255)


def star():
    """Five tips on the unit circle, the first one up; the valleys at 0.38, halfway between."""
    turns = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2, 0.38, 1.0)
    return polygon(*zip(radii * np.sin(turns), -radii * np.cos(turns), strict=True))


# Each shape once more, by Pillow: u to the right, v downwards.
BY_PILLOW = {
    "circle": [disc(0.88, 255)],
    "ring": [disc(0.94, 255), disc(0.5, 0)],
    "moon": [disc(0.95, 255), disc(0.8, 0, middle=0.5)],
    "square": [rectangle(-0.82, -0.82, 0.82, 0.82)],
    "bar": [rectangle(-1, -0.28, 1, 0.28)],
    "cross": [rectangle(-1, -0.28, 1, 0.28), rectangle(-0.28, -1, 0.28, 1)],
    "triangle": [polygon((0, -1.06), (0.918, 0.53), (-0.918, 0.53))],
    "star": [star()],
    "hourglass": [
        polygon((-0.726, -0.8), (0.726, -0.8), (0.09, 0), (-0.09, 0)),
        polygon((-0.09, 0), (0.09, 0), (0.726, 0.8), (-0.726, 0.8)),
    ],
    "arrow": [polygon((0.05, -0.95), (1, 0), (0.05, 0.95)), rectangle(-1, -0.18, 0.2, 0.18)],
}


def test_each_shape_is_the_one_of_its_name():
    side, reach = 400, 1.2
    v, u = (np.mgrid[:side, :side] + 0.5) / side * 2 * reach - reach
    assert list(BY_PILLOW) == list(shapes.CLASS_NAMES)
    for name, parts in BY_PILLOW.items():
        picture = Image.new("L", (side, side))
        for part in parts:
            part(
                ImageDraw.Draw(picture),
                lambda u, v: ((u + reach) / 2 / reach * side, (v + reach) / 2 / reach * side),
            )
        inside = shapes.SHAPES[name](u, v) < 0
        differs = inside != (np.asarray(picture) > 0)
        # One pixel, of 0.006, along an edge of at most 10, where the square has an area of 5.76.
        assert differs.mean() < 0.01, name
