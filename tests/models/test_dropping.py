"""Dropout and stochastic depth in whole models: backpropagation sees the masks of the forward."""

import numpy as np
import pytest
from checks import assert_close
from small_runs import SYSTEMS

from tinymixer import Tensor, create_model, nn
from tinymixer.models import options_of
from tinymixer.models.common import linear_rates


def loss_of(model, images, dy, seed):
    with nn.auxiliary():
        return (model(images, rng=np.random.default_rng(seed)) * dy).sum()


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (name, option)
        for name in SYSTEMS
        for option in ("drop_path_rate", "dropout")
        if option in options_of(name)
    ],
)
def test_the_gradient_is_that_of_the_masks_which_the_forward_drew(name, option, rng):
    """Along a random direction of the images and of all parameters at once.

    A central difference of step h is wrong by h² times a third derivative, and by rounding of
    1e-16/h: for h = 1e-5 by some 1e-10 of terms of order 1. Other masks in backward change the
    derivative by about as much as it is: by 1e-2 of it at the very least.
    """
    model = create_model(name, **SYSTEMS[name] | {option: 0.5}).astype(np.float64)
    for parameter in model.parameters():  # also the head, which starts at zero
        parameter.data += 0.05 * rng.standard_normal(parameter.shape)
    images = Tensor(rng.standard_normal((3, 32, 32, 3)))
    dy = rng.standard_normal((3, 10))
    leaves = [images, *model.parameters()]
    directions = [rng.standard_normal(leaf.shape) for leaf in leaves]
    starts = [leaf.data for leaf in leaves]
    gradients = {}
    loss_of(model, images, dy, seed=1).backward(into=gradients)
    slope = sum((gradients[x] * v).sum() for x, v in zip(leaves, directions, strict=True))

    def at(h):
        for leaf, start, v in zip(leaves, starts, directions, strict=True):
            leaf.data = start + h * v
        return loss_of(model, images, dy, seed=1).item()

    h = 1e-5
    difference = (at(h) - at(-h)) / (2 * h)
    assert slope == pytest.approx(difference, rel=1e-4)
    assert loss_of(model, images, dy, seed=2).item() != pytest.approx(at(0), rel=1e-3)


def test_rates_grow_linearly_from_0():
    assert_close(np.array(linear_rates(0.6, 4)), np.array([0, 0.2, 0.4, 0.6]))
    assert linear_rates(0.5, 1) == [0.0]
