"""Weights of one's own: `train --init`, `predict --weights` and `eval --weights`."""

import json

import numpy as np
import pytest
from command_line import call, refused
from PIL import Image
from small_runs import SYSTEMS

from tinymixer.cli.own_weights import imagenet_classes
from tinymixer.data.pictures import as_seen
from tinymixer.models import create_model
from tinymixer.train.checkpoint import load, load_model
from tinymixer.train.evaluation import log_probabilities
from tinymixer.train.parallel import Workers
from tinymixer.weights import load_state, read_weights, save_state, state_in

LAYOUTS = {"sparse_mlp_nano": "tinymixer"}  # the others: official
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF = ((127.5,) * 3, (127.5,) * 3)
FEW = ("--dataset", "shapes", "--train-size", 20, "--test-size", 9, "--epochs", 1, "--workers", 1)


def moved(name, **changes):
    model = create_model(name, **changes)
    rng = np.random.default_rng(5)
    for array in model.state().values():
        array += 0.1 * rng.standard_normal(array.shape, dtype=np.float32)
    return model


def words(options):
    """The --set of each option."""
    return [word for name, x in options.items() for word in ("--set", f"{name}={x}")]


def colours(name):
    return {"mixer_pico": HALF, "sparse_mlp_nano": IMAGENET}.get(name, IMAGENET)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_starts_from_a_file_and_names_what_it_sees(name, here, capsys):
    layout = LAYOUTS.get(name, "official")
    old = moved(name, num_classes=123, **SYSTEMS[name])
    save_state(old, "w.npz", layout)
    picture = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    Image.fromarray(picture).save("mine.png")
    options = ("--model", name, *words(SYSTEMS[name]))
    # What it sees
    assert call("predict", "mine.png", "--weights", "w.npz", *options) == 0
    *notes, line, wrote = capsys.readouterr().out.splitlines()
    assert len(notes) == (layout == "tinymixer")  # that it does not say how it sees colours
    with Workers(1) as workers:
        seen = as_seen(Image.fromarray(picture), 32, 32)[None]
        (log_p,) = log_probabilities(old, seen, *colours(name), workers)
    best = [f"class {k} {np.exp(log_p[k]):.1%}" for k in log_p.argsort()[::-1][:5]]
    assert line == f"mine.png: {', '.join(best)}"
    assert wrote == "wrote runs/w/prediction-mine.png"
    # What it learns
    assert call("train", "--init", "w.npz", *FEW, "--out", "run", *options, "--lr", 1e-9) == 0
    assert "kept; new: head.W, head.b; ignored: " in capsys.readouterr().out
    model, saved = load_model(here / "run" / "last.npz")
    assert saved.header.config.begun_from.startswith("w.npz sha256:")
    if layout == "official":
        assert (saved.header.dataset.mean, saved.header.dataset.std) == colours(name)
    for array, now in model.state().items():
        if "head" not in array and "running" not in array:
            np.testing.assert_allclose(now, old.state()[array], atol=1e-6, err_msg=array)
    assert call("eval", "--run", "run") == 0
    assert call("train", "--resume", "run", "--quiet", "--workers", 1) == 0


def test_a_run_is_started_from_with_its_options_and_its_mean_and_std(run, here, capsys):
    assert call("train", "--init", run, *FEW, "--out", "next") == 0
    assert "run/last.npz sha256:" in capsys.readouterr().out
    first, then = (load(here / x / "last.npz").header for x in (run, "next"))
    assert then.config.model_options == first.config.model_options
    assert then.dataset.mean == first.dataset.mean
    assert json.loads((here / "next" / "config.json").read_text())["begun_from"]
    assert call("predict", here / "next" / "curves.png", "--weights", "next") == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert any(name in line for name in first.dataset.class_names)


