"""What `tinymixer train` does, and what it says when it cannot."""

import json
import os
import shutil
import time

import numpy as np
import pytest
from command_line import TINY, call, no_network, refused
from PIL import Image

from tinymixer.errors import TinymixerError
from tinymixer.train import Config, checkpoint
from tinymixer.train.ranks import ALONE


def test_train_leaves_a_run_and_says_how_good_it_is(here, capsys):
    assert call("train", "--dataset", "shapes", "--epochs", 2, *TINY) == 0
    run = here / "runs" / "mixer_pico-shapes"
    names = {"last.npz", "config.json", "metrics.jsonl", "curves.png"}
    assert {path.name for path in run.iterdir()} == names
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    said = capsys.readouterr().out
    assert f"test accuracy {last['test_accuracy']:.2%} after epoch 2" in said
    assert json.loads((run / "config.json").read_text())["model_options"]["hidden_dim"] == 8


def test_train_names_the_best_epoch_beside_the_last(here, capsys, monkeypatch):
    """The best by validation images; the test images are measured once, and choose nothing."""
    correct = iter([3, 7, 5, 4])

    def measure(*arguments):
        n = next(correct)
        return 1.0, np.array([[n, 10 - n], [0, 0]])

    monkeypatch.setattr("tinymixer.train.trainer.measure", measure)
    assert call("train", "--dataset", "shapes", "--epochs", 3, "--val-size", 8, *TINY) == 0
    said = capsys.readouterr().out
    best = "best validation accuracy 70.00% after epoch 2: best.npz"
    assert f"test accuracy 40.00% after epoch 3 ({best})" in said


def told(monkeypatch, *words):
    """What `tinymixer train words` would train, and the options that it would train it with."""
    found = []

    def trainer(config, dataset, out, **options):
        found.extend((config, options))
        raise TinymixerError("this is a test")

    monkeypatch.setattr("tinymixer.cli.train.Trainer", trainer)
    monkeypatch.setattr("tinymixer.cli.train.check_device", lambda device: None)  # no GPU is needed
    assert call("train", "--dataset", "shapes", "--train-size", 40, *words) == 2
    return found


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), {}),
        (("--workers", 3), {"workers": 3}),
        (("--save-every", 7.5), {"save_every": 7.5}),
        (("--quiet",), {"quiet": True}),
        (("--device", "gpu", "--graph"), {"device": "gpu", "graph": True}),
    ],
)
def test_options_of_how_to_compute_reach_the_trainer(words, options, monkeypatch):
    usual = {"workers": None, "device": "cpu", "save_every": 60.0, "quiet": False, "graph": False}
    usual |= {"processes": None, "ranks": ALONE}
    _, found = told(monkeypatch, *words)
    assert found == usual | options


@pytest.mark.parametrize(
    ("words", "lr"),
    [
        ((), 8e-3),
        (("--optimizer", "muon"), 8e-3),
        (("--optimizer", "adamw"), 4e-3),
        (("--optimizer", "adamw", "--lr", 1e-3), 1e-3),
    ],
)
def test_an_optimizer_brings_its_usual_learning_rate(words, lr, monkeypatch):
    config, _ = told(monkeypatch, *words)
    assert config.lr == lr


def test_minutes_are_those_of_a_trapezoid(monkeypatch):
    config, _ = told(monkeypatch, "--minutes", 3)
    found = config.minutes, config.epochs, config.schedule, config.warmup_epochs
    assert found == (3, 0, "trapezoid", 0.25)


def test_a_run_of_minutes_is_over_in_time_and_can_go_on(here, capsys):
    argv = ("train", "--dataset", "shapes", "--out", "run", *TINY)
    start = time.monotonic()
    assert call(*argv, "--minutes", 0.02) == 0
    assert time.monotonic() - start < 60
    epochs = json.loads((here / "run/config.json").read_text())["epochs"]
    assert f"0.02 minutes: {epochs:.4g} epochs" in capsys.readouterr().out
    assert call("train", "--resume", "run", "--minutes", 0.02) == 0
    assert call("train", "--resume", "run", "--epochs", epochs + 1) == 0
    refused(capsys, here, ("train", "--resume", "run", "--minutes", 5), "minutes")


