"""Anybody's function: kinks, scales, large inputs, and inputs and functions that are odd."""

import re

import numpy as np
import pytest
from examples import normal, wrong

from tinymixer import ops
from tinymixer.engine import Function, Tensor
from tinymixer.gradcheck import check, check_function, checks


class OfNumPy(Function):
    """y = f(x), dx = dy f'(x), written for real numbers only."""

    def __init__(self, f, derivative):
        self.f, self.derivative = f, derivative

    def forward(self, x):
        self.saved = (x,)
        return self.f(np.asarray(x, np.float64))

    def backward(self, dy):
        return dy * self.derivative(self.saved[0])


ABSOLUTE = OfNumPy(np.abs, np.sign)


# ------------------------------------------------------------------ kinks and scales


RELU = OfNumPy(lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0))


@pytest.mark.parametrize(("shape", "seeds"), [((4,), 40), ((3, 4), 10), ((8, 16), 3)])
def test_relu_of_random_numbers_passes(shape, seeds):
    for seed in range(seeds):
        x = np.random.default_rng(seed).standard_normal(shape)
        check_function(ops.ReLU(), x).raise_on_failure()
        check_function(ABSOLUTE, x).raise_on_failure()
        check_function(RELU, x).raise_on_failure()


def test_a_layer_with_relu_passes():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, W = rng.standard_normal((3, 5)), rng.standard_normal((5, 7))
        check(lambda x, W: ops.ReLU()(x @ W), x, W).raise_on_failure()


@pytest.mark.parametrize(
    ("f", "draw"),
    [
        (lambda x: x.log(), lambda rng: [rng.random(20)]),
        (lambda x: x.sqrt(), lambda rng: [rng.random(20)]),
        (lambda x, y: x / y, lambda rng: [rng.standard_normal(20), rng.standard_normal(20)]),
        (lambda x: x * x, lambda rng: [1e5 * rng.standard_normal(7)]),
        (lambda x: x * x, lambda rng: [1e8 * rng.standard_normal(7)]),
        (lambda x: 1.0 / x, lambda rng: [1e-8 * rng.standard_normal(7)]),
        (lambda x: x.log(), lambda rng: [1e-140 * (1 + rng.random(7))]),
        (lambda x: (x * 1e8).tanh(), lambda rng: [1e-8 * rng.standard_normal(7)]),
        (lambda x: (x * x).sum() + 1e9, lambda rng: [rng.standard_normal(11)]),
    ],
    ids=["log", "sqrt", "divide", "1e5²", "1e8²", "1/1e-8", "log(1e-140)", "tanh(1e8x)", "1e9+Σ"],
)
def test_scale_does_not_matter(f, draw):
    for seed in range(20):
        check(f, *draw(np.random.default_rng(seed))).raise_on_failure()


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e3, 1e8])
def test_scale_does_not_matter_to_differences(scale):
    """Also where the complex step does not apply."""
    for seed in range(5):
        x = scale * np.random.default_rng(seed).standard_normal(11)
        report = check_function(OfNumPy(lambda x: x * np.abs(x), lambda x: 2 * np.abs(x)), x)
        report.raise_on_failure()
        assert not report.analytic
        assert 0 < report.coverage.noticed < 2e-6  # the error below is
        assert not check_function(
            OfNumPy(lambda x: x * np.abs(x), lambda x: (2 + 2e-6) * np.abs(x)), x
        )


def test_each_element_has_a_step_of_its_own():
    x = 10.0 ** np.arange(-20, 9, 4)
    check_function(OfNumPy(np.log, lambda x: 1 / x), x).raise_on_failure()
    wrong_at_0 = 1 + 1e-6 * (np.arange(x.size) == 0)
    assert "dx[0]" in str(check_function(OfNumPy(np.log, lambda x: wrong_at_0 / x), x))


def test_steps_far_beyond_an_element_say_something_of_what_is_nearly_linear_only():
    """Beside a large constant no other steps show: of x in fifteen times x, of sin x nothing."""
    x = np.array([0.7, -1.3, 2.1])
    straight = OfNumPy(lambda x: 15 * x + 1e12, lambda x: 15 + 0 * x)
    check_function(straight, x).raise_on_failure()
    waves = check_function(OfNumPy(lambda x: np.sin(x) + 1e15, np.cos), x)
    assert waves.verdict == "not decidable here", waves


