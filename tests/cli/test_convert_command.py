"""What `tinymixer convert` makes of a file of weights."""

import numpy as np
import pytest
from command_line import TINY, call, no_network, refused

from tinymixer import create_model, nn
from tinymixer.train import checkpoint
from tinymixer.weights import load_state, read_file, save_state


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
