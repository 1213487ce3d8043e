"""How busy experts are, and how unequally."""

import math

import composed
import numpy as np
import pytest
from checks import B, C, S, assert_close, assert_same_as_composed, normal

from tinymixer.ops import Imbalance, Load

LAST = np.array([0, 2, 1, 1, 0, 2, 2])  # for each of S rows one of B experts


def test_load_is_its_composition(device, rng):
    arrays = [0.5 * x for x in normal(rng, (S, B), (S, B))]
    same = lambda z, noisy, last: composed.load(z, noisy, last, 0.5)  # noqa: E731
    assert_same_as_composed(device, Load(0.5), same, arrays, [LAST])


def test_imbalance_is_its_composition(device, rng):
    assert_same_as_composed(device, Imbalance(), composed.imbalance, [rng.uniform(0.5, 2, C)])


def test_load_by_hand():
    """One row, chosen by z = 1 at the lowest: who is there has 1/2, one σ above it 84 %."""
    z = np.array([[1.0, 1.5, 0.0]])
    share = 0.5 * (1 + math.erf(math.sqrt(0.5)))
    far = 0.5 * (1 + math.erf(-2 / math.sqrt(2)))
    assert_close(Load(0.5).forward(z, z, np.array([0])), np.array([0.5, share, far]))


def test_where_it_makes_no_difference_the_threshold_and_the_logit_cancel(rng):
    """Without noise, the logit of the last chosen expert is the threshold itself."""
    z = rng.standard_normal((1, 4))
    op = Load(0.25)
    op.forward(z, z, np.array([2]))
    dz, dnoisy, _ = op.backward(np.array([0.0, 0.0, 1.0, 0.0]))
    assert not (dz + dnoisy).any()


def test_with_little_noise_the_load_is_a_count():
    z = np.random.default_rng(0).standard_normal((500, 4))
    second = np.sort(z, axis=1)[:, -2:-1]
    last = np.argsort(-z, axis=1)[:, 1]
    counts = (z >= second).sum(0)
    smooth = Load(1e-4).forward(z, z, last)
    assert abs(smooth - counts).sum() < 0.5 * 500 + 1  # the last chosen of each row counts half
    assert smooth.sum() == pytest.approx(1.5 * 500, abs=1)


@pytest.mark.parametrize(
    ("v", "expected"),
    [([3, 3, 3, 3], 0), ([1, 0, 0, 0], 3), ([1, 3], 0.25), ([2, 6], 0.25), ([5], 0)],
)
def test_imbalance_by_hand(device, v, expected):
    L = Imbalance().forward(device.asarray(np.array(v, float)))
    assert L.shape == ()
    assert float(L) == pytest.approx(expected, abs=1e-15)


def test_a_common_factor_is_nothing_to_imbalance(rng):
    v = rng.uniform(0.5, 2, C)
    op = Imbalance()
    op.forward(v)
    assert abs(v @ op.backward(np.array(1.0))) < 1e-15