def test_steps_at_which_a_part_of_the_forward_stands_still_contradict_no_other():
    """Of 1 + x² nothing moves when x = 1e-5 does by 1e-9 of itself: those quotients agree on 1."""
    forward = OfNumPy(lambda x: x + 100 * ((1 + x * x) - 1), lambda x: 1 + 200 * x)
    check_function(forward, np.array([1e-5, 1.0])).raise_on_failure()


def test_at_a_kink_every_subgradient_is_accepted_and_said():
    x = np.array([0.0, 1.0, -2.0])
    for slope in (0.0, 0.5, 1.0):
        report = check_function(
            OfNumPy(lambda x: np.maximum(x, 0), lambda x, s=slope: np.where(x == 0, s, x > 0)), x
        )
        report.raise_on_failure()
        assert "at a kink: 1 element" in str(report)
        assert "slope 0 from the left and 1 from the right" in str(report)
    beyond = OfNumPy(lambda x: np.maximum(x, 0), lambda x: np.where(x == 0, 1.01, x > 0))
    assert check_function(beyond, x).verdict == "failed"


def test_relu_at_zeros_alone_is_not_decidable():
    report = check_function(ops.ReLU(), np.zeros(3))
    assert report.verdict == "not decidable here"
    assert "all of dx is at kinks" in str(report)


def test_the_other_elements_are_still_judged_beside_a_kink():
    x = np.array([0.0, 1.0, -2.0])
    report = check_function(wrong(ops.ReLU, lambda dx: dx * (1 + 1e-6))(), x)
    assert report.verdict == "failed"
    assert "dx[1]" in str(report)


@pytest.mark.parametrize(
    ("f", "x", "says"),
    [
        (np.floor, [1.0, 1.5], "jumps here"),
        (np.round, [0.5, 0.2], "jumps here"),
        (lambda x: x * (np.argmax(x) == 1), [1.0, 1.0], "jumps here"),
        (np.sqrt, [0.0, 1.0], "edge"),
    ],
)
def test_on_a_jump_or_an_edge_nothing_is_decided(f, x, says):
    derivative = {np.sqrt: lambda x: np.full_like(x, 0.5)}.get(f, lambda x: 0 * x + (f(x) != 0) * 0)
    report = check_function(OfNumPy(f, derivative), np.array(x))
    assert report.verdict == "not decidable here", report
    assert re.search(f"not decided: .*dx\\[0\\].*\\n.*{says}.*What would decide", str(report))


def test_away_from_its_jumps_a_choice_is_right():
    check_function(
        OfNumPy(np.round, lambda x: 0 * x), np.array([0.2, 1.7, -3.1])
    ).raise_on_failure()
    straight_through = OfNumPy(np.round, lambda x: 0 * x + 1)
    assert check_function(straight_through, np.array([0.2, 1.7])).verdict == "failed"


# ------------------------------------------------------------------ coverage


def _doubled_at(k):
    def change(dx):
        dx = dx.copy()
        dx.flat[k] *= 2
        return dx

    return change


@pytest.mark.parametrize(("n", "how"), [(300, "one at a time"), (301, "together")])
@pytest.mark.parametrize("gate", [ops.GELU, ops.ReLU])
def test_one_wrong_element_of_many_is_found(monkeypatch, n, how, gate):
    monkeypatch.setattr(checks, "MOST_ELEMENTS", 300)
    x = np.abs(normal(n)) + 0.1
    report = check_function(wrong(gate, _doubled_at(n - 1))(), x)
    assert report.verdict == "failed"
    assert f"dx[{n - 1}]" in str(report)
    assert f"all {n} elements {how}" in str(report)


def test_errors_that_cancel_in_a_sum_are_found(monkeypatch):
    """Two elements swapped have the same sum: they are moved up and down at random."""
    monkeypatch.setattr(checks, "MOST_ELEMENTS", 300)

    def swapped(dx):
        dx, (i, j) = dx.copy(), np.argsort(np.abs(dx))[-2:]
        dx[[i, j]] = dx[[j, i]]
        return dx

    x = np.random.default_rng(0).uniform(1, 2, 301)  # whose steps are alike
    assert check_function(wrong(ops.GELU, swapped)(), x).verdict == "failed"


