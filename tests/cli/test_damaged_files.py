"""Damaged files: every command that reads one names it, and leaves all as it was."""

import json

import numpy as np
import pytest
from command_line import TINY, refused


def truncated_file(cifar10):
    rewrite(cifar10 / "data_batch_3.bin", (cifar10 / "data_batch_3.bin").read_bytes()[:-1])


def empty_file(cifar10):
    rewrite(cifar10 / "test_batch.bin", b"")


def missing_file(cifar10):
    (cifar10 / "data_batch_1.bin").unlink()


def wrong_label(cifar10):
    content = bytearray((cifar10 / "data_batch_2.bin").read_bytes())
    content[3073 * 77] = 10
    rewrite(cifar10 / "data_batch_2.bin", content)


def one_class_too_often(cifar10):
    content = bytearray((cifar10 / "data_batch_2.bin").read_bytes())
    content[0] = (content[0] + 1) % 10
    rewrite(cifar10 / "data_batch_2.bin", content)


def pixels_shifted_by_one(cifar10):
    content = (cifar10 / "data_batch_4.bin").read_bytes()
    rewrite(cifar10 / "data_batch_4.bin", content[1:] + content[:1])


def swapped_for_a_web_page(cifar10):
    rewrite(cifar10 / "data_batch_5.bin", b"<html>Moved permanently</html>")


def rewrite(file, content):
    file.unlink()
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        truncated_file,
        empty_file,
        missing_file,
        wrong_label,
        one_class_too_often,
        pixels_shifted_by_one,
        swapped_for_a_web_page,
    ],
)
def test_a_damaged_data_set_is_named(damage, cifar10, here, capsys):
    damage(cifar10)
    argv = ("train", "--dataset", "cifar10", "--data-dir", cifar10.parent, "--out", "out", *TINY)
    refused(capsys, here, argv, "cifar-10" if damage is not missing_file else "data_batch_1")


def damage_byte(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


CHECKPOINTS = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "a flipped byte": lambda path: damage_byte(path, path.stat().st_size // 2),
    "no archive": lambda path: path.write_bytes(b"weights, honestly"),
    "foreign": lambda path: np.savez(path, layer1=np.zeros(3)),
    "future": lambda path: np.savez(path, header=np.frombuffer(b'{"format": 99}', np.uint8)),
    "pickled": lambda path: np.savez(path, header=np.array([{"format": 1}])),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("command", ["eval", "train"])
def test_a_bad_checkpoint_is_named(kind, command, run, here, capsys):
    CHECKPOINTS[kind](run / "last.npz")
    argv = ("eval", "--run", run) if command == "eval" else ("train", "--resume", run)
    refused(capsys, here, argv, "last.npz")


@pytest.mark.parametrize("command", ["eval", "train"])
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda header: header.pop("dataset"), "no dataset"),
        (lambda header: header["dataset"].pop("fingerprint"), "no fingerprint"),
        (lambda header: header["config"].update(colour="red"), '"colour"'),
        (lambda header: header["config"].pop("augment"), "the digests differ"),
        (lambda header: header["config"].update(batch_size=2.5), "batch_size=2.5: expected int"),
        (
            lambda header: header["dataset"]["source"].update(train_size="5"),
            "='5': expected int | None",
        ),
        (lambda header: header.update(step="a"), 'step is "a", expected a whole number'),
    ],
)
def test_a_damaged_header_is_named(command, damage, named, run, here, capsys):
    with np.load(run / "last.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes())
    damage(header)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(run / "last.npz", **arrays)
    argv = ("eval", "--run", run) if command == "eval" else ("train", "--resume", run)
    refused(capsys, here, argv, named)
