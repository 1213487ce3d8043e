"""A checkpoint is read whole or refused, and a failed save loses nothing.

tests/test_hostile_files.py does the same by the thousand.
"""

import dataclasses
import io
import json
import os
import re
import time
import zipfile

import numpy as np
import pytest
from hostile_files import AVERAGE, HEADER, MOMENTS, OPTIONS, TRAINED, WEIGHTS, npy, sign, zipped

from tinymixer import nn
from tinymixer.errors import CheckpointError
from tinymixer.train import checkpoint

RNG = np.random.default_rng(0)


def save(path, header=HEADER, weights=WEIGHTS):
    checkpoint.save(path, header, weights, AVERAGE, MOMENTS)


def forge(path, said, arrays=TRAINED):
    """A checkpoint as `save` writes it, with a right digest, whatever it says and holds."""
    members = [(f"{name}.npy", npy(x)) for name, x in arrays.items()]
    path.write_bytes(zipped([*members, sign(said, arrays)]))


def assert_whole(loaded):
    assert loaded.header == HEADER
    for saved, read in (
        (WEIGHTS, loaded.weights),
        (AVERAGE, loaded.ema),
        (MOMENTS, loaded.optimizer),
    ):
        assert saved.keys() == read.keys()
        for name in saved:
            np.testing.assert_array_equal(saved[name], read[name])
            assert saved[name].dtype == read[name].dtype


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path / "x.npz")
    assert_whole(checkpoint.load(tmp_path / "x.npz"))
    assert list(tmp_path.iterdir()) == [tmp_path / "x.npz"]


def test_a_model_has_the_averaged_weights(tmp_path):
    save(tmp_path / "x.npz")
    model, saved = checkpoint.load_model(tmp_path / "x.npz")
    assert_whole(saved)
    for name, x in model.state().items():
        np.testing.assert_array_equal(x, AVERAGE[name])


def test_any_numpy_opens_a_checkpoint(tmp_path):
    save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:
        assert json.loads(archive["header"].tobytes())["format"] == checkpoint.FORMAT
        for name, x in TRAINED.items():
            np.testing.assert_array_equal(archive[name], x)


def test_every_truncation_is_refused(tmp_path):
    save(tmp_path / "x.npz")
    whole = (tmp_path / "x.npz").read_bytes()
    cut_off = tmp_path / "cut.npz"
    for length in [*range(200), *range(200, len(whole), 97), len(whole) - 1]:
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
        assert_whole(loaded)  # some bits of a zip mean nothing, dates for example
    assert refused > 400


def header(**entries):
    return np.frombuffer(json.dumps(entries).encode(), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "not a whole tinymixer checkpoint"),
        ({"weights": np.zeros(3)}, "not a whole tinymixer checkpoint"),
        ({"header": header()}, "not a whole tinymixer checkpoint"),
        ({"header": np.frombuffer(b"{nonsense", np.uint8)}, "not a whole tinymixer checkpoint"),
        ({"header": header(format=1, arrays=[])}, "format 1; this tinymixer reads format 3. Use"),
        ({"header": header(format=2)}, "format 2; this tinymixer reads format 3"),
        ({"header": header(format=4)}, "format 4; this tinymixer reads format 3"),
        ({"header": header(format=["a\nb"] * 99)}, r"format \[.a.nb.*\.\.\.; this tinymixer"),
        ({"header": header(format=3), "weights/a": np.array([{}])}, "is an array of type '.O'"),
        ({"header": np.zeros(3)}, "its header is not text"),
    ],
)
def test_foreign_past_and_future_files_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path / "x.npz")


@pytest.mark.parametrize("lost", ["digest", *HEADER.to_json()])
def test_a_header_without_one_of_its_entries_is_refused(tmp_path, lost):
    save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:
        arrays = dict(archive)
    said = json.loads(arrays["header"].tobytes())
    del said[lost]
    arrays["header"] = header(**said)
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(CheckpointError, match=rf"x\.npz is not a whole .* has no '?{lost}"):
        checkpoint.load(tmp_path / "x.npz")


def test_a_header_that_no_run_writes_is_refused(tmp_path):
    forge(tmp_path / "x.npz", HEADER.to_json() | {"step": -1})
    with pytest.raises(CheckpointError, match=r"x\.npz is not a whole .*step is -1, expected a wh"):
        checkpoint.load(tmp_path / "x.npz")


def test_a_changed_header_or_array_does_not_pass_the_digest(tmp_path):
    """Though each member of the archive is in order."""
    save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as archive:
        arrays = dict(archive)
    said = json.loads(arrays["header"].tobytes())
    a, b = "weights/blocks.0.token_mlp.W1", "weights/blocks.1.token_mlp.W1"
    moved = arrays["weights/head.b"].copy()
    moved[0] += 1
    for change in (
        {"header": header(**said | {"config": said["config"] | {"seed": 7}})},
        {a: arrays[b], b: arrays[a]},
        {"weights/head.b": moved},
    ):
        np.savez(tmp_path / "x.npz", **arrays | change)
        with pytest.raises(CheckpointError, match="the digests differ"):
            checkpoint.load(tmp_path / "x.npz")


