"""Pretrained weights that come with tinymixer: what they say of themselves, and who uses them."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import TINY, call, refused
from PIL import Image

from tinymixer.cli.own_weights import USUAL
from tinymixer.models import create_model
from tinymixer.train.checkpoint import load
from tinymixer.weights import TRAINED, load_state, read_weights, trained

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def picture(here):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save("mine.png")
    return "mine.png"


@pytest.mark.parametrize("name", trained())
def test_it_is_small_knows_its_model_and_is_the_one_that_its_card_describes(name):
    path = trained()[name]
    assert path.stat().st_size < 2_000_000
    with read_weights(path) as weights:
        assert {x.dtype.name for x in weights.values() if x.dtype.kind == "f"} == {"float16"}
        model = create_model(weights.record["model"], **weights.record["model_options"])
        load_state(model, weights)
        assert weights.record["class_names"] == CIFAR10
        assert len(weights.record["mean"]) == len(weights.record["std"]) == 3
    card = (TRAINED / "README.md").read_text()
    (part,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", card, re.M | re.S)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in part


def test_without_a_run_it_answers_and_says_who_does(picture, capsys):
    assert call("predict", picture) == 0
    first, line, wrote = capsys.readouterr().out.splitlines()
    assert first == f"no run under runs/ yet: predicting with the pretrained weights {USUAL}"
    assert re.fullmatch(rf"mine.png: (({'|'.join(CIFAR10)}) [\d.]+%(, )?){{5}}", line)
    assert wrote == f"wrote runs/{USUAL}/prediction-mine.png"


def test_ones_own_run_comes_first(picture, capsys):
    assert call("train", "--dataset", "shapes", "--epochs", 1, *TINY) == 0
    capsys.readouterr()
    assert call("predict", picture) == 0
    said = capsys.readouterr().out
    assert USUAL not in said
    assert "wrote runs/mixer_pico-shapes" in said


def test_it_is_known_by_its_name_wherever_weights_are_named(picture, capsys):
    assert call("predict", picture, "--weights", USUAL) == 0
    assert call("convert", USUAL, "mine.npz") == 0
    assert call("train", "--dataset", "shapes", "--init", USUAL, "--epochs", 1, *TINY[8:]) == 0
    begun = load(Path("runs/mixer_pico-shapes/last.npz"))
    assert begun.header.config.begun_from.startswith(f"{USUAL}.npz sha256:")


def test_a_file_of_that_name_comes_first(picture, here, capsys):
    (here / USUAL).write_bytes(b"GIF89a")
    refused(capsys, here, ("predict", picture, "--weights", USUAL), USUAL)


def test_another_name_is_a_file_that_is_not_there(picture, here, capsys):
    refused(
        capsys, here, ("predict", picture, "--weights", "mixer_pico-cifar11"), "mixer_pico-cifar11"
    )
