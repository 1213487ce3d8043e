"""What `tinymixer convert` makes of a file of weights."""

import json

import numpy as np
import pytest
from command_line import TINY, call, no_network, refused
from torch_files import zip_file

from tinymixer import create_model, nn
from tinymixer.train import checkpoint
from tinymixer.weights import load_state, read_file, read_weights, save_state, state_in


def released(here, **changes):
    """A small Mixer's weights in a file, named and laid out as its authors do."""
    model = create_model("mixer_pico", **changes)
    save_state(model, here / "released.npz", "official")
    return model


def test_convert_brings_weights_from_one_layout_to_another(here, capsys):
    model = released(here, num_classes=7)  # as many as the file's head has
    to_timm = ("--from", "official", "--to", "timm")
    assert (
        call("convert", "released.npz", "timm.safetensors", "--model", "mixer_pico", *to_timm) == 0
    )
    assert "wrote timm.safetensors: mixer_pico, 153,863 parameters, timm" in capsys.readouterr().out
    again = create_model("mixer_pico", num_classes=7, rng=nn.BLANK)
    load_state(again, here / "timm.safetensors", "timm")
    for name, array in model.state().items():
        np.testing.assert_array_equal(again.state()[name], array)


@pytest.mark.parametrize("ema", [0, 0.5])
def test_convert_takes_a_checkpoint_of_a_run(ema, here):
    run = here / "run"
    train = ("train", "--dataset", "shapes", "--epochs", 1, "--ema", ema, "--out", run)
    assert call(*train, *TINY) == 0
    options = ("--model", "mixer_pico", "--from", "tinymixer", *TINY[:8])
    assert call("convert", run / "last.npz", "out.npz", *options) == 0
    model, _ = checkpoint.load_model(run / "last.npz")
    converted = read_file(here / "out.npz")
    assert converted.keys() == model.state().keys()
    for name, array in model.state().items():
        np.testing.assert_array_equal(converted[name], array)


def test_convert_takes_a_file_of_pytorch_and_says_what_it_found(here, capsys):
    model = create_model("mixer_pico", num_classes=7, gelu="erf")
    arrays = {f"module.{name}": array for name, array in state_in(model, "timm").items()}
    averaged = {name: array / 2 for name, array in arrays.items()}
    (here / "x.pth").write_bytes(zip_file({"state_dict": arrays, "state_dict_ema": averaged}))
    assert call("convert", "x.pth", "raw.npz", "--model", "mixer_pico", "--raw") == 0
    assert call("convert", "x.pth", "x.npz", "--model", "mixer_pico") == 0
    said = capsys.readouterr().out
    assert "wrote x.npz: mixer_pico, 153,863 parameters, tinymixer" in said
    assert "x.pth: the averaged weights in 'state_dict_ema' were taken, not the raw" in said
    assert "x.pth: the names were taken without 'module.'" in said
    assert "layout timm, whose code computes GELU in its erf form, and sees pixels of mean" in said
    images = np.random.default_rng(3).standard_normal((2, 32, 32, 3), dtype=np.float32)
    with read_weights(here / "raw.npz") as weights:  # a file of ours is of use by itself
        assert weights.record["mean"] == [127.5] * 3
        again = create_model(weights.record["model"], **weights.record["model_options"])
        load_state(again, weights)
    np.testing.assert_array_equal(again(images).data, model(images).data)
    with read_weights(here / "x.npz") as weights:
        np.testing.assert_array_equal(weights["head.W"].read(), model.head.W.data / 2)


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_the_form_of_gelu_goes_with_the_weights(form, here, capsys):
    layout, other = ("official", "timm") if form == "tanh" else ("timm", "official")
    save_state(create_model("mixer_pico"), here / "a.npz", layout)
    assert call("convert", "a.npz", "b.npz", "--model", "mixer_pico") == 0
    assert call("convert", "b.npz", "c.safetensors", "--to", other) == 0  # b says what it is of
    assert f"the code of the layout {other} computes GELU in its" in capsys.readouterr().out
    assert call("convert", "c.safetensors", "d.npz", "--dtype", "float16") == 0
    for file in ("b.npz", "c.safetensors", "d.npz"):
        with read_weights(here / file) as weights:
            assert weights.record["model_options"]["gelu"] == form
    assert read_file(here / "d.npz")["head.W"].dtype == np.float16


