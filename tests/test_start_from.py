"""Weights that fit in part: what is kept, resized, new, and when nothing is started from them.

That a resized array is the right one is seen by what the model computes: an image of one colour has
the same logits on every grid, and a map of tokens is the old one between two resizings.
"""

import numpy as np
import pytest
from checks import assert_close

from tinymixer.engine import no_grad
from tinymixer.errors import CheckpointError
from tinymixer.models import create_model
from tinymixer.models.segmentation import Segmenter
from tinymixer.weights import save_state, start_from, state_in
from tinymixer.weights.start import resizing

SYSTEMS = [
    ("mixer_pico", "official"),
    ("mixer_pico", "timm"),
    ("as_mlp_nano", "official"),
    ("hire_mlp_nano", "official"),
    ("vip_nano", "official"),
    ("raft_mlp_nano", "official"),
    ("sparse_mlp_nano", "tinymixer"),
]


def moved(name, **changes):
    """A model whose arrays are all different, heads and buffers included."""
    model = create_model(name, **changes)
    rng = np.random.default_rng(5)
    for array in model.state().values():
        array += 0.02 * rng.standard_normal(array.shape, dtype=np.float32)
    return model


def copied(model):
    return {name: array.copy() for name, array in model.state().items()}


def one_colour(model, colours):
    images = np.ones((len(colours), *model.image_size, model.channels), np.float32)
    with no_grad():
        return model(images * np.asarray(colours, np.float32)[:, None, None]).data


@pytest.mark.parametrize(("name", "layout"), SYSTEMS)
@pytest.mark.parametrize("kind", ["mapping", ".npz", ".safetensors"])
def test_every_system_starts_from_its_weights_with_another_number_of_classes(
    name, layout, kind, tmp_path
):
    old, new = moved(name), create_model(name, num_classes=7, rng=np.random.default_rng(3))
    begun, source = copied(new), state_in(old, layout)
    if kind != "mapping":
        source = tmp_path / f"weights{kind}"
        save_state(old, source, layout)
    started = start_from(new, source)
    heads = ("head.W", "head.b")
    assert started.new == heads
    assert set(started.kept) == set(begun) - set(heads)
    assert (started.resized, len(started.ignored)) == ((), 2)
    for array, now in new.state().items():
        wanted = begun if array in heads else old.state()
        np.testing.assert_array_equal(now, wanted[array], err_msg=array)


def test_a_head_of_as_many_other_classes_begins_anew_too():
    old, new = moved("mixer_pico"), create_model("mixer_pico", rng=np.random.default_rng(3))
    assert start_from(new, state_in(old, "timm"), keep_head=False).new == ("head.W", "head.b")
    assert not new.state()["head.W"].any()
    assert start_from(new, state_in(old, "timm")).new == ()
    np.testing.assert_array_equal(new.state()["head.W"], old.state()["head.W"])


@pytest.mark.parametrize("layout", ["official", "timm", "tinymixer"])
@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 64},
        {"image_size": 16},
        {"image_size": (32, 32), "patch_size": 8},
        {"image_size": 24, "patch_size": 2},
    ],
)
def test_a_mixer_of_another_grid_or_patch_sees_one_colour_as_before(layout, changes):
    old, new = moved("mixer_pico"), create_model("mixer_pico", **changes)
    for block in old.blocks:  # what they write is the same at all places, so tokens stay equal
        for array in (block.token_mlp.W2.data, block.token_mlp.b2.data):
            array[...] = array.mean(0)
    started = start_from(new, state_in(old, layout))
    tokens = {f"blocks.{i}.token_mlp.{x}" for i in range(4) for x in ("W1", "W2", "b2")}
    patch = {"patch_embed.linear.W"} if "patch_size" in changes else set()
    assert set(started.resized) == tokens | patch
    assert started.new == started.ignored == ()
    colours = [[0.3, -1.0, 2.0], [1.0, 0.5, 0.0]]
    assert_close(one_colour(new, colours), one_colour(old, colours), within=1e-4)


