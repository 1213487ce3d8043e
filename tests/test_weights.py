"""Weights of others: every system in every layout it was released in, and what is refused.

That a layout is the released one, in names and in numbers, is seen in tests/models: there the
published logits come out of weights that were laid out as the authors lay them out.
"""

import json
import os

import numpy as np
import pytest
from hostile_files import AVERAGE, CLASSES, GOOD, HEADER, OPTIONS, TRAINED, npy, sign, zipped

from tinymixer.errors import CheckpointError
from tinymixer.models import create_model
from tinymixer.weights import load_state, num_classes_in, read_file, save_state, state_in
from tinymixer.weights.files import write_file

SYSTEMS = [
    ("mixer_pico", "official"),
    ("mixer_pico", "timm"),
    ("mixer_pico", "tinymixer"),
    ("as_mlp_nano", "official"),
    ("hire_mlp_nano", "official"),
    ("vip_nano", "official"),
    ("raft_mlp_nano", "official"),
    ("sparse_mlp_nano", "tinymixer"),
]
every_layout = pytest.mark.parametrize(("name", "layout"), SYSTEMS)


def moved(name, **changes):
    """A model whose arrays are all different, heads and buffers included."""
    model = create_model(name, **changes)
    rng = np.random.default_rng(5)
    for array in model.state().values():
        array += 0.02 * rng.standard_normal(array.shape, dtype=np.float32)
    return model


def logits(model):
    images = np.random.default_rng(6).standard_normal((2, *model.image_size, 3), dtype=np.float32)
    return model(images).data


@every_layout
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_come_back_from_a_file(name, layout, suffix, tmp_path):
    model, other = moved(name), create_model(name)
    save_state(model, tmp_path / f"weights{suffix}", layout)
    load_state(other, tmp_path / f"weights{suffix}", layout)
    np.testing.assert_array_equal(logits(other), logits(model))


@every_layout
def test_every_array_is_somewhere_and_nothing_is_twice(name, layout):
    model = moved(name)
    ours = np.sort(np.concatenate([a.ravel() for a in model.state().values()]))
    floats = [a.ravel() for a in state_in(model, layout).values() if a.dtype.kind == "f"]
    np.testing.assert_array_equal(np.sort(np.concatenate(floats)), ours)


def test_the_names_of_mixers_layouts():
    model = create_model("mixer_pico", num_blocks=1)
    assert list(state_in(model, "official")) == [
        "stem/kernel",
        "stem/bias",
        "MixerBlock_0/LayerNorm_0/scale",
        "MixerBlock_0/LayerNorm_0/bias",
        "MixerBlock_0/token_mixing/Dense_0/kernel",
        "MixerBlock_0/token_mixing/Dense_0/bias",
        "MixerBlock_0/token_mixing/Dense_1/kernel",
        "MixerBlock_0/token_mixing/Dense_1/bias",
        "MixerBlock_0/LayerNorm_1/scale",
        "MixerBlock_0/LayerNorm_1/bias",
        "MixerBlock_0/channel_mixing/Dense_0/kernel",
        "MixerBlock_0/channel_mixing/Dense_0/bias",
        "MixerBlock_0/channel_mixing/Dense_1/kernel",
        "MixerBlock_0/channel_mixing/Dense_1/bias",
        "pre_head_layer_norm/scale",
        "pre_head_layer_norm/bias",
        "head/kernel",
        "head/bias",
    ]
    shapes = {name: array.shape for name, array in state_in(model, "official").items()}
    assert shapes["stem/kernel"] == (4, 4, 3, 64)
    assert shapes["MixerBlock_0/token_mixing/Dense_0/kernel"] == (64, 32)  # (S, D_S)
    assert shapes["MixerBlock_0/channel_mixing/Dense_0/kernel"] == (64, 256)  # (C, D_C)


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_what_wraps_a_released_file_is_taken_off(wrapper):
    model, other = moved("mixer_pico"), create_model("mixer_pico")
    load_state(other, {wrapper: state_in(model, "timm"), "epoch": 3}, "timm")
    np.testing.assert_array_equal(logits(other), logits(model))


def test_the_number_of_classes_is_read_off_the_head():
    model = create_model("mixer_pico", num_classes=7)
    for layout in ("official", "timm"):
        arrays = state_in(model, layout)
        assert num_classes_in(arrays, create_model("mixer_pico"), layout) == 7
    assert num_classes_in({}, model, "timm") is None


