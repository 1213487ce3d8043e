"""AS-MLP: the same numbers as the code of its authors, and images of any size."""

import math

import numpy as np
import pytest
from checks import CLOSE_32, assert_close
from test_mixer import scrambled

from tinymixer import engine, nn
from tinymixer.backend import array_module, device_of, to_numpy
from tinymixer.engine import Tensor
from tinymixer.gradcheck import check_model
from tinymixer.models import ASMLP, create_model
from tinymixer.ops import AxialShift, SoftmaxCrossEntropy
from tinymixer.summary import blueprint, summarise

# --- the published sizes ---

# (parameters with K = 1000, with K = 10, multiply-accumulates of one image)
PUBLISHED = {
    "as_mlp_t": (28_282_696, 27_521_386, 4_350_425_088),
    "as_mlp_s": (49_594_696, 48_833_386, 8_512_223_232),
    "as_mlp_b": (87_752_808, 86_738_058, 15_126_077_440),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_are_as_many_as_published(name):
    thousand, ten, _ = PUBLISHED[name]
    assert blueprint(name).num_parameters() == thousand
    assert blueprint(name, num_classes=10).num_parameters() == ten


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_multiply_accumulates_are_as_many_as_published(name, monkeypatch):
    monkeypatch.setattr(engine, "twins", {})
    # Quickly, at 32 pixels. At 7 * 32 = 224 there are 49 times as many places, each costs the same.
    summary = summarise(blueprint(name, image_size=32))
    *body, head = [row.multiply_accumulates for row in summary.rows]
    assert 49 * sum(body) + head == PUBLISHED[name][2]


def test_a_nano_is_small_and_cheap():
    summary = summarise(blueprint("as_mlp_nano"))
    assert (summary.parameters, summary.multiply_accumulates) == (983_946, 22_742_272)


# --- the published code, run on weights that a formula gives, in float64 ---

TINY = {
    "image_size": 32,
    "patch_size": 4,
    "hidden_dim": 10,
    "depths": (1, 1, 1, 1),
    "num_classes": 5,
}
EXPECTED = {  # printed with 10 and 12 decimals
    "logits": [
        [-0.7304931461, 0.2751063085, -1.3346920975, -0.3088167617, -1.1202662248],
        [-1.1337285249, 0.6385373277, -0.5094506993, 0.9000344487, -0.8215664939],
    ],
    "loss": 1.486845910748,
    "all": 19.011245277967,
    "images": 0.809947775445,
    "patch_embed.linear.W": (0.302778299141, 5.976650259894),  # sum, norm
    "stages.0.blocks.0.linear_in.W": (1.364287183616, 2.039085830688),
    "stages.0.blocks.0.horizontal.W": (-1.774821979583, 1.424757594092),
    "stages.1.blocks.0.vertical.W": (-1.807264288071, 1.487418146269),
    "stages.1.merge.linear.W": (2.224952556562, 4.601239898972),
    "head.W": (None, 5.325968869389),
    "pixels": [-0.0000677858, 0.0036999152, 0.0049421485, 0.0056797408],
}


def published_order():
    """The names of our parameters in the order of theirs."""

    def pair(*names):
        return [f"{name}.{array}" for name in names for array in ("W", "b")]

    def norm(*names):
        return [f"{name}.{array}" for name in names for array in ("gamma", "beta")]

    names = pair("patch_embed.linear") + norm("patch_norm")
    for i in range(4):
        block = f"stages.{i}.blocks.0."
        names += norm(block + "norm")
        names += pair(*(block + n for n in ("linear_in", "horizontal", "vertical", "linear_out")))
        names += norm(*(block + n for n in ("norm_in", "norm_out", "mlp_norm")))
        names += [block + f"mlp.{array}" for array in ("W1", "b1", "W2", "b2")]
        if i < 3:
            merge = f"stages.{i + 1}.merge."
            names += [merge + "linear.W", *norm(merge + "norm")]
    return names + norm("norm") + pair("head")


def weights(k, name, shape):
    """Parameter number k in the published code's layout (out, in, ...), turned into ours."""
    if len(shape) == 1:
        x = 0.1 * scrambled(k, *shape) + (1 if name.endswith("gamma") else 0)
    else:
        x = scrambled(k, *shape[::-1]).T * math.sqrt(3 / shape[0])
    if name == "patch_embed.linear.W":  # a convolution kernel there: (C, colour, row, column)
        return x.T.reshape(10, 3, 4, 4).transpose(2, 3, 1, 0).reshape(48, 10)
    if ".merge." in name:  # the four neighbours: down the columns there, along the rows here
        return x.reshape(2, 2, -1, *shape[1:]).swapaxes(0, 1).reshape(shape)
    return x


def published_images():
    return math.sqrt(3) * scrambled(1000, 2, 3, 32, 32).transpose(0, 2, 3, 1)


def published_model(device=np):
    model = ASMLP(**TINY, rng=nn.BLANK).astype(np.float64)
    state = model.state()
    model.load_state({n: weights(k, n, state[n].shape) for k, n in enumerate(published_order())})
    return model.to(device_of(device.zeros(1)))


def test_logits_loss_and_gradients_are_those_of_the_published_code(device):
    model, images = published_model(device), Tensor(device.asarray(published_images()))
    logits = model(images)
    loss = SoftmaxCrossEntropy()(logits, device.asarray(np.arange(2)))
    loss.backward()
    dimages = to_numpy(images.grad)
    gradients = {name: to_numpy(p.grad) for name, p in model.named_parameters()}
    np.testing.assert_allclose(to_numpy(logits.data), EXPECTED["logits"], rtol=0, atol=1e-10)
    norms = {name: np.linalg.norm(dx) for name, dx in gradients.items()}
    measured = {"loss": loss.item(), "all": math.hypot(*norms.values())}
    measured["images"] = np.linalg.norm(dimages)
    for name, number in measured.items():
        assert number == pytest.approx(EXPECTED[name], rel=0, abs=1e-11), name
    for name in EXPECTED.keys() & gradients.keys():
        total, norm = EXPECTED[name]
        assert norms[name] == pytest.approx(norm, rel=0, abs=1e-11), name
        if total is not None:
            assert gradients[name].sum() == pytest.approx(total, rel=0, abs=1e-11), name
    # image 0, row 0, four columns of red
    np.testing.assert_allclose(dimages[0, 0, :4, 0], EXPECTED["pixels"], rtol=0, atol=1e-10)


def test_the_tiny_model_has_the_published_122985_parameters_in_97_arrays():
    model = published_model()
    assert (model.num_parameters(), len(model.parameters())) == (122_985, 97)
    assert sorted(published_order()) == sorted(name for name, _ in model.named_parameters())


# --- gradients ---


def test_gradients_of_every_option():
    options = TINY | {"image_size": 8, "patch_size": 2, "depths": (1, 2), "patch_norm": False}
    options |= {"connection": "serial", "shift_size": 3, "dilation": 2, "padding": "reflect"}
    model = ASMLP(**options, mlp_ratio=1.5, gelu="tanh", eps=1e-3, rng=np.random.default_rng(0))
    images = np.random.default_rng(1).standard_normal((2, 6, 10, 3))
    check_model(model, images).raise_on_failure()


@pytest.mark.slow
def test_as_mlp_nano():
    images = np.random.default_rng(0).standard_normal((1, 32, 32, 3))
    check_model(create_model("as_mlp_nano"), images).raise_on_failure()


# --- structure ---


@pytest.fixture
def tiny(rng):
    return ASMLP(**TINY, rng=rng).astype(np.float64)


def test_the_features_are_the_stages_before_they_are_merged(device, rng):
    model = ASMLP(**TINY | {"depths": (1, 2, 1)}, rng=rng).to(device_of(device.zeros(1)))
    images = device.asarray(rng.standard_normal((3, 32, 64, 3)).astype(np.float32))
    features = model.features(images)
    assert model.feature_dims == [10, 20, 40]
    assert [x.shape for x in features] == [(8, 16, 3, 10), (4, 8, 3, 20), (2, 4, 3, 40)]
    assert all(array_module(x.data) is device for x in features)
    logits = model.head(model.norm(features[-1]).mean(axis=(0, 1)))
    assert_close(logits.data, model(images).data)


def test_a_block_is_as_its_equations_say(tiny, rng):
    block, x = tiny.stages[1].blocks[0], Tensor(rng.standard_normal((4, 3, 2, 20)))

    def gelu(x):
        return 0.5 * x * np.vectorize(math.erfc)(-x / math.sqrt(2))

    def linear(layer, x):
        return x @ layer.W.data + layer.b.data

    def group_norm(layer, x):
        centred = x - x.mean((0, 1, 3), keepdims=True)
        return centred / np.sqrt(x.var((0, 1, 3), keepdims=True) + 1e-5)  # gamma 1, beta 0

    a = gelu(group_norm(block.norm_in, linear(block.linear_in, group_norm(block.norm, x.data))))
    h = gelu(linear(block.horizontal, AxialShift(1, 5).forward(a)))
    v = gelu(linear(block.vertical, AxialShift(0, 5).forward(a)))
    u = x.data + linear(block.linear_out, group_norm(block.norm_out, h + v))
    mlp, hidden = block.mlp, group_norm(block.mlp_norm, u) @ block.mlp.W1.data + block.mlp.b1.data
    assert_close(block(x).data, u + gelu(hidden) @ mlp.W2.data + mlp.b2.data)
    block.serial = True
    v = gelu(linear(block.vertical, AxialShift(0, 5).forward(h)))
    serial = linear(block.linear_out, group_norm(block.norm_out, v))
    assert_close(block.axial_mlp(block.norm(x)).data, serial)


@pytest.mark.parametrize(
    "change",
    [
        {"shift_size": 3},
        {"dilation": 2},
        {"padding": "circular"},
        {"padding": "reflect"},
        {"padding": "replicate"},
        {"connection": "serial"},
        {"gelu": "tanh"},
        {"eps": 0.1},
    ],
    ids=str,
)
def test_every_option_without_parameters_reaches_the_blocks(change, tiny, rng):
    changed = ASMLP(**TINY | change, rng=nn.BLANK).astype(np.float64)
    changed.load_state(tiny.state())
    images = rng.standard_normal((1, 32, 32, 3))
    difference = np.abs(changed(images).data - tiny(images).data).max()
    assert difference > 1e-6
    for block in (block for stage in changed.stages for block in stage.blocks):
        names = vars(block) | block.shift | {"eps": block.norm_in.eps}
        names["connection"] = "serial" if block.serial else "parallel"
        assert all(names[name] == value for name, value in change.items())


def test_options_with_parameters():
    names = [name for name, _ in create_model("as_mlp_nano", patch_norm=False).named_parameters()]
    assert not any("patch_norm" in name for name in names)
    model = create_model("as_mlp_nano", mlp_ratio=1.5, hidden_dim=6, depths=(1,))
    assert model.stages[0].blocks[0].mlp.W1.shape == (6, 9)
    assert model.head.W.shape == (6, 10)


def test_weights_start_as_in_the_published_code():
    model = create_model("as_mlp_nano", num_classes=1000, init="published")
    block = model.stages[1].blocks[0]
    for layer, fan_in in ((block.vertical, 128), (model.patch_embed.linear, 48)):
        for array in (layer.W.data, layer.b.data):  # uniform in ±1/√fan_in
            assert np.abs(array).max() < fan_in**-0.5
            assert array.std() == pytest.approx((3 * fan_in) ** -0.5, rel=0.2)
    assert np.abs(model.stages[1].merge.linear.W.data).max() < 256**-0.5
    assert np.abs(block.mlp.W2.data).max() < 512**-0.5
    assert model.head.W.data.std() == pytest.approx(0.02, rel=0.02)
    assert not model.head.b.data.any()


def test_weights_may_start_as_in_a_mixer():
    block = create_model("as_mlp_nano", init="lecun").stages[1].blocks[0]
    assert block.vertical.W.data.std() == pytest.approx(128**-0.5, rel=0.03)
    assert not block.vertical.b.data.any()


def test_stochastic_depth_grows_from_0_in_the_first_block_to_its_rate_in_the_last():
    model = create_model("as_mlp_nano", drop_path_rate=0.6)
    rates = [block.drop_path_rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1 * i for i in range(7)])


