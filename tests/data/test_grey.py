"""Images with one channel are augmented as their copies in three equal colours are."""

from dataclasses import replace

import numpy as np
import pytest

from tinymixer.data import Augment, shapes
from tinymixer.data.augment import normalise
from tinymixer.data.autoaugment import Operation, operate

INDICES = np.arange(40)
GREY = shapes.draw(INDICES)[0][..., :1]


@pytest.mark.parametrize("operation", Operation)
def test_each_operation_of_a_policy_does_to_grey_what_it_does_to_three_equal_colours(operation):
    kinds = np.full(len(GREY), int(operation))
    for strength in (1, 4, 9):
        strengths = np.full(len(GREY), strength)
        found = operate(GREY, kinds, strengths)
        np.testing.assert_array_equal(
            found.repeat(3, -1), operate(GREY.repeat(3, -1), kinds, strengths)
        )


WITHOUT_NOISE = Augment(
    crop_padding=3, flip="random", auto_augment="cifar10", cutout=5, mixup=0.4, cutmix=1.0
)


@pytest.mark.parametrize(
    "augment", [WITHOUT_NOISE, replace(WITHOUT_NOISE, padding="zero", flip="alternating")], ids=str
)
def test_augmentation_is_that_of_three_equal_colours(augment):
    place = {"epoch": 2, "seed": 7, "num_classes": 10}
    grey, targets = augment(GREY, INDICES % 10, INDICES, **place)
    colours, same = augment(GREY.repeat(3, -1), INDICES % 10, INDICES, **place)
    assert grey.shape == GREY.shape
    np.testing.assert_array_equal(grey.repeat(3, -1), colours)
    np.testing.assert_array_equal(targets, same)


def test_noise_fills_the_same_rectangle():
    """Three colours take three times as many random bytes, so the noise itself is another one."""
    augment, place = Augment(random_erasing=1.0), {"epoch": 0, "seed": 7, "num_classes": 10}
    grey, _ = augment(GREY, INDICES % 10, INDICES, **place)
    colours, _ = augment(GREY.repeat(3, -1), INDICES % 10, INDICES, **place)
    changed = (colours != GREY).any(-1, keepdims=True)
    assert ((grey != GREY) <= changed).all()
    assert (grey != GREY).sum() > 0.9 * changed.sum()


def test_grey_images_are_normalised_by_one_number():
    x = normalise(GREY, (100.0,), (50.0,))
    assert (x.shape, x.dtype) == (GREY.shape, np.float32)
    np.testing.assert_allclose(x, (GREY - 100.0) / 50.0, rtol=0, atol=1e-6)
