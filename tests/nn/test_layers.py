"""Floor 3: Parameter, Module and the layers."""

import math

import numpy as np
import pytest
from checks import D_C, D_S, B, C, S, assert_close

from tinymixer import nn, ops
from tinymixer.backend import device_of
from tinymixer.engine import Tensor
from tinymixer.models import create_model
from tinymixer.ops import SoftmaxCrossEntropy


class Silent:
    """Random numbers for a layer that must not draw any."""

    def __getattr__(self, name):
        raise AssertionError(f"drew random numbers: {name}")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda rng: nn.ChannelLinear(C, D_C, rng=rng), (S, B, D_C)),
        (lambda rng: nn.LayerNorm(C), (S, B, C)),
        (lambda rng: nn.TokenMLP(S, D_S, gelu="erf", rng=rng), (S, B, C)),
        (lambda rng: nn.ChannelMLP(C, D_C, gelu="erf", rng=rng), (S, B, C)),
    ],
    ids=["ChannelLinear", "LayerNorm", "TokenMLP", "ChannelMLP"],
)
def test_a_layer_differentiates_by_its_input_and_all_its_parameters(device, layer, shape, rng):
    here = layer(rng).to(device_of(device.zeros(1)))
    x = Tensor(device.asarray(rng.standard_normal((S, B, C)).astype(np.float32)))
    y = here(x)
    assert y.shape == shape
    (y * y).sum().backward()
    for tensor in [x, *here.parameters()]:
        assert tensor.grad.shape == tensor.shape
        assert float((tensor.grad * tensor.grad).sum()) > 0


def test_the_options_of_a_layer_reach_its_function(rng):
    mlp = nn.TokenMLP(S, D_S, gelu="erf", rng=rng)
    x = Tensor(rng.standard_normal((S, B, C)).astype(np.float32))
    assert mlp(x).creator.form == "erf"
    assert nn.ChannelMLP(C, D_C, gelu="erf", rng=rng)(x).creator.form == "erf"
    assert nn.LayerNorm(C, eps=0.25)(x).creator.eps == 0.25


# --- split attention ---


def test_split_attention_weighs_each_channel_by_what_all_positions_hold(rng):
    layer = nn.SplitAttention(C, 3, hidden_dim=2, gelu="erf", rng=rng).astype(np.float64)
    arrays = {name: rng.standard_normal(array.shape) for name, array in layer.state().items()}
    layer.load_state(arrays)
    branches = rng.standard_normal((3, 2, S, B, C))
    q = branches.sum(0).mean((0, 1)) @ arrays["linear_1.W"] + arrays["linear_1.b"]
    z = ops.GELU("erf").forward(q) @ arrays["linear_2.W"] + arrays["linear_2.b"]
    weights = np.exp(z).reshape(B, 3, C)
    expected = sum(weights[:, b] * branches[b] for b in range(3)) / weights.sum(1)
    assert_close(layer(*map(Tensor, branches)).data, expected)


def test_split_attention_differentiates_by_every_branch_and_parameter(device, rng):
    layer = nn.SplitAttention(C, 2, hidden_dim=3, gelu="erf", rng=rng)
    layer.to(device_of(device.zeros(1)))
    branches = [Tensor(device.asarray(rng.standard_normal((S, B, C), np.float32))) for _ in "ab"]
    y = layer(*branches)
    (y * y).sum().backward()
    for tensor in [*branches, *layer.parameters()]:
        assert tensor.grad.shape == tensor.shape
        assert float((tensor.grad * tensor.grad).sum()) > 0


# --- dropout and stochastic depth ---


@pytest.mark.parametrize("drop", [nn.dropout, nn.drop_path])
def test_evaluation_and_rate_0_draw_nothing_and_return_x_itself(drop):
    x = Tensor(np.ones((S, B, C)))
    assert drop(x, 0.5, None) is x
    assert drop(x, 0.0, Silent()) is x


def test_a_branch_drops_activations_and_then_whole_images(rng):
    x = Tensor(rng.standard_normal((S, 40, C)))
    y = nn.drop_branch(x, 0.3, 0.5, np.random.default_rng(1)).data
    generator = np.random.default_rng(1)
    expected = nn.drop_path(nn.dropout(x, 0.3, generator), 0.5, generator).data
    assert_close(y, expected, within=0)
    assert nn.drop_branch(x, 0.3, 0.5, None) is x
    assert nn.drop_branch(x, 0, 0, Silent()) is x


@pytest.mark.parametrize("drop", [nn.dropout, nn.drop_path])
def test_the_same_seed_drops_the_same(device, drop, rng):
    x = Tensor(device.asarray(rng.standard_normal((S, 40, C))))
    first, same, other = (drop(x, 0.5, np.random.default_rng(seed)).data for seed in (1, 1, 2))
    assert_close(first, same, within=0)
    assert float(((first - other) * (first - other)).sum()) > 0