def test_a_gpu_computes_a_whole_batch_at_once_unless_told_otherwise(monkeypatch):
    words = ("--batch-size", 48)
    assert told(monkeypatch, *words)[0].micro_batch < 48
    assert told(monkeypatch, *words, "--device", "gpu")[0].micro_batch == 48
    assert told(monkeypatch, *words, "--device", "gpu", "--micro-batch", 24)[0].micro_batch == 24


def test_a_second_run_of_the_same_name_gets_a_folder_of_its_own(here):
    for _ in range(2):
        assert call("train", "--dataset", "shapes", "--epochs", 1, "--quiet", *TINY) == 0
    assert sorted(os.listdir(here / "runs")) == ["mixer_pico-shapes", "mixer_pico-shapes-2"]


def test_without_cifar10_and_network_it_says_so_in_a_line_and_takes_shapes(
    here, capsys, monkeypatch
):
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    assert call("train", "--epochs", 1, *TINY) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert "CIFAR-10" in first
    assert "built-in shapes" in first
    assert "on shapes" in second


def test_cifar10_is_taken_where_it_is(whole_cifar10, capsys):
    argv = ("train", "--epochs", 1, "--data-dir", whole_cifar10, "--out", "r", *TINY)
    assert call(*argv) == 0
    assert "on cifar10, 40 images" in capsys.readouterr().out


def test_a_policy_is_kept_in_the_checkpoint(here):
    argv = ("train", "--dataset", "shapes", "--auto-augment", "cifar10", "--quiet", *TINY)
    assert call(*argv, "--out", "run") == 0
    config = checkpoint.load(here / "run" / "last.npz").header.config
    assert config.augment.auto_augment == "cifar10"
    config = config.plain()
    del config["augment"]["auto_augment"]  # a checkpoint from before there was the option
    assert Config.from_dict(config).augment.auto_augment == "none"


def test_segmentation_is_trained_evaluated_and_shown(here, capsys):
    argv = ("train", "--task", "segment", "--train-size", 20, "--test-size", 12, "--workers", 1)
    assert call(*argv, "--set", "raft_sizes=2", "--epochs", 1) == 2  # not one for each level
    assert call(*argv, "--epochs", 1, "--out", "run") == 0
    said = capsys.readouterr().out
    assert "on shapes, 20 images" in said
    last = json.loads((here / "run" / "metrics.jsonl").read_text())
    assert f"test mean IoU {last['test_iou']:.2%} after epoch 1" in said
    assert call("eval", "--run", "run") == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ("circle", "background", f"{last['test_iou']:.1%}"))
    Image.fromarray(np.full((50, 80, 3), 99, np.uint8)).save(here / "mine.png")
    assert call("predict", "mine.png", "--run", "run") == 0
    assert capsys.readouterr().out.startswith("mine.png: ")
    (here / "run" / "curves.png").unlink()
    assert call("plot", "--run", "run") == 0
    for name in ("segments.png", "prediction-mine.png", "curves.png"):
        with Image.open(here / "run" / name) as picture:
            assert min(picture.size) > 150


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(here):
    argv = ("train", "--dataset", "shapes", "--epochs", 2, "--quiet", *TINY)
    assert call(*argv, "--out", "whole") == 0
    assert call(*argv, "--out", "cut") == 0
    assert call("train", "--resume", "cut", "--quiet") == 0
    arrays = {}
    for name in ("whole", "cut"):
        with np.load(here / name / "last.npz") as archive:
            arrays[name] = {k: archive[k].tobytes() for k in archive.files if k != "header"}
    assert arrays["whole"] == arrays["cut"]