def test_of_a_slow_function_all_elements_are_moved_together(monkeypatch):
    monkeypatch.setattr(checks, "LONGEST", 0.0)
    report = check_function(ops.GELU(), normal(50))
    report.raise_on_failure()
    assert "covered: all 50 elements together" in str(report)
    assert not check_function(wrong(ops.GELU, _doubled_at(7))(), normal(50))


def test_an_error_of_a_millionth_in_one_of_20_000():
    def change(dx):
        dx = dx.copy()
        dx[17_777] *= 1 + 1e-6
        return dx

    x = normal(20_000)
    right = check_function(ops.GELU(), x)
    right.raise_on_failure()
    assert "all 20,000 elements together" in str(right)
    assert 0 < right.coverage.noticed < 1e-6
    report = check_function(wrong(ops.GELU, change)(), x)
    assert "dx[17777]" in str(report)
    absolute = wrong(type(ABSOLUTE), change)(np.abs, np.sign)
    assert "dx[17777]" in str(check_function(absolute, x))


@pytest.mark.parametrize("k", [10, 1500, 2990])
def test_a_wrong_element_is_found_among_gradients_of_any_size(k):
    x = np.logspace(-8, 0, 3000)
    square = OfNumPy(lambda x: x * np.abs(x), lambda x: 2 * np.abs(x))
    check_function(square, x).raise_on_failure()
    off = wrong(OfNumPy, _doubled_at(k))(square.f, square.derivative)
    assert f"dx[{k}]" in str(check_function(off, x))


def test_kinks_among_many_elements_do_not_hide_a_wrong_one():
    x = normal(3000)
    x[::7] = 0
    relu = OfNumPy(lambda x: np.maximum(x, 0), lambda x: 1.0 * (x >= 0))
    right = check_function(relu, x)
    right.raise_on_failure()
    assert "at a kink" in str(right)
    k = int(np.argmax(x))
    off = wrong(OfNumPy, lambda dx: dx * (1 + 1e-6 * (np.arange(dx.size) == k)))
    assert f"dx[{k}]" in str(check_function(off(relu.f, relu.derivative), x))


def test_what_is_only_nearly_linear_is_not_tested_as_linear():
    report = check(lambda x: x + 1e-10 * x * x, normal(7))
    report.raise_on_failure()
    assert report.worst("adjoint") is None


def test_digits_that_a_saturated_tanh_loses_are_no_mistake():
    """1 - y² is right to ε/(1 - y²) only: another amount at every input, unlike a mistake."""
    check(lambda x: x.tanh(), np.linspace(5, 9, 60)).raise_on_failure()


@pytest.mark.slow
def test_one_wrong_element_of_ten_million():
    """Off by a millionth, it is found and named; right, all pass, and the report says what of.

    Of one Function, by groups of directions and halving, with a forward that complex numbers pass
    through. It takes 7 GB of memory and five minutes of one core.
    """

    x = normal(10_000_000)
    place = 7_654_321 + int(np.argmax(x[7_654_321:] > 0))  # where the gradient is not 0

    def change(dx):
        dx = dx.copy()
        dx[place] *= 1 + 1e-6
        return dx

    right = check_function(ops.ReLU(), x)
    right.raise_on_failure()
    covered = "covered: all 10,000,000 elements together, in groups; an error of one element is"
    assert covered in str(right)
    assert 0 < right.coverage.noticed < 1e-6
    off = check_function(wrong(ops.ReLU, change)(), x)
    assert off.verdict == "failed"
    assert f"dx[{place}]" in str(off)


def test_the_report_says_what_was_covered():
    report = check(lambda x, y: x * y.sum(), normal(3), normal(2500))
    assert "covered: all 3 elements one at a time, 2,500 elements together" in str(report)


# ------------------------------------------------------------------ odd inputs and functions


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ([np.array([1, 2, 3])], "whole numbers count as labels.*3.0 for 3"),
        ([[1, 2, 3]], "whole numbers count as labels"),
        ([np.zeros((0, 3))], "no elements"),
        ([[[1.0, 2.0], [3.0]]], "rows differ in length"),
        ([np.array([1j])], "complex128; give real numbers"),
        ([np.array(["a"])], "give real numbers"),
        ([np.array([1.0, 1e-200])], "x holds values below 1e-150"),
        ([np.array([1.0, np.nan])], "x holds values that are not finite"),
    ],
)
def test_odd_inputs_get_a_sentence(arrays, says):
    for report in (check_function(ops.GELU(), *arrays), check(lambda x: x * x, *arrays)):
        assert report.verdict == "not decidable here"
        assert re.search(says, str(report)), report
        assert str(report).count("\n") == 1