def test_stochastic_depth_draws_twice_a_block_and_only_when_on_and_training(rng):
    images = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)

    def draws(drop_path_rate):
        generator = np.random.default_rng(1)
        ASMLP(**TINY, drop_path_rate=drop_path_rate, rng=rng)(images, rng=generator)
        twin = np.random.default_rng(1)
        numbers = [twin.bit_generator.state["state"]]
        for _ in range(20):
            twin.random((2, 1), dtype=np.float32)
            numbers.append(twin.bit_generator.state["state"])
        return numbers.index(generator.bit_generator.state["state"])

    assert draws(0.0) == 0
    assert draws(0.5) == 2 * 3  # at rate 0 the first block draws nothing


def test_an_image_dropped_by_a_block_passes_unchanged(rng):
    block = ASMLP(**TINY, rng=rng).stages[0].blocks[0]
    block.drop_path_rate = 0.5
    x = Tensor(rng.standard_normal((3, 2, 200, 10)).astype(np.float32))
    y = block(x, np.random.default_rng(2))
    unchanged = (y.data == x.data).all((0, 1, 3)).mean()
    assert 0.1 < unchanged < 0.4  # one in four expected; standard deviation 0.03


# --- sizes and precision ---


@pytest.mark.parametrize("size", [(32, 32), (4, 4), (20, 12), (36, 60), (4, 64)], ids=str)
def test_one_model_takes_images_of_any_size_that_patches_tile(device, size, rng):
    model = ASMLP(**TINY, rng=rng).to(device_of(device.zeros(1)))
    images = device.asarray(rng.standard_normal((2, *size, 3)).astype(np.float32))
    H, W = size[0] // 4, size[1] // 4
    for x in model.features(images):
        assert x.shape[:2] == (H, W)
        H, W = math.ceil(H / 2), math.ceil(W / 2)
    assert model(images).shape == (2, 5)


