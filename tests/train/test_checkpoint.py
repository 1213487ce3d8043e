"""A checkpoint is read whole or refused, and a failed save loses nothing."""

import io
import json
import zipfile

import numpy as np
import pytest

from tinymixer.errors import CheckpointError
from tinymixer.train import checkpoint

RNG = np.random.default_rng(0)
WEIGHTS = {"a.W": RNG.standard_normal((5, 3)).astype(np.float32), "a.b": np.arange(3.0)}
MOMENTS = {"m": RNG.standard_normal(18).astype(np.float32)}


HEADER = {
    "config": {},
    "dataset": {
        "name": "shapes",
        "fingerprint": "0123",
        "class_names": ["round", "square"],
        "mean": [120.0, 110.0, 100.0],
        "std": [50.0, 60.0, 70.0],
    },
    "position": [1, 2],
    "history": [dict.fromkeys(checkpoint.OF_EPOCH, 0.5)],
    "so_far": dict.fromkeys(checkpoint.OF_SO_FAR, 2),
}


def save(path, **changes):
    checkpoint.save(path, HEADER | changes, WEIGHTS, {}, MOMENTS)


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path / "x.npz")
    loaded = checkpoint.load(tmp_path / "x.npz")
    assert loaded.header["position"] == [1, 2]
    assert loaded.ema == {}
    for saved, read in ((WEIGHTS, loaded.weights), (MOMENTS, loaded.optimizer)):
        assert saved.keys() == read.keys()
        for name in saved:
            np.testing.assert_array_equal(saved[name], read[name])
            assert saved[name].dtype == read[name].dtype
    assert list(tmp_path.iterdir()) == [tmp_path / "x.npz"]


def test_every_truncation_is_refused(tmp_path):
    save(tmp_path / "x.npz")
    whole = (tmp_path / "x.npz").read_bytes()
    cut_off = tmp_path / "cut.npz"
    for length in [*range(200), *range(200, len(whole), 37), len(whole) - 1]:
        cut_off.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            checkpoint.load(cut_off)


def test_no_flipped_bit_passes_unnoticed(tmp_path):
    path = tmp_path / "x.npz"
    save(path)
    whole = path.read_bytes()
    refused = 0
    for bit in RNG.integers(0, 8 * len(whole), 600):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError:
            refused += 1
            continue
        # Some bits of a zip mean nothing, dates for example. Whatever is read must be right.
        for saved, read in ((WEIGHTS, loaded.weights), (MOMENTS, loaded.optimizer)):
            for name in saved:
                np.testing.assert_array_equal(saved[name], read[name])
    assert refused > 400


def write_npz(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)


def header(**entries):
    return np.frombuffer(json.dumps(entries).encode(), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "not a whole tinymixer checkpoint"),
        ({"weights": np.zeros(3)}, "not a whole tinymixer checkpoint"),
        ({"header": header()}, "not a whole tinymixer checkpoint"),
        ({"header": np.frombuffer(b"{nonsense", np.uint8)}, "not a whole tinymixer checkpoint"),
        ({"header": header(format=2)}, "format 2; this tinymixer reads format 1"),
        (
            {"header": header(format=1, arrays=[]), "weights/evil": np.zeros(1)},
            "its arrays are not",
        ),
        (
            {"header": header(format=1, arrays=["weights/a"]), "weights/a": np.array([{}])},
            "not a whole tinymixer",
        ),
    ],
)
def test_foreign_and_future_files_are_refused(tmp_path, arrays, message):
    write_npz(tmp_path / "x.npz", **arrays)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "lost", [*HEADER, *(("dataset", name) for name in HEADER["dataset"])], ids=str
)
def test_a_header_without_one_of_its_entries_is_refused(tmp_path, lost):
    header = json.loads(json.dumps(HEADER))
    *group, name = (lost,) if isinstance(lost, str) else lost
    del (header[group[0]] if group else header)[name]
    checkpoint.save(tmp_path / "x.npz", header, WEIGHTS, {}, MOMENTS)
    with pytest.raises(CheckpointError, match=f"its header has no {name}"):
        checkpoint.load(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"position": ["a", "b"]},
        {"position": [1, -1]},
        {"position": [1, 0.5]},
        {"position": [1.0, 2]},
        {"position": [7, 0]},  # with a history of one epoch
        {"position": [1]},
        {"history": {}},
        {"history": [1]},
        {"history": [{}]},
        {"history": [HEADER["history"][0] | {"test_loss": "low"}]},
        {"so_far": {}},
        {"so_far": HEADER["so_far"] | {"images": None}},
        {"dataset": HEADER["dataset"] | {"mean": "x"}},
        {"dataset": HEADER["dataset"] | {"mean": [1, 2, float("nan")]}},
        {"dataset": HEADER["dataset"] | {"std": [0, 0, 0]}},
        {"dataset": HEADER["dataset"] | {"class_names": []}},
        {"dataset": None},
    ],
    ids=str,
)
def test_a_header_that_no_run_writes_is_refused(tmp_path, change):
    save(tmp_path / "x.npz", **change)
    with pytest.raises(CheckpointError, match=r"x\.npz is not a whole tinymixer checkpoint"):
        checkpoint.load(tmp_path / "x.npz")


def test_damage_that_numpy_takes_for_python_is_refused(tmp_path):
    """It reads the head of an array by Python's own tokenizer, if nothing else will do."""
    large = {"a.W": np.zeros(10**5)}  # so that the checksum, at its end, is not reached
    checkpoint.save(tmp_path / "x.npz", HEADER, large, {}, {})
    content = (tmp_path / "x.npz").read_bytes()
    for place in (i for i, byte in enumerate(content) if byte == ord("}")):
        damaged = bytearray(content)
        damaged[place] = ord(" ")
        (tmp_path / "x.npz").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"x\.npz"):
            checkpoint.load(tmp_path / "x.npz")


def test_a_file_that_would_swell_in_memory_is_refused(tmp_path):
    write_npz(tmp_path / "x.npz", compressed=True, header=header(format=1), a=np.zeros(10**6))
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoint.load(tmp_path / "x.npz")

    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("header.npy", buffer.getvalue())
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "y.npz")


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>404</html>", bytes(1000)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.npz"):
        checkpoint.load(tmp_path / "x.npz")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(CheckpointError, match=path.name):
            checkpoint.load(path)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_checkpoint_and_no_litter(tmp_path, monkeypatch, step):
    path = tmp_path / "x.npz"
    save(path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    target = {"write": "numpy.savez", "fsync": "os.fsync", "replace": "os.replace"}[step]
    monkeypatch.setattr(target, fail)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(path, position=[9, 9])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
