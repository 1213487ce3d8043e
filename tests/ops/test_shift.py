"""Axial shift."""

import composed
import numpy as np
import pytest
from checks import assert_same_as_composed, by_hand, frozen, normal

from tinymixer.backend import to_numpy
from tinymixer.ops import AxialShift

# NumPy's own names of the paddings
PADDINGS = {"zero": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge"}

every_padding = pytest.mark.parametrize("padding", PADDINGS)
# (axis, H, W, C, shift_size, dilation): usual; fewer channels than groups, which leaves one empty;
# the same with as many left as right; displacements as long as the axis and longer; sides of 1, 2
SIZES = [
    (0, 7, 5, 11, 3, 1),
    (1, 7, 5, 11, 5, 2),
    (0, 5, 3, 2, 3, 1),
    (1, 3, 7, 4, 7, 1),
    (0, 3, 2, 7, 7, 1),
    (1, 2, 3, 13, 5, 7),
    (0, 1, 5, 11, 5, 1),
    (1, 5, 1, 11, 5, 3),
    (0, 2, 1, 5, 5, 1),
    (1, 2, 2, 1, 3, 1),
    (0, 3, 2, 5, 1, 1),
]
every_size = pytest.mark.parametrize(("axis", "H", "W", "C", "k", "dilation"), SIZES)


def lines_from(n, C, k, dilation, padding):
    """For each channel and line, the line that is copied: as `numpy.pad` continues 0 .. n - 1."""
    reach = dilation * (k // 2)
    options = {"constant_values": -1} if padding == "zero" else {}
    padded = np.pad(np.arange(n), reach, PADDINGS[padding], **options)
    G = (C + k - 1) // k
    starts = [reach - dilation * (c // G - k // 2) for c in range(C)]
    return [[j if j >= 0 else None for j in padded[s : s + n].tolist()] for s in starts]


@every_padding
@every_size
def test_axial_shift_is_its_composition(device, axis, H, W, C, k, dilation, padding, rng):
    arrays = normal(rng, (H, W, 2, C))
    source = lines_from((H, W)[axis], C, k, dilation, padding)
    op = AxialShift(axis, k, dilation, padding)
    assert_same_as_composed(device, op, lambda x: composed.axial_shift(x, axis, source), arrays)


@every_padding
@every_size
def test_forward_and_backward_are_adjoint(device, axis, H, W, C, k, dilation, padding, rng):
    x, dy = normal(rng, (H, W, 2, C), (H, W, 2, C))
    op = AxialShift(axis, k, dilation, padding)
    y, (dx,) = by_hand(op, frozen(device, dy), frozen(device, x))
    y, dx = to_numpy(y), to_numpy(dx)
    left, right = (y * dy).sum(), (x * dx).sum()
    size = np.linalg.norm(y) * np.linalg.norm(dy) + np.linalg.norm(x) * np.linalg.norm(dx)
    assert abs(left - right) <= 1e-13 * size


def test_a_row_of_five_in_six_channels_by_hand(device):
    """k = 5 and 6 channels: ⌈6/5⌉ = 2 in a group, so three groups are there, moved by -2, -1, 0."""
    x = np.array(
        [
            [10, 11, 12, 13, 14],
            [20, 21, 22, 23, 24],
            [30, 31, 32, 33, 34],
            [40, 41, 42, 43, 44],
            [50, 51, 52, 53, 54],
            [60, 61, 62, 63, 64],
        ]
    )
    expected = np.array(
        [
            [12, 13, 14, 0, 0],
            [22, 23, 24, 0, 0],
            [31, 32, 33, 34, 0],
            [41, 42, 43, 44, 0],
            [50, 51, 52, 53, 54],
            [60, 61, 62, 63, 64],
        ]
    )
    row = device.asarray(x.T.reshape(1, 5, 1, 6).astype(float))
    y = to_numpy(AxialShift(axis=1).forward(row))
    np.testing.assert_array_equal(y[0, :, 0].T, expected)
    column = device.asarray(x.T.reshape(5, 1, 1, 6).astype(float))
    y = to_numpy(AxialShift(axis=0).forward(column))
    np.testing.assert_array_equal(y[:, 0, 0].T, expected)


# Three groups of one channel each hold 1 2 3 4, and move by -2, 0, 2.
BORDERS = {
    "zero": ([3, 4, 0, 0], [0, 0, 1, 2]),
    "circular": ([3, 4, 1, 2], [3, 4, 1, 2]),
    "reflect": ([3, 4, 3, 2], [3, 2, 1, 2]),
    "replicate": ([3, 4, 4, 4], [1, 1, 1, 2]),
}


@every_padding
def test_what_comes_in_at_the_border(device, padding):
    x = device.asarray(np.repeat([1.0, 2, 3, 4], 3).reshape(4, 1, 1, 3))
    y = to_numpy(AxialShift(0, shift_size=3, dilation=2, padding=padding).forward(x))
    back, forth = BORDERS[padding]
    np.testing.assert_array_equal(y[:, 0, 0].T, [back, [1, 2, 3, 4], forth])


def test_a_released_width_has_groups_of_20_and_a_last_one_of_16():
    x = np.ones((9, 1, 1, 96))
    y = AxialShift(axis=0).forward(x)[:, 0, 0]
    empty_above = (y[0] == 0).sum(), (y[1] == 0).sum()  # moved by 1 and 2, and by 2
    empty_below = (y[-1] == 0).sum(), (y[-2] == 0).sum()
    assert (empty_above, empty_below) == ((36, 16), (40, 20))


def test_a_displacement_beyond_the_axis_leaves_zeros_and_no_gradient(device, rng):
    x, dy = (frozen(device, a) for a in normal(rng, (2, 2, 1, 5), (2, 2, 1, 5)))
    y, (dx,) = by_hand(AxialShift(0, shift_size=5), dy, x)
    for array in (to_numpy(y), to_numpy(dx)):
        assert not array[..., [0, 4]].any()
        assert array[..., 1:4].any((0, 1, 2)).all()


def test_with_zeros_the_adjoint_is_the_opposite_shift(device, rng):
    x, dy = normal(rng, (5, 3, 2, 15), (5, 3, 2, 15))
    _, (dx,) = by_hand(AxialShift(0), frozen(device, dy), frozen(device, x))
    opposite = AxialShift(0).forward(dy[..., ::-1])[..., ::-1]  # the groups in reverse order
    np.testing.assert_array_equal(to_numpy(dx), opposite)


def test_a_shift_of_one_group_is_the_identity(device, rng):
    (x,) = normal(rng, (3, 2, 5, 7))
    y = AxialShift(1, shift_size=1).forward(frozen(device, x))
    np.testing.assert_array_equal(to_numpy(y), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": 2}, "axis 2 is not an axis of the grid; expected 0"),
        ({"axis": -1}, "axis -1 is not an axis of the grid"),
        ({"axis": 0, "shift_size": 4}, "expected an odd shift_size, got 4"),
        ({"axis": 0, "shift_size": 0}, "expected an odd shift_size, got 0"),
        ({"axis": 0, "shift_size": -3}, "expected an odd shift_size, got -3"),
        ({"axis": 0, "dilation": 0}, "expected a dilation of at least 1, got 0"),
        ({"axis": 0, "padding": "same"}, "unknown padding 'same'; expected one of zero, circular"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AxialShift(**options)


def test_tokens_without_their_grid_are_refused_with_the_cure(device):
    with pytest.raises(ValueError, match=r"x is \(49, 2, 5\); expected \(H, W, B, C\).*reshape"):
        AxialShift(0)(device.zeros((49, 2, 5)))
