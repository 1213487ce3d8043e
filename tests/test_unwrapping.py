"""What programs wrap around weights is taken off and named; records say what weights are of."""

import json
import re

import numpy as np
import pytest
from torch_files import Strided, bfloat16, legacy_file, msgpack_file, zip_file

from tinymixer import nn
from tinymixer.errors import CheckpointError
from tinymixer.models import create_model
from tinymixer.weights import (
    find_layout,
    known,
    load_state,
    read_file,
    read_weights,
    save_state,
    shapes_in,
    start_from,
    state_in,
)
from tinymixer.weights.unwrap import unwrapped

MODEL = create_model("mixer_pico", rng=np.random.default_rng(4))
TIMM = state_in(MODEL, "timm")
OFFICIAL = state_in(MODEL, "official")
EMA = {name: array + 1 for name, array in TIMM.items()}


def prefixed(prefix, arrays=TIMM):
    return {prefix + name: array for name, array in arrays.items()}


def nested(arrays):
    root = {}
    for name, array in arrays.items():
        inner = root
        for place in name.split("/")[:-1]:
            inner = inner.setdefault(place, {})
        inner[name.split("/")[-1]] = array
    return root


MOMENTS = {"state": {"0": {"exp_avg": np.ones(3, np.float32)}}}
STEPS = np.array(300)
WRAPPED = {  # what is read, the arrays expected, and of each a word in the notes
    "nothing": (TIMM, TIMM, []),
    "state_dict": ({"state_dict": TIMM, "epoch": STEPS}, TIMM, ["'state_dict'"]),
    "model and optimizer": (
        {"model": TIMM, "optimizer": MOMENTS, "epoch": STEPS},
        TIMM,
        ["'model'", "beside them, optimizer was left out|beside them, optimizer, epoch"],
    ),
    "twice": ({"net": {"state_dict": TIMM}}, TIMM, ["'net'", "'state_dict'"]),
    "module.": (prefixed("module."), TIMM, ["without 'module.'"]),
    "module.model.": (prefixed("module.model."), TIMM, ["without 'module.'", "without 'model.'"]),
    "_orig_mod.": (prefixed("_orig_mod."), TIMM, ["without '_orig_mod.'"]),
    "backbone.": (prefixed("backbone."), TIMM, ["without 'backbone.'"]),
    "encoder.": (prefixed("encoder."), TIMM, ["without 'encoder.'"]),
    "a name of one's own": (prefixed("mixer."), TIMM, ["without 'mixer.'"]),
    "a trainer's": ({"state_dict": prefixed("model.")}, TIMM, ["'state_dict'", "without 'model.'"]),
    "averaged by PyTorch": (
        prefixed("module.") | {"n_averaged": STEPS},
        TIMM,
        ["without 'module.'"],
    ),
    "a trainer's with a loss": (
        {"state_dict": prefixed("model.") | {"criterion.weight": np.ones(10, np.float32)}},
        TIMM,
        ["without 'model.'", "beside them, criterion was left out"],
    ),
    "state_dict_ema": (
        {"state_dict": TIMM, "state_dict_ema": EMA},
        EMA,
        ["averaged weights in 'state_dict_ema' were taken, not the raw in 'state_dict'"],
    ),
    "model_ema": ({"model": TIMM, "model_ema": prefixed("module.", EMA)}, EMA, ["'model_ema'"]),
    "ema of a class": ({"model": TIMM, "ema": {"module": EMA, "updates": STEPS}}, EMA, ["'ema'"]),
    "ema within names": (prefixed("model.") | prefixed("ema.", EMA), EMA, ["averaged"]),
    "an average of nothing": (
        {"model": TIMM, "ema": {"decay": np.ones(1, np.float32)}},
        TIMM,
        ["'model'"],
    ),
    "only averaged": ({"state_dict_ema": EMA}, EMA, ["'state_dict_ema'"]),
    "official": (OFFICIAL, OFFICIAL, []),
    "opt/target/": (prefixed("opt/target/", OFFICIAL), OFFICIAL, ["'opt/'", "'target'"]),
    "params/": (prefixed("params/", OFFICIAL), OFFICIAL, ["'params'"]),
    "a tree": ({"params": nested(OFFICIAL), "opt_state": MOMENTS}, OFFICIAL, ["'params'"]),
}


