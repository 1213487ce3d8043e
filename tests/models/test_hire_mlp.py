"""Hire-MLP: the same numbers as the code of its authors, and what it refuses."""

import dataclasses
import math

import numpy as np
import pytest
import small_runs
from checks import CLOSE_32, assert_close
from test_mixer import scrambled

from tinymixer import data, engine, nn
from tinymixer.backend import array_module, device_of, to_numpy
from tinymixer.data.draws import permutation
from tinymixer.engine import Tensor, Twin
from tinymixer.models import HireMLP, create_model
from tinymixer.models.hire_mlp import HireBlock, RegionMLP
from tinymixer.ops import ChannelLinear, ChannelMLP, SoftmaxCrossEntropy
from tinymixer.summary import blueprint, summarise
from tinymixer.train import checkpoint
from tinymixer.train.config import Config
from tinymixer.train.stopping import Stopped
from tinymixer.train.trainer import Trainer

# --- the published code, run on weights that a formula gives, in float64 ---

TINY = {
    "image_size": 32,
    "dims": (8, 12, 16, 20),
    "depths": (2, 2, 3, 2),
    "pixels": (4, 3, 3, 2),
    "strides": (2, 2, 3, 2),
    "dilations": (2, 2, 1, 1),
    "num_classes": 5,
}
PUBLISHED = {
    "training": {
        "logits": [
            [0.7427604988, -0.7663880548, 0.4879266325, -0.0267641815, -1.0907569345],
            [-0.2937515394, 0.1290722384, -1.1316566569, 1.4453740490, -0.0221325037],
            [-0.1499120477, -0.8449257206, 0.8162719104, -0.3660159174, 0.6984751478],
            [-0.0971829388, 1.1195876008, -0.4125675517, -1.4700833621, 0.5063656009],
        ],
        "loss": 1.800402369865,
        "all": 71.460563691796,
        "images": 3.703049368917,
        "stages.0.reduction.convolution.linear.W": (36.367381287992, 45.296273193457),
        "stages.0.blocks.1.rows.linear_1.W": (-0.589738399193, 2.214831891760),
        "stages.0.blocks.1.columns.linear_2.W": (1.245907606114, 0.827678265891),
        "stages.1.blocks.0.attention.linear_2.W": (0.0, 0.417150684602),
        "stages.2.blocks.2.rows.linear_2.b": (0.014173142628, 0.250541480006),
        "stages.1.reduction.convolution.linear.W": (2.025120162551, 27.463473337968),
    },
    "evaluation": {
        "logits": [
            [-4.5126871345, 1.2622907323, 0.7474616762, 5.6756646826, 1.3665461385],
            [-0.8782799496, 1.0131420679, 0.4907189444, 0.5300947299, 1.4128771236],
            [-2.2397361425, 0.4472932335, 2.0337678309, 2.1408257793, 1.5183654676],
            [-4.0801315892, 2.1730512993, 1.8179743610, 3.6007818100, 1.8357665229],
        ],
        "loss": 3.275285225719,
        "all": 52.813979272579,
        "images": 2.149357454724,
    },
}


def released(name, shape):
    """The shape of a parameter in the released code, and how to bring such an array into ours.

    Matrices are (out, in, ...) there. The channels of a region run over (channel, place), those of
    the attention over (channel, branch); ours run over (place, channel) and (branch, channel).
    """
    if name.endswith("convolution.linear.W"):  # (D, C, row, column)
        kernel = 7 if "stages.0" in name else 3
        D, C = shape[1], shape[0] // kernel**2
        return (D, C, kernel, kernel), lambda w: w.transpose(2, 3, 1, 0).reshape(-1, D)
    stage = int(name.split(".")[1]) if name.startswith("stages") else -1
    parts = 3 if "attention" in name else TINY["pixels"][stage]
    if name.endswith(("rows.linear_1.W", "columns.linear_1.W")):
        D = shape[1]
        return shape[::-1], lambda w: w.reshape(D, -1, parts).transpose(2, 1, 0).reshape(-1, D)
    if name.endswith(("rows.linear_2.W", "columns.linear_2.W", "attention.linear_2.W")):
        D = shape[0]
        return shape[::-1], lambda w: w.reshape(-1, parts, D).transpose(2, 1, 0).reshape(D, -1)
    if name.endswith(("rows.linear_2.b", "columns.linear_2.b", "attention.linear_2.b")):
        return shape, lambda b: b.reshape(-1, parts).T.ravel()
    return shape[::-1], np.transpose


