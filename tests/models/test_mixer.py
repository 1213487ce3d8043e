"""MLP-Mixer: the same numbers as the code of its authors, and what it refuses."""

import math

import numpy as np
import pytest
from checks import CLOSE_32, assert_close
from published import scrambled

from tinymixer import nn
from tinymixer.backend import array_module, device_of, to_numpy
from tinymixer.engine import Tensor
from tinymixer.models import MLPMixer, create_model
from tinymixer.ops import SoftmaxCrossEntropy

# --- the published code, run on weights that a formula gives, in float64 ---

TINY = {
    "image_size": 8,
    "patch_size": 4,
    "hidden_dim": 8,
    "num_blocks": 2,
    "tokens_mlp_dim": 6,
    "channels_mlp_dim": 16,
    "num_classes": 5,
}
VARIANTS = {  # of three published implementations
    "erf, eps 1e-6": {
        "options": {"gelu": "erf", "eps": 1e-6},
        "logits": [
            [-0.5737606555, -0.3636935726, 0.2616217878, -0.1335424036, 0.2399214147],
            [-0.1134902377, -0.0187397556, -0.3797539654, -0.1045648985, 0.4167271457],
        ],
        "loss": 1.872724309026,
        "all": 5.384315353468,
        "images": 0.718162179652,
        "patch_embed.linear.W": 4.851396598100,
        "blocks.0.token_mlp.W1": 0.387312053579,
        "blocks.1.channel_mlp.W2": 0.664255201247,
        "head.W": 0.708917030262,
        "sum of blocks.0.token_mlp.W1": 0.675508015007,
    },
    "tanh, eps 1e-6": {
        "options": {"gelu": "tanh", "eps": 1e-6},
        "logits": [
            [-0.5738336575, -0.3636926012, 0.2617080954, -0.1336904387, 0.2397618097],
            [-0.1135559868, -0.0187938945, -0.3797377645, -0.1045726654, 0.4165003448],
        ],
        "loss": 1.872714768177,
        "all": 5.382501356137,
        "images": 0.717890162180,
        "patch_embed.linear.W": 4.849581526964,
        "blocks.0.token_mlp.W1": 0.387281842200,
        "blocks.1.channel_mlp.W2": 0.664134328152,
        "head.W": 0.708897052858,
        "sum of blocks.0.token_mlp.W1": 0.675375223298,
    },
    "erf, eps 1e-5": {
        "options": {"gelu": "erf", "eps": 1e-5},
        "logits": [
            [-0.5737618211, -0.3636922662, 0.2616232546, -0.1335445211, 0.2399197770],
            [-0.1134821786, -0.0187360980, -0.3797454204, -0.1045673056, 0.4167214279],
        ],
        "loss": 1.872723455607,
        "all": 5.384014545597,
        "images": 0.718116518342,
        "patch_embed.linear.W": 4.851090305212,
        "blocks.0.token_mlp.W1": 0.387301501339,
        "blocks.1.channel_mlp.W2": 0.664254047324,
        "head.W": 0.708913732475,
        "sum of blocks.0.token_mlp.W1": 0.675488274107,
    },
}


def weights(k, name, shape):
    """Parameter number k in the published code's layout (out, in, ...), turned into ours."""
    if name.endswith("gamma"):
        return 1 + 0.1 * scrambled(k, *shape)
    if len(shape) == 1:
        return 0.1 * scrambled(k, *shape)
    if name == "patch_embed.linear.W":  # a convolution kernel there: (C, colour, row, column)
        kernel = scrambled(k, 8, 3, 4, 4) * math.sqrt(3 / 48)
        return kernel.transpose(2, 3, 1, 0).reshape(48, 8)
    if "token_mlp" in name:  # (out, in) in both
        return scrambled(k, *shape) * math.sqrt(3 / shape[1])
    return scrambled(k, *shape[::-1]).T * math.sqrt(3 / shape[0])


def published_images():
    return math.sqrt(3) * scrambled(1000, 2, 3, 8, 8).transpose(0, 2, 3, 1)


def published_model(device, **options):
    model = MLPMixer(**TINY, **options, rng=np.random.default_rng(0)).astype(np.float64)
    model.load_state({n: weights(k, n, a.shape) for k, (n, a) in enumerate(model.state().items())})
    return model.to(device_of(device.zeros(1)))