@pytest.mark.parametrize(("source", "arrays", "said"), WRAPPED.values(), ids=WRAPPED)
def test_what_is_wrapped_around_weights_is_taken_off_and_named(source, arrays, said):
    with read_weights(source) as weights:
        assert weights.keys() == arrays.keys()
        assert all(np.array_equal(weights[name].read(), arrays[name]) for name in arrays)
        assert len(weights.notes) >= len(said)
        notes = "\n".join(weights.notes)
    for words in said:
        assert any(word in notes for word in words.split("|")), notes
    assert bool(said) == bool(notes)


@pytest.mark.parametrize("name", ["as_mlp_nano", "hire_mlp_nano", "raft_mlp_nano"])
def test_a_backbone_alone_keeps_the_names_that_all_of_it_begins_with(name):
    model = create_model(name)
    arrays = state_in(model, "official")
    backbone = {k: x for k, x in arrays.items() if k.startswith(("layers", "network", "levels"))}
    counters = {name for name in backbone if name.endswith("num_batches_tracked")}
    assert {*read_weights(backbone)} == backbone.keys() - counters


def test_the_raw_weights_are_taken_when_asked_for():
    with read_weights({"model": TIMM, "model_ema": EMA}, average=False) as weights:
        assert all(np.array_equal(weights[name].read(), TIMM[name]) for name in TIMM)
        assert "the raw weights in 'model' were taken, not the averaged" in weights.notes[0]


def test_what_is_not_averaged_comes_from_the_raw_weights():
    names = ["model/norm.weight", "model/norm.running_mean", "ema/norm.weight"]
    assert unwrapped(names).names == {
        "norm.weight": "ema/norm.weight",
        "norm.running_mean": "model/norm.running_mean",
    }