def test_a_run_resumes_with_the_options_that_it_began_with(here):
    """Its file gives a list back where the command line makes a tuple."""
    sizes = ("--set", "hidden_dim=8", "--set", "depths=1,1", "--train-size", 20, "--test-size", 9)
    argv = ("--dataset", "shapes", "--model", "as_mlp_nano", *sizes, "--workers", 1, "--quiet")
    train = ("train", *argv, "--epochs", 1)
    assert call(*train, "--out", "run") == 0
    assert call("train", "--resume", "run", *argv[4:]) == 0
    assert call(*train, "--resume", "run") == 0


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--batch-size", 32), "batch_size"),
        (("--model", "mixer_nano"), "model"),
        (("--dataset", "cifar10"), "dataset"),
        (("--val-size", 3), "val_size"),
        (("--epochs", 0.5), "has done 1 epoch already; give more"),
        (("--train-size", 21), "train_size"),
        (("--set", "gelu=erf"), "begun without gelu='erf'"),
        (("--set", "hidden_dim=8,8"), "begun with hidden_dim=8, not [8, 8]"),
        (("--set", "gelu={1}"), "begun without gelu="),  # no number, and nothing to keep in a file
        (("--set", "gelu={[]}"), "begun without gelu="),
        (("--crop-padding", 3), "begun with crop_padding=2, not 3"),
        (("--auto-augment", "cifar10"), "begun with auto_augment='none', not 'cifar10'"),
        (("--out", "elsewhere"), "--out"),
    ],
)
def test_a_run_resumes_only_as_it_was_begun(argv, named, run, here, capsys):
    refused(capsys, here, ("train", "--resume", run, *argv), named)


def test_an_existing_run_is_not_written_over(run, here, capsys):
    argv = ("train", "--dataset", "shapes", "--out", run, *TINY)
    refused(capsys, here, argv, "holds a run already")
    (run / "last.npz").rename(run / "best.npz")
    refused(capsys, here, argv, "best.npz goes on with it")


def test_the_best_checkpoint_does_not_take_the_place_of_the_latest(run, here, capsys):
    shutil.copy(run / "last.npz", run / "best.npz")
    argv = ("train", "--resume", run / "best.npz")
    refused(capsys, here, argv, "copy best.npz to a folder of its own")


@pytest.mark.parametrize(("option", "size"), [("train_size", 0), ("test_size", -1)])
def test_a_part_of_cifar10_has_images(option, size, whole_cifar10, here, capsys):
    part = (f"--{option.replace('_', '-')}", size)
    argv = ("train", "--epochs", 1, "--data-dir", whole_cifar10, *TINY, *part)
    refused(capsys, here, argv, f"training option {option}={size}: expected 1 to")


