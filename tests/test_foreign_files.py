"""Foreign, damaged and hostile files of weights: each is called what it is, in little time and
memory, nothing in it is run, and no advice loses anything or opens a file unsafely."""

import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from foreign_files import CANARY, FOREIGN, GOOD, PROGRAM, bombs, written
from fuzz_files import _memory as memory
from torch_files import Pickler, Steps, legacy_file, msgpack_file, zip_file

from tinymixer import cli
from tinymixer.errors import CheckpointError
from tinymixer.weights import read_weights

SECONDS, MEGABYTES = 20, 1000
HARMFUL = re.compile(
    r"allow_pickle|weights_only|torch\.load|pickle\.load|\b(delete|remove|rm) ", re.I
)


def refusal(path, says):
    """Read `path`, and look at what is said of it."""
    with pytest.raises(CheckpointError, match=says) as caught:
        read_weights(path)
    said = str(caught.value)
    assert str(path.parent) in said
    assert said.isprintable()
    assert len(said) < 700
    assert not HARMFUL.search(said)


@pytest.mark.parametrize(("content", "says"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_called_what_it_is(content, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.npz"  # whatever its name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    refusal(path, says)
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("kind", bombs())
def test_a_file_made_to_do_harm_takes_little_time_and_memory(kind, tmp_path):
    content, says = bombs()[kind]
    path = tmp_path / "weights.pth"
    path.write_bytes(written(content))
    before, start = memory(reset=True), time.perf_counter()
    refusal(path, says)
    assert time.perf_counter() - start < SECONDS
    assert memory() - before < MEGABYTES


@pytest.mark.parametrize(
    "content",
    [zip_file({"model": GOOD}), legacy_file({"model": GOOD}), msgpack_file({"params": GOOD})],
    ids=["PyTorch", "PyTorch, legacy", "Flax"],
)
def test_files_that_are_damaged_by_chance_are_refused_or_read(content, tmp_path):
    rng, refused = np.random.default_rng(9), 0
    for _ in range(80):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            i = int(rng.integers(min(1500, len(damaged)) if rng.random() < 0.5 else len(damaged)))
            n = int(rng.integers(1, 30))
            damaged[i : i + n] = [b"", rng.bytes(n), rng.bytes(2 * n), b"\xff" * n][rng.integers(4)]
        (tmp_path / "x").write_bytes(damaged)
        try:
            with read_weights(tmp_path / "x") as weights:
                for name in weights:
                    assert weights[name].shape == weights[name].read().shape
        except CheckpointError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("write", [zip_file, legacy_file])
def test_tensors_beside_a_program_are_read_and_it_is_not_run(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").write_bytes(write({"state_dict": GOOD, "args": Steps(PROGRAM)}))
    with read_weights(tmp_path / "x.pth") as weights:
        assert {name: weights[name].read().tolist() for name in weights} == {
            name: array.tolist() for name, array in GOOD.items()
        }
        assert "what is not an array was not read: '__builtin__.open'" in weights.notes
    assert not Path(CANARY).exists()


def test_pytorch_is_never_imported(tmp_path):
    (tmp_path / "x.pth").write_bytes(zip_file({"w": GOOD["layers.0.weight"]}))
    had = "torch" in sys.modules
    read_weights(tmp_path / "x.pth").close()
    assert ("torch" in sys.modules) == had


@pytest.mark.parametrize("kind", ["web page", "pointer of Git LFS", "pickle of protocol 2", "HDF5"])
def test_the_command_refuses_in_one_line(kind, tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(FOREIGN[kind][0])
    out = tmp_path / "out.npz"
    argv = ["convert", str(tmp_path / "x.pth"), str(out), "--model", "mixer_pico"]
    assert cli.main(argv) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert re.search(FOREIGN[kind][1], said.err)
    assert not out.exists()


def test_there_are_many_cases():
    assert len(FOREIGN) + len(bombs()) >= 60
    assert len(Pickler().steps(GOOD)) > 1000  # the good ones are not small
