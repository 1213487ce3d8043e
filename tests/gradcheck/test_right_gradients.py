"""That right gradients pass: of every Function, of compositions and of whole models."""

import numpy as np
import pytest
from examples import B, C, S, normal

from tinymixer import ops
from tinymixer.cli.gradcheck import _check_model, in_training
from tinymixer.gradcheck import CASES, check, check_model, checks, mutants


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_function(case):
    report = case.check()
    report.raise_on_failure()
    assert report
    assert report.worst("complex step"), "every forward here is analytic"


def test_a_composition():
    report = check(lambda x, W, b: (x @ W + b).tanh() * x, normal(S, C), normal(C, C), normal(C))
    report.raise_on_failure()
    assert {f.input for f in report.findings} == {"x", "W", "b"}
    assert report.worst("adjoint") is None, "tanh is linear in none of them"


def test_integers_reach_a_composition_as_they_are():
    def loss(logits, targets):
        assert isinstance(targets, np.ndarray)
        return ops.SoftmaxCrossEntropy()(logits, targets)

    check(loss, normal(B, C), np.array([0, 4, 2])).raise_on_failure()


def test_a_composition_returns_a_tensor():
    with pytest.raises(TypeError, match="return a Tensor, got ndarray"):
        check(lambda x: x.data, normal(3))


def test_a_composition_is_repeatable():
    rng = np.random.default_rng(0)
    report = check(lambda x: x * rng.standard_normal(3), normal(3))
    assert "a second forward gives another result" in str(report)
    assert not report


def test_a_whole_model(tiny_model, images):
    report = check_model(tiny_model, images)
    report.raise_on_failure()
    # What token mixing adds to all channels of a token alike, the next LayerNorm takes away.
    assert report.zeros == ["blocks.0.token_mlp.b2", "blocks.1.token_mlp.b2"]
    assert "zero by symmetry: dblocks.0.token_mlp.b2" in str(report)
    looked_at = {f.input for f in report.findings}
    assert looked_at == {*dict(tiny_model.named_parameters()), checks.ALL}
    assert sum(f.input == "all parameters" for f in report.findings) == 2 * checks.DIRECTIONS
    assert not tiny_model.head.W.data.any(), "the model itself is left as it is"
    assert tiny_model.head.W.dtype == np.float32


def test_mixer_pico():
    from tinymixer import create_model

    check_model(create_model("mixer_pico"), normal(1, 32, 32, 3)).raise_on_failure()


def test_a_model_with_kinks_in_evaluation(tiny_hire, hire_images):
    report = check_model(tiny_hire, hire_images)
    report.raise_on_failure()
    assert report.worst("complex step")
    assert report.zeros == []


def test_a_model_with_kinks_in_training(tiny_hire, hire_images):
    before = {name: array.copy() for name, array in tiny_hire.state().items()}
    report = check_model(tiny_hire, hire_images, in_training)
    report.raise_on_failure()
    assert {f.input for f in report.findings if f.method == "differences"} <= {checks.ALL}
    # What is added to a channel everywhere, the next BatchNorm takes away.
    assert report.zeros == [
        "stages.0.reduction.convolution.linear.b",
        "stages.1.reduction.convolution.linear.b",
        *(f"stages.1.blocks.{j}.{name}" for j in (0, 1) for name in ("projection.b", "mlp.b2")),
    ]
    for name, array in tiny_hire.state().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("slip", ["dy * (positive + 0.01)", "dy * positive[::-1]"])
def test_a_bug_is_seen_among_kinks(tiny_hire, hire_images, monkeypatch, slip):
    monkeypatch.setattr(checks, "LOOK_CLOSER", 1)  # that it fails is enough here
    wrong = mutants.plant(mutants.Mutant(ops.ReLU, "", "dy * positive", slip))
    monkeypatch.setattr(ops.ReLU, "backward", wrong.backward)
    assert not check_model(tiny_hire, hire_images, in_training)


@pytest.mark.slow
def test_hire_mlp_nano_in_both_modes():
    evaluation, training = _check_model("hire_mlp_nano")
    evaluation.raise_on_failure()
    training.raise_on_failure()
    assert training.name == "HireMLP in training at 20x12, twice"
    assert evaluation.zeros == []
