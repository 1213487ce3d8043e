"""Floor 3: Parameter, Module and the layers."""

import math

import numpy as np
import pytest
from checks import D_C, D_S, B, C, S, assert_close

from tinymixer import nn, ops
from tinymixer.backend import array_module, device_of
from tinymixer.engine import Tensor
from tinymixer.models import create_model
from tinymixer.ops import SoftmaxCrossEntropy


class Silent:
    """Random numbers for whoever must not draw any."""

    def __getattr__(self, name):
        raise AssertionError(f"drew random numbers: {name}")


class Nest(nn.Module):
    """Two levels, a list, a list of Parameters, and attributes that are neither."""

    def __init__(self, rng):
        self.rate, self.note = 0.5, "not a parameter"
        self.last = nn.ChannelLinear(2, 3, rng=rng)
        self.first = nn.Parameter(np.zeros(4))
        self.blocks = [nn.LayerNorm(2), nn.LayerNorm(5)]
        self.scales = [nn.Parameter(np.zeros(1)), 3]
        self.constant = Tensor(np.zeros(7))


# --- parameters: order, names, state ---


def test_parameters_come_in_order_of_definition_with_their_paths(rng):
    nest = Nest(rng)
    assert [(name, p.shape) for name, p in nest.named_parameters()] == [
        ("last.W", (2, 3)),
        ("last.b", (3,)),
        ("first", (4,)),
        ("blocks.0.gamma", (2,)),
        ("blocks.0.beta", (2,)),
        ("blocks.1.gamma", (5,)),
        ("blocks.1.beta", (5,)),
        ("scales.0", (1,)),
    ]
    assert nest.num_parameters() == 6 + 3 + 4 + 4 + 10 + 1
    assert nest.parameters() == [p for _, p in nest.named_parameters()]


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Nothing defines no forward"):
        type("Nothing", (nn.Module,), {})()()


def test_state_is_the_arrays_themselves(rng):
    nest = Nest(rng)
    assert all(
        array is p.data for array, p in zip(nest.state().values(), nest.parameters(), strict=True)
    )


def test_load_state_copies_values_in_the_parameters_precision(device, rng):
    nest = Nest(rng).to(device_of(device.zeros(1)))
    before = nest.state()
    arrays = {name: rng.standard_normal(a.shape) for name, a in before.items()}
    nest.load_state(arrays)
    for name, array in nest.state().items():
        assert array is before[name]  # still the same buffers
        assert array_module(array) is device
        assert_close(array, arrays[name].astype(array.dtype), within=0)


MISFITS = {
    "missing": (lambda a: a.pop("first"), "missing first"),
    "left over": (lambda a: a.update(extra=np.zeros(1)), "left over extra"),
    "shape": (lambda a: a.update(first=np.zeros(5)), r"first is \(5,\), expected \(4,\)"),
    "all": (lambda a: a.clear(), "missing last.W; .*, and 4 more"),
}


@pytest.mark.parametrize(("spoil", "says"), MISFITS.values(), ids=MISFITS)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(spoil, says, rng):
    nest = Nest(rng)
    arrays = {name: rng.standard_normal(a.shape) for name, a in nest.state().items()}
    before = {name: a.copy() for name, a in nest.state().items()}
    spoil(arrays)
    with pytest.raises(
        ValueError, match=rf"these weights do not fit Nest: {says}.*Build the model"
    ):
        nest.load_state(arrays)
    for name, array in nest.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_astype_and_to_move_every_parameter(device, rng):
    nest = Nest(rng).astype(np.float64).to(device_of(device.zeros(1)))
    assert {p.dtype for p in nest.parameters()} == {np.dtype(np.float64)}
    assert {array_module(p.data) for p in nest.parameters()} == {device}


# --- initialisation ---

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


@pytest.mark.parametrize("drop", [nn.dropout, nn.drop_path])
def test_the_same_seed_drops_the_same(device, drop, rng):
    x = Tensor(device.asarray(rng.standard_normal((S, 40, C))))
    first, same, other = (drop(x, 0.5, np.random.default_rng(seed)).data for seed in (1, 1, 2))
    assert_close(first, same, within=0)
    assert float(((first - other) * (first - other)).sum()) > 0


def test_dropout_drops_single_activations_and_keeps_the_expectation():
    x, rate = Tensor(np.ones((10, 100, 100))), 0.3
    y = nn.dropout(x, rate, np.random.default_rng(25)).data
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


# --- buffers, and what a training pass yields beside its output ---


def test_a_buffer_is_state_and_not_learned():
    norm = nn.BatchNorm(3)
    assert [name for name, _ in norm.named_parameters()] == ["gamma", "beta"]
    assert list(norm.state()) == ["gamma", "beta", "running_mean", "running_var"]
    norm.load_state({name: np.full(3, i) for i, name in enumerate(norm.state())})
    assert norm.running_var.data.tolist() == [3.0, 3.0, 3.0]
    assert norm.astype(np.float64).running_mean.data.dtype == np.float64


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


def test_asides_collect_in_their_own_thread_and_nest(rng):
    norm = nn.BatchNorm(C)
    x = rng.standard_normal((2, 2, B, C))
    loss = Tensor(np.ones(()))
    with nn.asides() as outer:
        with nn.asides() as inner:
            norm(x, rng=rng)
            nn.add_loss(loss)
        nn.add_loss(loss)
    assert (len(inner.updates), len(inner.losses)) == (1, 1)
    assert (len(outer.updates), len(outer.losses)) == (0, 1)
    assert not norm.running_mean.data.any()
    ((update, arrays),) = inner.updates
    update(*arrays)
    assert norm.running_mean.data.all()
    nn.add_loss(loss)  # nobody listens: forgotten


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


@pytest.mark.parametrize(
    ("init", "variance"), [(nn.fan_in_uniform, 1 / (3 * 48)), (nn.normal(0.02), 0.02**2)]
)
def test_other_initialisers_have_their_variance(init, variance, rng):
    W = init(rng, (48, 2000), 48).data
    assert W.dtype == np.float32
    assert W.var() == pytest.approx(variance, rel=0.03)  # 96,000 draws: 0.5 % is one sigma
    assert not init(nn.BLANK, (2, 3), 48).data.any()
