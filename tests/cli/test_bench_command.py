"""What `tinymixer bench` says when it cannot measure; tests/train/test_bench.py has the rest."""

import os

import pytest
from command_line import no_network, refused


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("bench", "--set", "patch_size=0"), "patch_size=0: expected a whole number"),
        (("bench", "--set", "dropout=1.5"), "dropout=1.5: expected a number in [0, 1)"),
        (("bench", "--model", "hire_mlp_nano", "--set", "image_size=2"), "Use larger images"),
        (("bench", "--set", "rng=3"), "no option 'rng'"),
        (("bench", "--precision", "bf16"), "--device gpu"),
        (("bench", "--set", "hidden_dim=99999999999999"), "expected a whole number from 1"),
        (("bench", "--model", "mixer_pico", "--batch", "99999999999"), "2147483648 at most"),
        (("bench", "--plot", "."), ". is not a regular file"),
        (("bench", "--plot", "file/x.png"), "file is not a folder"),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_device_or_pipe_is_not_replaced_by_a_file(here, capsys):
    os.mkfifo(here / "pipe")
    refused(capsys, here, ("bench", "--plot", "pipe"), "pipe is not a regular file")
    assert (here / "pipe").is_fifo()
