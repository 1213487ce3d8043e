"""RaftMLP: the same numbers as the code of its authors, at two image sizes, and what it refuses."""

import numpy as np
import published
import pytest
from checks import assert_close, normal

from tinymixer import create_model, nn, ops
from tinymixer.backend import array_module, device_of
from tinymixer.engine import Tensor
from tinymixer.gradcheck import check_model
from tinymixer.models import RaftMLP
from tinymixer.ops.resample import bicubic_matrix
from tinymixer.summary import blueprint, summarise

# (parameters with K = 1000, with K = 10, multiply-accumulates of one image with the first K given)
PUBLISHED = {
    "raft_mlp_s": (9_868_768, 9_360_898, 2_087_030_784),
    "raft_mlp_m": (21_413_632, 20_652_322, 4_267_333_632),
    "raft_mlp_l": (36_184_672, 35_169_922, 6_543_974_400),
    "raft_mlp_m_plain": (19_920_640, 19_159_330, 3_747_108_864),
    "raft_mlp_12_r1": (58_105_432, 57_344_122, 11_416_811_520),
    "raft_mlp_12_r2": (58_162_888, 57_401_578, 11_619_121_152),
    "raft_mlp_12_r4": (58_390_696, 57_629_386, 12_023_740_416),
    "raft_mlp_12_r2_k32": (60_522_184, 59_760_874, None),
    "raft_mlp_36_r2": (43_532_296, 43_151_146, 8_988_711_936),
    "raft_mlp_cifar": (None, 2_093_322, None),
    "raft_mlp_nano": (None, 959_170, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_are_as_many_as_published(name):
    thousand, ten, _ = PUBLISHED[name]
    assert blueprint(name, num_classes=10).num_parameters() == ten
    if thousand:
        assert blueprint(name).num_parameters() == thousand


@pytest.mark.parametrize("name", [name for name, (*_, macs) in PUBLISHED.items() if macs])
def test_the_multiply_accumulates_are_as_many_as_published(name):
    assert summarise(blueprint(name)).multiply_accumulates == PUBLISHED[name][2]


def test_the_mixer_that_raft_mlp_was_compared_with():
    """Its token MLPs are 2 * 196 wide, as a raft's would be, and not 384."""
    options = {"tokens_mlp_dim": 392, "gelu": "erf", "eps": 1e-5}
    model = blueprint("mixer_b16", **options)
    assert model.num_parameters() == 59_918_200
    assert blueprint("mixer_b16", num_classes=10, **options).num_parameters() == 59_156_890
    assert summarise(model).multiply_accumulates == 12_630_669_312


# --- the published code, run on weights that a formula gives, in float64 ---

TINY = {
    "image_size": 16,
    "dims": (8, 12),
    "depths": (1, 2),
    "patch_sizes": (4, 2),
    "raft_sizes": (2, 2),
    "kernels": ((4, 8), (2, 4)),
    "num_classes": 5,
}
LOGITS = {
    16: [
        [-0.2521533817, -0.0049764174, 0.1620141636, 0.2693008183, -0.0939654563],
        [-0.5766909220, -0.4752233836, 0.7101744457, -0.4690260638, 0.6861279532],
    ],
    24: [  # the grids are 6x6 and 3x3, and resampled to the 4x4 and 2x2 that the MLPs know
        [-0.7107166438, -0.4957676740, 0.3588001394, 0.4462548080, -0.7226301251],
        [-0.3753689831, -0.4954970244, 0.2835410349, -0.3311158996, 0.0614271495],
    ],
}
MEASURED = {
    16: {
        "loss": 2.066336261359,
        "all": 8.258144259963,
        "images": 0.412021552120,
        "sum of levels.0.embed": 0.477213105545,
        "levels.0.embed": 6.255112628252,
        "sum of levels.0.blocks.0.vertical_mlp.W1": 0.000538632298,
        "levels.0.blocks.0.vertical_mlp.W1": 0.578413120895,
        "sum of levels.0.blocks.0.horizontal_mlp.W2": 0.863841640621,
        "levels.0.blocks.0.horizontal_mlp.W2": 0.586090177019,
        "sum of levels.1.blocks.0.channel_norm.gamma": -0.182277094308,
        "levels.1.blocks.0.channel_norm.gamma": 0.160080997264,
        "head.W": 1.294595149487,
    },
    24: {
        "loss": 2.105387049797,
        "all": 11.690353422502,
        "images": 0.558348207516,
        "sum of levels.0.embed": 2.399120941322,
        "levels.0.embed": 7.894592950506,
        "sum of levels.0.blocks.0.vertical_mlp.W1": -1.481031275384,
        "levels.0.blocks.0.vertical_mlp.W1": 0.971105942177,
    },
}
DIMAGES = {  # image 0, row 0, four columns of red
    16: [0.0022825910, -0.0086309582, -0.0089312010, 0.0016672505],
    24: [-0.0145081849, 0.0070096443, 0.0135201709, 0.0118670743],
}


def published_tensors(model):
    """(name here, shape there) of each tensor in the published order, which is ours."""
    for name, array in model.state().items():
        if name.endswith("embed.scales.0.linear.W"):  # there, one map of all windows end to end
            windows = [model.state()[name.replace("0.linear", f"{i}.linear")] for i in (0, 1)]
            yield name, (array.shape[1], sum(len(W) for W in windows))
        elif not name.endswith("embed.scales.1.linear.W"):
            yield name, array.shape[::-1] if from_the_right(name) else array.shape


def from_the_right(name):
    """Whether W is (in, out) here; there it is (out, in) throughout."""
    return "channel_mlp.W" in name or name == "head.W"


def published_model():
    """With the weights of the formula, brought into our layout."""
    model = RaftMLP(**TINY, rng=nn.BLANK).astype(np.float64)
    state = {}
    for k, (name, shape) in enumerate(published_tensors(model)):
        there = published.weights(k, name, shape)
        if name.endswith("scales.0.linear.W"):
            for i, W in enumerate(windows_apart(there, level=int(name.split(".")[1]))):
                state[name.replace("0.linear", f"{i}.linear")] = W
        elif "vertical_norm" in name or "horizontal_norm" in name:
            state[name] = there.reshape(-1, 2).T.ravel()  # there, the members of a raft together
        else:
            state[name] = there.T if from_the_right(name) else there
    model.load_state(state)
    return model


def windows_apart(there, level):
    """(C, all windows' (colour, row, column))  ->  for each window (row * column * colour, C)."""
    C_in, at = (3, 8)[level], 0
    for k in TINY["kernels"][level]:
        kernel = there[:, at : at + C_in * k * k].reshape(-1, C_in, k, k)
        yield kernel.transpose(2, 3, 1, 0).reshape(C_in * k * k, -1)
        at += C_in * k * k


@pytest.mark.parametrize("side", LOGITS)
def test_logits_loss_and_gradients_are_those_of_the_published_code(device, side):
    pixels = published.images(2, side, side, 3)
    logits, loss, gradients, dimages = published.measure(device, published_model(), pixels)
    np.testing.assert_allclose(logits, LOGITS[side], rtol=0, atol=1e-10)  # printed with 10 decimals
    np.testing.assert_allclose(dimages[0, 0, :4, 0], DIMAGES[side], rtol=0, atol=1e-10)
    embeds = [gradients[f"levels.0.embed.scales.{i}.linear.W"] for i in (0, 1)]
    found = {
        "loss": loss,
        "all": published.norm(*gradients.values()),
        "images": published.norm(dimages),
        "levels.0.embed": published.norm(*embeds),
        "sum of levels.0.embed": sum(dW.sum() for dW in embeds),
    }
    for name, dx in gradients.items():
        found |= {name: published.norm(dx), f"sum of {name}": dx.sum()}
    for name, expected in MEASURED[side].items():
        assert found[name] == pytest.approx(expected, rel=0, abs=2e-11), name  # 12 decimals


def test_the_tiny_model_has_the_published_7981_parameters():
    model = published_model()
    assert model.num_parameters() == 7981
    assert len(list(published_tensors(model))) == 62


# --- structure ---


@pytest.mark.slow
def test_the_gradient_of_the_whole_nano_model():
    check_model(create_model("raft_mlp_nano"), pixels(1, 32, 32)).raise_on_failure()


def pixels(*shape):
    return np.random.default_rng(5).standard_normal((*shape, 3))


def test_one_column_mixes_with_itself_then_one_row(rng):
    """Of one block without its channel MLP: a raft's other members are m = 4 channels away."""
    block = published_model().levels[0].blocks[0]
    block.channel_mlp.W2.data[...] = 0
    block.horizontal_mlp.W2.data[...] = 0
    (x,) = normal(rng, (4, 4, 2, 8))
    changed = x.copy()
    changed[1, 2, 0, 3] += 1
    moved = (block(Tensor(changed)).data != block(Tensor(x)).data).any((2, 3))
    assert moved[:, 2].all()
    assert moved.sum() == 4  # the column of the change, and nothing beside it


def test_an_embedding_of_windows_is_one_map_of_all_of_them_end_to_end(rng):
    embed = published_model().levels[1].embed
    (x,) = normal(rng, (6, 4, 3, 8))
    windows = [ops.Unfold(k, 2, (k - 2) // 2).forward(x) for k in (2, 4)]
    W = np.concatenate([scale.linear.W.data for scale in embed.scales])
    expected = np.concatenate(windows, axis=-1) @ W + embed.scales[0].linear.b.data
    assert_close(embed(Tensor(x)).data, expected)


def test_windows_around_the_same_patch_are_together_no_more_than_the_largest(rng):
    """The patch is the middle of the window, so its map can be added into the window's."""
    embed = published_model().levels[1].embed
    patch, window = (scale.linear for scale in embed.scales)
    inner = window.W.data.reshape(4, 4, 8, 12)[1:3, 1:3]
    inner += patch.W.data.reshape(2, 2, 8, 12)
    (x,) = normal(rng, (6, 4, 3, 8))
    before = published_model().levels[1].embed(Tensor(x)).data
    assert_close(embed.scales[1](Tensor(x)).data + patch.b.data, before)


def test_stochastic_depth_drops_every_branch_at_the_same_rate():
    model = create_model("raft_mlp_s", rng=nn.BLANK)
    rates = {block.drop_path_rate for level in model.levels for block in level.blocks}
    assert rates == {0.1}


def test_an_image_dropped_by_every_branch_passes_unchanged(rng):
    block = create_model("raft_mlp_nano", drop_path_rate=0.5).levels[3].blocks[0]
    x = Tensor(rng.standard_normal((2, 2, 100, 192)).astype(np.float32))
    y = block(x, np.random.default_rng(2))
    unchanged = (y.data == x.data).all((0, 1, 3)).mean()
    assert 0.03 < unchanged < 0.25  # one in eight expected; standard deviation 0.033


def test_evaluation_draws_nothing():
    x = pixels(2, 32, 32).astype(np.float32)
    model = create_model("raft_mlp_nano", drop_path_rate=0.5, dropout=0.5)
    assert_close(model(x).data, model(x).data, within=0)
    generator = np.random.default_rng(1)
    before = generator.bit_generator.state
    assert np.abs(model(x, rng=generator).data - model(x).data).max() > 1e-3
    assert generator.bit_generator.state != before


# --- what dense prediction builds on ---


def test_the_features_are_the_first_embedding_and_then_the_outputs(device):
    model = create_model("raft_mlp_nano").to(device_of(device.zeros(1)))
    images = device.asarray(pixels(2, 32, 64).astype(np.float32))
    maps = model.features(images)
    assert [x.shape for x in maps] == [
        (16, 32, 2, 32),
        (8, 16, 2, 64),
        (4, 8, 2, 128),
        (2, 4, 2, 192),
    ]
    assert model.feature_dims == (32, 64, 128, 192)
    assert all(array_module(x.data) is device for x in maps)
    assert_close(maps[0].data, model.levels[0].embed(nn.grid(images)).data, within=0)
    assert_close(model.head(model.norm(maps[3]).mean(axis=(0, 1))).data, model(images).data)


# --- sizes and precision ---


def test_at_its_own_size_nothing_is_resampled():
    model = create_model("raft_mlp_nano")
    functions = [row.function for row in summarise(model).rows]
    assert "Resample" not in functions
    model.image_size = (48, 32)
    functions = [row.function for row in summarise(model).rows]
    assert functions.count("Resample") == 2 * 6  # there and back in each of six blocks


@pytest.mark.parametrize("size", [(16, 24), (24, 16), (13, 17), (5, 40), (1, 1)], ids=str)
def test_images_of_any_size_are_taken(device, size):
    model = published_model().to(device_of(device.zeros(1)))
    logits = model(device.asarray(pixels(3, *size)))
    assert logits.shape == (3, 5)
    assert array_module(logits.data) is device


def test_sides_that_are_no_multiple_of_the_patch_are_resized_to_the_next_that_is():
    model = published_model()
    images = pixels(2, 13, 16)
    resized = nn.resize(nn.grid(images), (16, 16), bicubic_matrix).transpose(2, 0, 1, 3)
    assert_close(model(images).data, model(resized).data)


def test_a_rectangular_model_has_rafts_of_two_lengths(rng):
    model = RaftMLP(**TINY | {"image_size": (16, 40)}, rng=rng).astype(np.float64)
    block = model.levels[1].blocks[0]
    assert block.grid == (2, 5)
    assert block.vertical_mlp.W1.shape == (8, 4)
    assert block.horizontal_mlp.W1.shape == (20, 10)
    assert "Resample" not in [row.function for row in summarise(model).rows]
    check_model(model, pixels(2, 16, 40)).raise_on_failure()


def test_a_resampled_model_has_the_right_gradients():
    check_model(published_model(), pixels(2, 13, 24)).raise_on_failure()


def test_images_of_a_batch_do_not_see_each_other():
    model, images = published_model(), pixels(5, 16, 16)
    alone = np.concatenate([model(images[i : i + 1]).data for i in range(5)])
    assert_close(model(images).data, alone)


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depths": (1, 2, 3)}, r"one entry a stage in each .*\(1, 2, 3\)"),
        ({"raft_sizes": (2,)}, "one entry a stage"),
        ({"raft_sizes": (3, 2)}, "rafts of 3 do not divide 8 channels"),
        ({"kernels": ((4, 7), (2,))}, r"windows of \(4, 7\) cannot be centred on patches of 4"),
        ({"kernels": ((4,), ())}, r"kernels=\(\(4,\), \(\)\): expected .* 1 to 16 window sizes"),
        (
            {"kernels": ((2,), (2,))},
            r"windows of \(2,\) cannot be centred .*at least the patch_size",
        ),
        ({"gelu": "relu"}, "gelu='relu': expected 'tanh' or 'erf'"),
    ],
)
def test_levels_that_do_not_fit_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        RaftMLP(**TINY | options, rng=nn.BLANK)


def test_a_single_image_without_its_batch_axis_is_refused():
    with pytest.raises(ValueError, match=r"expected images \(B, height, width, .*\[None\]"):
        published_model()(pixels(16, 16))


def test_raw_pixels_are_refused():
    with pytest.raises(TypeError, match="expected normalised pixels as floats, got uint8"):
        published_model()(np.zeros((1, 16, 16, 3), np.uint8))