def test_an_odd_grid_is_merged_as_if_it_had_a_row_and_a_column_of_zeros_more(tiny, rng):
    merge = tiny.stages[1].merge
    x = rng.standard_normal((5, 3, 2, 10))
    even = np.zeros((6, 4, 2, 10))
    even[:5, :3] = x
    assert_close(merge(Tensor(x)).data, merge(Tensor(even)).data)


def test_images_need_not_be_square_when_the_model_is_built(rng):
    model = ASMLP(**TINY | {"image_size": (8, 20)}, rng=rng)
    assert model.image_size == (8, 20)
    assert model(np.zeros((1, 8, 20, 3), np.float32)).shape == (1, 5)


def test_rows_and_columns_are_treated_alike(tiny, rng):
    """Transposed images need transposed patches, and horizontal and vertical to change places."""
    images = rng.standard_normal((1, 16, 24, 3))
    swapped = ASMLP(**TINY, rng=nn.BLANK).astype(np.float64)
    state = {}
    for name, array in tiny.state().items():
        other = name.replace("horizontal", "VERTICAL").replace("vertical", "horizontal")
        state[other.replace("VERTICAL", "vertical")] = array
    patches = tiny.patch_embed.linear.W.data.reshape(4, 4, 3, 10)
    state["patch_embed.linear.W"] = patches.swapaxes(0, 1).reshape(48, 10)
    for i in (1, 2, 3):
        merge = f"stages.{i}.merge."
        for name in ("norm.gamma", "norm.beta", "linear.W"):
            array = state[merge + name]
            neighbours = array.reshape(2, 2, -1, *array.shape[1:])
            state[merge + name] = neighbours.swapaxes(0, 1).reshape(array.shape)
    swapped.load_state(state)
    assert_close(swapped(images.swapaxes(1, 2)).data, tiny(images).data)