def test_resized_tokens_are_mixed_by_the_old_map_between_two_resizings():
    old = moved("mixer_pico")
    new = create_model("mixer_pico", image_size=(64, 32), rng=np.random.default_rng(3))
    wide = moved("mixer_pico", image_size=(32, 16))  # a grid of 8 x 4, as the new one's 16 x 8
    start_from(new, state_in(wide, "timm"))
    x = np.random.default_rng(1).standard_normal((16 * 8, 2, 64)).astype(np.float32)
    down, up = resizing((16, 8), (8, 4)), resizing((8, 4), (16, 8))
    small = np.tensordot(down.astype(np.float32), x, 1)
    wanted = np.tensordot(up, wide.blocks[1].token_mlp(small).data, 1)
    assert_close(new.blocks[1].token_mlp(x).data, wanted.astype(np.float32), within=1e-5)
    with pytest.raises(CheckpointError, match=r"Has other sizes: blocks\.0\.mlp_tok"):
        start_from(
            create_model("mixer_pico", image_size=(64, 32), tokens_mlp_dim=2048),
            {**state_in(old, "timm")},
        )


@pytest.mark.parametrize(
    ("old", "new"), [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((3, 5), (7, 5)), ((7, 2), (3, 2))]
)
def test_a_resizing_is_a_mean_and_looks_at_every_place(old, new):
    R = resizing(old, new)
    assert R.shape == (new[0] * new[1], old[0] * old[1])
    assert_close(R.sum(1), np.ones(len(R)), within=1e-12)
    assert (R >= 0).all()
    assert (R.sum(0) > 0).all()
    np.testing.assert_array_equal(resizing(old, old), np.eye(old[0] * old[1]))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("mixer_pico", "official"),
        ("mixer_pico", "timm"),
        ("hire_mlp_nano", "official"),
        ("raft_mlp_nano", "tinymixer"),  # official: one matrix for all its windows, begins anew
    ],
)
def test_grey_is_seen_as_three_equal_colours(name, layout):
    colour, grey = moved(name), create_model(name, channels=1)
    started = start_from(grey, state_in(colour, layout))
    assert started.resized
    assert started.new == ()
    again = create_model(name)
    start_from(again, state_in(grey, layout))
    shades = [[0.4]]
    wanted = one_colour(colour, np.repeat(shades, 3, 1))
    assert_close(one_colour(grey, shades), wanted, within=2e-4)
    assert_close(one_colour(again, np.repeat(shades, 3, 1)), wanted, within=2e-4)


@pytest.mark.parametrize(("before", "now"), [(3, 2), (3, 4), (4, 3), (1, 4), (2, 1)])
@pytest.mark.parametrize("layout", ["tinymixer", "timm"])
def test_what_sees_other_than_colours_or_grey_begins_anew(layout, before, now, tmp_path):
    name = "patch_embed.linear.W"
    old, new = moved("mixer_pico", channels=before), create_model("mixer_pico", channels=now)
    begun, path = copied(new)[name], tmp_path / "weights.npz"
    said = {"model": "mixer_pico", "model_options": {"channels": before}}
    save_state(old, path, layout, record=said)
    started = start_from(new, path)
    assert started.new == (name,)
    np.testing.assert_array_equal(new.state()[name], begun)


@pytest.mark.parametrize("name", ["mixer_pico", "sparse_mlp_nano"])
@pytest.mark.parametrize("layout", ["official", "timm", "tinymixer"])
def test_as_many_tokens_of_another_grid_are_resized(name, layout, tmp_path):
    """4 x 16 and 8 x 8 have maps of the same shapes, and neighbours are others."""
    if name == "sparse_mlp_nano" and layout != "tinymixer":
        pytest.skip("never released")
    sizes = {"image_size": (16, 64), "patch_size": 4}
    old, new = moved(name, **sizes), create_model(name, image_size=32, patch_size=4)
    save_state(old, tmp_path / "w.npz", layout, record={"model": name, "model_options": sizes})
    started = start_from(new, tmp_path / "w.npz")
    assert started.resized
    assert not started.new
    assert all("token" in x or "linear" in x for x in started.resized)
    theirs = old.state()
    for array in started.resized:
        assert (new.state()[array] != theirs[array]).any()
    again = create_model(name, **sizes)
    assert not start_from(again, tmp_path / "w.npz").resized
    if layout == "tinymixer":
        return
    square = state_in(create_model(name), layout)  # as released: of square images
    assert start_from(create_model(name, **sizes), square).resized


def test_a_vision_permutator_stays_on_its_grid(tmp_path):
    old = moved("vip_nano", image_size=(16, 64))
    said = {"model": "vip_nano", "model_options": {"image_size": (16, 64)}}
    save_state(old, tmp_path / "w.npz", record=said)
    with pytest.raises(
        CheckpointError, match=r"one image size: keep image_size=16,64 and patch_sizes=4,2"
    ):
        start_from(create_model("vip_nano"), tmp_path / "w.npz")
    assert start_from(create_model("vip_nano", image_size=(16, 64)), tmp_path / "w.npz").new == ()


