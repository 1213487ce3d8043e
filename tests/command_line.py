"""Calling the command line in tests: what it prints, returns and leaves behind."""

import os
import subprocess
import sys

import pytest

from tinymixer import cli

TINY = [
    *("--set", "hidden_dim=8", "--set", "num_blocks=1"),
    *("--set", "tokens_mlp_dim=4", "--set", "channels_mlp_dim=8"),
    *("--train-size", "40", "--test-size", "30", "--batch-size", "16", "--workers", "1"),
]

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


def call(*argv):
    """The exit code of `tinymixer argv`, SystemExit included."""
    try:
        return cli.main([str(word) for word in argv])
    except SystemExit as stop:
        return stop.code


def contents(folder):
    """Every file's, and None for folders and the like."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(capsys, here, argv, named):
    """`tinymixer argv` ends in one line that has `named` in it, not 0, and leaves all as it was."""
    before = contents(here)
    capsys.readouterr()
    code = call(*argv)
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("tinymixer")
    assert named in lines[0]
    assert "Traceback" not in lines[0]
    assert contents(here) == before


def shell(line, *argv, **environment):
    """The shell's `line`, in which $0 is a file with Python and "$@" are words of tinymixer."""
    command = ["bash", "-c", line, sys.executable, "-m", "tinymixer", *map(str, argv)]
    environment = os.environ | {"PYTHONUNBUFFERED": ""} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def no_network(*args, **kwargs):
    raise OSError("no network")
