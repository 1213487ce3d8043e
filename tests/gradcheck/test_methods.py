"""The methods: what each is good to, where it applies, and that it knows both."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from examples import B, C, S, layer_norm, normal, token_linear, wrong

from tinymixer import nn, ops
from tinymixer.engine import Function
from tinymixer.gradcheck import CASES, check, check_function, check_model, mutants, numeric
from tinymixer.gradcheck.show import error_against_step
from tinymixer.gradcheck.slope import Slope, slope
from tinymixer.gradcheck.subject import of_function
from tinymixer.gradcheck.verdict import Claim, exceeds


def test_orders_and_the_complex_step_on_a_known_derivative():
    one = np.ones(())
    w, path = one, lambda t: np.exp(1.2 * t) * one
    for method, order in [
        (numeric.forward_difference, 1),
        (numeric.central, 2),
        (numeric.richardson, 4),
    ]:
        errors = [abs(method(path, w, h) - 1.2) for h in (0.2, 0.1)]
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)
    assert numeric.observed_order(path, w) == pytest.approx(4, abs=0.05)
    assert numeric.complex_step(path, w) == 1.2


def test_the_adjoint_is_tested_where_the_forward_is_linear():
    def tested(report):
        return {f.input for f in report.findings if f.method == "adjoint"}

    assert tested(check_function(ops.TokenLinear(), *token_linear)) == {"x", "W", "b"}
    assert tested(check_function(ops.LayerNorm(), *layer_norm)) == {"gamma", "beta"}
    assert tested(check_function(ops.primitives.Divide(), normal(S), 1 + normal(S) ** 2)) == {"x"}
    assert tested(check_function(ops.GELU(), normal(S))) == set()


@pytest.mark.parametrize("jump", [1.5e-3, -2e-4, 1e-5, -3e-3, 1.0])
def test_a_jump_close_by_is_stepped_over_by_none(jump):
    """The derivative is taken with steps that stay on this side of it."""

    def path(t):
        return np.asarray(np.sin(1.2 + t) + (abs(t) > abs(jump) and t * jump > 0))

    found = slope(path, np.ones(()), 1e-10)
    # The rungs of the ladder are 2**7 apart; 8 roundings at the first that is
    # short enough with all its parts, and twice as much for luck, 3 times.
    bound = max(1e-10, 3 * 16 * 2.0**-52 * 2**7 / abs(jump))
    assert abs(found.value - np.cos(1.2)) <= found.error <= bound


@pytest.mark.parametrize(
    ("path", "derivative"),
    [
        (lambda t: np.sin(1e6 * (1.2 + t)), 1e6 * np.cos(1.2e6)),
        (lambda t: np.tanh(1e8 * t), 1e8),
        (lambda t: np.log(1e-8 * (1 + t)), 1.0),
        (lambda t: 1e8 + t - 1e8, 1.0),
        (lambda t: np.exp(2 * t), 2.0),
        (lambda t: 1e3 + 1e-12 * t, 1e-12),
        (lambda t: np.float64(np.float32(1.2345 + t) ** 2), 2.469),
        (lambda t: np.float64(1 + t) ** 1.5 + np.abs(1e-6 + t), 2.5),
    ],
)
def test_a_slope_knows_how_far_it_may_be_off(path, derivative):
    found = slope(lambda t: np.asarray(path(t)), np.ones(()), 1e-10 * abs(derivative))
    assert abs(found.value - derivative) <= found.error
    assert found.error <= max(1e-4 * abs(derivative), 1e-9)


def test_sides_that_come_together_are_no_kink():
    found = slope(lambda t: np.asarray(abs(t) ** 1.5), np.ones(()), 1e-10)
    assert abs(found.value) <= found.error < 1e-6
    assert found.spread == 0


def test_a_kink_that_only_large_steps_meet_is_not_at_the_input():
    """Small ones, which do not, are good to 1 % beside a million; no claim may profit from it."""
    found = slope(lambda t: np.asarray(1e6 + np.abs(1e-6 + t)), np.ones(()), 1e-10)
    assert abs(found.value - 1) <= found.error < 0.1
    assert not found.kinked


def test_an_output_without_weight_may_jump():
    found = slope(lambda t: np.array([np.exp(t), np.floor(1 + t)]), np.array([1.0, 0.0]), 1e-10)
    assert abs(found.value - 1) <= found.error <= 1e-10


def test_a_derivative_is_better_than_the_two_that_its_error_compares():
    """h² and h⁴ cancel: what is left of exp is a hundredth of what they differ by."""
    found = slope(lambda t: np.exp(np.asarray(t)), np.ones(()), 0.0, rungs=(-1,))
    assert abs(found.value - 1) < 1e-2 * found.error < 1e-4


@pytest.mark.parametrize(
    ("f", "left", "right"),
    [
        (np.abs, -1, 1),
        (lambda t: np.maximum(t, 0), 0, 1),
        (lambda t: np.where(t > 0, 3 * t, -0.5 * t), -0.5, 3),
        (lambda t: np.abs(np.sin(t)) + np.exp(t), 0, 2),
    ],
)
def test_at_a_kink_both_sides_are_known(f, left, right):
    found = slope(lambda t: np.asarray(f(t)), np.ones(()), 1e-10)
    assert found.kinked
    np.testing.assert_allclose(found.sides, [left, right], atol=1e-5)
    middle = (left + right) / 2, (right - left) / 2
    np.testing.assert_allclose([found.value, found.spread], middle, atol=1e-5)


def test_a_claim_may_be_off_by_its_own_rounding():
    found = Slope(1 + 1e-6, error=1e-12)
    claim = Claim("x", 1.0, reference=1.0, rounding=0.0, coarser=0.0)
    assert exceeds(claim, found)
    assert not exceeds(replace(claim, rounding=1e-6), found)


@pytest.mark.parametrize(
    ("f", "why"),
    [
        (lambda t: np.floor(1 + t), "jumps"),
        (lambda t: np.sqrt(t), "edge"),
        (lambda t: np.log(t - 1), "not finite at this input"),
        (lambda t: np.where(t == 0, 1.0, np.nan), "not near it"),
    ],
)
def test_what_has_no_derivative_says_why(f, why):
    with np.errstate(all="ignore"):
        found = slope(lambda t: np.asarray(f(t)), np.ones(()), 1e-10)
    assert found.error > 1e6
    assert why in found.why


class Gated(nn.Module):
    """x W, or twice that where the first weight has passed a threshold; W is moved by the check."""

    def __init__(self, threshold, wrong):
        self.W = nn.Parameter(np.ones((4, 3)))
        self.threshold, self.wrong = threshold, wrong

    def forward(self, x):
        factor = 2.0 if self.W.data.real[0, 0] > self.threshold else 1.0
        y = ops.ChannelLinear()(x, self.W)
        if self.wrong:
            y = wrong(ops.GELU, lambda dy: 1.1 * dy)()(y)
        return y * factor


def test_of_a_model_that_jumps_the_complex_step_is_the_judge():
    seen = []

    def at_the_threshold(model, x):  # where the check has moved the weight to, and a little more
        seen.append(model.W.data.real[0, 0])
        model.threshold = seen[0] + 1e-5
        return model(x)

    report = check_model(Gated(0.0, wrong=False), normal(2, 4), at_the_threshold)
    report.raise_on_failure()
    assert report.worst("complex step").error < 1e-12
    seen.clear()
    assert not check_model(Gated(0.0, wrong=True), normal(2, 4), at_the_threshold)


class HalfReal(nn.Module):
    """2 x W, half of it cast to real numbers on the way, at which NumPy only warns."""

    def __init__(self):
        self.W = nn.Parameter(np.ones((4, 3)))

    def forward(self, x):
        y = ops.ChannelLinear()(x, self.W)
        return y + ToReal()(y)


class ToReal(Function):
    def forward(self, x):
        return x.astype(np.float64)

    def backward(self, dy):
        return dy


def test_of_a_model_with_a_cast_to_real_the_differences_are_the_judge():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
        report = check_model(HalfReal(), normal(2, 4))
    report.raise_on_failure()
    assert not report.analytic


def test_order_is_none_where_there_is_no_truncation():
    assert numeric.observed_order(lambda t: np.array(3 + t - 2 * t**3), np.ones(())) is None


def test_a_kink_is_named_at_it_and_not_near_it():
    class Absolute(Function):
        def forward(self, x):
            self.saved = (np.sign(x),)
            return np.abs(x)

        def backward(self, dy):
            return dy * self.saved[0]

    for near in (3.0, 1e-2, 1e-8, -1e-12):
        report = check_function(Absolute(), np.array([near, -2.0]))
        report.raise_on_failure()
        assert "no complex step: the forward is not analytic" in str(report)
        assert not report.kinks
    at = check_function(Absolute(), np.array([0.0, -2.0]))
    at.raise_on_failure()
    assert "at a kink: 1 element" in str(at)
    assert "dx[0] an output has slope -1 from the left and 1 from the right" in str(at)


def test_the_curve_has_a_bottom_and_float32_has_none():
    case = next(case for case in CASES if isinstance(case.op, ops.LayerNorm))
    curve = error_against_step(of_function(case.op, *case.arrays))
    best = {method: min(error for _, error in points) for method, points in curve.items()}
    assert best["complex step"] < 1e-14 < best["central + Richardson"] < 1e-10
    assert best["central + Richardson"] < best["forward difference"] < 1e-6
    assert best["central difference, float32"] > 1e-6
    assert curve["forward difference"][-1][1] > 1e3 * best["forward difference"]


def test_a_zero_backward_passes_a_summed_output_and_not_a_random_cotangent():
    class Zero(ops.LayerNorm):
        def backward(self, dy):
            dx, dgamma, dbeta = super().backward(dy)
            return 0 * dx, dgamma, dbeta

    arrays = normal(S, B, C), np.ones(C), np.zeros(C)
    assert mutants.HABITS["summed output"](of_function(Zero(), *arrays))
    assert not check_function(Zero(), *arrays)


def test_a_gradient_that_is_zero_by_symmetry_is_named_and_not_divided_by():
    report = check(lambda x: ops.LayerNorm()(x, np.ones(C), np.zeros(C)).sum(), normal(S, C))
    report.raise_on_failure()
    assert report.zeros == ["x"]


def test_a_gradient_that_is_zero_by_symmetry_may_be_written_as_zero():
    """What every method measures there is rounding, beside which 0 is exact."""

    class Balanced(Function):
        def forward(self, x):
            self.saved = (x.shape,)
            return (x - x.mean(-1, keepdims=True)).sum(-1)

        def backward(self, dy):
            return np.zeros(self.saved[0])

    report = check_function(Balanced(), normal(S, B))
    report.raise_on_failure()
    assert report.zeros == ["x"]
