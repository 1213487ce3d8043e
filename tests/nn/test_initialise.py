"""The numbers that weights start with."""

import math

import numpy as np
import pytest
from checks import D_S, C, S

from tinymixer import nn

DRAWS = 400 * 1000


FAN_IN = 100


@pytest.fixture(scope="module")
def lecun():
    """Weights as multiples of 1/√fan_in."""
    weights = nn.lecun_normal(np.random.default_rng(24), (400, 1000), fan_in=FAN_IN)
    assert weights.dtype == np.float32
    return weights.data.astype(np.float64).ravel() * math.sqrt(FAN_IN)


def test_lecun_normal_has_variance_1_over_fan_in(lecun):
    # The estimated variance of n draws of kurtosis below 3 has a relative standard error below
    # √(2/n) = 0.22 %, the mean one of 1/√n; five of them happen once in two million.
    assert abs(lecun.var() - 1) < 5 * math.sqrt(2 / DRAWS)
    assert abs(lecun.mean()) < 5 / math.sqrt(DRAWS)


def test_lecun_normal_is_cut_at_two_standard_deviations_by_drawing_again(lecun):
    cut = 2 / 0.8796256610342398
    assert np.abs(lecun).max() < cut * (1 + 1e-6)
    # Clipping instead of redrawing would pile 4.6 % up at the cut; the density there is 0.057.
    at_the_cut = (np.abs(lecun) > 0.99 * cut).mean()
    assert at_the_cut < 0.004


def test_lecun_normal_is_normal_within_the_cut(lecun):
    # P(|z| < 1 | |z| < 2) for a standard normal z
    expected = math.erf(1 / math.sqrt(2)) / math.erf(2 / math.sqrt(2))
    inside = (np.abs(lecun) < 1 / 0.8796256610342398).mean()
    assert abs(inside - expected) < 5 * math.sqrt(expected * (1 - expected) / DRAWS)


@pytest.mark.parametrize(
    ("layer", "fan_ins"),
    [
        (lambda rng: nn.ChannelLinear(400, 100, rng=rng), {"W": 400}),
        (lambda rng: nn.TokenMLP(100, 400, gelu="tanh", rng=rng), {"W1": 100, "W2": 400}),
        (lambda rng: nn.ChannelMLP(100, 400, gelu="tanh", rng=rng), {"W1": 100, "W2": 400}),
        (lambda rng: nn.PatchEmbed(12, 100, rng=rng), {"linear.W": 432}),
    ],
    ids=["ChannelLinear", "TokenMLP", "ChannelMLP", "PatchEmbed"],
)
def test_weights_start_with_their_own_fan_in_and_biases_at_zero(layer, fan_ins, rng):
    for name, array in layer(rng).state().items():
        if name in fan_ins:
            # 40,000 draws: five standard errors are 3.5 %, and the wrong fan-in is off by 4 times
            assert array.var() * fan_ins[name] == pytest.approx(1, abs=5 * math.sqrt(2 / 40_000))
        else:
            assert not array.any()


def test_layer_norm_starts_as_plain_normalisation():
    norm = nn.LayerNorm(C)
    np.testing.assert_array_equal(norm.gamma.data, np.ones(C))
    np.testing.assert_array_equal(norm.beta.data, np.zeros(C))


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    first, same, other = (
        nn.TokenMLP(S, D_S, gelu="erf", rng=np.random.default_rng(seed)).W1.data
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert (first != other).all()


@pytest.mark.parametrize(
    ("init", "variance"), [(nn.fan_in_uniform, 1 / (3 * 48)), (nn.normal(0.02), 0.02**2)]
)
def test_other_initialisers_have_their_variance(init, variance, rng):
    W = init(rng, (48, 2000), 48).data
    assert W.dtype == np.float32
    assert W.var() == pytest.approx(variance, rel=0.03)  # 96,000 draws: 0.5 % is one sigma
    assert not init(nn.BLANK, (2, 3), 48).data.any()
