"""LayerNorm, GroupNorm, BatchNorm."""

import composed
import numpy as np
import pytest
from checks import CLOSE, B, C, S, assert_close, assert_same_as_composed, by_hand, normal

from tinymixer.ops import BatchNorm, GroupNorm, LayerNorm


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.5])
@pytest.mark.parametrize("lead", [(), (B,), (S, B), (2, S, B)], ids=str)
def test_layer_norm_is_its_composition(device, lead, eps, rng):
    arrays = normal(rng, (*lead, C), (C,), (C,))

    def same(x, gamma, beta):
        return composed.norm(x, gamma, beta, eps, axes=-1)

    # A variance as a difference of squares, and 1/σ up to 10 here, cost the composition a digit.
    assert_same_as_composed(device, LayerNorm(eps), same, arrays, within=10 * CLOSE)


GROUPS = {GroupNorm: (0, 1, 3), BatchNorm: (0, 1, 2)}


@pytest.mark.parametrize(("op", "axes"), GROUPS.items(), ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.parametrize("grid", [(S, 2), (1, 5)], ids=str)
def test_a_norm_of_a_grid_is_its_composition(device, op, axes, grid, rng):
    arrays = normal(rng, (*grid, B, C), (C,), (C,))

    def same(x, gamma, beta):
        return composed.norm(x, gamma, beta, 1e-5, axes)

    assert_same_as_composed(device, op(1e-5), same, arrays, within=10 * CLOSE)


def test_an_image_in_a_batch_is_normalised_as_if_alone(rng):
    x, gamma, beta = normal(rng, (S, 2, B, C), (C,), (C,))
    together = GroupNorm().forward(x, gamma, beta)
    for b in range(B):
        alone = GroupNorm().forward(x[:, :, b : b + 1], gamma, beta)
        assert_close(together[:, :, b : b + 1], alone)


def test_every_token_gets_mean_0_and_variance_1(device, rng):
    (x,) = normal(rng, (S, B, C))
    y = LayerNorm(eps=1e-12).forward(device.asarray(5 + 3 * x), device.ones(C), device.zeros(C))
    assert_close(y.mean(-1) + 1.0, np.ones((S, B)))
    # eps = 1e-12 is added to variances of about 9, and 1e-10 leaves room for small ones
    assert_close((y * y).mean(-1), np.ones((S, B)), within=1e-10)


def test_gamma_and_beta_scale_and_shift(rng):
    x, gamma, beta = normal(rng, (S, B, C), (C,), (C,))
    plain = LayerNorm().forward(x, np.ones(C), np.zeros(C))
    assert_close(LayerNorm().forward(x, gamma, beta), gamma * plain + beta)


def test_dx_is_orthogonal_to_a_shift_and_to_a_stretch_of_x(device, rng):
    x, gamma, beta, dy = [device.asarray(a) for a in normal(rng, (S, B, C), (C,), (C,), (S, B, C))]
    _, (dx, _, _) = by_hand(LayerNorm(eps=0.0), dy, x, gamma, beta)
    assert_close(dx.sum(-1) + 1.0, np.ones((S, B)))
    assert_close((dx * x).sum(-1) + 1.0, np.ones((S, B)))


def test_a_constant_token_is_finite_thanks_to_eps(device):
    x, gamma, beta, dy = device.ones((2, C)), device.ones(C), device.zeros(C), device.ones((2, C))
    y, (dx, _, _) = by_hand(LayerNorm(), dy, x, gamma, beta)
    assert float((y * y).sum()) == 0.0
    assert float((dx * dx).sum()) == 0.0


@pytest.mark.parametrize("offset", [100.0, 1000.0])
def test_a_large_mean_does_not_cancel_the_variance(offset, rng):
    x = rng.standard_normal((S, C)).astype(np.float32)
    shifted = LayerNorm().forward(x + np.float32(offset), np.ones(C, "f"), np.zeros(C, "f"))
    plain = LayerNorm().forward(x, np.ones(C, "f"), np.zeros(C, "f"))
    # x + offset itself is rounded to offset ε₃₂; as E[x²] - E[x]² it would be offset² ε₃₂.
    sigma = x.std(-1).min()
    assert np.abs(shifted - plain).max() < 8 * offset * np.finfo(np.float32).eps / sigma