def test_dropout_drops_single_activations_and_keeps_the_expectation():
    x, rate = Tensor(np.ones((10, 100, 100))), 0.3
    y = nn.dropout(x, rate, np.random.default_rng(25))
    y.sum().backward()
    assert_close(x.grad, y.data, within=0)  # x is 1 and dy is 1: both are the mask, the same one
    y = y.data
    assert_close(np.unique(y), np.array([0, 1 / 0.7]))
    # standard deviation of one value: √(rate / (1 - rate)); of the mean of 10⁵ values, /316
    assert abs(y.mean() - 1) < 5 * math.sqrt(rate / (1 - rate) / y.size)
    assert 0 < (y[0] == 0).mean() < 1
    assert 0 < (y[:, 0] == 0).mean() < 1


def test_drop_path_drops_whole_images_and_keeps_the_expectation(device):
    rate, images = 0.3, 20_000
    x = Tensor(device.ones((2, images, 3)))
    y = nn.drop_path(x, rate, np.random.default_rng(26))
    y.sum().backward()
    assert_close(x.grad, y.data, within=0)  # x is 1 and dy is 1: both are the mask, the same one
    for array in (y.data, x.grad):  # an image dropped gets no gradient either
        per_image = array.transpose(1, 0, 2).reshape(images, -1)
        assert_close(per_image.max(1), per_image.min(1), within=0)
        mean = float(per_image.mean())
        assert abs(mean - 1) < 5 * math.sqrt(rate / (1 - rate) / images)
        assert float(per_image.max()) == pytest.approx(1 / 0.7)


# --- training ---


def test_a_model_in_evaluation_is_deterministic(rng):
    model = create_model("mixer_pico", dropout=0.5, drop_path_rate=0.5)
    model.head.W.data[...] = 1
    images = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(images).data, model(images).data)
    trained = model(images, rng=np.random.default_rng(1)).data
    assert (trained != model(images).data).any()


def test_a_few_steps_of_gradient_descent_lower_the_loss(device, rng):
    model = create_model("mixer_pico", num_blocks=1, hidden_dim=16, channels_mlp_dim=32)
    model.to(device_of(device.zeros(1)))
    images = device.asarray(rng.standard_normal((8, 32, 32, 3)).astype(np.float32))
    labels = device.asarray(np.arange(8))
    losses = []
    for _ in range(20):
        loss = SoftmaxCrossEntropy()(model(images), labels)
        losses.append(loss.item())
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
        for parameter in model.parameters():
            parameter.data = parameter.data - parameter.grad
    assert losses[0] == pytest.approx(math.log(10), rel=1e-6)  # the head starts at zero
    assert losses[-1] < 0.5 * losses[0]


def test_patches_of_plain_images_get_no_gradient_and_those_of_a_tensor_do(rng):
    embed = nn.PatchEmbed(2, 5, rng=rng)
    images = rng.standard_normal((3, 4, 6, 3), dtype=np.float32)
    needs = [embed(x).creator.needs for x in (images, Tensor(images))]
    assert needs == [(False, True, True), (True, True, True)]


def test_batch_norm_trains_by_the_batch_and_evaluates_by_what_it_has_seen(rng):
    norm = nn.BatchNorm(C, eps=1e-5, momentum=0.1).astype(np.float64)
    x = 2 + 3 * rng.standard_normal((S, 2, B, C))
    flat = norm(x, rng=rng).data.reshape(-1, C)
    assert_close(flat.mean(0) + 1, np.ones(C))
    rows = x.reshape(-1, C)
    assert_close(norm.running_mean.data, 0.1 * rows.mean(0))
    assert_close(norm.running_var.data, 0.9 + 0.1 * rows.var(0, ddof=1))
    before = norm.running_mean.data.copy()
    expected = (x - before) / np.sqrt(norm.running_var.data + 1e-5)
    assert_close(norm(x).data, expected, within=1e-14)
    assert_close(norm.running_mean.data, before, within=0)


@pytest.mark.parametrize("bias", [True, False])
def test_unfold_linear_is_a_convolution(bias, rng):
    layer = nn.UnfoldLinear(3, C, kernel=3, stride=2, padding=1, bias=bias, rng=rng)
    images = rng.standard_normal((B, 5, 8, 3)).astype(np.float32)
    y = layer(nn.grid(images)).data  # (3, 4, B, C)
    kernels = layer.linear.W.data.reshape(3, 3, 3, C)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    window = padded[:, 2:5, 4:7]  # of output position (1, 2)
    assert_close(y[1, 2], np.einsum("bijc,ijcd->bd", window, kernels), within=1e-5)
    assert y.shape == (3, 4, B, C)
    assert (layer.linear.b is not None) == bias