@pytest.mark.parametrize("write", [zip_file, legacy_file])
def test_a_tuple_or_list_of_weights_and_other_things_is_read(write, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(write([TIMM, 3]))
    with read_weights(path) as weights:
        assert weights.keys() == TIMM.keys()
        assert "without '0/'" in weights.notes[0]
    path.write_bytes(write([(name, array) for name, array in TIMM.items()]))
    load = f"{re.escape(str(path))} does not fit MLPMixer .* left over: 0/1"
    with pytest.raises(CheckpointError, match=load):
        load_state(MODEL, path)


@pytest.mark.parametrize("write", [zip_file, legacy_file])
def test_an_expanded_tensor_beside_the_weights_is_no_damage(write, tmp_path):
    path = tmp_path / "w.pth"
    mask = Strided(np.ones(1, np.float32), (4, 4), (0, 0))
    path.write_bytes(write({"state_dict": TIMM, "mask": mask}))
    with read_weights(path) as weights:
        assert weights.keys() == TIMM.keys()
    path.write_bytes(write({"state_dict": TIMM | {"mask": mask}}))
    with read_weights(path) as weights:
        assert weights.keys() == TIMM.keys()
        assert any("mask was left out, a tensor that repeats" in note for note in weights.notes)
    path.write_bytes(write({"state_dict": TIMM | {"norm.weight": mask}}))
    with pytest.raises(CheckpointError, match=r"'norm\.weight' is a tensor that repeats"):
        load_state(MODEL, path)


BUFFERS = {
    "blocks.0.attn_mask": np.ones((4, 4)) > 0,
    "blocks.0.relative_position_index": np.arange(16).reshape(4, 4),
    "seen": np.array([3], np.int32),
    "table": np.zeros(3, np.uint8),
    "norm.num_batches_tracked": STEPS,
}


@pytest.mark.parametrize("write", [zip_file, legacy_file, "npz", "safetensors"])
def test_masks_and_indices_beside_the_weights_are_not_called_quantised(write, tmp_path):
    arrays, path = TIMM | BUFFERS, tmp_path / "x"
    if write == "npz":
        with path.open("wb") as file:
            np.savez(file, **arrays, comment="beside them", made=np.datetime64("2026-01-01"))
    elif write == "safetensors":
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    else:
        path.write_bytes(write({"model": arrays}))
    again = create_model("mixer_pico")
    load_state(again, path)
    np.testing.assert_array_equal(again.head.W.data, MODEL.head.W.data)
    assert start_from(create_model("mixer_pico"), path).new == ()


def test_quantised_weights_are_called_so():
    small = {x: a.astype(np.int8) if a.ndim > 1 else a for x, a in TIMM.items()}
    said = r"'stem.proj.weight' is an array of int8, as quantised weights are.* as float32"
    for use in (load_state, start_from):
        with pytest.raises(CheckpointError, match=said):
            use(create_model("mixer_pico"), small)
    packed = {x.replace("head.weight", "head.qweight"): a for x, a in TIMM.items()}
    packed["head.qweight"] = np.zeros((8, 10), np.int32)
    said = "missing: head.weight .*Quantised weights are not read, and head.qweight is int32"
    with pytest.raises(CheckpointError, match=said):
        load_state(create_model("mixer_pico"), packed)


SEVERAL = {  # what is read, and the keys of the models in it
    "student and teacher": (
        {
            "student": prefixed("module.backbone.") | {"module.head.last.weight": np.ones(3)},
            "teacher": prefixed("backbone.", EMA) | {"head.last.weight": np.ones(3)},
            "optimizer": MOMENTS,
            "epoch": STEPS,
        },
        ["student/module.backbone", "teacher/backbone"],
    ),
    "within names": (
        {"state_dict": prefixed("student.") | prefixed("teacher.", EMA)},
        ["state_dict/student", "state_dict/teacher"],
    ),
    "G and D": ({"G": TIMM, "D": EMA, "optim_G": MOMENTS}, ["G", "D"]),
    "numbered": ({0: TIMM, 1: EMA}, ["0", "1"]),
    "a tree": (
        {"params": {"a": nested(OFFICIAL), "b": nested(OFFICIAL)}},
        ["params/a", "params/b"],
    ),
    "ours": ({"a": MODEL.state(), "b": MODEL.state()}, ["a", "b"]),
}


@pytest.mark.parametrize(("source", "keys"), SEVERAL.values(), ids=SEVERAL)
def test_of_several_models_one_has_to_be_chosen(source, keys):
    said = f"holds several models: {', '.join(keys)}. Choose one with --checkpoint-key"
    with pytest.raises(CheckpointError, match=re.escape(said)):
        read_weights(source)
    for key in (*keys, *(key.partition("/")[0] for key in keys if not key.startswith(("st", "p")))):
        with read_weights(source, key=key) as weights:
            assert start_from(create_model("mixer_pico"), weights).new == ()
    with pytest.raises(CheckpointError, match=f"has no 'ghost'; it has .*{re.escape(keys[0][0])}"):
        read_weights(source, key="ghost")


def test_the_model_that_is_chosen_is_the_one_that_is_read():
    source, _ = SEVERAL["student and teacher"]
    with read_weights(source, key="teacher") as weights:
        np.testing.assert_array_equal(weights["head.bias"].read(), EMA["head.bias"])
        assert "head.last.weight" in weights
    with read_weights(source, key="student/") as weights:
        np.testing.assert_array_equal(weights["head.bias"].read(), TIMM["head.bias"])


def test_one_model_beside_what_is_none_is_taken():
    critic = {"critic": {"0.weight": np.ones((3, 3), np.float32)}, "mixer": TIMM}
    with read_weights(critic) as weights:
        assert weights.keys() == TIMM.keys()
        assert "beside them, critic was left out" in weights.notes


@pytest.mark.parametrize("write", [zip_file, legacy_file])
def test_weights_under_a_number_are_read_and_odd_names_are_no_damage(write, tmp_path):
    path = tmp_path / "w.pth"
    for key in (0, None, 0.5, True):
        path.write_bytes(write({key: TIMM}))
        with read_weights(path) as weights:
            assert weights.keys() == TIMM.keys()
            said = ({"0": "'0/'", "0.5": "'0.'"}).get(str(key), f"'{key}/'")
            assert weights.notes[0].startswith(f"the names were taken without {said}")
    path.write_bytes(write({f"a\x1b[2J{name}": array for name, array in TIMM.items()}))
    with pytest.raises(CheckpointError, match=r"has names that tinymixer does not read: 'a.x1b"):
        read_weights(path)


def test_an_opened_file_of_ours_is_a_mapping_with_a_record(tmp_path):
    said = {"model": "mixer_pico", "model_options": {"gelu": "erf"}}
    save_state(MODEL, tmp_path / "w.npz", "timm", record=said)
    again = create_model("mixer_pico")
    with np.load(tmp_path / "w.npz") as file:
        assert read_weights(file).record == said
        load_state(again, file)
    np.testing.assert_array_equal(again.state()["head.W"], MODEL.state()["head.W"])


@pytest.mark.parametrize("source", [None, b"w.npz", 3, [1], MODEL])
def test_what_is_neither_path_nor_mapping_is_named(source):
    with pytest.raises(TypeError, match=f"not from {type(source).__name__}"):
        load_state(MODEL, source)


def test_closed_weights_are_not_called_damaged(tmp_path):
    save_state(MODEL, tmp_path / "w.npz")
    with read_weights(tmp_path / "w.npz") as weights:
        pass
    with pytest.raises(ValueError, match="are closed; use them within"):
        load_state(MODEL, weights)


def test_a_path_may_be_a_text_and_other_types_are_not_written(tmp_path):
    save_state(MODEL, tmp_path / "w.npz")
    assert read_file(str(tmp_path / "w.npz")).keys() == MODEL.state().keys()
    with pytest.raises(ValueError, match="dtype='int8': expected float16 or float32"):
        save_state(MODEL, tmp_path / "v.npz", dtype="int8")


def test_parts_of_a_model_are_no_wrappers():
    names = ["network.0.weight", "head.weight", "model.weight"]
    assert list(unwrapped(names).names) == names
    assert list(unwrapped(["head.weight", "head.bias"]).names) == ["head.weight", "head.bias"]


@pytest.mark.parametrize("write", [zip_file, legacy_file])
@pytest.mark.parametrize("order", ["little", "big"])
def test_tensors_of_pytorch_come_back_in_any_order_of_bytes_and_axes(write, order, tmp_path):
    rng = np.random.default_rng(2)
    flat = rng.standard_normal(40).astype(np.float32)
    sent = {
        "half": rng.standard_normal((3, 5)).astype(np.float16),
        "double": rng.standard_normal((2, 3, 5)),
        "empty": np.zeros((0, 4), np.float32),
        "transposed": Strided(flat, (5, 7), (1, 5)),
        "part": Strided(flat, (7,), (1,), offset=33),
        "every other": Strided(flat, (3, 2), (12, 4), offset=1),
        "upper halves": bfloat16(np.array([1.5, -3.0, 1e-30], np.float32)),
        "counter": np.array(3),
    }
    path = tmp_path / "x.pth"
    path.write_bytes(write(sent, order))
    expected = {name: x for name, x in sent.items() if isinstance(x, np.ndarray) and x.ndim}
    expected["transposed"] = flat[:35].reshape(7, 5).T
    expected["part"] = flat[33:]
    expected["every other"] = flat[1:37].reshape(3, 12)[:, [0, 4]]
    with read_weights(path) as weights:
        assert weights.keys() == expected.keys() | {"upper halves"}
        for name, array in expected.items():
            assert weights[name].shape == array.shape
            found = weights[name].read()
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
        np.testing.assert_allclose(weights["upper halves"].read(), [1.5, -3.0, 1e-30], rtol=2**-8)


def test_numbers_of_a_pytorch_file_are_under_their_crc(tmp_path):
    content = bytearray(zip_file(TIMM))
    content[content.find(TIMM["head.weight"].tobytes()) + 77] ^= 1
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a whole PyTorch file .*CRC"):
        load_state(create_model("mixer_pico"), tmp_path / "x.pth")


def test_nothing_is_read_before_names_and_shapes_fit(tmp_path, monkeypatch):
    (tmp_path / "x.pth").write_bytes(zip_file(TIMM | {"head.bias": np.zeros(10**6, np.float32)}))

    def read(*arguments):
        raise AssertionError("numbers were read")

    monkeypatch.setattr("tinymixer.weights.pytorch.ZipFile._bytes", read)
    with pytest.raises(CheckpointError, match=r"misshapen: head.bias \(1000000,\)"):
        load_state(create_model("mixer_pico"), tmp_path / "x.pth")


def test_an_index_and_its_parts_are_one(tmp_path):
    names = list(TIMM)
    parts = {
        "model-1.safetensors": names[:9],
        "model-2.bin": names[9:20],
        "model-3.npz": names[20:],
    }
    for file, inside in parts.items():
        arrays = {name: TIMM[name] for name in inside}
        if file.endswith("bin"):
            (tmp_path / file).write_bytes(zip_file(arrays))
        else:
            with (tmp_path / file).open("wb") as out:
                np.savez(out, **arrays)
    places = {name: file for file, inside in parts.items() for name in inside}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": places}))
    with read_weights(path) as weights:
        assert weights.keys() == TIMM.keys()
        assert [file.name for file in weights.files[1:]] == list(parts)
        assert find_layout(MODEL, weights) == "timm"
        for name in names:
            np.testing.assert_array_equal(weights[name].read(), TIMM[name])


SMALL = {
    "Mixer, in its authors' layout": ("mixer_pico", "official"),
    "Mixer, in timm's layout": ("mixer_pico", "timm"),
    "AS-MLP": ("as_mlp_nano", "official"),
    "Hire-MLP": ("hire_mlp_nano", "official"),
    "Vision Permutator": ("vip_nano", "official"),
    "RaftMLP": ("raft_mlp_nano", "official"),
}


@pytest.mark.parametrize("system", SMALL)
def test_weights_of_another_system_are_called_what_they_are(system):
    name, layout = SMALL[system]
    arrays = dict.fromkeys(shapes_in(create_model(name, rng=nn.BLANK), layout), np.ones(2))
    other = create_model("raft_mlp_nano" if system != "RaftMLP" else "mixer_pico", rng=nn.BLANK)
    with pytest.raises(CheckpointError, match=f"These are the names of {system}. Choose the mod"):
        load_state(other, arrays)


def test_a_part_of_several_is_called_one(tmp_path):
    path = tmp_path / "model-00001-of-00002.safetensors"
    save_state(MODEL, path, "timm")
    with pytest.raises(CheckpointError, match="one of several parts: give the index beside them"):
        load_state(create_model("mixer_nano", rng=nn.BLANK), path)


def test_bfloat16_of_flax(tmp_path):
    halves = np.array([0x3FC0, 0xC040], np.uint16)
    (tmp_path / "x.msgpack").write_bytes(msgpack_file({"params": {"b": ("bfloat16", halves)}}))
    with read_weights(tmp_path / "x.msgpack") as weights:
        np.testing.assert_array_equal(weights["b"].read(), np.array([1.5, -3.0], np.float32))


RECORD = {
    "model": "mixer_pico",
    "model_options": {"num_classes": 10, "gelu": "erf"},
    "layout": "timm",
    "class_names": [f"class {i}" for i in range(10)],
    "mean": [1.0, 2.0, 3.0],
    "std": [4.0, 5.0, 6.0],
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_says_what_its_weights_are_of(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    save_state(MODEL, path, "timm", record=RECORD)
    assert read_file(path).keys() == TIMM.keys()
    with read_weights(path) as weights:
        assert weights.record == RECORD
        assert weights.keys() == TIMM.keys()
    again = create_model(RECORD["model"], **RECORD["model_options"])
    load_state(again, path)
    np.testing.assert_array_equal(again.head.W.data, MODEL.head.W.data)


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ({"model": "mixer_xl"}, "no model 'mixer_xl'"),
        ({"model": 3}, "its model is 3"),
        ({"model_options": {"ghost": 1}}, "no option 'ghost'"),
        ({"model_options": {"num_blocks": 10**12}}, "a larger model than the file holds"),
        ({"model_options": {"channels_mlp_dim": 60_000}}, "a larger model than there is room"),
        ({"class_names": ["cat"]}, "1 name for num_classes=10"),
        ({"class_names": ["a\nb"] * 10}, "its class_names is"),
        ({"mean": [1, 2]}, "its mean is"),
        ({"std": [0.0, 1, 1]}, "its std is"),
        ({"std": [float("nan")]}, "its std is"),
        ({"layout": "keras"}, "its layout is 'keras'"),
    ],
)
def test_a_record_that_lies_is_refused(lie, says, tmp_path):
    text = np.frombuffer(json.dumps(RECORD | lie).encode(), np.uint8)
    np.savez(tmp_path / "x.npz", record=text, **TIMM)
    with pytest.raises(CheckpointError, match=rf"has a damaged record of its model \(.*{says}"):
        read_weights(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ({"model": "nope"}, "no model 'nope'"),
        ({"model": "mixer_nano"}, "larger model than|is not the model whose weights are written"),
        ({"model": "vip_nano"}, "larger model than|is not the model whose weights are written"),
        ({"model_options": {"patch_size": 8}}, "is not the model whose weights are written"),
        ({"model_options": {"ghost": 1}}, "no option 'ghost'"),
        ({"class_names": ["cat"]}, "1 name for num_classes=10"),
        ({"class_names": ["a\nb"] * 10}, "its class_names is"),
        ({"mean": np.ones(3)}, "ndarray is not JSON"),
        ({"std": [float("nan")]}, "its std is"),
        ({"std": [0.22, 0.22, 0.23]}, "of pixels 0..1; multiply it by 255"),
    ],
)
def test_a_record_that_could_not_be_read_is_not_written(lie, says, tmp_path):
    with pytest.raises(ValueError, match=f"^record: .*{says}"):
        save_state(MODEL, tmp_path / "x.npz", "timm", record=RECORD | lie)
    assert not (tmp_path / "x.npz").exists()