def weights(k, name, shape):
    """Parameter number k of the released code's list, in our layout."""
    there, to_ours = released(name, shape)
    if name.endswith("gamma"):
        return 1 + 0.1 * scrambled(k, *shape)
    scale = 0.1 if len(there) == 1 else math.sqrt(3 / math.prod(there[1:]))
    return to_ours(scale * scrambled(k, *there))


def published_images():
    return math.sqrt(3) * scrambled(1000, 4, 3, 32, 32).transpose(0, 2, 3, 1)


def published_model(device, **options):
    model = HireMLP(**TINY | options, rng=np.random.default_rng(0)).astype(np.float64)
    for k, (name, parameter) in enumerate(model.named_parameters()):
        parameter.data[...] = weights(k, name, parameter.shape)
    return model.to(device_of(device.zeros(1)))


def rng_of(mode):
    return np.random.default_rng(0) if mode == "training" else None


@pytest.mark.parametrize("mode", PUBLISHED)
def test_logits_loss_and_gradients_are_those_of_the_published_code(device, mode):
    model = published_model(device)
    images = Tensor(device.asarray(published_images()))
    logits = model(images, rng_of(mode))
    loss = SoftmaxCrossEntropy()(logits, device.asarray(np.arange(4)))
    loss.backward()
    gradients = {name: to_numpy(p.grad) for name, p in model.named_parameters()}
    expected = dict(PUBLISHED[mode])
    # printed with 10 and 12 decimals
    np.testing.assert_allclose(to_numpy(logits.data), expected.pop("logits"), rtol=0, atol=1e-10)
    measured = {
        "loss": loss.item(),
        "all": math.hypot(*(np.linalg.norm(dx) for dx in gradients.values())),
        "images": np.linalg.norm(to_numpy(images.grad)),
    }
    measured |= {name: (dx.sum(), np.linalg.norm(dx)) for name, dx in gradients.items()}
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=0, abs=1e-10), name
    if mode == "training":
        assert measured["head.W"][1] == pytest.approx(2.436976216207, rel=0, abs=1e-11)
        dimages = to_numpy(images.grad)[0, 0, :4, 0]  # image 0, row 0, four columns of red
        expected = [0.0047878169, -0.0011901395, 0.0565225314, 0.0618127618]
        np.testing.assert_allclose(dimages, expected, rtol=0, atol=1e-10)


def test_the_tiny_model_has_the_published_42145_parameters_in_254_arrays():
    model = published_model(np)
    assert (model.num_parameters(), len(model.parameters())) == (42_145, 254)


COUNTS = {  # with 1000 and with 10 classes, and multiply-accumulates at 224 x 224
    "hire_mlp_tiny": (18_041_672, 17_533_802, 2_144_002_048),
    "hire_mlp_small": (33_113_848, 32_605_978, 4_231_090_176),
    "hire_mlp_base": (58_226_856, 57_718_986, 8_110_620_672),
    "hire_mlp_large": (95_723_944, 94_962_634, 13_421_604_864),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_published_models_have_the_published_sizes(name):
    many, few, _ = COUNTS[name]
    assert blueprint(name).num_parameters() == many
    assert blueprint(name, num_classes=10).num_parameters() == few


@pytest.mark.parametrize("name", COUNTS)
def test_the_published_models_multiply_as_often_as_published(name, monkeypatch):
    for product in (ChannelLinear, ChannelMLP):
        monkeypatch.setitem(engine.twins, (product, "cpu"), Twin(without_the_product(product)))
    assert multiply_accumulates(name) == COUNTS[name][2]


def without_the_product(function):
    """A twin with an output of the right shape, which it did not compute."""

    class Shaped(function):
        def forward(self, x, W, *more):
            self.saved = (x,)
            return np.zeros(x.shape if function is ChannelMLP else (*x.shape[:-1], W.shape[1]), "f")

    return Shaped


def multiply_accumulates(name):
    return sum(row.multiply_accumulates for row in summarise(blueprint(name)).rows)


def test_nano_is_small_enough_for_a_laptop():
    assert blueprint("hire_mlp_nano").num_parameters() == 791_162
    assert multiply_accumulates("hire_mlp_nano") == 21_499_136


# --- structure ---


def test_the_parameters_of_a_block_in_the_order_of_the_released_code():
    names = [name for name, _ in published_model(np).named_parameters()]
    prefix = "stages.1.blocks.0."
    block = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    assert block == [
        *("norm.gamma", "norm.beta"),
        *("rows.linear_1.W", "rows.norm.gamma", "rows.norm.beta"),
        *("rows.linear_2.W", "rows.linear_2.b"),
        *("columns.linear_1.W", "columns.norm.gamma", "columns.norm.beta"),
        *("columns.linear_2.W", "columns.linear_2.b"),
        *("channels.W", "channels.b"),
        *("attention.linear_1.W", "attention.linear_1.b"),
        *("attention.linear_2.W", "attention.linear_2.b"),
        *("projection.W", "projection.b"),
        *("mlp_norm.gamma", "mlp_norm.beta"),
        *("mlp.W1", "mlp.b1", "mlp.W2", "mlp.b2"),
    ]


def test_shifts_alternate_within_a_stage_as_strides_and_dilations_say():
    stages = blueprint("hire_mlp_small").stages
    steps = [[block.rows.step for block in stage.blocks] for stage in stages]
    assert steps == [[0, 2, 0], [0, 2, 0, 2], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0], [0, 1, 0]]
    for stage in stages:
        assert all(block.columns.step == block.rows.step for block in stage.blocks)