def test_a_patch_of_four_channels_is_resized_as_one_of_four():
    old, new = (moved("mixer_pico", channels=4, patch_size=P) for P in (4, 8))
    started = start_from(new, state_in(old, "timm"))
    assert "patch_embed.linear.W" in started.resized
    seen = [model.state()["patch_embed.linear.W"].reshape(-1, 4, 64).sum(0) for model in (old, new)]
    assert_close(*seen, within=1e-5)


def test_a_sparse_mlp_keeps_its_tokens_inside():
    old, new = moved("sparse_mlp_nano"), create_model("sparse_mlp_nano", image_size=64)
    started = start_from(new, state_in(old, "tinymixer"))
    assert "blocks.4.enter.linear1.W" in started.resized
    assert "blocks.5.leave.linear2.b" in started.resized
    assert started.new == started.ignored == ()


def test_deeper_and_shallower_models_keep_the_blocks_that_both_have():
    old = moved("mixer_pico")
    started = start_from(create_model("mixer_pico", num_blocks=6), state_in(old, "timm"))
    assert {name.split(".")[1] for name in started.new} == {"4", "5"}
    started = start_from(create_model("mixer_pico", num_blocks=3), state_in(old, "timm"))
    assert started.new == ()
    assert {name.split(".")[1] for name in started.ignored} == {"3"}
    assert str(started) == (
        "42 arrays kept; ignored: blocks.3.norm1.weight, blocks.3.norm1.bias, "
        "blocks.3.mlp_tokens.fc1.weight, blocks.3.mlp_tokens.fc1.bias and 8 more"
    )


@pytest.mark.parametrize("name", ["as_mlp_nano", "hire_mlp_nano", "raft_mlp_nano"])
def test_a_segmenter_starts_from_a_classifier_and_from_a_segmenter(name):
    def segmenter(seed):
        rng = np.random.default_rng(seed)
        return Segmenter(create_model(name, rng=rng), 5, rng=rng)

    old, new = moved(name), segmenter(3)
    layout = "official"
    started = start_from(new, state_in(old, layout))
    assert all(array.startswith("backbone.") for array in started.kept)
    assert not any(array.startswith("backbone.") for array in started.new)
    again = segmenter(4)
    assert start_from(again, new.state()).new == ()
    np.testing.assert_array_equal(again.head.b.data, new.head.b.data)


REFUSED = {
    "another system": (
        "vip_nano",
        {},
        lambda: state_in(create_model("mixer_pico"), "timm"),
        "holds 0% of what VisionPermutator needs .* Fits: nothing. .* It holds: stem.proj.weight",
    ),
    "another width": (
        "mixer_pico",
        {"hidden_dim": 96},
        lambda: state_in(create_model("mixer_pico"), "timm"),
        r"Has other sizes: stem.proj.weight \(64, 3, 4, 4\), here \(96, 3, 4, 4\)",
    ),
    "nothing": ("mixer_pico", {}, dict, "holds 0% of what MLPMixer needs"),
    "a head alone": (
        "mixer_pico",
        {},
        lambda: {k: x for k, x in state_in(moved("mixer_pico"), "timm").items() if "head" in k},
        "holds 0% of what MLPMixer needs",
    ),
    "rafts of another grid": (
        "raft_mlp_nano",
        {"image_size": 64},
        lambda: state_in(create_model("raft_mlp_nano"), "official"),
        "was made for another grid: .* RaftMLP resizes images of any size to its own grid",
    ),
    "not a number": (
        "mixer_pico",
        {},
        lambda: state_in(moved("mixer_pico"), "timm") | {"norm.bias": np.full(64, np.nan)},
        "norm.bias float64 holds what is not a finite number in float32",
    ),
    "whole numbers": (
        "mixer_pico",
        {},
        lambda: state_in(moved("mixer_pico"), "timm") | {"norm.bias": np.zeros(64, np.int32)},
        "norm.bias",
    ),
}


@pytest.mark.parametrize(("name", "changes", "source", "says"), REFUSED.values(), ids=REFUSED)
def test_what_hardly_fits_is_refused_and_the_model_stays(name, changes, source, says):
    model = moved(name, **changes)
    before = copied(model)
    with pytest.raises(CheckpointError, match=says):
        start_from(model, source())
    for array, now in model.state().items():
        np.testing.assert_array_equal(now, before[array])