def test_the_hash_is_the_published_one():
    expected = [-0.12374738370999694, -0.9519903361797333, -0.9616337521001697, -0.5327334846369922]
    np.testing.assert_array_equal(scrambled(0, 4), expected)
    expected = [-0.8631023061461747, 0.8483592714183033, 0.492335835006088]
    np.testing.assert_array_equal(scrambled(1000, 3), expected)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_logits_loss_and_gradients_are_those_of_the_published_code(device, variant):
    model = published_model(device, **variant["options"])
    images = Tensor(device.asarray(published_images()))
    logits = model(images)
    loss = SoftmaxCrossEntropy()(logits, device.asarray(np.arange(2)))
    loss.backward()
    gradients = {name: to_numpy(p.grad) for name, p in model.named_parameters()}
    norms = {name: np.linalg.norm(dx) for name, dx in gradients.items()}
    measured = {
        "loss": loss.item(),
        "all": math.hypot(*norms.values()),
        "images": np.linalg.norm(to_numpy(images.grad)),
        "sum of blocks.0.token_mlp.W1": gradients["blocks.0.token_mlp.W1"].sum(),
        **norms,
    }
    # printed with 10 and 12 decimals
    np.testing.assert_allclose(to_numpy(logits.data), variant["logits"], rtol=0, atol=1e-10)
    for name in variant.keys() - {"options", "logits"}:
        assert measured[name] == pytest.approx(variant[name], rel=0, abs=1e-11), name


def test_the_gradient_of_the_pixels_is_that_of_the_published_code(device):
    images = Tensor(device.asarray(published_images()))
    logits = published_model(device, gelu="erf", eps=1e-5)(images)
    SoftmaxCrossEntropy()(logits, device.asarray(np.arange(2))).backward()
    expected = [-0.0152963569, -0.0135969239, -0.0172410084, 0.0235399592]
    dimages = to_numpy(images.grad)[0, 0, :4, 0]  # image 0, row 0, four columns of red
    np.testing.assert_allclose(dimages, expected, rtol=0, atol=1e-10)


def test_the_tiny_model_has_the_published_1193_parameters_in_30_arrays():
    model = published_model(np)
    assert (model.num_parameters(), len(model.parameters())) == (1193, 30)


# --- structure ---


def test_the_parameters_in_order():
    names = [name for name, _ in published_model(np).named_parameters()]
    assert names[:2] == ["patch_embed.linear.W", "patch_embed.linear.b"]
    assert names[2:14] == [
        f"blocks.0.{name}"
        for name in (
            "token_norm.gamma",
            "token_norm.beta",
            "token_mlp.W1",
            "token_mlp.b1",
            "token_mlp.W2",
            "token_mlp.b2",
            "channel_norm.gamma",
            "channel_norm.beta",
            "channel_mlp.W1",
            "channel_mlp.b1",
            "channel_mlp.W2",
            "channel_mlp.b2",
        )
    ]
    assert names[14:26] == [name.replace("blocks.0", "blocks.1") for name in names[2:14]]
    assert names[26:] == ["norm.gamma", "norm.beta", "head.W", "head.b"]


def test_the_head_starts_at_zero_and_so_do_the_logits(rng):
    model = create_model("mixer_pico")
    assert not model.head.W.data.any()
    assert not model.head.b.data.any()
    assert not model(rng.standard_normal((2, 32, 32, 3)).astype(np.float32)).data.any()


def test_stochastic_depth_grows_from_0_at_the_first_mlp_to_its_rate_at_the_last():
    model = create_model("mixer_pico", drop_path_rate=0.7)
    rates = [rate for block in model.blocks for rate in block.drop_path_rates]
    assert rates == pytest.approx([0.1 * i for i in range(8)])


def test_stochastic_depth_and_dropout_draw_only_when_on_and_training():
    images = np.zeros((2, 32, 32, 3), np.float32)
    off, on = (
        create_model("mixer_pico"),
        create_model("mixer_pico", drop_path_rate=0.1, dropout=0.1),
    )
    generator = np.random.default_rng(1)
    before = generator.bit_generator.state
    off(images, rng=generator)
    assert generator.bit_generator.state == before
    on(images, rng=generator)
    assert generator.bit_generator.state != before


def test_an_image_dropped_by_every_block_passes_unchanged(rng):
    model = create_model("mixer_pico", num_blocks=1)
    block = model.blocks[0]
    block.drop_path_rates = (0.5, 0.5)
    x = Tensor(rng.standard_normal((64, 100, 64)).astype(np.float32))
    y = block(x, np.random.default_rng(2))
    unchanged = (y.data == x.data).all((0, 2)).mean()
    assert 0.1 < unchanged < 0.4  # one in four expected; standard deviation 0.043


