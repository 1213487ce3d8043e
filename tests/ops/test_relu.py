"""ReLU."""

import numpy as np
from checks import assert_close, by_hand

from tinymixer.ops import ReLU


def test_what_is_positive_passes_and_so_does_its_gradient(device):
    x = device.asarray(np.array([-2.0, -1e-300, 0.0, 1e-300, 3.0]))
    dy = device.asarray(np.array([5.0, 7.0, 11.0, 13.0, 17.0]))
    y, (dx,) = by_hand(ReLU(), dy, x)
    assert_close(y, np.array([0, 0, 0, 1e-300, 3.0]), within=0)
    assert_close(dx, np.array([0, 0, 0, 13.0, 17.0]), within=0)


def test_nan_stays_nan_so_that_training_can_see_it():
    assert np.isnan(ReLU().forward(np.array([np.nan]))).all()