def test_lists_scalars_and_float32_are_widened():
    check(lambda x: x * x, [1.0, -2.0]).raise_on_failure()
    check(lambda x: x * x, 3.0).raise_on_failure()
    check(lambda x: x * x, np.float32([1, 2])).raise_on_failure()
    check(lambda x: x * x, Tensor(np.ones(3))).raise_on_failure()


def test_several_outputs_count_together():
    check(lambda x: (x * x, x.tanh()), normal(3)).raise_on_failure()

    def half(x):
        return wrong(ops.GELU, lambda dx: 0.5 * dx)()(x), x.tanh()

    assert not check(half, normal(3))


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda self, x: x.argmax(-1), "int64: a choice or a count has no derivative"),
        (lambda self, x: (x, x), "returns a tuple"),
        (lambda self, x: None, "returns nothing"),
        (lambda self, x: x * 1j, "complex128"),
        (lambda self, x: x @ np.ones((4, 2)), "forward raises ValueError: .*line"),
        (lambda self, x: x[:0], "output has no elements"),
        (lambda self, x: np.log(-(x * x)), r"not finite at this input: y\[0\] is nan"),
    ],
)
def test_odd_forwards_get_a_sentence(forward, says):
    report = check_function(type("Odd", (ops.GELU,), {"forward": forward})(), normal(3))
    assert report.verdict == "not decidable here", report
    assert re.search(says, str(report)), report


def test_a_function_that_returns_a_number_is_checked():
    class Total(Function):
        def forward(self, x):
            self.saved = (x.shape,)
            return complex(x.sum()) if np.iscomplexobj(x) else float(x.sum())

        def backward(self, dy):
            return np.full(self.saved[0], dy)

    check_function(Total(), normal(3, 2)).raise_on_failure()


@pytest.mark.parametrize("kind", ["random", "state", "shape"])
def test_a_forward_must_be_repeatable(kind):
    rng, calls = np.random.default_rng(0), []

    class Changing(ops.GELU):
        def forward(self, x):
            calls.append(1)
            y = super().forward(x)
            if kind == "random":
                return y * rng.random(x.shape)
            return y * len(calls) if kind == "state" else y[: 1 + len(calls)]

    report = check_function(Changing(), normal(7))
    assert report.verdict == "failed"
    assert "a second forward gives another result" in str(report)


def test_a_complex_step_that_the_differences_refute_is_not_believed():
    """It does not see the real part move; without a cast, NumPy does not say so either."""

    class PartlyReal(Function):
        def forward(self, x):
            self.saved = (x,)
            return x.real * x

        def backward(self, dy):
            return 2 * dy * self.saved[0]

    report = check_function(PartlyReal(), normal(5))
    report.raise_on_failure()
    assert not report.analytic
    assert not check_function(wrong(PartlyReal, lambda dx: dx * (1 + 1e-6))(), normal(5))


def test_steps_that_a_rounding_inside_agrees_with_prove_nothing():
    """Rounded to multiples of 2^-17, 1.1 x seems to be x at steps of 4, 2 and 1 of them."""
    grid = 1.5 * 2.0**35
    forward = OfNumPy(lambda x: (1.1 * x + grid) - grid, lambda x: 1.1 + 0 * x)
    assert check_function(forward, np.zeros(3)).verdict == "not decidable here"


def test_a_forward_in_float32_only_is_judged_in_float32():
    class Single(Function):
        def forward(self, x):
            x = x.astype(np.float32)
            self.saved = (x,)
            return x * x

        def backward(self, dy):
            return (2 * dy * self.saved[0]).astype(np.float32)

    x = 1 + np.abs(normal(7))
    check_function(Single(), x).raise_on_failure()
    off = wrong(Single, lambda dx: dx * np.float32(1.05))
    assert check_function(off(), x).verdict == "failed"


def test_a_complex_step_is_taken_in_float32_too():
    class Single(Function):
        def forward(self, x):
            x = x.astype(np.complex64 if np.iscomplexobj(x) else np.float32)
            self.saved = (x,)
            return x * x

        def backward(self, dy):
            return (2 * dy * self.saved[0]).astype(np.float32)

    report = check_function(Single(), 1 + np.abs(normal(7)))
    report.raise_on_failure()
    assert report.analytic
    assert abs(report.worst("complex step").numeric) > 2


