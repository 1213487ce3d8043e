"""Sparse-MLP: numbers worked out by another program, who is routed where, and what is refused."""

import numpy as np
import published
import pytest
from checks import CLOSE_32, assert_close

from tinymixer import Tensor, create_model, data, nn, no_grad, ops
from tinymixer.backend import array_module, device_of, to_numpy
from tinymixer.engine import tensors_below
from tinymixer.gradcheck import check_model
from tinymixer.models import SparseMLP
from tinymixer.nn import MixtureOfExperts
from tinymixer.ops.experts import top_k
from tinymixer.summary import blueprint, summarise
from tinymixer.train.config import Config
from tinymixer.train.parallel import Workers, micro_batches
from tinymixer.train.step import TrainingStep

TINY = {
    "image_size": 8,
    "patch_size": 2,
    "hidden_dim": 6,
    "num_blocks": 2,
    "tokens_mlp_dim": 5,
    "channels_mlp_dim": 10,
    "sparse_blocks": 1,
    "sparse_tokens": 32,
    "sparse_dim": 4,
    "token_experts": 4,
    "token_expert_dim": 7,
    "channel_experts": 4,
    "channel_expert_dim": 9,
    "num_classes": 5,
    "noisy_gates": False,
}


# --- numbers of another program, on weights that a formula gives, in float64 ---


def weights(k, name, shape):
    """Tensor number k, laid out (out, in) by the formula, in our layout."""
    if name == "patch_embed.linear.W":  # a convolution kernel: (C, colour, row, column)
        return published.weights(k, name, (6, 3, 2, 2)).transpose(2, 3, 1, 0).reshape(12, 6)
    tokens = ("token_mlp", "token_moe", "enter.linear1", "leave.linear2")
    if len(shape) == 1 or any(part in name for part in tokens):
        return published.weights(k, name, shape)
    return published.weights(k, name, shape[::-1]).T


def tiny_model(device=np, **changes):
    options = TINY | {"gelu": "erf", "eps": 1e-6} | changes
    model = SparseMLP(**options, rng=np.random.default_rng(0)).astype(np.float64)
    if not changes:
        state = model.state()
        model.load_state({n: weights(k, n, a.shape) for k, (n, a) in enumerate(state.items())})
    return model.to(device_of(device.zeros(1)))


def trained_loss(model, images, labels, rng):
    """(logits, cross-entropy, all that is added to it)."""
    with nn.auxiliary() as extra:
        logits = model(images, rng=rng)
    return logits, ops.SoftmaxCrossEntropy()(logits, labels), sum(extra.losses, 0.0)


def test_logits_losses_and_gradients_are_those_of_the_other_program(device):
    model = tiny_model(device)
    images = Tensor(device.asarray(published.images(2, 8, 8, 3)))
    with nn.auxiliary() as extra:
        logits = model(images, rng=np.random.default_rng(0))  # nothing is drawn
    expected = [
        [-0.0642549522, -0.0086092859, 0.0122827823, 0.0190060760, 0.0188380910],
        [-0.0260688808, -0.2861182720, -0.0430984663, -0.6285910087, 0.1603763904],
    ]
    np.testing.assert_allclose(to_numpy(logits.data), expected, rtol=0, atol=1e-10)
    task = ops.SoftmaxCrossEntropy()(logits, device.asarray(np.arange(2)))
    auxiliary = extra.losses[0] + extra.losses[1]
    assert task.item() == pytest.approx(1.717604848240, rel=0, abs=1e-11)
    assert auxiliary.item() == pytest.approx(0.001902223946, rel=0, abs=1e-12)
    (task + auxiliary).backward()
    gradients = {name: to_numpy(p.grad) for name, p in model.named_parameters()}
    measured = {name: np.linalg.norm(dx) for name, dx in gradients.items()} | {
        "all": published.norm(*gradients.values()),
        "images": np.linalg.norm(to_numpy(images.grad)),
        "sum of enter.linear1.W": gradients["blocks.1.enter.linear1.W"].sum(),
        "sum of expert 1": gradients["blocks.1.channel_moe.experts.1.W1"].sum(),
    }
    for name, value in {
        "all": 4.793623217944,
        "images": 1.169004510827,
        "patch_embed.linear.W": 3.102024499183,
        "blocks.1.enter.linear1.W": 1.426725812913,
        "sum of enter.linear1.W": 1.501116159168,
        "blocks.1.token_moe.gate": 0.235031175560,
        "blocks.1.channel_moe.gate": 0.144343125622,
        "blocks.1.channel_moe.experts.1.W1": 0.146784128962,
        "sum of expert 1": 0.006244596452,
        "head.W": 0.578847043399,
    }.items():
        assert measured[name] == pytest.approx(value, rel=0, abs=1e-11), name


def routed(model, images):
    """(z, choice) of both mixtures of the last block."""
    found = []
    forward = MixtureOfExperts.forward

    def watched(self, x, rng=None):
        z = self.logits(self.rows(x))
        found.append((z, top_k(ops.Softmax()(z).data, self.K)))
        return forward(self, x, rng)

    with pytest.MonkeyPatch.context() as patch, no_grad():
        patch.setattr(MixtureOfExperts, "__call__", watched)
        model(images)
    return found


