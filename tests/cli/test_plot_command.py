"""What `tinymixer plot` draws of a run."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import TINY, call, no_network, refused

from tinymixer import data
from tinymixer.cli.options import find_checkpoint
from tinymixer.errors import DataError
from tinymixer.train.config import Config
from tinymixer.train.trainer import Trainer


def test_plot_draws_what_was_learned(run):
    assert call("plot", "--run", run) == 0
    drawn = {"curves.png", "token-mixing.png", "patch-filters.png", "layers.png"}
    assert drawn <= set(os.listdir(run))


@pytest.mark.parametrize("options", [(), ("--mixup", "0.4", "--cutmix", "1")])
def test_a_batch_is_drawn_alone(options, here):
    argv = ("train", "--dataset", "shapes", "--epochs", "0.1", "--out", "run", *TINY, *options)
    assert call(*argv) == 0
    before = set(os.listdir("run"))
    assert call("plot", "--run", "run", "--batch") == 0
    assert set(os.listdir("run")) == before | {"batch.png"}


def test_a_batch_of_pixels_is_drawn(here):
    argv = ("train", "--task", "segment", "--epochs", "0.1", "--out", "run", "--workers", "1")
    sizes = ("--set", "dims=4,6,8,10", "--set", "depths=1,1,1,1")
    assert call(*argv, *sizes, "--train-size", "20", "--test-size", "10") == 0
    assert call("plot", "--run", "run", "--batch") == 0
    assert call("plot", "--run", "run") == 0
    assert {"batch.png", "layers.png"} <= set(os.listdir("run"))


def test_without_its_images_the_rest_is_drawn_and_a_batch_is_refused(
    run, here, capsys, monkeypatch
):
    def missing(*arguments, **options):
        raise DataError("there is no such data set")

    monkeypatch.setattr("tinymixer.data.load", missing)
    assert call("plot", "--run", run, "--out", "new") == 0
    assert "layers.png is not drawn" in capsys.readouterr().out
    assert "curves.png" in os.listdir("new")
    refused(capsys, here, ("plot", "--run", run, "--batch"), "there is no such data set")


def test_a_run_of_images_in_memory_is_plotted_with_those_that_are_named(here, capsys):
    shapes = data.load("shapes", train_size=60, test_size=20)
    config = Config(model="mixer_pico", epochs=1, model_options={"num_blocks": 1})
    Trainer(config, replace(shapes, name="mine"), here / "run", quiet=True, workers=1).run()
    refused(capsys, here, ("plot", "--run", "run", "--batch"), "was made in memory")
    assert call("plot", "--run", "run", "--batch", "--dataset", "shapes", "--train-size", 60) == 0
    assert call("plot", "--run", "run", "--dataset", "shapes", "--train-size", 60) == 0
    assert "layers.png is not drawn" not in capsys.readouterr().out
    assert {"batch.png", "layers.png"} <= set(os.listdir("run"))


def test_the_newest_run_is_meant_if_none_is_named(run, here, capsys):
    for name, written in {"a": 2e9, "b": 3e9, "c": 1e9}.items():  # seconds
        shutil.copytree(run, here / "runs" / name)
        os.utime(here / "runs" / name / "last.npz", (written, written))
    assert call("plot") == 0
    assert str(Path("runs") / "b" / "curves.png") in capsys.readouterr().out


def test_a_folder_means_its_latest_checkpoint_and_a_file_itself(run):
    assert find_checkpoint(run) == run / "last.npz"
    shutil.copy(run / "last.npz", run / "best.npz")
    assert find_checkpoint(run / "best.npz") == run / "best.npz"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("plot", "--run", "nowhere", "--out", "new"), "nowhere"),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)