def test_the_digest_is_over_names_shapes_types_and_numbers():
    x = np.arange(6, dtype=np.float32)
    said = {"step": 1}
    different = [
        *((said, arrays) for arrays in ({}, {"a": x}, {"b": x}, {"a": x, "b": x}, {"a": -x})),
        *((said, {"a": y}) for y in (x.reshape(2, 3), x.view(np.int32), x[:5])),
        ({"step": 2}, {"a": x}),
    ]
    digests = [checkpoint._digest(*content) for content in different]
    assert len(set(digests)) == len(different)
    assert checkpoint._digest(said, {"a": x[::-1][::-1]}) == digests[1]  # however it lies in memory


def test_a_blank_model_takes_no_more_than_the_file_holds():
    for init in (nn.zero, nn.lecun_normal, nn.fan_in_uniform, nn.normal(0.02)):
        assert init(nn.Zeros(numbers=7, arrays=2), (2, 3), 2).shape == (2, 3)
        for numbers, arrays in ((5, 9), (99, 0)):
            with pytest.raises(ValueError, match="a larger model than there is room for"):
                init(nn.Zeros(numbers, arrays), (2, 3), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights/head.b": np.zeros(4, "f4")}, r"weights/head.b is \(4,\), expected \(3,\)"),
        (
            {"weights/head.b": np.zeros((1, 3), "f4")},
            r"weights/head.b is \(1, 3\), expected \(3,\)",
        ),
        ({"optimizer/m": MOMENTS["m"][None]}, r"optimizer/m is \(1, .*, expected \("),
        ({"weights/head.b": np.zeros(3, "f8")}, r"weights/head.b is float64, expected float32"),
        ({"weights/head.b": np.zeros(3, "f2")}, r"weights/head.b is float16, expected float32"),
        ({"ema/ghost": np.zeros(3, "f4")}, r"ema/ghost is \(3,\), expected nothing"),
        ({"optimizer/m": None}, r"optimizer/m is nothing, expected \("),
        ({"weights/head.b": np.array([1, np.inf, 3], "f4")}, r"weights/head.b is not finite"),
        ({"optimizer/v": MOMENTS["v"] * np.float32(np.nan)}, r"optimizer/v is not finite"),
    ],
)
def test_arrays_that_the_configuration_does_not_have_are_refused(tmp_path, change, message):
    arrays = {k: x for k, x in (TRAINED | change).items() if x is not None}
    forge(tmp_path / "x.npz", HEADER.to_json(), arrays)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path / "x.npz")


ABSURD = [
    ("mixer_pico", OPTIONS | {"num_blocks": 10**30}),
    ("mixer_pico", OPTIONS | {"num_blocks": 1000}),
    ("mixer_pico", OPTIONS | {"hidden_dim": 10**12}),
    ("mixer_pico", OPTIONS | {"hidden_dim": 1000, "channels_mlp_dim": 1000}),
    ("mixer_pico", OPTIONS | {"image_size": 10**12}),
    ("mixer_h14", {}),
    ("vip_nano", {"depths": [10**9, 10**9]}),
    ("as_mlp_nano", {"hidden_dim": 999, "depths": [1, 1]}),
]


@pytest.mark.parametrize(("model", "options"), ABSURD, ids=str)
def test_a_model_larger_than_its_file_is_not_built(tmp_path, model, options):
    said = HEADER.to_json()
    said["config"] |= {"model": model, "model_options": options}
    forge(tmp_path / "x.npz", said)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"x\.npz does not fit its own configuration"):
        checkpoint.load(tmp_path / "x.npz")
    assert time.process_time() - start < 1  # to draw a Mixer-H/14 would take several


def test_damage_that_numpy_takes_for_python_is_refused(tmp_path):
    """NumPy reads the head of an array by Python's own tokenizer, if nothing else will do."""
    save(tmp_path / "x.npz")
    content = (tmp_path / "x.npz").read_bytes()
    heads = list(re.finditer(rb"\), }", content))
    assert len(heads) == len(TRAINED) + 1
    for head in heads:
        damaged = bytearray(content)
        damaged[head.end() - 1] = ord(" ")
        (tmp_path / "x.npz").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"x\.npz"):
            checkpoint.load(tmp_path / "x.npz")


def test_a_file_that_would_swell_in_memory_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", header=header(format=2), a=np.zeros(10**6))
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoint.load(tmp_path / "x.npz")

    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
        archive.writestr("header.npy", buffer.getvalue())
    with pytest.raises(CheckpointError, match="does not have the size"):
        checkpoint.load(tmp_path / "y.npz")


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>404</html>", bytes(1000)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.npz"):
        checkpoint.load(tmp_path / "x.npz")


def test_a_missing_file_a_folder_and_a_pipe_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")  # to open it would wait for a writer
    for path in (tmp_path / "none.npz", tmp_path, tmp_path / "pipe.npz"):
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
        save(path, dataclasses.replace(HEADER, step=9))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
