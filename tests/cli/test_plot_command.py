"""What `tinymixer plot` draws of a run."""

import os
import shutil
from pathlib import Path

import pytest
from command_line import call, no_network, refused


def test_plot_draws_what_was_learned(run):
    assert call("plot", "--run", run) == 0
    assert {"curves.png", "token-mixing.png", "patch-filters.png"} <= set(os.listdir(run))


def test_the_newest_run_is_meant_if_none_is_named(run, here, capsys):
    shutil.copytree(run, here / "runs" / "one")
    assert call("plot") == 0
    assert str(Path("runs") / "one" / "curves.png") in capsys.readouterr().out


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
