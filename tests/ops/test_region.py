"""Shifts of rows, regions of rows, and the way back."""

import composed
import numpy as np
import pytest
from checks import B, C, assert_same_as_composed, by_hand, frozen, normal

from tinymixer.backend import to_numpy
from tinymixer.ops import Regions, Shift, Unregions

H, W = 7, 6
both_axes = pytest.mark.parametrize("axis", [0, 1])
every_padding = pytest.mark.parametrize("padding", ["circular", "zero", "replicate"])


def rows(*numbers):
    """A grid with one column, one image and one channel, so that only its rows matter."""
    return np.array(numbers, float).reshape(-1, 1, 1, 1)


# --- shift ---


@both_axes
@pytest.mark.parametrize("mode", ["circular", "zero"])
@pytest.mark.parametrize("step", [0, 2, -1, 6, -7, 9, -11])
def test_shift_is_its_composition(device, step, axis, mode, rng):
    x = normal(rng, (H, W, B, C))
    assert_same_as_composed(
        device, Shift(step, axis, mode), lambda x: composed.shift(x, step, axis, mode), x
    )


def test_rows_that_leave_come_round_or_are_lost():
    x = rows(1, 2, 3, 4)
    assert Shift(1, 0).forward(x).ravel().tolist() == [4, 1, 2, 3]
    assert Shift(-1, 0).forward(x).ravel().tolist() == [2, 3, 4, 1]
    assert Shift(1, 0, "zero").forward(x).ravel().tolist() == [0, 1, 2, 3]
    assert Shift(-3, 0, "zero").forward(x).ravel().tolist() == [4, 0, 0, 0]
    assert Shift(5, 0, "zero").forward(x).ravel().tolist() == [0, 0, 0, 0]


# --- regions ---


@both_axes
@every_padding
@pytest.mark.parametrize("p", [1, 2, 4, 5])
def test_regions_are_their_composition(device, p, axis, padding, rng):
    x = normal(rng, (H, W, B, C))
    assert_same_as_composed(
        device, Regions(p, axis, padding), lambda x: composed.regions(x, p, axis, padding), x
    )


@every_padding
def test_regions_of_more_rows_than_there_are(device, padding, rng):
    x = normal(rng, (3, 2, B, C))
    assert_same_as_composed(
        device, Regions(5, 0, padding), lambda x: composed.regions(x, 5, 0, padding), x
    )


def test_how_an_incomplete_region_is_filled():
    x = rows(1, 2, 3, 4, 5)
    filled = {p: Regions(4, 0, p).forward(x) for p in ("circular", "zero", "replicate")}
    assert {p: y.reshape(2, 4).tolist()[1] for p, y in filled.items()} == {
        "circular": [5, 1, 2, 3],
        "zero": [5, 0, 0, 0],
        "replicate": [5, 5, 5, 5],
    }


def test_a_row_used_twice_gets_both_gradients():
    dy = np.arange(1.0, 9.0).reshape(2, 1, 1, 4)  # 1 to 8 for places 0 to 7, of which 5 are rows
    gradients = {
        padding: by_hand(Regions(4, 0, padding), dy, rows(0, 0, 0, 0, 0))[1][0].ravel().tolist()
        for padding in ("circular", "zero", "replicate")
    }
    assert gradients == {
        "circular": [1 + 6, 2 + 7, 3 + 8, 4, 5],
        "zero": [1, 2, 3, 4, 5],
        "replicate": [1, 2, 3, 4, 5 + 6 + 7 + 8],
    }


def test_the_channels_of_a_region_run_over_place_then_channel(rng):
    (x,) = normal(rng, (H, W, B, C))
    y = Regions(3, 1).forward(x)
    assert y.shape == (H, 2, B, 3 * C)
    for g in range(2):
        for r in range(3):
            np.testing.assert_array_equal(y[:, g, :, r * C : (r + 1) * C], x[:, 3 * g + r])


def test_backward_never_writes_into_a_gradient_of_which_it_gets_a_view():
    dy = np.ones((1, 1, 1, 4))
    dy.flags.writeable = False
    (dx,) = by_hand(Regions(4, 0), dy, rows(1, 2, 3))[1]
    assert dx.ravel().tolist() == [2, 1, 1]


# --- the way back ---


@both_axes
@every_padding
@pytest.mark.parametrize("p", [1, 2, 4, 5])
def test_unregions_undo_regions(device, p, axis, padding, rng):
    (x,) = normal(rng, (H, W, B, C))
    y = Regions(p, axis, padding).forward(frozen(device, x))
    back = Unregions(p, axis, x.shape[axis]).forward(y)
    np.testing.assert_array_equal(to_numpy(back), x)


@both_axes
@pytest.mark.parametrize("p", [1, 2, 4, 5])
def test_unregions_are_the_adjoint_of_regions_filled_with_zeros(device, p, axis, rng):
    (x,) = normal(rng, (H, W, B, C))
    to, there = Regions(p, axis, "zero"), Unregions(p, axis, x.shape[axis])
    y = frozen(device, rng.standard_normal(to.forward(x).shape))
    x = frozen(device, x)
    _, (dx,) = by_hand(to, y, x)
    back, (dy,) = by_hand(there, x, y)
    np.testing.assert_array_equal(to_numpy(dx), to_numpy(back))
    np.testing.assert_array_equal(to_numpy(dy), to_numpy(to.forward(x)))


# --- what is refused ---


def test_circular_padding_repeats_a_row_only_once(device):
    with pytest.raises(ValueError, match=r"1 rows lack 2 for regions of 3.*'replicate' or 'zero'"):
        Regions(3, 0).forward(device.zeros((1, 4, B, C)))
    assert Regions(3, 0).forward(device.zeros((2, 4, B, C))).shape == (1, 4, B, 3 * C)


def test_regions_that_do_not_belong_to_n_rows_are_refused(device):
    with pytest.raises(ValueError, match=r"expected 3 regions, as 7 rows make.*got 2 with 9"):
        Unregions(3, 0, 7).forward(device.zeros((2, 4, B, 9)))
    with pytest.raises(ValueError, match=r"for 3 rows each; got 3 with 8 channels"):
        Unregions(3, 0, 7).forward(device.zeros((3, 4, B, 8)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Shift(1, 2), "Shift: axis is 2; expected 0 or 1"),
        (lambda: Shift(1, 0, "reflect"), "Shift: mode is 'reflect'; expected 'circular' or 'zero'"),
        (lambda: Regions(2, -2), "Regions: axis is -2"),
        (lambda: Regions(2, 0, "reflect"), "padding is 'reflect'; .*'zero' or 'replicate'"),
        (lambda: Regions(0, 0), "at least 1 row, got p=0"),
        (lambda: Unregions(2, 3, 4), "Unregions: axis is 3"),
    ],
)
def test_options_that_do_not_exist_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