def without(name):
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def replaced(name, change):
    return lambda arrays: arrays | {name: change(arrays[name])}


def with_nan(array):
    array = array.copy()
    array.flat[3] = np.nan
    return array


# What is done to good weights in timm's layout, and what is said of it.
WRONG = {
    "an array is missing": (without("norm.weight"), r"missing: norm.weight \(64,\)"),
    "nothing is there": (lambda arrays: {}, r"missing: stem.proj.weight .* and 50 more"),
    "one too many": (
        lambda arrays: arrays | {"ghost.weight": np.zeros(3)},
        r"left over: ghost.weight \(3,\)",
    ),
    "misspelt": (
        lambda arrays: {key.replace("fc1", "fc_1"): a for key, a in arrays.items()},
        r"missing: blocks.0.mlp_tokens.fc1.weight.*left over: blocks.0.mlp_tokens.fc_1.weight",
    ),
    "transposed": (
        replaced("head.weight", np.transpose),
        r"misshapen: head.weight \(64, 10\), expected \(10, 64\)",
    ),
    "other classes": (
        replaced("head.bias", lambda a: np.zeros(1000, a.dtype)),
        r"misshapen: head.bias \(1000,\), expected \(10,\)",
    ),
    "a linear map for a convolution": (
        replaced("stem.proj.weight", lambda a: a.reshape(len(a), -1)),
        r"misshapen: stem.proj.weight \(64, 48\), expected \(64, 3, 4, 4\)",
    ),
    "one more axis": (
        replaced("blocks.1.norm2.weight", lambda a: a[None]),
        r"misshapen: blocks.1.norm2.weight \(1, 64\), expected \(64,\)",
    ),
    "too large for float32": (
        replaced("head.bias", lambda a: a.astype(np.float64) + 1e39),
        r"not finite: head.bias float64, read as float32",
    ),
    "not a number": (replaced("norm.bias", with_nan), r"not finite: norm.bias float32"),
    "text": (
        replaced("norm.bias", lambda a: a.astype(str)),
        r"'norm.bias' is an array of <U\d+, which tinymixer does not read as weights",
    ),
    "complex": (
        replaced("norm.bias", lambda a: a + 1j),
        r"'norm.bias' is an array of complex\d+, which",
    ),
    "whole numbers": (
        replaced("norm.bias", lambda a: a.astype(np.int32)),
        r"'norm.bias' is an array of int32, as quantised weights are, which",
    ),
    "fewer blocks": (
        lambda arrays: {key: a for key, a in arrays.items() if not key.startswith("blocks.3.")},
        r"missing: blocks.3.norm1.weight",
    ),
    "more blocks": (
        lambda arrays: (
            arrays
            | {k.replace("blocks.3", "blocks.4"): a for k, a in arrays.items() if "blocks.3" in k}
        ),
        r"left over: blocks.4.norm1.weight",
    ),
    "wider": (
        lambda arrays: state_in(create_model("mixer_pico", hidden_dim=96), "timm"),
        r"misshapen: stem.proj.weight \(96, 3, 4, 4\), expected \(64, 3, 4, 4\)",
    ),
    "another image size": (
        lambda arrays: state_in(create_model("mixer_pico", image_size=64), "timm"),
        r"misshapen: blocks.0.mlp_tokens.fc1.weight \(32, 256\), expected \(32, 64\)",
    ),
    "another layout": (
        lambda arrays: state_in(create_model("mixer_pico"), "official"),
        r"missing: stem.proj.weight.*left over: stem/kernel",
    ),
}


@pytest.mark.parametrize(("change", "says"), WRONG.values(), ids=WRONG)
def test_wrong_weights_are_refused_and_the_model_stays(change, says):
    model = moved("mixer_pico")
    before = {name: array.copy() for name, array in model.state().items()}
    with pytest.raises(CheckpointError, match=says):
        load_state(model, change(state_in(model, "timm")), "timm")
    for name, array in model.state().items():
        np.testing.assert_array_equal(array, before[name])


def damaged(tmp_path, suffix, spoil):
    path = tmp_path / f"weights{suffix}"
    save_state(create_model("mixer_pico"), path, "timm")
    path.write_bytes(spoil(path.read_bytes()))
    return path