def test_the_mean_of_the_weights_is_used_and_not_that_of_the_data(here, capsys):
    save_state(moved("mixer_pico"), "w.npz", "timm")
    for out, more in (("a", ("--init", "w.npz", "--model", "mixer_pico")), ("b", ())):
        assert call("train", *FEW, *more, "--out", out, "--quiet") == 0
    found = [load(here / out / "last.npz").header for out in "ab"]
    assert found[0].dataset.mean == HALF[0] != found[1].dataset.mean
    assert found[0].dataset.source == found[1].dataset.source is not None
    assert found[0].config.model_options == {"gelu": "erf"}  # as timm computes it
    options = ("--init", "w.npz", "--model", "mixer_pico", "--set", "gelu=tanh")
    assert call("train", *FEW, *options, "--out", "c", "--quiet") == 0
    assert load(here / "c" / "last.npz").header.config.model_options == {"gelu": "tanh"}


def test_a_head_of_the_same_classes_is_kept_and_a_backbone_can_be_frozen(run, here, capsys):
    assert call("train", "--init", run, *FEW, "--out", "same") == 0
    assert " kept\n" in capsys.readouterr().out  # and nothing is new
    assert call("train", "--init", run, *FEW, "--out", "frozen", "--freeze", "backbone") == 0
    config = load(here / "frozen" / "last.npz").header.config
    assert config.freeze == "backbone"


@pytest.fixture
def named(here):
    """A model with the classes of ImageNet, and its file in timm's layout."""
    options = {"hidden_dim": 8, "num_blocks": 1, "tokens_mlp_dim": 4, "channels_mlp_dim": 8}
    model = moved("mixer_pico", num_classes=1000, **options)
    model.head.b.data[[134, 517]] += 5
    save_state(model, "w.safetensors", "timm")
    return ("--weights", "w.safetensors", "--model", "mixer_pico", *words(options))


def test_a_thousand_classes_have_the_names_of_imagenet(named, here, capsys):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("mine.png")
    assert call("predict", "mine.png", *named) == 0
    assert "crane bird " in capsys.readouterr().out


def test_the_list_of_classes_is_the_public_one():
    names = imagenet_classes()
    assert len(names) == len(set(names.values())) == 1000
    assert list(names) == sorted(names)  # as the synsets of ILSVRC 2012 are
    assert all(len(number) == 9 and number[0] == "n" for number in names)
    some = {0: "tench", 281: "tabby", 417: "balloon", 817: "sports car", 999: "toilet tissue"}
    assert {k: list(names.values())[k] for k in some} == some


def test_weights_are_tested_on_a_folder_with_some_of_their_classes(named, here, capsys):
    for folder in ("n02012849", "crane", "tench"):
        (here / "photos" / "test" / folder).mkdir(parents=True)
        (here / "photos" / "train" / folder).mkdir(parents=True)
        for part in ("train", "test"):
            for i in range(2):
                shade = np.full((40, 40, 3), 20 * i + len(folder), np.uint8)
                Image.fromarray(shade).save(here / "photos" / part / folder / f"{i}.png")
    assert call("eval", *named, "--dataset", "folder:photos") == 0
    table = capsys.readouterr().out
    assert "another class" in table
    assert "wrote runs/w/confusion.png" in table
    (here / "photos" / "train" / "tench").rename(here / "photos" / "train" / "trench")
    (here / "photos" / "test" / "tench").rename(here / "photos" / "test" / "trench")
    argv = ("eval", *named, "--dataset", "folder:photos")
    refused(capsys, here, argv, "its class 'trench' is not one of the model's 1,000")


