"""That wrong gradients fail, and that the report leads to the term that is wrong."""

import re

import numpy as np
import pytest
from examples import B, C, S, layer_norm, normal, square, token_linear, without, wrong

from tinymixer import nn, ops
from tinymixer.engine import no_grad
from tinymixer.gradcheck import check, check_function, check_model


@pytest.mark.parametrize(
    ("function", "arrays", "lesson"),
    [
        (without("mean"), layer_norm, "constant along axis 2: .* missing"),
        (without("stretch"), layer_norm, "along axis 2 .* straight line in the input"),
        (wrong(ops.GELU, lambda dx: -dx), [normal(S)], "the sign"),
        (wrong(ops.GELU, lambda dx: 0 * dx), [normal(S)], "all zero"),
        (wrong(ops.GELU, lambda dx: 0.5 * dx), [normal(S)], "factor 0.5"),
        (wrong(ops.GELU, lambda dx: dx / 0), [normal(S)], "7 elements are not finite"),
        (wrong(ops.GELU, np.flip), [normal(S)], "reversed along axis 0"),
        (wrong(ops.GELU, lambda dx: np.roll(dx, 1)), [normal(S)], "shifted by one along axis 0"),
        (
            wrong(ops.SoftmaxCrossEntropy, lambda dx, _: (dx * B, None)),
            [normal(B, C), np.array([1, 0, 4])],
            "3 times too large: a missing 1/N with N = 3, the length of axis 0 of logits",
        ),
        (
            wrong(ops.TokenLinear, lambda dx, dW, db: (dx, dW / 15, db)),
            token_linear,
            "15 times too small: .* N = 15, axes 1 and 2 of x together",
        ),
        (
            wrong(ops.ChannelLinear, lambda dx, dW, db: (dx, dW.T, db)),
            square,
            "dW: transposed",
        ),
        (
            wrong(ops.GELU, lambda dx: dx * (np.arange(dx.size) != 4).reshape(dx.shape)),
            [normal(S, B)],
            r"1 of 21 elements are wrong, the first at \[1, 1\]",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_the_likeliest_cause_is_named(function, arrays, lesson):
    report = check_function(function(), *arrays)
    assert not report
    assert re.search(f"likeliest cause of .*{lesson}", str(report)), str(report)
    with pytest.raises(AssertionError, match="FAILED"):
        report.raise_on_failure()


def test_a_forgotten_transpose_is_named():
    class Forgotten(ops.TokenLinear):
        def backward(self, dy):
            x, W = self.saved
            X, dY = x.reshape(len(x), -1), dy.reshape(len(dy), -1)
            return (W @ dY).reshape(x.shape), dY @ X.T, dY.sum(1)

    report = check_function(Forgotten(), normal(S, B, C), normal(S, S), normal(S))
    assert "likeliest cause of dx: transposed: this is J dy, expected Jᵀ dy" in str(report)


def test_a_forward_that_is_not_finite_is_named():
    def nothing(self, x):
        self.saved = (x,)
        return x * np.nan

    report = check_function(type("Nothing", (ops.GELU,), {"forward": nothing})(), normal(S))
    assert "the forward itself is not finite" in str(report)


def test_a_failure_names_input_index_both_numbers_and_the_error_by_step():
    def change(dx, dW, db):
        db = db.copy()
        db[4] += 2
        return dx, dW, db

    report = check_function(wrong(ops.TokenLinear, change)(), *token_linear)
    text = str(report)
    assert len(report.steps) == 5
    assert all(error > 0.1 for _, error in report.steps)
    found = re.search(r"db\[4\]: complex step (\S+), backward (\S+); relative error", text)
    assert found, text
    assert float(found[2]) - float(found[1]) == pytest.approx(2)
    assert "1 of 11 elements are wrong, the first at [4]" in text
    assert "error against step" in text
    assert "no step closes the gap" in text
    assert "dx" not in text


draws = iter(np.random.default_rng(0).random(10))


@pytest.mark.parametrize(
    ("change", "lesson"),
    [
        (lambda dx, dW, db: (dx, dW), "returns 2 gradients for 3 inputs"),
        (lambda dx, dW, db: (dx, dW.T, db), r"dW is .*\(7, 11\); expected .*\(11, 7\).*transposed"),
        (lambda dx, dW, db: (dx.astype("f"), dW, db), "dx is float32"),
        (lambda dx, dW, db: (dx, None, db), "dW is None, yet y depends on W"),
        (lambda dx, dW, db: (dx, dW, db * next(draws)), "second .* gives another db"),
    ],
)
def test_a_broken_contract_is_named(change, lesson):
    report = check_function(wrong(ops.TokenLinear, change)(), *token_linear)
    assert not report
    assert re.search(lesson, str(report)), str(report)


@pytest.mark.parametrize("who", ["forward", "backward"])
def test_writing_into_what_was_given_is_named(who):
    def write(self, x):
        x[0] = 0
        return x

    report = check_function(type("Writing", (ops.GELU,), {who: write})(), normal(S))
    assert "writes into an array that it was given" in str(report)


def test_gradients_are_proven_also_under_no_grad(tiny_model, images):
    with no_grad():
        check_model(tiny_model, images).raise_on_failure()
        check(lambda x: x * x, normal(3)).raise_on_failure()


def test_a_constant_gets_no_gradient():
    soft = np.full((B, C), 1 / C)
    assert check_function(ops.SoftmaxCrossEntropy(), normal(B, C), soft, constants=["targets"])
    report = check_function(ops.primitives.Multiply(), normal(B), normal(B), constants=["y"])
    assert "dy should be None" in str(report)


def test_a_wrong_bias_deep_in_a_model_is_found_and_named(tiny_model, images, monkeypatch):
    def change(dx, dW1, db1, dW2, db2):
        return dx, dW1, 1.001 * db1, dW2, db2

    monkeypatch.setattr(ops, "TokenMLP", wrong(ops.TokenMLP, change))
    report = check_model(tiny_model, images)
    singly = {f.input for f in report.findings if not f.passed} - {"all parameters"}
    assert singly == {"blocks.0.token_mlp.b1", "blocks.1.token_mlp.b1"}
    assert "off by the factor 1.001, everywhere" in str(report)


def test_a_wrong_parameter_that_hardly_counts_is_found_among_the_others():
    """Moved together, each so far that it counts as much as the others."""

    class Whisper(nn.Module):
        def __init__(self):
            self.W, self.b = nn.Parameter(np.ones((4, 3))), nn.Parameter(np.ones(3))

        def forward(self, x):
            doubled = wrong(ops.GELU, lambda dx: 2 * dx)()(self.b)
            return ops.ChannelLinear()(x, self.W) + 1e-11 * doubled

    report = check_model(Whisper(), normal(2, 4), thorough=False)
    assert {f.input for f in report.findings if not f.passed} == {"b"}


def test_one_wrong_element_of_a_large_parameter_fails_the_model(monkeypatch):
    """Also where none of the elements that are looked at closely is the wrong one."""

    def change(dx, dW, db):
        dW = dW.copy()
        dW[-1, -1] += 1
        return dx, dW, db

    monkeypatch.setattr(ops, "ChannelLinear", wrong(ops.ChannelLinear, change))
    layer = nn.ChannelLinear(40, 50, rng=np.random.default_rng(0))
    report = check_model(layer, normal(2, 40))
    assert "W" in {f.input for f in report.findings if not f.passed}


def test_one_mistake_below_the_rounding_of_a_large_output_is_seen():
    """y = 9000 whose gradients are 1e-8: what y can tell is coarser, the complex step is not."""

    def change(dx):
        dx = dx.copy()
        dx[77] *= 1 + 1e-6
        return dx

    def loss(softmax):
        return lambda x: (softmax()(x) * softmax()(x) + 1.0).sum()

    x = normal(8555)
    check(loss(ops.Softmax), x).raise_on_failure()
    report = check(loss(wrong(ops.Softmax, change)), x)
    assert report.verdict == "failed"