def test_a_model_for_other_images_is_refused_before_training(here, capsys):
    data = ("--dataset", "shapes", "--train-size", "8", "--test-size", "4")
    assert call("train", "--model", "mixer_pico", "--set", "image_size=64", *data) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "model mixer_pico on shapes: MLPMixer: expected images (B, 64, 64, 3)" in line


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("train", "--speed", "9"), "--speed"),
        (("train", "--epochs", "many"), "many"),
        (("train", "--epochs", "0"), "epochs=0"),
        (("train", "--minutes", "5", "--epochs", "3"), "--minutes decides how many epochs"),
        (("train", "--minutes", "5", "--schedule", "cosine"), "schedule='trapezoid', not 'cosine'"),
        (("train", "--minutes", "-1"), "minutes=-1"),
        (("train", "--lr", "nan"), "lr=nan"),
        (
            ("train", "--auto-augment", "imagenet"),
            "auto_augment='imagenet': expected none or cifar10",
        ),
        (("train", "--workers", "0"), "--workers 0"),
        (("train", "--save-every", "nan"), "expected 0 or more seconds, got nan"),
        (("train", "--save-every", "-1"), "expected 0 or more seconds, got -1"),
        (("train", "--model", "mixer_xxl"), "mixer_pico"),
        (("train", "--dataset", "imagenet"), "shapes"),
        (("train", "--dataset", "cifar10", "--data-dir", "."), "tinymixer data add"),
        (("train", "--dataset", "shapes", "--set", "gelu"), "OPTION=VALUE"),
        (("train", "--dataset", "shapes", "--set", "gelu=swish"), "'tanh' or 'erf'"),
        (
            ("train", "--dataset", "shapes", "--set", "patch_size=5", "--set", "gelu=erf"),
            "model mixer_pico with patch_size=5, gelu='erf': MLPMixer: patches of 5x5 do not tile",
        ),
        (("train", "--dataset", "shapes", "--set", "hidden_dim=wide"), "hidden_dim='wide'"),
        (("train", "--dataset", "shapes", "--set", "patch_size=0"), "patch_size=0: expected"),
        (("train", "--dataset", "shapes", "--set", "drop_path_rate=1"), "drop_path_rate=1: expect"),
        (("train", "--dataset", "shapes", "--set", "num_blocks=-1"), "num_blocks=-1: expected"),
        (("train", "--dataset", "shapes", "--set", "colour=1"), "'colour'"),
        (("train", "--dataset", "shapes", "--set", "rng=3"), "no option 'rng'"),
        (("train", "--dataset", "shapes", "--set", "name=3"), "no option 'name'"),
        (("train", "--dataset", "shapes", "--set", "eps=abc"), "eps='abc': expected a number"),
        (("train", "--dataset", "shapes", "--flip", "upside-down"), "upside-down"),
        (("train", "--dataset", "shapes", "--set", "num_classes=4"), "the data set decides"),
        (("train", "--dataset", "shapes", "--train-size", "0"), "train_size=0"),
        (("train", "--dataset", "shapes", "--precision", "fp8"), "fp32 or tf32 or bf16"),
        (("train", "--dataset", "shapes", "--precision", "tf32"), "--device gpu"),
        (("train", "--task", "detect"), "classify or segment"),
        (("train", "--task", "segment", "--model", "mixer_pico"), "no maps of several sizes"),
        (("train", "--task", "segment", "--dataset", "cifar10"), "no labels for pixels"),
        (("train", "--task", "segment", "--mixup", "1"), "mixup"),
        (("train", "--resume", "nowhere"), "nowhere"),
        (
            ("train", "--dataset", "shapes", "--train-size", "999999999999"),
            "expected 1 to 4294967296",
        ),
        (
            ("train", "--dataset", "shapes", "--set", "hidden_dim=99999999999999"),
            "a whole number from 1 to",
        ),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)


def test_a_finished_run_goes_on_for_longer_and_says_what_becomes_of_the_learning_rate(here, capsys):
    rates = ("--lr", 4e-3, "--warmup-epochs", 0.5)
    argv = ("train", "--dataset", "shapes", "--epochs", 1, "--out", "run", *rates, *TINY)
    assert call(*argv) == 0
    assert call("train", "--resume", "run", "--epochs", 2) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("going on")]
    assert line == (
        "going on at epoch 1, to epoch 2 and not 1: the cosine schedule is computed anew for so "
        "many epochs, and the learning rate goes from 4e-05 to 0.00342"
    )
    assert "after epoch 2" in said
    assert call("train", "--resume", "run", "--epochs", 2, "--quiet") == 0  # nothing more to do
    assert "going on" not in capsys.readouterr().out
    refused(capsys, here, ("train", "--resume", "run", "--epochs", 1), "has done 2 epochs already")
    refused(capsys, here, ("train", "--resume", "run", "--epochs", 9, "--lr", 1), "lr")


def test_what_to_type_next_can_be_typed(here, capsys):
    call("train", "--dataset", "shapes", "--epochs", 1, "--out", "my run", *TINY)
    assert "next: tinymixer eval --run 'my run'\n" in capsys.readouterr().out