def test_images_of_a_batch_do_not_see_each_other(tiny, rng):
    images = rng.standard_normal((5, 16, 16, 3))
    together = tiny(images).data
    alone = np.concatenate([tiny(images[i : i + 1]).data for i in range(5)])
    assert_close(together, alone)


def test_float32_is_float64_with_fewer_digits(rng):
    double = published_model()
    single = ASMLP(**TINY, rng=nn.BLANK)
    single.load_state(double.state())
    images = rng.standard_normal((4, 32, 32, 3)).astype(np.float32)
    results = []
    for model, pixels in ((single, images), (double, images.astype(np.float64))):
        logits = model(pixels)
        SoftmaxCrossEntropy()(logits, np.arange(4)).backward()
        results.append([logits.data, *(p.grad for p in model.parameters())])
    assert {array.dtype for array in results[0]} == {np.dtype(np.float32)}
    for name, few_digits, many_digits in zip(["logits", *double.state()], *results, strict=True):
        assert few_digits.shape == many_digits.shape, name
        assert_close(few_digits, many_digits, CLOSE_32)


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (32, 30)}, "patches of 4x4 do not tile images of 32x30; resize"),
        ({"depths": ()}, r"depths=\(\): expected a tuple of 1 to 16 entries"),
        ({"depths": (2, 0)}, r"depths=\(2, 0\): .* each a whole number from 1 to 1,000"),
        ({"shift_size": 4}, "shift_size=4: expected an odd whole number"),
        ({"dilation": 0}, "dilation=0: expected a whole number from 1"),
        ({"padding": "valid"}, "padding='valid': expected 'zero' or 'circular' or"),
        ({"connection": "both"}, "connection='both': expected 'parallel' or 'serial'"),
        ({"init": "zero"}, "init='zero': expected 'published' or 'lecun'"),
        ({"gelu": "relu"}, "gelu='relu': expected 'tanh' or 'erf'"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_when_the_model_is_built(change, message):
    with pytest.raises(ValueError, match=message):
        ASMLP(**TINY | change, rng=nn.BLANK)


def test_images_that_patches_do_not_tile_are_refused(tiny):
    with pytest.raises(ValueError, match="patches of 4x4 do not tile images of 30x32; resize"):
        tiny(np.zeros((2, 30, 32, 3)))


def test_a_single_image_without_its_batch_axis_is_refused(tiny):
    with pytest.raises(ValueError, match=r"expected images \(B, .*got \(32, 32, 3\).*image\[None"):
        tiny(np.zeros((32, 32, 3)))


def test_raw_pixels_are_refused(tiny):
    with pytest.raises(TypeError, match="expected normalised pixels as floats, got uint8"):
        tiny(np.zeros((1, 32, 32, 3), np.uint8))