def test_a_run_says_what_its_weights_are_of(here):
    assert call("train", "--dataset", "shapes", "--epochs", 1, "--out", "run", *TINY) == 0
    assert call("convert", "run/last.npz", "out.safetensors") == 0
    model, saved = checkpoint.load_model(here / "run/last.npz")
    with read_weights(here / "out.safetensors") as weights:
        record = weights.record
        again = create_model(record["model"], **record["model_options"])
        load_state(again, weights)
    assert tuple(record["class_names"]) == saved.header.dataset.class_names
    assert tuple(record["mean"]) == pytest.approx(saved.header.dataset.mean)
    for name, array in model.state().items():
        np.testing.assert_array_equal(again.state()[name], array)


def test_convert_writes_over_nothing_that_it_reads_and_over_no_run(here, capsys):
    released(here)
    assert call("train", "--dataset", "shapes", "--epochs", 1, "--out", "run", *TINY) == 0
    (here / "copy.npz").write_bytes((here / "run" / "last.npz").read_bytes())
    (here / "link.npz").symlink_to(here / "released.npz")
    parts = dict.fromkeys(state_in(create_model("mixer_pico"), "official"), "released.npz")
    (here / "all.json").write_text(json.dumps({"weight_map": parts}))
    model = ("--model", "mixer_pico")
    for source, target in (
        ("released.npz", "released.npz"),
        ("released.npz", "link.npz"),
        ("all.json", "released.npz"),
        ("released.npz", "run/last.npz"),
        ("released.npz", "copy.npz"),
        ("run/last.npz", "run/last.npz"),
        ("released.npz", "/dev/null"),
    ):
        refused(capsys, here, ("convert", source, target, *model), target)


def test_a_file_that_does_not_say_its_model_needs_its_name(here, capsys):
    released(here)
    refused(capsys, here, ("convert", "released.npz", "x.npz"), "name it with --model")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("released.npz", "x.npz", "--model", "mixer_nano", "--from", "official"), "misshapen"),
        (("released.npz", "x.npz", "--model", "mixer_pico", "--from", "timm"), "left over"),
        (("released.npz", "x.pth", "--model", "mixer_pico", "--from", "official"), ".safetensors"),
        (("released.npz", "x.npz", "--model", "mixer_xl", "--from", "official"), "mixer_xl"),
        (("released.npz", "x.npz", "--model", "sparse_mlp_nano", "--from", "timm"), "no layout"),
        (("nowhere.npz", "x.npz", "--model", "mixer_pico", "--from", "official"), "nowhere.npz"),
        (("damaged.npz", "x.npz", "--model", "mixer_pico", "--from", "official"), "damaged.npz"),
        (("released.npz", "x.npz", "--model", "mixer_pico", "--from", "keras"), "keras"),
        (
            ("released.npz", "damaged.npz/x.npz", "--model", "mixer_pico", "--from", "official"),
            "damaged.npz",
        ),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else x,
)
def test_convert_refuses_what_does_not_fit(argv, named, here, capsys):
    released(here)
    (here / "damaged.npz").write_bytes((here / "released.npz").read_bytes()[:-1])
    refused(capsys, here, ("convert", *argv), named)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (
            ("convert", "a.npz", ".", "--model", "mixer_pico", "--from", "timm"),
            "not a regular file",
        ),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)


def test_convert_says_what_its_file_says(here, capsys):
    """Also where a file of ours, or the user, says other than the code of its layout computes."""
    save_state(create_model("mixer_pico"), here / "timm.npz", "timm")
    to = ("--to", "official")
    assert call("convert", "timm.npz", "erf.npz", "--model", "mixer_pico", *to) == 0
    assert "computes GELU in its erf form" in capsys.readouterr().out
    assert call("convert", "erf.npz", "again.npz") == 0
    said = capsys.readouterr().out
    assert "again.npz says: GELU in its erf form, pixels of mean 127.5 and std 127.5" in said
    assert "tanh" not in said
    tanh = ("--model", "mixer_pico", "--set", "gelu=tanh")
    assert call("convert", "timm.npz", "tanh.npz", *tanh) == 0
    assert "tanh.npz says: GELU in its tanh form" in capsys.readouterr().out
    for name, form in (("again", "erf"), ("tanh", "tanh")):
        with read_weights(here / f"{name}.npz") as weights:
            assert weights.record["model_options"]["gelu"] == form
