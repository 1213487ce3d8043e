"""Hostile files are refused in one line or read correctly, in little time and memory."""

import os
from itertools import islice

import hostile_files
import pytest
from fuzz_files import judge
from hostile_files import GOOD, OPTIONS, WEIGHTS, cases

from tinymixer import cli

SECONDS, MEGABYTES = 20, 1000


@pytest.mark.parametrize(
    "n", [250, pytest.param(3000, marks=pytest.mark.slow)], ids="{} files".format
)
def test_hostile_files_are_refused_or_read_correctly(n, tmp_path):
    refused = read = 0
    for i, case in enumerate(cases(n, seed=n)):
        try:
            outcome = judge(case, tmp_path)
        except Exception as error:
            raise AssertionError(f"case {i}, {case.kind} of {case.form}: {error!r}"[:500]) from None
        assert outcome.seconds < SECONDS, case.kind
        assert outcome.megabytes < MEGABYTES, case.kind
        refused, read = refused + bool(outcome.refused), read + (not outcome.refused)
    assert refused > 0.8 * n
    assert read > 0.01 * n  # a reader that refuses everything would pass the rest


def test_the_files_that_are_spoiled_are_good(tmp_path):
    for form, content in GOOD.items():
        case = hostile_files.Case("good", form, content, hostile_files.HOLDS[form])
        assert not judge(case, tmp_path).refused


HOSTILE = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": os.mkdir,
    "empty": lambda path: path.touch(),
    "HTML": lambda path: path.write_text("<!doctype html>\n<title>404</title>\n"),
    "cut short": lambda path: path.write_bytes(GOOD["checkpoint"][:-50]),
    "absurd sizes": lambda path: path.write_bytes(
        hostile_files.archive(
            "checkpoint",
            hostile_files.TRAINED,
            said=hostile_files.HEADER.to_json()
            | {"config": {"model_options": OPTIONS | {"num_blocks": 10**30}}},
        )
    ),
    "deep header": lambda path: path.write_bytes(
        hostile_files.zipped([hostile_files.with_text("[" * 10**5)])
    ),
    "no numbers": lambda path: path.write_bytes(
        hostile_files.archive(
            "npz", {}, [("head.b.npy", hostile_files.npy(WEIGHTS["head.b"], descr="|O"))]
        )
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("command", ["eval", "convert"])
def test_a_command_refuses_a_hostile_file_in_one_line(kind, command, tmp_path, capsys):
    path, out = tmp_path / "hostile.npz", tmp_path / "out"
    HOSTILE[kind](path)
    argv = ["eval", "--run", path, "--out", out]
    if command == "convert":
        argv = ["convert", path, f"{out}.npz", "--model", "mixer_pico", "--from", "tinymixer"]
    assert cli.main([str(x) for x in argv]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tinymixer: ")
    assert said.err.count("\n") == 1
    assert "hostile.npz" in said.err or kind == "folder"  # where a run's last.npz is looked for
    assert not out.with_suffix(".npz").exists()


def test_cases_are_the_same_for_a_seed():
    first, second = ([c.content for c in islice(cases(40, seed=5), 25)] for _ in range(2))
    pairs = zip(first, second, strict=True)
    assert all(a == b for a, b in pairs if isinstance(a, bytes))