def test_float32_inside_is_judged_in_float32():
    def f(x):
        return np.float64(np.float32(x) * np.float32(x))

    x = 1 + np.abs(normal(7))
    check_function(OfNumPy(f, lambda x: 2 * x), x).raise_on_failure()
    assert check_function(OfNumPy(f, lambda x: 2.1 * x), x).verdict == "failed"


def test_a_backward_that_raises_is_a_sentence():
    def backward(self, dy):
        return dy @ np.ones((100, 2))

    report = check_function(type("Raising", (ops.GELU,), {"backward": backward})(), normal(3))
    assert report.verdict == "failed"
    assert "backward raises ValueError" in str(report)
    assert "test_any_function.py, line" in str(report)


def test_a_contract_broken_late_is_reported_like_one_broken_early():
    """Right for the first cotangent; the adjoint test, which draws others, meets the fault."""

    class Late(Function):
        def __init__(self):
            self.first = []

        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            self.first.append(dy[0])
            return 2 * dy if dy[0] == self.first[0] else (2 * dy)[:1]

    report = check_function(Late(), normal(3))
    assert report.verdict == "failed"
    assert "dx is float64 (1,); expected float64 (3,), like x itself" in str(report)
    assert str(report).count("\n") == 1


@pytest.mark.parametrize("error", [AttributeError, ValueError, KeyError, ZeroDivisionError])
def test_a_forward_that_raises_is_a_sentence(error):
    class Raising(ops.GELU):
        def forward(self, x):
            raise error("in a forward")

    for report in (
        check_function(Raising(), normal(3)),
        check(lambda x: Raising()(x) * x, normal(3)),
    ):
        assert report.verdict == "not decidable here"
        says = f"forward raises {error.__name__}: .*in a forward.* \\(test_any_function.py, line"
        assert re.search(says, str(report)), report
        assert str(report).count("\n") == 1


@pytest.mark.parametrize("error", [AttributeError, ValueError, KeyError, ZeroDivisionError])
@pytest.mark.parametrize("bound", [1.0 + 1e-6, 1.05, 3.0])
def test_a_forward_that_raises_close_by_is_judged_by_the_steps_that_it_takes(error, bound):
    """Outside of its domain; inside, the differences decide."""

    class Bounded(OfNumPy):
        def forward(self, x):
            if abs(np.asarray(x)).max() > bound:
                raise error("outside")
            return super().forward(x)

    x = np.array([1.0, -0.7])
    right = check_function(Bounded(lambda x: x * np.abs(x), lambda x: 2 * np.abs(x)), x)
    right.raise_on_failure()
    off = check_function(Bounded(lambda x: x * np.abs(x), lambda x: 2.001 * np.abs(x)), x)
    assert off.verdict == "failed"
    assert "error against step" in str(off)
    linear = Bounded(lambda x: 2 * x, lambda x: 2 + 0 * x)
    check_function(linear, x).raise_on_failure()
    right.plot()


def test_one_element_does_not_explain_an_error_as_a_factor():
    report = check_function(wrong(ops.GELU, lambda dx: 0.5 * dx)(), np.array([1.3]))
    assert report.verdict == "failed"
    assert "off by the factor" not in str(report)
    assert "a single element" in str(report)


def test_a_class_instead_of_an_instance_is_said():
    assert "give an instance with its options: GELU(...)" in str(
        check_function(ops.GELU, normal(3))
    )


def test_an_unknown_constant_is_said():
    report = check_function(ops.GELU(), normal(3), constants=["y"])
    assert "there is no input y; the inputs are x" in str(report)


# ------------------------------------------------------------------ the report


def test_a_report_of_a_right_function_is_short():
    report = check_function(ops.LayerNorm(), normal(7, 3, 5), normal(5), normal(5))
    assert str(report).count("\n") < 12


def test_a_report_draws_its_curve_and_shows_as_a_table():
    right, bad = (check_function(f(), normal(3)) for f in (ops.GELU, wrong(ops.GELU, np.negative)))
    assert len(right.plot().axes[0].lines) == 5
    assert "<table>" in right._repr_html_()
    assert "WRONG" in bad._repr_html_()
    assert "failed" in bad._repr_html_()
    with pytest.raises(ValueError, match="no curve to draw"):
        check_function(ops.GELU(), np.zeros(0)).plot()
