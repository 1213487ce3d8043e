"""What an option may write to: nothing of a run's, nothing that is read, no device."""

import os
import shutil

import numpy as np
import pytest
from command_line import TINY, call, contents, no_network, posix, refused

from tinymixer import cli
from tinymixer.cli.options import output_file

OWN = "from tinymixer.ops import GELU as mine\n"
WRITERS = {
    "convert": ("convert", "in.npz", "OUT", "--model", "mixer_pico", "--from", "tinymixer"),
    "gradcheck --json": ("gradcheck", "--op", "ReLU", "--json", "OUT"),
    "gradcheck --plot": ("gradcheck", "--op", "ReLU", "--plot", "OUT"),
    "bench --plot": ("bench", "--plot", "OUT"),
    "lr-find --plot": ("lr-find", "--plot", "OUT"),
}


def test_every_option_that_names_a_file_to_write_is_here():
    found = set()
    for name in cli.COMMANDS:
        parser = cli.CommandParser(module=f"tinymixer.cli.{name.replace('-', '_')}")
        parser.add_options()
        for action in parser._actions:
            if action.type is output_file:
                found.add(" ".join((name, *action.option_strings)))
    assert found == WRITERS.keys()


@posix
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", ["run/best.npz", "copy.zip", "link", "hard", "folder", "pipe"])
def test_no_output_takes_the_place_of_a_checkpoint_or_of_what_is_no_file(
    writer, name, run, here, capsys
):
    shutil.copy(run / "last.npz", here / "copy.zip")
    (here / "link").symlink_to("run/last.npz")
    os.link(run / "last.npz", here / "hard")
    (here / "folder").mkdir()
    os.mkfifo(here / "pipe")
    argv = [name if word == "OUT" else word for word in WRITERS[writer]]
    what = "not a regular file" if name in ("folder", "pipe") else "a checkpoint of a run"
    refused(capsys, here, argv, f"{name} is {what}")


@posix
@pytest.mark.parametrize("name", ["in.npz", "./in.npz", "link.npz", "hard.npz"])
def test_convert_does_not_write_over_its_input(name, here, capsys):
    np.savez(here / "in.npz", x=np.zeros(3))
    (here / "link.npz").symlink_to("in.npz")
    os.link(here / "in.npz", here / "hard.npz")
    argv = [name if word == "OUT" else word for word in WRITERS["convert"]]
    refused(capsys, here, argv, f"is the same file as {'IN in.npz'}")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_gradcheck_does_not_write_over_the_function(option, here, capsys):
    (here / "own.py").write_text(OWN)
    argv = ("gradcheck", "own.py:mine", "--input", "x=3", option, "own.py")
    refused(capsys, here, argv, "is the same file as")


def test_two_outputs_are_two_files(here, capsys):
    argv = ("gradcheck", "--op", "ReLU", "--json", "x", "--plot", "./x")
    refused(capsys, here, argv, "--json x is the same file as --plot x")


def test_an_old_output_may_be_written_again(here):
    for _ in range(2):
        assert call("gradcheck", "--op", "ReLU", "--json", "x.json") == 0
    assert os.listdir(here) == ["x.json"]


@pytest.mark.parametrize("command", [("train",), ("compare", "mixer_pico", "--epochs", "1")])
def test_a_folder_that_cannot_be_written_is_named_before_a_download(
    command, here, capsys, monkeypatch
):
    monkeypatch.setattr("tinymixer.data.load", None)
    (here / "file").write_text("in the way")
    argv = (*command, "--dataset", "cifar10", *TINY, "--out", "file/inside")
    refused(capsys, here, argv, "file")


def test_a_download_that_fails_leaves_no_new_folder(here, capsys, monkeypatch):
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, ("data", "download", "cifar10", "--data-dir", "new/data"), "cifar-10")
    assert contents(here) == {}
