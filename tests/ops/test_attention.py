"""Split attention."""

import composed
import numpy as np
import pytest
from checks import B, C, S, assert_close, assert_same_as_composed, by_hand, normal

from tinymixer.ops import SplitAttention


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("lead", [(), (S,), (2, S)], ids=str)
def test_split_attention_is_its_composition(device, lead, n, rng):
    arrays = normal(rng, (B, n * C), *[(*lead, B, C)] * n)
    assert_same_as_composed(device, SplitAttention(), composed.split_attention, arrays)


def test_a_single_branch_is_all_there_is_to_choose(rng):
    z, x, dy = normal(rng, (B, C), (S, B, C), (S, B, C))
    y, (dz, dx) = by_hand(SplitAttention(), dy, z, x)
    assert_close(y, x)
    assert_close(dx, dy)
    assert not dz.any()


def test_equal_z_give_the_mean_of_the_branches(device, rng):
    branches = [device.asarray(x) for x in normal(rng, *[(2, S, B, C)] * 3)]
    y = SplitAttention().forward(device.zeros((B, 3 * C)) + 4.0, *branches)
    assert_close(y, (branches[0] + branches[1] + branches[2]) / 3.0)


def test_z_lists_the_channels_of_one_branch_after_the_other(rng):
    branches = normal(rng, *[(S, B, C)] * 3)
    z = np.zeros((B, 3, C))
    z[1, 2, 4] = 1e3  # for channel 4 of image 1 only the last branch counts
    y = SplitAttention().forward(z.reshape(B, 3 * C), *branches)
    expected = sum(branches) / 3
    expected[:, 1, 4] = branches[2][:, 1, 4]
    assert_close(y, expected)


def test_raising_all_z_alike_changes_nothing_so_dz_adds_up_to_zero(device, rng):
    arrays = normal(rng, (B, 3 * C), *[(2, S, B, C)] * 3)
    dy = device.asarray(normal(rng, (2, S, B, C))[0])
    z, *branches = [device.asarray(x) for x in arrays]
    y, (dz, *_) = by_hand(SplitAttention(), dy, z, *branches)
    assert_close(SplitAttention().forward(z + 700.0, *branches), y)  # and exp does not overflow
    assert_close(dz.reshape(B, 3, C).sum(1) + 1.0, np.ones((B, C)))


@pytest.mark.parametrize(
    ("z", "branches"),
    [
        ((B, 2 * C), [(S, B, C)] * 3),
        ((B, 3, C), [(S, B, C)] * 3),
        ((B + 1, 2 * C), [(S, B, C)] * 2),
        ((B, 2 * C), [(S, B, C), (S + 1, B, C)]),
        ((B, 2 * C), [(S, B, C), (1, B, C)]),  # no broadcasting: an adjoint would have to sum
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(device, z, branches):
    with pytest.raises(ValueError, match=r"SplitAttention: expected branches of one shape.*z \("):
        SplitAttention().forward(device.zeros(z), *map(device.zeros, branches))