def test_rows_go_where_the_other_program_sends_them(device):
    (_, by_channel), (_, by_token) = routed(
        tiny_model(device), device.asarray(published.images(2, 8, 8, 3))
    )
    assert to_numpy(by_channel)[:, 0].tolist() == [1, 2, 1, 0, 2, 2, 3, 2]  # images, then channels
    by_token = to_numpy(by_token).reshape(32, 2, 2)  # S1, B, K
    assert [(by_token == e).sum() for e in range(4)] == [36, 28, 30, 34]
    first = [(3, 2), (0, 2), (0, 1), (3, 2), (3, 2), (0, 1), (0, 1), (0, 1)]
    assert [tuple(pair) for pair in by_token[:8, 0]] == first


def test_each_loss_is_that_of_the_other_program(device):
    measured = []
    for z, choice in routed(tiny_model(device), device.asarray(published.images(2, 8, 8, 3))):
        importance = ops.Softmax().forward(z.data).sum(0)
        load = ops.Load(sigma=0.25).forward(z.data, z.data, choice[:, -1])
        measured += [float(ops.Imbalance().forward(v)) for v in (importance, load)]
    expected = [0.0258968763, 0.1214992869, 0.1705990041, 0.0624496220]
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-10)


# --- sizes ---


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sparse_mlp_s", 22_394_904),
        ("sparse_mlp_s_dense", 21_307_928),
        ("sparse_mlp_b", 70_745_768),
        ("sparse_mlp_b4", 81_611_064),
        ("sparse_mlp_l", 131_205_456),
        ("sparse_mlp_nano", 808_714),
    ],
)
def test_the_parameters_are_as_many_as_the_reconstruction_has(name, parameters):
    model = blueprint(name)
    assert model.num_parameters() == parameters
    headless = parameters - model.head.W.size - model.head.b.size
    in_millions = {"s": 21, "s_dense": 21, "b": 69, "b4": 79, "l": 130}  # the paper's
    kind = name.removeprefix("sparse_mlp_")
    if kind in in_millions:
        assert headless / 1e6 == pytest.approx(in_millions[kind], rel=0.05)


def test_only_chosen_experts_are_counted_and_computed():
    """Per image: patches; 4 dense blocks; in each sparse block in, gate, 1 expert, gate, 2, out."""
    S, C, S1, C1 = 64, 64, 128, 32
    dense = 2 * S * 64 * C + 2 * S * C * 256
    in_or_out = S * S1 * C + S1 * C * C1
    mixtures = C1 * (S1 * 4 + 1 * 2 * S1 * 256) + S1 * (C1 * 4 + 2 * 2 * C1 * 128)
    expected = S * 48 * C + 4 * dense + 2 * (2 * in_or_out + mixtures) + C * 10
    assert summarise(blueprint("sparse_mlp_nano")).multiply_accumulates == expected == 22_282_880
    more = blueprint("sparse_mlp_nano", token_experts=8, channel_experts=7)
    gates = 2 * (C1 * S1 * 4 + S1 * C1 * 3)
    assert summarise(more).multiply_accumulates == expected + gates
    assert summarise(more).parameters == more.num_parameters()


def test_multiply_accumulates_of_a_real_batch_are_those_of_the_blank_image(rng):
    """Rows go to other experts than in the summary, and are as many."""
    model, counted = tiny_model(), 0
    images = Tensor(rng.standard_normal((1, 8, 8, 3)))
    for y in tensors_below(model(images)):
        arrays = [None if x is None else x.data for x in y.creator.inputs]
        counted += y.creator.multiply_accumulates(*arrays)
    assert counted == summarise(model).multiply_accumulates


@pytest.mark.parametrize(
    ("sparse_blocks", "expected"),
    [(0, ""), (2, "34"), ([0, 1], "01"), ([-1], "4"), ((0, -5, 2), "02"), (5, "01234")],
)
def test_which_blocks_are_sparse(sparse_blocks, expected):
    model = SparseMLP(**TINY | {"num_blocks": 5, "sparse_blocks": sparse_blocks}, rng=nn.BLANK)
    found = [i for i, block in enumerate(model.blocks) if hasattr(block, "token_moe")]
    assert "".join(map(str, found)) == expected


def test_evaluation_yields_no_loss_and_training_one_for_each_mixture(rng):
    model = tiny_model(num_blocks=3, sparse_blocks=2)
    images = rng.standard_normal((1, 8, 8, 3))
    with nn.auxiliary() as extra:
        model(images)
    assert extra.losses == []
    with nn.auxiliary() as extra:
        model(images, rng=rng)
    assert len(extra.losses) == 4
    assert all(loss.shape == () for loss in extra.losses)


