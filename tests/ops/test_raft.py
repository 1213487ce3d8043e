"""Raft tokens."""

import composed
import numpy as np
import pytest
from checks import B, assert_same_as_composed, by_hand, frozen, normal

from tinymixer.backend import to_numpy
from tinymixer.ops import Raft, Unraft

H, W = 7, 11
both_axes = pytest.mark.parametrize("axis", [0, 1], ids=["vertical", "horizontal"])
sizes = pytest.mark.parametrize("r", [1, 2, 3, 6])


@both_axes
@sizes
def test_raft_and_unraft_are_their_compositions(device, r, axis, rng):
    m, n, across = 6 // r, (H, W)[axis], (W, H)[axis]
    x = normal(rng, (H, W, B, 6))
    assert_same_as_composed(device, Raft(r, axis), lambda x: composed.raft(x, r, axis), x, within=0)
    y = normal(rng, (r * n, across, B, m))
    assert_same_as_composed(
        device, Unraft(r, axis), lambda y: composed.unraft(y, r, axis), y, within=0
    )


@both_axes
@sizes
def test_each_is_the_inverse_and_the_adjoint_of_the_other(device, r, axis, rng):
    x, dy = normal(rng, (H, W, B, 6), (r * (H, W)[axis], (W, H)[axis], B, 6 // r))
    y, (dx,) = by_hand(Raft(r, axis), frozen(device, dy), frozen(device, x))
    np.testing.assert_array_equal(to_numpy(Unraft(r, axis).forward(y)), x)
    left, right = (to_numpy(y) * dy).sum(), (x * to_numpy(dx)).sum()
    assert abs(left - right) <= 1e-13 * np.linalg.norm(x) * np.linalg.norm(dy)
    dy_again, (y_again,) = by_hand(Unraft(r, axis), frozen(device, x), frozen(device, dy))
    np.testing.assert_array_equal(to_numpy(y_again), to_numpy(y))
    np.testing.assert_array_equal(to_numpy(dy_again), to_numpy(dx))


def test_a_raft_takes_channels_along_that_are_m_apart():
    h, w, c = np.ogrid[:2, :3, :4]
    x = (100 * h + 10 * w + c)[:, :, None]  # (H, W, 1, C), each number its own address
    y = Raft(2, 0).forward(x)
    assert y.shape == (4, 3, 1, 2)
    np.testing.assert_array_equal(y[:, 1, 0, 0], [10, 110, 12, 112])  # column 1: channels 0 and 2
    np.testing.assert_array_equal(y[:, 1, 0, 1], [11, 111, 13, 113])  # channels 1 and 3
    y = Raft(2, 1).forward(x)
    assert y.shape == (6, 2, 1, 2)
    np.testing.assert_array_equal(y[:, 1, 0, 0], [100, 110, 120, 102, 112, 122])  # row 1


def test_a_vertical_raft_of_one_channel_is_the_grid_itself(rng):
    (x,) = normal(rng, (H, W, B, 6))
    assert np.shares_memory(Raft(1, 0).forward(x), x)


@both_axes
@pytest.mark.parametrize("shape", [(H, W, B, 5), (H * W, B, 5)], ids=str)
def test_rafts_must_divide_the_channels_of_a_grid(device, axis, shape):
    with pytest.raises(ValueError, match=r"Raft: rafts of 2 do not .*Choose a raft size"):
        Raft(2, axis).forward(device.zeros(shape))


@both_axes
def test_what_is_not_rafts_is_not_taken_apart(device, axis):
    with pytest.raises(ValueError, match=r"Unraft: rafts of 2 do not divide the 7 rows of \(7,"):
        Unraft(2, axis).forward(device.zeros((H, W, B, 3)))
