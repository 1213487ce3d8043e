"""Vision Permutator: the same numbers as the code of its authors, and what it refuses."""

import numpy as np
import published
import pytest
from checks import assert_close, normal

from tinymixer import create_model, nn, ops
from tinymixer.backend import array_module, device_of
from tinymixer.engine import Tensor
from tinymixer.gradcheck import check_model
from tinymixer.models import VisionPermutator
from tinymixer.models.vip import PermuteMLP
from tinymixer.summary import blueprint, summarise

# (parameters with K = 1000, with K = 10, multiply-accumulates of one image with the first K given)
PUBLISHED = {
    "vip_s14": (29_892_904, 29_511_754, 6_855_613_440),
    "vip_s7": (25_114_984, 24_733_834, 6_901_767_168),
    "vip_m7": (55_272_488, 54_764_618, 16_284_307_456),
    "vip_l7": (87_784_936, 87_277_066, 24_340_320_256),
    "vip_s16": (23_023_552, None, 4_035_916_416),
    "vip_nano": (None, 948_106, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_are_as_many_as_published(name):
    thousand, ten, _ = PUBLISHED[name]
    if thousand:
        assert blueprint(name).num_parameters() == thousand
    if ten:
        assert blueprint(name, num_classes=10).num_parameters() == ten


@pytest.mark.parametrize("name", [name for name, (*_, macs) in PUBLISHED.items() if macs])
def test_the_multiply_accumulates_are_as_many_as_published(name):
    assert summarise(blueprint(name)).multiply_accumulates == PUBLISHED[name][2]


def test_the_paper_counts_one_block_less_in_the_large_model_than_the_code_has():
    model = blueprint("vip_l7", dims=(256, 512), depths=(9, 27), patch_sizes=(7, 2))
    assert model.num_parameters() == 85_619_112


# --- the published code, run on weights that a formula gives, in float64 ---

TINY = {
    "image_size": 32,
    "dims": (16, 32),
    "depths": (1, 2),
    "patch_sizes": (4, 2),
    "num_classes": 5,
}
LOGITS = [
    [-0.2329192507, -0.3998900488, 0.7835919426, 0.1021749962, -0.2398345813],
    [-0.0519751661, 0.1482427472, 0.2325184666, -0.4250184915, 0.0662105232],
]
MEASURED = {
    "loss": 1.712847222185,
    "all": 3.852897182058,
    "images": 0.172145244716,
    "sum of stages.0.embed.linear.W": 0.678213249251,
    "stages.0.embed.linear.W": 1.338098362692,
    "sum of stages.0.blocks.0.permute_mlp.vertical.W": 0.323904447071,
    "stages.0.blocks.0.permute_mlp.vertical.W": 0.193905458979,
    "sum of stages.0.blocks.0.permute_mlp.horizontal.W": -0.107942076894,
    "stages.0.blocks.0.permute_mlp.horizontal.W": 0.209628680158,
    "sum of stages.0.blocks.0.permute_mlp.attention.linear_2.W": 0,
    "stages.0.blocks.0.permute_mlp.attention.linear_2.W": 0.016551434533,
    "stages.1.embed.linear.W": 1.616848758821,
    "stages.1.blocks.1.permute_mlp.output.W": 0.420966435318,
    "head.W": 1.536740298677,
}
DIMAGES = [-0.0003913151, 0.0026037541, 0.0008361604, 0.0006994137]


def published_model():
    """With the weights of the formula, brought into our layout; the tensors come in one order."""
    model = VisionPermutator(**TINY, rng=nn.BLANK).astype(np.float64)
    state = {}
    for k, (name, array) in enumerate(model.state().items()):
        rows, D = array.shape if array.ndim == 2 else (None, array.size)
        if "embed" in name and rows:  # a convolution kernel there: (D, channel, row, column)
            C_in, side = {48: (3, 4), 64: (16, 2)}[rows]
            there = published.weights(k, name, (D, C_in, side, side))
            state[name] = there.transpose(2, 3, 1, 0).reshape(rows, D)
            continue
        there = published.weights(k, name, (D, rows) if rows else (D,))
        if "linear_2" in name:  # there, the three branches of a channel are neighbours
            there = there.reshape(D // 3, 3, -1).swapaxes(0, 1).reshape(there.shape)
        state[name] = there.T
    model.load_state(state)
    return model


def pixels(*shape):
    return np.random.default_rng(5).standard_normal((*shape, 3))


def test_logits_loss_and_gradients_are_those_of_the_published_code(device):
    logits, loss, gradients, dimages = published.measure(
        device, published_model(), published.images(2, 32, 32, 3)
    )
    np.testing.assert_allclose(logits, LOGITS, rtol=0, atol=1e-10)  # printed with 10 decimals
    np.testing.assert_allclose(dimages[0, 0, :4, 0], DIMAGES, rtol=0, atol=1e-10)
    found = {
        "loss": loss,
        "all": published.norm(*gradients.values()),
        "images": published.norm(dimages),
    }
    for name, dx in gradients.items():
        found |= {name: published.norm(dx), f"sum of {name}": dx.sum()}
    for name, expected in MEASURED.items():
        assert found[name] == pytest.approx(expected, rel=0, abs=2e-11), name  # 12 decimals


def test_the_tiny_model_has_the_published_29417_parameters_in_59_arrays():
    model = published_model()
    assert (model.num_parameters(), len(model.parameters())) == (29_417, 59)


# --- structure ---


@pytest.mark.slow
def test_the_gradient_of_the_whole_nano_model():
    check_model(create_model("vip_nano"), pixels(1, 32, 32)).raise_on_failure()


@pytest.mark.parametrize("weighted", [True, False])
def test_the_gradient_of_a_small_model(weighted):
    options = {"image_size": (8, 16), "dims": (8, 12), "depths": (1, 1), "init_std": None}
    model = VisionPermutator(**TINY | options, weighted=weighted, rng=np.random.default_rng(0))
    check_model(model, pixels(2, 8, 16)).raise_on_failure()


def test_unweighted_is_the_sum_of_the_three_branches(rng):
    weighted = PermuteMLP(12, weighted=True, attention_ratio=4, gelu="erf", rng=rng)
    plain = PermuteMLP(12, weighted=False, attention_ratio=4, gelu="erf", rng=rng)
    plain.load_state({n: a for n, a in weighted.state().items() if "attention" not in n})
    weighted.attention.linear_2.W.data[...] = 0  # all branches alike: a third each
    x = Tensor(rng.standard_normal((3, 4, 2, 12)).astype(np.float32))
    assert_close(plain(x).data, 3 * weighted(x).data, 1e-5)


def test_a_place_sees_its_column_its_row_and_the_attention_what_all_have_in_common(rng):
    (x,) = normal(rng, (4, 4, 2, 32))
    changed = x.copy()
    changed[1, 2, 0, 3] += 1
    for weighted, places in ((False, 7), (True, 16)):
        mlp = PermuteMLP(32, weighted=weighted, attention_ratio=4, gelu="erf", rng=rng)
        mlp = mlp.astype(np.float64)
        moved = (mlp(Tensor(changed)).data != mlp(Tensor(x)).data).any(3)
        assert moved[:, 2, 0].all()
        assert moved[1, :, 0].all()
        assert moved[:, :, 0].sum() == places
        assert not moved[:, :, 1].any()


def test_stochastic_depth_grows_from_0_in_the_first_block_to_its_rate_in_the_last():
    model = create_model("vip_s7", rng=nn.BLANK)
    rates = [block.drop_path_rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1 * i / 17 for i in range(18)])


def test_an_image_dropped_by_both_branches_passes_unchanged(rng):
    block = create_model("vip_nano", drop_path_rate=0.5).stages[1].blocks[3]
    x = Tensor(rng.standard_normal((4, 4, 100, 128)).astype(np.float32))
    unchanged = (block(x, np.random.default_rng(2)).data == x.data).all((0, 1, 3)).mean()
    assert 0.1 < unchanged < 0.4  # one in four expected; standard deviation 0.043


def test_evaluation_draws_nothing():
    x = pixels(2, 32, 32).astype(np.float32)
    model = create_model("vip_nano", drop_path_rate=0.5, dropout=0.5)
    assert_close(model(x).data, model(x).data, within=0)
    generator = np.random.default_rng(1)
    before = generator.bit_generator.state
    model(x, rng=generator)
    assert generator.bit_generator.state != before


def test_linear_maps_and_convolutions_start_as_published():
    for init_std, std in ((0.02, 0.02), (None, 128**-0.5)):
        model = create_model("vip_nano", init_std=init_std)
        W = model.stages[1].blocks[0].permute_mlp.vertical.W.data
        assert W.std() == pytest.approx(std, rel=0.05)
        assert not model.head.b.data.any()
    W, b = model.stages[1].embed.linear.W.data, model.stages[1].embed.linear.b.data
    assert 0.99 / 16 < np.abs(W).max() <= 1 / 16  # a window of 2 x 2 with 64 channels: 1/√256
    assert b.any()


# --- sizes and precision ---


@pytest.mark.parametrize("size", [(16, 32), (32, 8), (8, 8)], ids=str)
def test_images_need_not_be_square(device, size, rng):
    model = VisionPermutator(**TINY | {"image_size": size}, rng=rng)
    logits = model.to(device_of(device.zeros(1)))(device.asarray(pixels(3, *size).astype("f")))
    assert logits.shape == (3, 5)
    assert array_module(logits.data) is device


def test_images_of_a_batch_do_not_see_each_other():
    model, images = published_model(), pixels(5, 32, 32)
    alone = np.concatenate([model(images[i : i + 1]).data for i in range(5)])
    assert_close(model(images).data, alone)


def test_layers_can_be_taken_out_and_used_alone(rng):
    (x,) = normal(rng, (8, 8, 3, 16))
    block = published_model().stages[0].blocks[0]
    assert block(Tensor(x)).shape == x.shape
    mixed = ops.SwapSegments(0)(block.permute_mlp.vertical(ops.SwapSegments(0)(x)))
    assert mixed.shape == x.shape


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"dims": (16, 30)},
            r"30 channels cannot be cut .* of a 4x4 grid\. Choose a width .* that 4",
        ),
        ({"dims": (12, 32)}, r"12 channels cannot be cut .* of a 8x8 grid"),
        ({"image_size": (32, 24)}, r"16 channels cannot be cut .* of a 8x6 grid.* 8 and 6 divide"),
        ({"image_size": 30}, "patches of 4x4 do not tile a grid of 30x30; choose patch_sizes"),
        ({"image_size": 36}, "16 channels cannot be cut .* 9x9"),
        ({"image_size": 36, "dims": (18, 32)}, "patches of 2x2 do not tile a grid of 9x9"),
        ({"depths": (1, 2, 3)}, r"one entry a stage in each .*\(1, 2, 3\)"),
        ({"gelu": "relu"}, "gelu='relu': expected 'tanh' or 'erf'"),
    ],
)
def test_stages_that_do_not_fit_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        VisionPermutator(**TINY | options, rng=nn.BLANK)


@pytest.mark.parametrize("shape", [(28, 28), (64, 64), (16, 64), (33, 32)], ids=str)
def test_images_of_another_size_are_refused(shape):
    message = r"expected images \(B, 32, 32, 3\), got \(2, .*: resize the images, or build"
    with pytest.raises(ValueError, match=message):
        published_model()(pixels(2, *shape))


def test_a_single_image_without_its_batch_axis_is_refused():
    with pytest.raises(ValueError, match=r"expected images \(B, 32, 32, 3\), got \(32, 32, 3\)"):
        published_model()(pixels(32, 32))


def test_raw_pixels_are_refused():
    with pytest.raises(TypeError, match="expected normalised pixels as floats, got uint8"):
        published_model()(np.zeros((1, 32, 32, 3), np.uint8))
