"""Places for channels."""

import composed
import numpy as np
import pytest
from checks import B, assert_same_as_composed, by_hand, frozen, normal

from tinymixer.backend import to_numpy
from tinymixer.ops import ChannelLinear, SwapSegments

both_axes = pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
shapes = pytest.mark.parametrize("shape", [(3, 2, B, 12), (2, 5, B, 10), (1, 7, B, 7)], ids=str)


@both_axes
@shapes
def test_swap_segments_is_its_composition(device, axis, shape, rng):
    x = normal(rng, shape)
    same = lambda x: composed.swap_segments(x, axis)  # noqa: E731
    assert_same_as_composed(device, SwapSegments(axis), same, x, within=0)


@both_axes
@shapes
def test_it_is_its_own_inverse_and_its_own_adjoint(device, axis, shape, rng):
    x, dy = normal(rng, shape, shape)
    y, (dx,) = by_hand(SwapSegments(axis), frozen(device, dy), frozen(device, x))
    np.testing.assert_array_equal(to_numpy(SwapSegments(axis).forward(y)), x)
    np.testing.assert_array_equal(
        to_numpy(dx), to_numpy(SwapSegments(axis).forward(frozen(device, dy)))
    )
    left, right = (to_numpy(y) * dy).sum(), (x * to_numpy(dx)).sum()
    assert abs(left - right) <= 1e-13 * np.linalg.norm(x) * np.linalg.norm(dy)


def test_a_place_gets_one_segment_from_every_place_of_its_column_or_row():
    h, w, c = np.ogrid[:2, :3, :6]
    x = (100 * h + 10 * w + c)[:, :, None]  # (2, 3, 1, 6), each number its own address
    y = SwapSegments(0).forward(x)  # two segments of three channels
    np.testing.assert_array_equal(y[0, 1, 0], [10, 11, 12, 110, 111, 112])
    np.testing.assert_array_equal(y[1, 1, 0], [13, 14, 15, 113, 114, 115])
    y = SwapSegments(1).forward(x)  # three segments of two channels
    np.testing.assert_array_equal(y[1, 0, 0], [100, 101, 110, 111, 120, 121])
    np.testing.assert_array_equal(y[1, 2, 0], [104, 105, 114, 115, 124, 125])


@both_axes
def test_a_product_between_two_swaps_mixes_one_segment_of_one_line(axis, rng):
    """What a branch of the Vision Permutator sees: change one number, and look where it shows."""
    shape = 2, 3, B, 6
    x, W = normal(rng, shape, (6, 6))

    def branch(x):
        y = ChannelLinear().forward(SwapSegments(axis).forward(x), W, np.zeros(6))
        return SwapSegments(axis).forward(y)

    changed = x.copy()
    changed[1, 2, 0, 4] += 1
    moved = np.argwhere(branch(changed) != branch(x))
    s = 6 // shape[axis]
    for place in moved:
        assert place[1 - axis] == (1, 2)[1 - axis]  # the same column (axis 0), or row
        assert place[2] == 0  # the same image
        assert place[3] // s == 4 // s  # the same segment
    assert len(moved) == shape[axis] * s  # and all of that


@both_axes
@pytest.mark.parametrize("shape", [(4, 4, B, 6), (4, B, 6)], ids=str)
def test_every_place_needs_a_segment(device, axis, shape):
    with pytest.raises(ValueError, match=r"SwapSegments: 6 channels cannot be cut .*Choose a wid"):
        SwapSegments(axis).forward(device.zeros(shape))