# --- sizes and precision ---


@pytest.mark.parametrize("image_size", [(8, 20), (20, 8)], ids=str)
def test_images_need_not_be_square(device, image_size, rng):
    options = TINY | {"image_size": image_size}
    model = MLPMixer(**options, rng=rng).to(device_of(device.zeros(1)))
    assert model.blocks[0].token_mlp.W1.shape == (6, 10)
    images = device.asarray(rng.standard_normal((3, *image_size, 3)).astype(np.float32))
    logits = model(images)
    assert logits.shape == (3, 5)
    assert array_module(logits.data) is device


def test_images_of_a_batch_do_not_see_each_other(rng):
    model = published_model(np)
    images = rng.standard_normal((5, 8, 8, 3))
    together = model(images).data
    alone = np.concatenate([model(images[i : i + 1]).data for i in range(5)])
    assert_close(together, alone)


def test_float32_is_float64_with_fewer_digits(rng):
    double = create_model("mixer_pico", num_blocks=2).astype(np.float64)
    double.head.W.data[...] = rng.standard_normal((64, 10)) / 8
    single = create_model("mixer_pico", num_blocks=2)
    single.load_state(double.state())
    images = rng.standard_normal((4, 32, 32, 3)).astype(np.float32)
    labels = np.arange(4)
    results = []
    for model, pixels in ((single, images), (double, images.astype(np.float64))):
        logits = model(pixels)
        SoftmaxCrossEntropy()(logits, labels).backward()
        results.append([logits.data, *(p.grad for p in model.parameters())])
    assert {array.dtype for array in results[0]} == {np.dtype(np.float32)}
    names = ["logits", *double.state()]
    for name, few_digits, many_digits in zip(names, *results, strict=True):
        if not name.endswith("token_mlp.b2"):  # zero: see the next test
            assert_close(few_digits, many_digits, CLOSE_32)


def test_the_second_bias_of_a_token_mlp_cannot_matter(rng):
    """It shifts all channels of a token alike, and LayerNorm, met before every use, undoes that."""
    model = published_model(np)
    images, labels = rng.standard_normal((2, 8, 8, 3)), np.arange(2)
    before = model(images).data
    SoftmaxCrossEntropy()(model(images), labels).backward()
    for block in model.blocks:
        assert np.abs(block.token_mlp.b2.grad).max() < 1e-15  # rounding of terms of order 0.1
        block.token_mlp.b2.data = block.token_mlp.b2.data + 3.0
    assert_close(model(images).data, before)


def test_patches_that_do_not_tile_the_image_are_refused():
    message = r"patches of 4x4 do not tile images of 30x32; choose a patch_size"
    with pytest.raises(ValueError, match=message):
        create_model("mixer_pico", image_size=(30, 32))


@pytest.mark.parametrize("shape", [(28, 28), (64, 64), (16, 64), (33, 32)], ids=str)
def test_images_of_another_size_are_refused_also_with_as_many_tokens(shape):
    got = rf"\(2, {shape[0]}, {shape[1]}, 3\)"
    message = rf"MLPMixer: expected images \(B, 32, 32, 3\), got {got}.*: resize the images"
    with pytest.raises(ValueError, match=message):
        create_model("mixer_pico")(np.zeros((2, *shape, 3), np.float32))


def test_a_single_image_without_its_batch_axis_is_refused():
    with pytest.raises(ValueError, match=r"got \(32, 32, 3\). A single image is a batch of one"):
        create_model("mixer_pico")(np.zeros((32, 32, 3), np.float32))


def test_raw_pixels_are_refused():
    with pytest.raises(TypeError, match="expected normalised pixels as floats, got uint8"):
        create_model("mixer_pico")(np.zeros((1, 32, 32, 3), np.uint8))


def test_an_unknown_gelu_is_refused_when_the_model_is_built():
    with pytest.raises(ValueError, match="gelu='relu': expected 'tanh' or 'erf'"):
        create_model("mixer_pico", gelu="relu")


def test_layers_can_be_taken_out_and_used_alone(rng):
    model = published_model(np)
    assert isinstance(model.blocks[1].token_mlp, nn.TokenMLP)
    x = rng.standard_normal((4, 3, 8))
    assert model.blocks[1](Tensor(x)).shape == (4, 3, 8)
