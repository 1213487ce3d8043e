"""Dropout and stochastic depth."""

import composed
import numpy as np
import pytest
from checks import B, C, S, assert_close, assert_same_as_composed, normal

from tinymixer.ops import Dropout


@pytest.mark.parametrize("mask_shape", [(S, B, C), (B, 1), (C,), ()], ids=str)
def test_dropout_is_its_composition(device, mask_shape, rng):
    keep = np.asarray(rng.random(mask_shape) < 0.7)

    def same(x, keep):
        return composed.dropout(x, keep, 0.3)

    assert_same_as_composed(device, Dropout(0.3), same, normal(rng, (S, B, C)), [keep])


def test_what_is_kept_is_scaled_and_what_is_dropped_is_zero(device, rng):
    (x,) = normal(rng, (S, B, C))
    keep = np.array([[True], [False], [True]])
    y = Dropout(0.75).forward(device.asarray(x), device.asarray(keep))
    assert_close(y, np.where(keep, 4 * x, 0))


@pytest.mark.parametrize("mask_shape", [(2, S, B, C), (B, B, C)], ids=str)
def test_a_mask_larger_than_x_is_refused(device, mask_shape):
    x, keep = device.zeros((1, B, C)), device.ones(mask_shape, bool)
    with pytest.raises(ValueError, match=r"Dropout: keep .* does not broadcast to x \(1, 3, 5\)"):
        Dropout(0.5).forward(x, keep)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(ValueError, match=r"Dropout: expected a rate in \[0, 1\), got"):
        Dropout(rate)