DAMAGED = {
    "cut": (lambda b: b[:1000], "is not a whole .npz or PyTorch|is not a whole .safetensors"),
    "empty": (lambda b: b"", "is empty, as after a download that failed"),
    "text": (lambda b: b"not weights", 'is a text that begins with "not weights"'),
    "a byte short": (lambda b: b[:-1], "is not a whole .npz or PyTorch|is not a whole .safetens"),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("spoil", "says"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused(suffix, spoil, says, tmp_path):
    path = damaged(tmp_path, suffix, spoil)
    with pytest.raises(CheckpointError, match=says):
        read_file(path)


@pytest.mark.parametrize(("kind", "size"), [("F8_E4M3", 1), ("F4", 1)])
def test_a_whole_file_of_numbers_that_numpy_does_not_have_is_not_called_damaged(
    kind, size, tmp_path
):
    head = {"head.bias": {"dtype": kind, "shape": [10], "data_offsets": [0, 10 * size]}}
    text = json.dumps(head).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(10 * size)
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=f"'head.bias' is an array of type '{kind}', .* float32"
    ):
        read_file(tmp_path / "weights.safetensors")


def test_a_file_of_pickles_is_refused(tmp_path):
    np.savez(tmp_path / "weights.npz", **{"head.bias": np.array([print], object)})
    with pytest.raises(
        CheckpointError, match=r"'head.bias' is an array of type '.O', which tinymixer does not re"
    ):
        read_file(tmp_path / "weights.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_another_precision_become_the_models(suffix, dtype, tmp_path):
    model, other = moved("mixer_pico"), create_model("mixer_pico")
    arrays = {name: x.astype(dtype) for name, x in state_in(model, "timm").items()}
    write_file(tmp_path / f"weights{suffix}", arrays)
    load_state(other, tmp_path / f"weights{suffix}", "timm")
    for name, x in other.state().items():
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, model.state()[name].astype(dtype).astype(np.float32))


def test_nothing_of_a_file_is_read_before_its_names_and_shapes_fit(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    arrays = state_in(moved("mixer_pico"), "timm")
    np.savez_compressed(path, **arrays | {"head.bias": np.zeros(10**7, np.float32)})

    def read(file, name):
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr("tinymixer.arrays.Npz.read", read)
    with pytest.raises(CheckpointError, match=r"misshapen: head.bias \(10000000,\), expected"):
        load_state(create_model("mixer_pico"), path, "timm")
    assert num_classes_in(path, create_model("mixer_pico"), "timm") == 10**7


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "weights.npz", a=np.zeros(10**6))
    assert read_file(tmp_path / "weights.npz")["a"].size == 10**6
    monkeypatch.setattr("tinymixer.weights.files.MOST", 10**6)
    with pytest.raises(CheckpointError, match="unpacks to 8,000,000 bytes"):
        read_file(tmp_path / "weights.npz")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_refused_at_once(make, tmp_path):
    make(tmp_path / "weights.npz")
    with pytest.raises(CheckpointError, match=r"cannot read .*weights\.npz: it is not a regular f"):
        load_state(create_model("mixer_pico"), tmp_path / "weights.npz")


def test_the_weights_in_a_checkpoint_are_the_averaged_ones_and_under_its_digest(tmp_path):
    options = {**OPTIONS, "num_classes": len(CLASSES)}
    model, path = create_model("mixer_pico", **options), tmp_path / "last.npz"
    path.write_bytes(GOOD["checkpoint"])
    load_state(model, path)
    for name, x in model.state().items():
        np.testing.assert_array_equal(x, AVERAGE[name])
    a, b = (f"ema/blocks.{i}.token_mlp.W1" for i in (0, 1))
    members = [(f"{name}.npy", npy(x)) for name, x in (TRAINED | {a: TRAINED[b]}).items()]
    path.write_bytes(zipped([*members, sign(HEADER.to_json(), TRAINED)]))
    with pytest.raises(CheckpointError, match="the digests differ"):
        load_state(model, path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"weights{suffix}"
    save_state(create_model("mixer_pico"), path)
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        save_state(moved("mixer_pico"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_an_unknown_ending_and_an_unknown_layout_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no file .*nowhere.npz"):
        read_file(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match=r"ends in .npz or .safetensors"):
        save_state(create_model("mixer_pico"), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"MLPMixer has no layout 'keras'; there is tinymixer and"):
        state_in(create_model("mixer_pico"), "keras")


def test_a_system_that_was_never_released_has_no_official_layout():
    with pytest.raises(ValueError, match=r"SparseMLP has no layout 'official'; there is tinymixer"):
        state_in(create_model("sparse_mlp_nano"), "official")