def test_the_loss_has_its_weight(rng):
    images, losses = rng.standard_normal((2, 8, 8, 3)), []
    for weight in (0.0, 0.01, 1.0):
        model = tiny_model(loss_weight=weight)
        *_, auxiliary = trained_loss(model, images, np.arange(2), rng)
        losses.append(auxiliary.item())
    assert losses[0] == 0
    assert losses[2] == pytest.approx(100 * losses[1])


def with_losses(model, images):
    """Logits, and on each of them all that training adds to the loss, noise and drops included."""
    with nn.auxiliary() as extra:
        logits = model(images, rng=np.random.default_rng(0))
    return logits + 100.0 * sum(extra.losses, 0.0)


@pytest.mark.parametrize("call", [lambda model, x: model(x), with_losses], ids=["eval", "train"])
def test_the_gradient_of_a_whole_model(call, rng):
    """By complex steps, which move no real part: every row keeps its experts all along.

    Differences cross ties, of hundreds of rows always some; this is found out, not assumed.
    """
    model = create_model("sparse_mlp_nano", num_blocks=2, sparse_blocks=1, capacity_factor=1.0)
    report = check_model(model, rng.standard_normal((1, 32, 32, 3)), call)
    report.raise_on_failure()
    assert report.worst("complex step").error < 1e-12
    gates = {f.input for f in report.findings if "gate" in f.input and not f.zero}
    assert gates == {"blocks.1.token_moe.gate", "blocks.1.channel_moe.gate"}


# --- workers, devices, precision ---


def small_model():
    return create_model("sparse_mlp_nano", num_blocks=2, sparse_blocks=1, drop_path_rate=0.1)


def test_the_gradient_is_the_same_on_one_and_two_workers():
    config = Config(micro_batch=4)
    dataset = data.load("shapes", train_size=10, test_size=1)
    totals = []
    for count in (1, 2):
        model = small_model()
        model.head.W.data[...] = np.random.default_rng(1).standard_normal(model.head.W.shape)
        step = TrainingStep(config, model, dataset, Workers(count))
        with step.workers:
            totals.append(step.gradient(micro_batches(np.arange(10), 4), 0, 0)[0])
    np.testing.assert_array_equal(*totals)
    gates = step.flat.named(totals[0])
    gates = [gates[f"blocks.1.{name}_moe.gate"] for name in ("token", "channel")]
    assert all(np.abs(gate).min() > 0 for gate in gates)


@pytest.mark.parametrize("factor", [None, 0.5])
def test_it_trains_on_the_device(device, factor, rng):
    model = tiny_model(device, noisy_gates=True, capacity_factor=factor, prioritised=True)
    images = device.asarray(rng.standard_normal((3, 8, 8, 3)))
    labels = device.asarray(np.arange(3))
    model.head.W.data[...] = device.asarray(rng.standard_normal((6, 5)))
    logits, task, auxiliary = trained_loss(model, images, labels, np.random.default_rng(0))
    assert array_module(logits.data) is device
    (task + auxiliary).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_float32_is_float64_with_fewer_digits(rng):
    double = tiny_model()
    single = SparseMLP(**TINY | {"gelu": "erf"}, rng=rng)
    single.load_state(double.state())
    images = rng.standard_normal((3, 8, 8, 3)).astype(np.float32)
    results = []
    for model, pixels in ((single, images), (double, images.astype(np.float64))):
        logits = model(pixels)
        ops.SoftmaxCrossEntropy()(logits, np.arange(3)).backward()
        results.append([logits.data, *(p.grad for p in model.parameters())])
    assert {array.dtype for array in results[0]} == {np.dtype(np.float32)}
    for few_digits, many_digits in zip(*results, strict=True):
        if np.abs(many_digits).max() > 1e-10:  # else zero by symmetry
            assert_close(few_digits, many_digits, CLOSE_32)


def test_without_a_capacity_images_of_a_batch_do_not_see_each_other(rng):
    model = tiny_model()
    images = rng.standard_normal((5, 8, 8, 3))
    alone = np.concatenate([model(images[i : i + 1]).data for i in range(5)])
    assert_close(model(images).data, alone)


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_top_k": 5}, "5 of 4 experts for every channel; choose a top_k from 1 to 4"),
        ({"channel_top_k": 5}, "5 of 4 experts for every token"),
        ({"channel_experts": 1}, "2 of 1 experts"),
        ({"capacity_factor": 0}, "capacity_factor=0: expected a number above 0"),
        ({"eval_capacity_factor": -1.0}, "eval_capacity_factor=-1.0: expected a number above 0"),
        ({"sparse_blocks": 3}, "sparse_blocks=3, but it has 2 blocks"),
        ({"sparse_blocks": [0, 2]}, "positions from -2 to 1"),
        ({"gelu": "relu"}, "gelu='relu': expected 'tanh' or 'erf'"),
        ({"patch_size": 3}, "patches of 3x3 do not tile images of 8x8; choose a patch_size"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SparseMLP(**TINY | changes, rng=np.random.default_rng(0))


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"expected images \(B, 8, 8, 3\), got \(1, 16, 4, 3\)"):
        tiny_model()(np.zeros((1, 16, 4, 3)))