def test_what_cannot_be_started_from_is_refused_in_one_line(run, here, capsys):
    save_state(moved("mixer_pico"), "w.npz", "timm")
    save_state(moved("vip_nano"), "v.npz", "official")
    (here / "text.npz").write_text("hello")
    for argv, named in [
        (("--init", "w.npz"), "does not say which model it is of; name it with --model"),
        (("--init", "none.npz", "--model", "mixer_pico"), "none.npz"),
        (("--init", "text.npz", "--model", "mixer_pico"), "text.npz"),
        (("--init", "w.npz", "--model", "vip_nano"), "holds 0% of what VisionPermutator needs"),
        (("--init", "w.npz", "--model", "mixer_micro"), "mixer_micro"),
        (
            ("--init", "v.npz", "--model", "vip_nano", "--set", "image_size=64"),
            "keep image_size=32,32",
        ),
        (("--freeze", "backbone"), "name the file with --init"),
        (("--resume", run, "--init", "w.npz"), "leave out --init"),
        (
            (
                *("--init", "w.npz", "--model", "mixer_pico", "--set", "num_blocks=5"),
                *("--freeze", "backbone"),
            ),
            "has no blocks.4.token_norm.gamma",
        ),
    ]:
        refused(capsys, here, ("train", *FEW[:6], *argv), named)
    for argv, named in [
        (("--weights", "w.npz"), "name it with --model"),
        (("--weights", "w.npz", "--run", run), "give one of them"),
        (("--model", "mixer_pico"), "belong to --weights"),
        (("--weights", "w.npz", "--model", "mixer_pico"), "name one, --dataset"),
    ]:
        refused(capsys, here, ("eval", *argv), named)


def test_a_converted_file_says_what_it_is(here, capsys):
    model = moved("mixer_pico", num_classes=123)
    save_state(model, "w.npz", "timm")
    assert call("convert", "w.npz", "ours.npz", "--model", "mixer_pico") == 0
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save("mine.png")
    lines = []
    for options in (("ours.npz",), ("w.npz", "--model", "mixer_pico")):
        capsys.readouterr()
        assert call("predict", "mine.png", "--weights", *options) == 0
        lines.append(capsys.readouterr().out.splitlines()[0])
    assert lines[0] == lines[1]
    other = create_model("mixer_pico", num_classes=123)
    load_state(other, "ours.npz")


def test_a_number_of_classes_or_channels_is_never_ignored(here, capsys):
    small = SYSTEMS["mixer_pico"]
    save_state(moved("mixer_pico", num_classes=10, **small), "w.npz", "timm")
    own = ("--model", "mixer_pico", *words(small))
    other = ("--set", "num_classes=12")
    refused(capsys, here, ("convert", "w.npz", "v.npz", *own, *other), "w.npz is of 10 classes")
    for name, n in (("num_classes", 12), ("channels", 1)):
        wrong = ("train", "--init", "w.npz", *FEW, *own, "--set", f"{name}={n}", "--out", "run")
        refused(capsys, here, wrong, f"the data set decides {name}; leave out {name}={n}")


def test_weights_that_segment_are_called_so(here, capsys):
    small = ("--model", "raft_mlp_nano", *words(SYSTEMS["raft_mlp_nano"]))
    assert call("train", "--task", "segment", *FEW, *small, "--out", "s") == 0
    segments = "s/last.npz is of a model that segments"
    Image.new("RGB", (32, 32)).save("mine.png")
    refused(capsys, here, ("predict", "mine.png", "--weights", "s"), segments)
    refused(capsys, here, ("convert", "s", "v.npz"), segments)
    refused(capsys, here, ("train", "--init", "s", *FEW, "--out", "run"), segments)


def test_a_backbone_beside_a_head_is_a_model_that_classifies(here, capsys):
    model = moved("mixer_pico", **SYSTEMS["mixer_pico"])
    save_state(model, "w.npz", "timm")
    with np.load("w.npz") as file:
        named = {x if x.startswith("head") else f"backbone.{x}": file[x] for x in file.files}
    np.savez("v.npz", **named)
    Image.new("RGB", (32, 32)).save("mine.png")
    own = ("--model", "mixer_pico", *words(SYSTEMS["mixer_pico"]))
    said = []
    for file in ("w.npz", "v.npz"):
        assert call("predict", "mine.png", "--weights", file, *own, "--out", "out") == 0
        said.append(capsys.readouterr().out)
    assert said[1].replace("v.npz", "w.npz").endswith(said[0])
    assert "the names were taken without 'backbone.'" in said[1]


