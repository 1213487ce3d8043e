"""The command line as a whole: its help, its exit codes and what becomes of its output."""

import argparse
import os
import subprocess
import sys

import pytest
from command_line import TINY, call, no_network, posix, refused, shell

from tinymixer import cli


def test_python_m_tinymixer_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "tinymixer", "summary", "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("tinymixer: no model 'nothing'")
    assert done.stderr.count("\n") == 1


def parsers(parser, words=()):
    """Each parser of the command line by its words, such as ("data", "add")."""
    if isinstance(parser, cli.CommandParser):
        parser.add_options()
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from parsers(inner, (*words, name))


PARSERS = dict(parsers(cli.build_parser()))
OPTIONS = {
    " ".join((*words, *(action.option_strings[-1:] or [action.dest]))): (parser, action)
    for words, parser in PARSERS.items()
    for action in parser._actions
    if not isinstance(action, argparse._SubParsersAction)
}


def test_every_command_is_walked():
    assert {words[0] for words in PARSERS if words} == set(cli.COMMANDS)
    assert ("data", "download") in PARSERS
    assert {"train --lr", "train --cutmix", "data add file", "gradcheck --all"} <= OPTIONS.keys()


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_says_what_it_does_and_what_it_is_by_default(option):
    parser, action = OPTIONS[option]
    shown = parser._get_formatter()._expand_help(action) if action.help else ""
    assert len(shown.split()) >= 3
    if action.default in (None, argparse.SUPPRESS, [], False):
        return
    default = f"{action.default:g}" if isinstance(action.default, float) else action.default
    assert f"default {default}" in shown


def test_help_lists_every_command_with_its_line(capsys):
    assert call("--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, line in cli.COMMANDS.items():
        assert f" {name} {line}" in shown
        assert PARSERS[(name,)].description


def loaded_by(*argv):
    """The modules that `tinymixer argv` imports, each command in a process of its own."""
    code = (
        "import sys, contextlib, tinymixer.cli\n"
        "with contextlib.suppress(SystemExit):\n"
        "    tinymixer.cli.main(sys.argv[1:])\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *argv]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


@pytest.mark.parametrize("argv", [("--version",), ("--help",), ("fly",)])
def test_what_needs_no_command_imports_none_and_no_numpy(argv):
    loaded = loaded_by(*argv)
    assert "tinymixer.cli" in loaded
    assert "numpy" not in loaded
    assert {x for x in loaded if x.startswith("tinymixer.cli.")} == {"tinymixer.cli.output"}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_command_imports_no_other_and_matplotlib_only_to_draw(command):
    loaded = loaded_by(command, "--help")
    modules = {name: f"tinymixer.cli.{name.replace('-', '_')}" for name in cli.COMMANDS}
    assert modules.pop(command) in loaded
    assert not {*modules.values()} & loaded
    assert "matplotlib" not in loaded


@pytest.mark.parametrize("command", ["train", "compare"])
def test_help_names_the_defaults_of_every_recipe(command):
    shown = {
        name.removeprefix(f"{command} --"): parser._get_formatter()._expand_help(action)
        for name, (parser, action) in OPTIONS.items()
        if name.startswith(f"{command} --")
    }
    for name, pixels in {"cifar10": 4, "cifar100": 4, "mnist": 2, "folder": 2, "shapes": 2}.items():
        assert f", for {name} {pixels}" in shown["crop-padding"].partition("default 0")[2]
    assert ", for cifar10 alternating, for cifar100 alternating" in shown["flip"]
    assert "for mnist" not in shown["flip"]  # a mirrored digit is another one, or none
    assert shown["label-smoothing"].endswith("default 0.1, for segment 0.0")
    assert shown["train-size"].endswith("default all")
    if command == "train":
        assert shown["epochs"].endswith("default 10, for shapes 2.75, for segment 6")
        assert shown["optimizer"].endswith("for shapes muon, for segment adamw")
        assert shown["model"].endswith("default mixer_pico, for segment raft_mlp_nano")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ((), "COMMAND"),
        (("fly",), "fly"),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)


@pytest.mark.parametrize(
    "argv",
    [
        ("train", "--dataset", "shapes"),
        ("train", "--resume", "run"),
        ("eval", "--run", "run"),
        ("predict", "run/curves.png", "--run", "run"),
        ("bench", "--model", "mixer_pico"),
    ],
)
def test_where_there_is_no_gpu_one_line_says_what_is_missing(argv, run, here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # not even if this machine has it
    refused(capsys, here, (*argv, "--device", "gpu"), "CuPy is not installed; pip install")


@pytest.mark.parametrize("command", [("train",), ("compare", "mixer_pico", "--epochs", "1")])
def test_a_gpu_is_asked_for_before_anything_is_downloaded(command, here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("tinymixer.data.load", None)
    argv = (*command, "--dataset", "cifar10", "--device", "gpu")
    refused(capsys, here, argv, "CuPy is not installed; pip install")


@pytest.mark.parametrize("command", ["train", "eval", "plot"])
def test_a_folder_that_cannot_be_written_is_named(command, run, here, capsys):
    (here / "file").write_text("in the way")
    argv = {
        "train": ("train", "--dataset", "shapes", *TINY),
        "eval": ("eval", "--run", run),
        "plot": ("plot", "--run", run),
    }[command]
    refused(capsys, here, (*argv, "--out", "file/inside"), "file")


@pytest.mark.parametrize("program", [("eval",), ("plot",)])
def test_a_full_disk_is_named(program, run, here, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused(capsys, here, (*program, "--run", run), "No space left on device")


@posix
def test_training_goes_on_when_nobody_reads_what_it_says(here):
    argv = ("train", "--dataset", "shapes", "--epochs", 3, "--out", "run", *TINY)
    done = shell('set -o pipefail; "$0" "$@" | head -n 1', *argv)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len((here / "run" / "metrics.jsonl").read_text().splitlines()) == 3


@posix
@pytest.mark.parametrize("argv", [("summary", "mixer_nano"), ("train", "--help")])
def test_output_that_nobody_reads_is_no_error(argv):
    done = shell('set -o pipefail; "$0" "$@" | true', *argv)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_output_for_which_there_is_no_room_is_one_line():
    done = shell('"$0" "$@" > /dev/full', "data")
    assert done.returncode == 2
    assert done.stderr == "tinymixer: output: No space left on device\n"


@posix
def test_without_a_standard_error_it_trains_all_the_same(here):
    argv = ("train", "--dataset", "shapes", "--epochs", 1, "--out", "run", *TINY)
    done = shell('"$0" "$@" 2>&-', *argv)
    assert done.returncode == 0
    assert "after epoch 1" in done.stdout