def test_stochastic_depth_grows_from_0_at_the_first_block_to_its_rate_at_the_last():
    model = create_model("hire_mlp_nano", drop_path_rate=0.5)
    rates = [block.drop_path_rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_weights_start_small_and_biases_at_zero():
    model = create_model("hire_mlp_nano", init_std=0.03)
    for name, array in model.state().items():
        if array.ndim == 2:
            assert array.std() == pytest.approx(0.03, rel=5 / math.sqrt(2 * array.size)), name
        elif name.endswith((".gamma", "running_var")):
            assert (array == 1).all()
        else:
            assert not array.any()


# --- features, for tasks that look at the grid ---


def test_features_are_what_each_stage_ends_with(device, rng):
    model = published_model(device)
    images = device.asarray(rng.standard_normal((2, 64, 48, 3)))
    found = model.features(images)
    sizes = [(16, 12), (8, 6), (4, 3), (2, 2)]  # 64 -> (64 + 4 - 7) // 4 + 1 = 16, then halves
    assert model.feature_dims == (8, 12, 16, 20)
    assert [x.shape for x in found] == [
        (*size, 2, C) for size, C in zip(sizes, model.feature_dims, strict=True)
    ]
    assert array_module(found[0].data) is device
    pooled = model.norm(found[-1]).mean(axis=(0, 1))
    assert_close(model.head(pooled).data, model(images).data)


def test_features_in_training_are_normalised_by_the_batch(rng):
    model, images = published_model(np), rng.standard_normal((4, 32, 32, 3))
    pooled = model.norm(model.features(images, rng)[-1], rng).mean(axis=(0, 1))
    assert_close(model.head(pooled).data, model(images, rng).data)


# --- region MLPs ---


def region_mlp(rng, **changes):
    options = {"p": 3, "axis": 0, "step": 2, "shift": "circular", "padding": "circular"}
    common = {"eps": 1e-5, "momentum": 0.1, "init": nn.normal(0.5), "rng": rng}
    layer = RegionMLP(5, 4, **options | changes, **common).astype(np.float64)
    layer.linear_2.b.data[...] = rng.standard_normal(layer.linear_2.b.shape)
    return layer


def region_mlp_by_loops(layer, x):
    """The same on x (H, W, B, C), row by row: which rows a region has, and where they return to."""
    H, p, s = len(x), layer.p, layer.step
    W1, W2, b2 = layer.linear_1.W.data, layer.linear_2.W.data, layer.linear_2.b.data
    y = np.empty_like(x)
    for first in range(0, H, p):
        members = [(first + r - s) % H for r in range(p)]  # of x, also those that fill the last
        h = np.concatenate([x[i] for i in members], axis=-1) @ W1 / math.sqrt(1 + 1e-5)
        mixed = np.maximum(h, 0) @ W2 + b2
        for r in range(min(p, H - first)):
            y[members[r]] = mixed[..., r * 5 : (r + 1) * 5]
    return y


@pytest.mark.parametrize("H", [3, 6, 7, 8])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_region_mlp_mixes_neighbours_and_puts_them_back(H, step, rng):
    x = rng.standard_normal((H, 4, 2, 5))
    layer = region_mlp(rng, step=step)
    assert_close(layer(Tensor(x)).data, region_mlp_by_loops(layer, x))
    turned = region_mlp(np.random.default_rng(20), step=step, axis=1)
    turned.load_state(layer.state())
    assert_close(
        turned(Tensor(x.swapaxes(0, 1))).data.swapaxes(0, 1), region_mlp_by_loops(layer, x)
    )


def test_only_the_rows_of_a_region_see_each_other(rng):
    x = rng.standard_normal((9, 1, 1, 5))
    layer = region_mlp(rng, step=1)
    before = layer(Tensor(x)).data
    x[4] += 1  # in place 5 after the shift, in a region with rows 2 and 3
    changed = (layer(Tensor(x)).data != before).any((1, 2, 3))
    assert np.flatnonzero(changed).tolist() == [2, 3, 4]


def test_a_shift_that_brought_in_zeros_is_not_undone(rng):
    x = rng.standard_normal((6, 1, 1, 5))
    layer = region_mlp(rng, shift="zero")
    moved = np.concatenate([np.zeros((2, 1, 1, 5)), x[:4]])
    unshifted = region_mlp(np.random.default_rng(20), step=0)
    unshifted.load_state(layer.state())
    assert_close(layer(Tensor(x)).data, unshifted(Tensor(moved)).data)


@pytest.mark.parametrize("options", [{"padding": "zero"}, {"padding": "replicate"}], ids=str)
def test_the_other_paddings_reach_the_regions_and_matter(options, rng):
    images = rng.standard_normal((2, 32, 32, 3))
    other = published_model(np, **options)(images).data
    assert np.abs(other - published_model(np)(images).data).max() > 1e-3


# --- sizes and precision ---


@pytest.mark.parametrize("size", [(32, 32), (31, 45), (57, 32), (33, 64)], ids=str)
def test_one_model_takes_images_of_any_size(device, size, rng):
    model = create_model("hire_mlp_nano").to(device_of(device.zeros(1)))
    images = device.asarray(rng.standard_normal((2, *size, 3)).astype(np.float32))
    logits = model(images)
    assert logits.shape == (2, 10)
    assert array_module(logits.data) is device
    assert model(images, rng).shape == (2, 10)


def test_images_too_small_for_circular_padding_are_refused_with_the_cure(rng):
    images = rng.standard_normal((2, 8, 32, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=r"1 rows lack 2 for regions of 3.*'replicate' or 'zero'"):
        published_model(np, pixels=(3, 3, 3, 3))(images)
    assert published_model(np, padding="zero")(images.astype(float)).shape == (2, 5)


def test_images_of_a_batch_do_not_see_each_other_in_evaluation_and_do_in_training(rng):
    model, images = published_model(np), rng.standard_normal((5, 32, 32, 3))
    together = model(images).data
    assert_close(together, np.concatenate([model(images[i : i + 1]).data for i in range(5)]))
    other = images.copy()
    other[1:] += 1
    assert (model(images, rng).data[0] != model(other, rng).data[0]).all()


@pytest.mark.parametrize("mode", PUBLISHED)
def test_float32_is_float64_with_fewer_digits(mode):
    double, single = published_model(np), HireMLP(**TINY, rng=np.random.default_rng(0))
    single.load_state(double.state())
    results = []
    for model, dtype in ((single, np.float32), (double, np.float64)):
        logits = model(published_images().astype(dtype), rng_of(mode))
        SoftmaxCrossEntropy()(logits, np.arange(4)).backward()
        results.append([logits.data, *(p.grad for p in model.parameters())])
    assert {array.dtype for array in results[0]} == {np.dtype(np.float32)}
    largest = max(np.abs(dx).max() for dx in results[1])
    for few_digits, many_digits in zip(*results, strict=True):
        np.testing.assert_allclose(few_digits, many_digits, rtol=0, atol=CLOSE_32 * largest)


# --- training ---

CONFIG = Config(
    model="hire_mlp_nano",
    model_options={"dims": (6, 8, 8), "depths": (1, 2, 1), "stem": (4, 4, 0)},
    epochs=2,
    batch_size=16,
    micro_batch=5,
    seed=3,
)


@pytest.fixture(scope="module")
def dataset():
    """Batches of 16, 16 and 12; micro-batches of 5 do not divide them."""
    return data.load("shapes", train_size=44, test_size=20)


def bits(trainer):
    """All that a run ends in: weights and running statistics, and what the optimizer remembers."""
    arrays = [*trainer.model.state().values(), *trainer.optimizer.state.values()]
    return b"".join(array.tobytes() for array in arrays)


def trained(config, dataset, workers=1):
    trainer = Trainer(config, dataset, workers=workers, quiet=True)
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def uninterrupted(dataset):
    return bits(trained(CONFIG, dataset))


def test_the_number_of_workers_changes_no_bit(dataset, uninterrupted):
    assert bits(trained(CONFIG, dataset, workers=2)) == uninterrupted


@pytest.mark.parametrize("steps", [2, 4])
def test_a_run_resumes_with_its_statistics(dataset, uninterrupted, tmp_path, monkeypatch, steps):
    small_runs.stop_at(monkeypatch, steps)
    with pytest.raises(Stopped):
        Trainer(CONFIG, dataset, tmp_path, workers=1, quiet=True).run()
    saved = checkpoint.load(tmp_path / "last.npz").weights
    assert saved["stages.0.reduction.norm.running_mean"].any()
    resumed = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    resumed.run()
    assert bits(resumed) == uninterrupted
    model, _ = checkpoint.load_model(tmp_path / "last.npz")
    assert [x.tobytes() for x in model.state().values()] == [
        x.tobytes() for x in resumed.model.state().values()
    ]


def test_running_statistics_follow_every_micro_batch_in_order(dataset):
    """By hand: the stem's convolution of each micro-batch, with weights that hardly move."""
    config = dataclasses.replace(CONFIG, epochs=1, lr=1e-12)
    trainer = trained(config, dataset)
    W = trainer.model.stages[0].reduction.convolution.linear.W.data.astype(np.float64)
    mean, variance = np.zeros(6), np.ones(6)
    order = permutation(config.seed, 0, 44)
    for batch in (order[:16], order[16:32], order[32:]):
        for piece in (batch[:5], batch[5:10], batch[10:15], batch[15:]):
            if not len(piece):
                continue
            images = data.normalise(dataset.train_images[piece], dataset.mean, dataset.std)
            patches = images.reshape(-1, 8, 4, 8, 4, 3).transpose(0, 1, 3, 2, 4, 5)
            y = patches.reshape(-1, 48).astype(np.float64) @ W
            mean = 0.9 * mean + 0.1 * y.mean(0)
            variance = 0.9 * variance + 0.1 * y.var(0, ddof=1)
    norm = trainer.model.stages[0].reduction.norm
    assert_close(norm.running_mean.data, mean, CLOSE_32)
    assert_close(norm.running_var.data, variance, CLOSE_32)


def test_it_learns(dataset):
    options = CONFIG.model_options | {"dims": (16, 24, 32), "init_std": 0.1}
    config = dataclasses.replace(CONFIG, model_options=options, epochs=8, lr=1e-2, warmup_epochs=0)
    history = trained(config, dataset).history
    assert history[-1].train_loss < 0.8 * history[0].train_loss


# --- what is refused ---


def test_options_for_another_number_of_stages_are_refused():
    with pytest.raises(ValueError, match=r"dims has 4, but pixels has 3"):
        HireMLP(**TINY | {"pixels": (4, 3, 3)}, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gelu": "relu"}, "gelu='relu': expected 'tanh' or 'erf'"),
        ({"shift": "reflect"}, "shift='reflect': expected 'circular' or 'zero'"),
        ({"padding": "reflect"}, "padding='reflect': expected 'circular' or"),
        ({"pixels": (4, 0, 2)}, r"pixels=\(4, 0, 2\): expected .* each a whole number from 1"),
    ],
)
def test_options_that_do_not_exist_are_refused_when_the_model_is_built(options, says):
    with pytest.raises(ValueError, match=says):
        create_model("hire_mlp_nano", **options)


def test_a_single_image_and_raw_pixels_are_refused():
    model = create_model("hire_mlp_nano")
    with pytest.raises(ValueError, match=r"expected images \(B, height, width, colours\)"):
        model(np.zeros((32, 32, 3), np.float32))
    with pytest.raises(TypeError, match="expected normalised pixels as floats, got uint8"):
        model(np.zeros((1, 32, 32, 3), np.uint8))


def test_layers_can_be_taken_out_and_used_alone(rng):
    block = published_model(np).stages[1].blocks[1]
    assert isinstance(block, HireBlock)
    assert block(Tensor(rng.standard_normal((5, 4, 3, 12)))).shape == (5, 4, 3, 12)