def test_of_a_file_of_two_models_one_is_chosen(here, capsys):
    model = moved("mixer_pico", **SYSTEMS["mixer_pico"])
    save_state(model, "w.npz", "timm")
    with np.load("w.npz") as file:
        named = {f"{key}.{x}": i + file[x] for i, key in enumerate("ab") for x in file.files}
    np.savez("v.npz", **named)
    Image.new("RGB", (32, 32)).save("mine.png")
    own = ("--model", "mixer_pico", *words(SYSTEMS["mixer_pico"]))
    several = "v.npz: it holds several models: a, b. Choose one with --checkpoint-key"
    for argv in (
        ("predict", "mine.png", "--weights", "v.npz", *own),
        ("eval", "--weights", "v.npz", *own, "--dataset", "shapes"),
        ("convert", "v.npz", "out.npz", *own),
        ("train", "--init", "v.npz", *own, *FEW, "--out", "run"),
    ):
        refused(capsys, here, argv, several)
    assert call("convert", "v.npz", "out.npz", *own, "--checkpoint-key", "a", "--to", "timm") == 0
    with np.load("w.npz") as file, np.load("out.npz") as out:
        np.testing.assert_array_equal(file["head.bias"], out["head.bias"])
    assert call("predict", "mine.png", "--weights", "v.npz", *own, "--checkpoint-key", "b") == 0
    key = ("--checkpoint-key", "b")
    assert call("train", "--init", "v.npz", *own, *FEW, "--out", "run", *key) == 0
    refused(capsys, here, ("predict", "mine.png", "--run", "run", *key), "belong to --weights FILE")
    refused(capsys, here, ("train", *FEW, "--out", "new", *key), "name it with --init")


def test_the_form_of_gelu_stays_with_the_weights_under_another_models_name(here, capsys):
    model = moved("mixer_pico", gelu="erf")
    said = {"model": "mixer_pico", "model_options": {"gelu": "erf"}, "layout": "tinymixer"}
    save_state(model, "w.npz", record=said)
    pico = {"hidden_dim": 64, "num_blocks": 4, "tokens_mlp_dim": 32, "channels_mlp_dim": 256}
    nano = ("--model", "mixer_nano", *words(pico))
    assert call("convert", "w.npz", "v.npz", *nano) == 0
    with read_weights("v.npz") as weights:
        assert weights.record["model"] == "mixer_nano"
        assert weights.record["model_options"]["gelu"] == "erf"


def test_weights_of_no_class_are_refused_in_a_line(here, capsys):
    named = state_in(moved("mixer_pico", **SYSTEMS["mixer_pico"]), "timm")
    named |= {"head.weight": np.zeros((0, 8), np.float32), "head.bias": np.zeros(0, np.float32)}
    np.savez("w.npz", **named)
    Image.new("RGB", (32, 32)).save("mine.png")
    own = ("--weights", "w.npz", "--model", "mixer_pico", *words(SYSTEMS["mixer_pico"]))
    refused(capsys, here, ("predict", "mine.png", *own), "w.npz: MLPMixer: num_classes=0: expected")
    refused(capsys, here, ("eval", "--dataset", "shapes", *own), "w.npz: MLPMixer: num_classes=0")


def test_a_run_on_folders_of_odd_names_can_be_read_again(here, capsys):
    for name in ("x\x1b[31m", "y\ny"):
        (here / "mine" / name).mkdir(parents=True)
        for k in range(4):
            Image.new("RGB", (32, 32), (60 * k, 90, 10)).save(here / "mine" / name / f"{k}.png")
    own = ("--model", "mixer_pico", *words(SYSTEMS["mixer_pico"]), "--image-size", 32)
    train = ("train", "--dataset", "folder:mine", "--epochs", 1, "--workers", 1, "--out", "run")
    assert call(*train, *own) == 0
    assert call("eval", "--run", "run") == 0
    assert r"x\x1b[31m" in capsys.readouterr().out
    assert load(here / "run" / "last.npz").header.dataset.class_names == (r"x\x1b[31m", "y y")