def test_a_record_of_tuples_and_of_another_number_of_classes_is_written(tmp_path):
    names = {"class_names": tuple(RECORD["class_names"])}
    save_state(MODEL, tmp_path / "x.npz", record=RECORD | names)
    other = create_model("mixer_pico", num_classes=7)
    save_state(other, tmp_path / "y.npz", record={"model": "mixer_pico"})
    for file in ("x.npz", "y.npz"):
        assert read_weights(tmp_path / file).record["model"] == "mixer_pico"


def test_half_precision_is_written_and_numbers_that_it_cannot_hold_are_refused(tmp_path):
    save_state(MODEL, tmp_path / "x.npz", "timm", dtype="float16")
    assert {x.dtype for x in read_file(tmp_path / "x.npz").values()} == {np.dtype(np.float16)}
    large = create_model("mixer_pico")
    large.head.W.data[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"head.weight has numbers that are too large for float16"):
        save_state(large, tmp_path / "y.npz", "timm", dtype="float16")


def test_the_released_code_computes_gelu_by_erf_but_for_the_official_mixer():
    forms = {
        (system, layout): known(system, layout).gelu
        for system in ("MLPMixer", "ASMLP", "HireMLP", "VisionPermutator", "RaftMLP")
        for layout in ("official", "timm")
        if known(system, layout)
    }
    assert forms.pop(("MLPMixer", "official")) == "tanh"
    assert set(forms.values()) == {"erf"}
    assert known("MLPMixer", "timm", 21_843).mean == (127.5, 127.5, 127.5)  # Google's
    assert known("MLPMixer", "timm", 11_221).std == (255.0, 255.0, 255.0)  # MIIL's
    assert known("MLPMixer", "tinymixer") is known("SparseMLP", "official") is None
    for fraction, pixels in zip(
        (0.485, 0.456, 0.406), known("ASMLP", "official").mean, strict=True
    ):
        assert pixels == pytest.approx(255 * fraction, abs=1e-12)
    for fraction, pixels in zip(
        (0.229, 0.224, 0.225), known("RaftMLP", "official").std, strict=True
    ):
        assert pixels == pytest.approx(255 * fraction, abs=1e-12)
