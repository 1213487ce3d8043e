"""tinymixer lr-find: a line, a figure, and no run."""

import os

import pytest
from command_line import TINY, call, refused
from PIL import Image


def test_it_suggests_draws_and_leaves_no_run(here, capsys):
    argv = ("lr-find", "--steps", "12", "--low", "1e-3", *TINY)
    assert call(*argv) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(("try --lr 0.", "no suggestion: "))
    assert lines[1] == "wrote lr-find.png"
    assert os.listdir(here) == ["lr-find.png"]
    with Image.open("lr-find.png") as image:
        assert image.size == (840, 480)
    first = (here / "lr-find.png").read_bytes()
    assert call(*argv, "--plot", "again.png", "--workers", "2") == 0
    assert capsys.readouterr().out.splitlines()[0] == lines[0]
    assert (here / "again.png").read_bytes() == first


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("lr-find", "--low", "1", "--high", "0.1", *TINY), "the lower one first"),
        (("lr-find", "--steps", "3", *TINY), "at least 10 steps"),
        (("lr-find", "--model", "no"), "no"),
        (("lr-find", "--plot", "."), ". is not a regular file"),
        (("lr-find", "--workers", "0"), "--workers 0"),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys):
    refused(capsys, here, argv, named)
