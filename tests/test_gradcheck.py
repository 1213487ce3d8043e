"""The gradient checks: that right gradients pass, and that wrong ones are found and explained."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from tinymixer import cli, nn, ops
from tinymixer.cli.gradcheck import _check_model, in_training
from tinymixer.engine import Function, Tensor, no_grad
from tinymixer.gradcheck import CASES, check, check_function, check_model, checks, mutants, numeric
from tinymixer.gradcheck.show import error_against_step
from tinymixer.gradcheck.subject import of_function
from tinymixer.models import HireMLP, MLPMixer

S, B, C, D_S = 7, 3, 5, 11


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


@pytest.fixture
def tiny_model():
    return MLPMixer(
        image_size=(8, 12),
        patch_size=4,
        hidden_dim=C,
        num_blocks=2,
        tokens_mlp_dim=D_S,
        channels_mlp_dim=13,
        num_classes=3,
        rng=np.random.default_rng(0),
    )


images = normal(2, 8, 12, 3)
layer_norm = normal(S, B, C), normal(C), normal(C)
token_linear = normal(S, B, C), normal(D_S, S), normal(D_S)
square = normal(S, C), normal(C, C), normal(C)


# ------------------------------------------------------------------ right gradients pass


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


def test_a_whole_model(tiny_model):
    report = check_model(tiny_model, images)
    report.raise_on_failure()
    # What token mixing adds to all channels of a token alike, the next LayerNorm takes away.
    assert report.zeros == ["blocks.0.token_mlp.b2", "blocks.1.token_mlp.b2"]
    assert "zero by symmetry: dblocks.0.token_mlp.b2" in str(report)
    assert sum(f.input == "all parameters" for f in report.findings) == 2 * 30
    assert not tiny_model.head.W.data.any(), "the model itself is left as it is"
    assert tiny_model.head.W.dtype == np.float32


def test_mixer_pico():
    from tinymixer import create_model

    check_model(create_model("mixer_pico"), normal(1, 32, 32, 3)).raise_on_failure()


hire_images = normal(3, 13, 12, 3)  # several: in training, one alone is the mean of its batch


@pytest.fixture
def tiny_hire():
    model = HireMLP(
        image_size=(13, 12),
        dims=(4, 5),
        depths=(1, 2),
        pixels=(2, 3),
        strides=(1, 2),
        dilations=(1, 2),
        stem=(3, 2, 1),
        num_classes=3,
        init_std=0.5,
        rng=np.random.default_rng(0),
    )
    for _ in range(30):
        model(hire_images.astype(np.float32), np.random.default_rng(0))  # to have statistics
    return model


def test_a_model_with_kinks_in_evaluation(tiny_hire):
    report = check_model(tiny_hire, hire_images)
    report.raise_on_failure()
    assert report.worst("complex step")
    assert report.zeros == []


def test_a_model_with_kinks_in_training(tiny_hire):
    before = {name: array.copy() for name, array in tiny_hire.state().items()}
    report = check_model(tiny_hire, hire_images, in_training)
    report.raise_on_failure()
    assert report.kinked
    assert not report.worst("differences")
    assert "their steps cross kinks" in str(report)
    # What is added to a channel everywhere, the next BatchNorm takes away.
    assert report.zeros == [
        "stages.0.reduction.convolution.linear.b",
        "stages.1.reduction.convolution.linear.b",
        *(f"stages.1.blocks.{j}.{name}" for j in (0, 1) for name in ("projection.b", "mlp.b2")),
    ]
    for name, array in tiny_hire.state().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("slip", ["dy * (positive + 0.01)", "dy * positive[::-1]"])
def test_a_bug_is_seen_among_kinks(tiny_hire, monkeypatch, slip):
    monkeypatch.setattr(checks, "LOOK_CLOSER", 1)  # that it fails is enough here
    wrong = mutants.plant(mutants.Mutant(ops.ReLU, "", "dy * positive", slip))
    monkeypatch.setattr(ops.ReLU, "backward", wrong.backward)
    assert not check_model(tiny_hire, hire_images, in_training)


@pytest.mark.slow
def test_hire_mlp_nano_in_both_modes():
    evaluation, training = _check_model("hire_mlp_nano")
    evaluation.raise_on_failure()
    training.raise_on_failure()
    assert training.name == "HireMLP in training"
    assert evaluation.zeros == []


# ------------------------------------------------------------------ the methods


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
def test_a_difference_across_a_jump_is_seen_to_be_none(jump):
    def path(t):
        return np.sin(1.2 + t) + (abs(t) > abs(jump) and t * jump > 0)

    assert numeric.unsettled(path, np.ones(())) == (abs(jump) < numeric.STEP)


def test_rounding_is_not_taken_for_a_jump():
    assert not numeric.unsettled(lambda t: np.array(1e3 + 1e-12 * t), np.ones(()))
    assert not numeric.unsettled(lambda t: np.exp(2 * t), np.ones(()))


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
    assert report.kinked
    assert "steps cross" in str(report)
    seen.clear()
    assert not check_model(Gated(0.0, wrong=True), normal(2, 4), at_the_threshold)


def test_order_is_none_where_there_is_no_truncation():
    assert numeric.observed_order(lambda t: np.array(3 + t - 2 * t**3), np.ones(())) is None


def test_a_kink_within_reach_is_named():
    class Absolute(Function):
        def forward(self, x):
            self.save(np.sign(x))
            return np.abs(x)

        def backward(self, dy):
            return dy * self.saved[0]

    assert check_function(Absolute(), np.array([3.0, -2.0]))
    report = check_function(Absolute(), np.array([1e-2, 1.0]))
    assert not report
    assert "the forward is not smooth near this input" in str(report)
    assert "no complex step: the forward is not analytic" in str(report)


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


# ------------------------------------------------------------------ wrong gradients are explained


def wrong(function, change):
    """A subclass whose backward passes its gradients through `change`."""

    class Wrong(function):
        def backward(self, dy):
            gradients = super().backward(dy)
            return change(*gradients) if isinstance(gradients, tuple) else change(gradients)

    return Wrong


def without(term):
    def backward(self, dy):
        x_hat, scale, gamma = self.saved
        g = dy * gamma
        means = {"mean": g.mean(-1, keepdims=True)}
        means["stretch"] = x_hat * (g * x_hat).mean(-1, keepdims=True)
        del means[term]
        return scale * (g - sum(means.values())), (dy * x_hat).sum((0, 1)), dy.sum((0, 1))

    return type("Wrong", (ops.LayerNorm,), {"backward": backward})


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
        self.save(x)
        return x * np.nan

    report = check_function(type("Nothing", (ops.GELU,), {"forward": nothing})(), normal(S))
    assert "the forward itself is not finite" in str(report)


def test_a_failure_names_input_index_both_numbers_and_the_error_by_step():
    def change(dx, dW, db):
        db = db.copy()
        db[4] += 2
        return dx, dW, db

    text = str(check_function(wrong(ops.TokenLinear, change)(), *token_linear))
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


def test_gradients_are_proven_also_under_no_grad(tiny_model):
    with no_grad():
        check_model(tiny_model, images).raise_on_failure()
        check(lambda x: x * x, normal(3)).raise_on_failure()


def test_a_constant_gets_no_gradient():
    soft = np.full((B, C), 1 / C)
    assert check_function(ops.SoftmaxCrossEntropy(), normal(B, C), soft, constants=["targets"])
    report = check_function(ops.primitives.Multiply(), normal(B), normal(B), constants=["y"])
    assert "dy should be None" in str(report)


def test_a_wrong_bias_deep_in_a_model_is_found_and_named(tiny_model, monkeypatch):
    def change(dx, dW1, db1, dW2, db2):
        return dx, dW1, 1.001 * db1, dW2, db2

    monkeypatch.setattr(ops, "TokenMLP", wrong(ops.TokenMLP, change))
    report = check_model(tiny_model, images)
    singly = {f.input for f in report.findings if not f.passed} - {"all parameters"}
    assert singly == {"blocks.0.token_mlp.b1", "blocks.1.token_mlp.b1"}
    assert "off by the factor 1.001, everywhere" in str(report)


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


# ------------------------------------------------------------------ planted bugs


def test_there_are_at_least_sixty_planted_bugs():
    different = {(m.op, m.where, m.old, m.new) for m in mutants.MUTANTS}
    assert len(different) == len(mutants.MUTANTS) >= 60


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: f"{m.op.__name__}: {m.bug}")
def test_every_planted_bug_is_caught(mutant):
    assert mutants.catchers(mutant, mutants.OURS)


def test_no_habit_raises_a_false_alarm():
    """A habit that failed right gradients too would seem to catch every bug."""
    for case in CASES:
        subject = of_function(case.op, *case.arrays, constants=case.constants)
        for name, passes in mutants.HABITS.items():
            assert passes(subject), f"{name} on {case.name}"


@pytest.mark.parametrize(
    "mutant",
    {(m.op, m.where): replace(m, new=m.old) for m in mutants.MUTANTS}.values(),
    ids=lambda m: f"{m.op.__name__}: {(m.where or m.op).__name__}",
)
def test_planting_nothing_is_not_caught(mutant):
    """It is the bug that is caught, not the planting of it."""
    assert mutants.catchers(mutant, mutants.OURS) == []


def test_a_mutant_whose_text_has_gone_is_an_error():
    with pytest.raises(ValueError, match="Bring the mutant up to date"):
        mutants.plant(mutants.Mutant(ops.GELU, "none", "not in there", ""))


def test_planting_leaves_the_healthy_code_alone():
    before = Tensor.backward
    with mutants.subjects(next(m for m in mutants.MUTANTS if m.op is Tensor)):
        assert Tensor.backward is not before
    assert Tensor.backward is before


# ------------------------------------------------------------------ the command


def test_the_command_reports_one_operation(tmp_path, capsys):
    files = ["--json", str(tmp_path / "found.json"), "--plot", str(tmp_path / "curve.png")]
    assert cli.main(["gradcheck", "--op", "GELU", *files]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^GELU +3 +\d\.\de-1\d +\d\.\de-1\d +- +\d\.\d\d +dx\[.*\] +passed$", out, re.M
    )
    assert "1 operations in 3 cases, 0 models; 0 failed" in out
    assert f"NumPy {np.__version__}" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rows"][0]["name"] == "GELU"
    assert len(found["rows"][0]["reports"]) == 3
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_an_older_report_is_not_lost_on_a_full_disk(tmp_path, capsys, monkeypatch):
    report = tmp_path / "found.json"
    report.write_text("found before")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert cli.main(["gradcheck", "--op", "Exp", "--json", str(report)]) == 2
    assert capsys.readouterr().err == f"tinymixer: {report}: No space left on device\n"
    assert report.read_text() == "found before"


def test_the_command_fails_and_explains_on_a_wrong_gradient(monkeypatch, capsys):
    healthy = ops.GELU.backward
    monkeypatch.setattr(ops.GELU, "backward", lambda self, dy: -healthy(self, dy))
    assert cli.main(["gradcheck", "--op", "GELU"]) == 1
    out = capsys.readouterr().out
    assert "3 failed" not in out, "three cases of one operation are one failure"
    assert "1 failed" in out
    assert "GELU(form=tanh) (7, 3, 5): FAILED" in out
    assert "the sign" in out


def test_the_command_names_what_is_zero_by_symmetry(capsys):
    assert cli.main(["gradcheck", "--op", "Imbalance"]) == 0
    assert "Imbalance() (1,): zero by symmetry: dv\n" in capsys.readouterr().out


def test_the_command_checks_all_that_it_is_told_to(capsys):
    assert cli.main(["gradcheck", *("--op", "Add"), *("--op", "Exp"), *("--op", "Add")]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^(\w+) .* passed$", out, re.M) == ["Add", "Exp"]


def test_a_plot_may_have_any_name(tmp_path, capsys):
    plot = tmp_path / "x.foo"
    assert cli.main(["gradcheck", "--op", "Exp", "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert f"wrote {plot}" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--op", "--model"])
def test_the_command_knows_its_names(option, capsys):
    assert cli.main(["gradcheck", option, "LayreNorm"]) == 2
    error = capsys.readouterr().err
    assert "'LayreNorm'" in error
    assert ("LayerNorm" if option == "--op" else "mixer_nano") in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_all_of_it_passes_and_names_every_system(capsys):
    assert cli.main(["gradcheck", "--all"]) == 0
    shown = capsys.readouterr().out
    for model in ("mixer", "as_mlp", "hire_mlp", "vip", "sparse_mlp", "raft_mlp"):
        assert re.search(rf"^{model}_nano .* passed$", shown, re.M)


@pytest.mark.slow
def test_each_method_alone_would_have_missed_some(tmp_path):
    assert cli.main(["gradcheck", "--mutants", "--json", str(tmp_path / "m.json")]) == 0
    missed = json.loads((tmp_path / "m.json").read_text())["missed alone"]
    assert all(missed.values())
    assert missed["complex step"] < missed["differences"] < missed["one direction"]
