"""What `tinymixer plot` draws of a run."""

import os
import shutil
from pathlib import Path

import pytest
from command_line import call, no_network, refused

from tinymixer.cli.options import find_checkpoint


def test_plot_draws_what_was_learned(run):
    assert call("plot", "--run", run) == 0
    assert {"curves.png", "token-mixing.png", "patch-filters.png"} <= set(os.listdir(run))


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
