"""Optimizers and schedules against their formulas."""

import math

import numpy as np
import pytest

from tinymixer import optim

N = optim.BLOCK + 37  # more than one block, and not a multiple of it


@pytest.fixture
def flat():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(N)
    gradients = [rng.standard_normal(N) for _ in range(4)]
    decay = (rng.random(N) < 0.5).astype(float)
    return weights, gradients, decay


def test_a_norm_that_is_no_number_scales_nothing():
    """So that what is to blame can still be told from the rest."""
    gradients = np.array([3.0, np.nan, 4.0], np.float32)
    assert np.isnan(optim.clip_by_global_norm(gradients, 1.0))
    np.testing.assert_array_equal(gradients, [3, np.nan, 4])


def test_adamw_follows_its_formula(flat):
    weights, gradients, decay = flat
    lr, (beta1, beta2), eps, weight_decay = 0.01, (0.8, 0.9), 1e-6, 0.3
    expected, m, v = weights.copy(), 0, 0
    for t, g in enumerate(gradients, start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        direction = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        # The decay acts on the weights after the step: the orders differ by lr² only.
        expected -= lr * direction
        expected -= lr * weight_decay * decay * expected

    optimizer = optim.AdamW(decay, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)
    for t, g in enumerate(gradients):
        optimizer.step(weights, g, lr, t)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_sgd_follows_its_formula(flat):
    weights, gradients, decay = flat
    expected, v = weights.copy(), 0
    for g in gradients:
        v = 0.9 * v + g
        expected -= 0.01 * (v + 0.3 * decay * expected)

    optimizer = optim.SGD(decay, momentum=0.9, weight_decay=0.3)
    for t, g in enumerate(gradients):
        optimizer.step(weights, g, 0.01, t)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_defaults_are_those_of_the_papers():
    """Of AdamW: Loshchilov, Hutter 2017, section 6, and Kingma, Ba 2014, algorithm 1."""
    adamw, sgd = optim.AdamW(np.ones(1)), optim.SGD(np.ones(1))
    assert (adamw.betas, adamw.eps, adamw.weight_decay) == ((0.9, 0.999), 1e-8, 0.0)
    assert (sgd.momentum, sgd.weight_decay) == (0.9, 0.0)


@pytest.mark.parametrize("make", [optim.AdamW, optim.SGD])
def test_the_average_follows_the_weights_after_the_step(flat, make):
    weights, gradients, decay = flat
    together, average, expected = weights.copy(), weights + 1, weights + 1
    one, other = make(decay, weight_decay=0.3), make(decay, weight_decay=0.3)
    for t, g in enumerate(gradients):
        one.step(together, g, 0.01, t, average=average, average_decay=0.8)
        other.step(weights, g, 0.01, t)
        expected = 0.8 * expected + 0.2 * weights
    np.testing.assert_array_equal(together, weights)
    np.testing.assert_allclose(average, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("make", [optim.AdamW, optim.SGD])
def test_float32_weights_stay_float32_and_gradients_untouched(make):
    weights, gradients = np.ones(5, np.float32), np.full(5, 0.5, np.float32)
    gradients.flags.writeable = False
    optimizer = make(np.ones(5, np.float32), weight_decay=0.1)
    optimizer.step(weights, gradients, 0.1, 0)
    assert weights.dtype == np.float32
    assert all(array.dtype == np.float32 for array in optimizer.state.values())
    assert (weights < 1).all()


def test_a_step_of_ones_own_optimizer_is_checked_before_it_is_made():
    class Mine(optim.Optimizer):
        decay = np.ones(3)

    with pytest.raises(ValueError, match=r"Mine\.step: gradients is .*\(4,\); expected .*\(3,\)"):
        Mine().step(np.ones(3), np.ones(4), 0.1, 0)
    with pytest.raises(ValueError, match=r"Mine\.step: expected step"):
        Mine().step(np.ones(3), np.ones(3), 0.1, -1)
    with pytest.raises(NotImplementedError, match="Mine defines no _update"):
        Mine().step(np.ones(3), np.ones(3), 0.1, 0)


SCHEDULES_AT_HALF = {"cosine": 0.55, "linear": 0.55, "trapezoid": 0.85, "constant": 1.0}


def test_schedules_rise_for_the_warm_up_and_fall_to_the_final_rate():
    for schedule, middle in SCHEDULES_AT_HALF.items():
        rates = [
            optim.learning_rate(s, base=1.0, final=0.1, warmup=4, total=24, schedule=schedule)
            for s in range(25)
        ]
        np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
        assert rates[14] == pytest.approx(middle)
        assert rates[24] == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert SCHEDULES_AT_HALF.keys() == optim.SCHEDULES.keys()
    held = [
        optim.learning_rate(s, base=1.0, final=0.0, warmup=4, total=24, schedule="trapezoid")
        for s in (4, 12, 13)
    ]
    assert held == pytest.approx([1, 1, 11 / 12])
    quarter = optim.learning_rate(9, base=1.0, final=0.0, warmup=4, total=24)
    assert quarter == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_clipping_scales_only_what_is_too_long():
    gradients = np.array([3.0, 4.0])
    assert optim.clip_by_global_norm(gradients, 10.0) == 5
    assert optim.clip_by_global_norm(gradients, 0.0) == 5
    np.testing.assert_array_equal(gradients, [3, 4])
    assert optim.clip_by_global_norm(gradients, 1.0) == 5
    np.testing.assert_allclose(gradients, [0.6, 0.8])


def test_the_average_forgets_exponentially():
    average = np.zeros(N)
    for _ in range(3):
        optim.update_average(average, np.ones(N), 0.9)
    np.testing.assert_allclose(average, 1 - 0.9**3)
