"""One reader for arrays in files: what it answers, and what it refuses and why."""

import json
import os
import socket
import zipfile

import numpy as np
import pytest
from hostile_files import npy, safetensors, zipped

from tinymixer import arrays
from tinymixer.arrays import OddName, Stored, all_finite, opened

RNG = np.random.default_rng(3)
KINDS = [x.str for x in arrays.NPY.values()]
NAMED = {
    "a": RNG.standard_normal((2, 3, 5)).astype(np.float32),
    "b/c": np.asfortranarray(RNG.standard_normal((7, 3))),
    "scalar": np.array(3.5),
    "empty": np.zeros((0, 4), np.float32),
    **{kind: RNG.integers(0, 99, 11).astype(kind) for kind in KINDS},
}


def read(path, **options):
    with opened(path, **options) as file:
        return {name: file.read(name) for name in file.stored}


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(write, tmp_path):
    write(tmp_path / "x.npz", **NAMED)
    found = read(tmp_path / "x.npz")
    assert found.keys() == NAMED.keys()
    for name, x in NAMED.items():
        np.testing.assert_array_equal(found[name], x)
        assert found[name].dtype == x.dtype
        assert found[name].flags.writeable


def test_what_safetensors_writes_is_read(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    named = {name: np.ascontiguousarray(x) for name, x in NAMED.items()}
    library.save_file(named, tmp_path / "x.safetensors", metadata={"format": "np"})
    found = read(tmp_path / "x.safetensors")
    assert found.keys() == named.keys()
    for name, x in named.items():
        np.testing.assert_array_equal(found[name], x)
        assert found[name].dtype == x.dtype


def test_bfloat16_is_read_as_the_float32_whose_upper_half_it_is(tmp_path):
    numbers = np.array([[1.0, -2.5, 3.140625], [1e-38, np.inf, 0]], np.float32)
    halves = (numbers.view("<u4") >> 16).astype("<u2")
    content = safetensors({"a": halves}, lambda heads: heads["a"].update(dtype="BF16"))
    (tmp_path / "x.safetensors").write_bytes(content)
    with opened(tmp_path / "x.safetensors") as file:
        assert file.stored["a"] == Stored((2, 3), np.dtype("<f4"), bfloat16=True)
        assert file.stored["a"].nbytes == 12
        found = file.read("a")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view("<u4") >> 16, halves)
    assert not (found.view("<u4") & 0xFFFF).any()


def test_a_file_is_what_its_content_says(tmp_path):
    np.savez(tmp_path / "x.npz", a=NAMED["a"])
    (tmp_path / "x.npz").rename(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(read(tmp_path / "x.safetensors")["a"], NAMED["a"])


def test_what_a_file_states_is_known_before_its_numbers_are_read(tmp_path):
    np.savez(tmp_path / "x.npz", **NAMED)
    with opened(tmp_path / "x.npz") as file:
        assert file.stored["a"] == Stored((2, 3, 5), np.dtype("<f4"))
        assert file.stored["b/c"] == Stored((7, 3), np.dtype("<f8"), fortran=True)
        assert (file.stored["b/c"].size, file.stored["b/c"].nbytes) == (21, 168)
        assert file.stored["scalar"].shape == ()


def test_every_number_of_an_array_is_under_its_crc(tmp_path):
    x = RNG.standard_normal((101, 103))  # more than `zipfile` reads ahead
    content = bytearray(zipped([("a.npy", npy(x))]))
    place = content.find(x.tobytes())
    for i in (place, place + x.nbytes // 2, place + x.nbytes - 1):
        content[i] ^= 1
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(zipfile.BadZipFile, match="CRC"):
            read(tmp_path / "x.npz")
        content[i] ^= 1


X = NAMED["a"]
WRONG = {
    "fewer bytes are read than are there": ([("a.npy", npy(X, descr="<f2"))], "not have the size"),
    "more": ([("a.npy", npy(X, descr="<f8"))], "not have the size"),
    "bytes left": ([("a.npy", npy(X) + b"\0")], "not have the size"),
    "twice": ([("a.npy", npy(X)), ("a.npy", npy(X))], "'a' is there twice"),
    "negative": ([("a.npy", npy(X, shape=(-30,)))], "a damaged shape"),
    "true": ([("a.npy", npy(X, shape=(True, 30)))], "a damaged shape"),
    "axes": ([("a.npy", npy(X, shape=(1,) * 33 + (30,)))], "a damaged shape"),
    "huge": ([("a.npy", npy(X, shape=(10**30,)))], "a damaged shape"),
    "larger": ([("a.npy", npy(X, shape=(2**50, 2**50)))], "larger than any memory"),
    "empty and huge": ([("a.npy", npy(X, shape=(0, 2**50, 2**50)))], "larger than any memory"),
    "order": ([("a.npy", npy(X, fortran_order=1))], "a damaged head"),
    "keys": ([("a.npy", npy(X, ghost=1))], "a damaged head"),
    "code": ([("a.npy", b"\x93NUMPY\1\0\x08\0print(1)")], "a damaged head"),
    "nested": ([("a.npy", b"\x93NUMPY\1\0\0\x0f" + b"(" * 3840)], "a damaged head"),
    "long head": ([("a.npy", npy(X, descr="<f4" * 2000))], "a head of 6,0"),
    "later": ([("a.npy", b"\x93NUMPY\3\0" + npy(X)[8:])], "does not begin like"),
    "nothing": ([("a.npy", b"")], "does not begin like"),
    "no array": ([("a.txt", b"hello")], "a member that is not an array: 'a.txt'"),
    "folder": ([("a/", b"")], "a member that is not an array: 'a/'"),
    "two lines": ([("a\nb.npy", npy(X))], r"'a\\nb' is not a name"),
    "long name": ([("a" * 501 + ".npy", npy(X))], "'aaaa.* is not a name"),
}


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("array", "what"),
    [
        (npy(np.array(["x" * 501])), "'<U501'"),
        (npy(np.zeros(2, "<M8[s]")), "'<M8[s]'"),
        (npy(np.zeros(2, "<c8")), "'<c8'"),
        (npy(np.zeros(2, ">f4")), "'>f4'"),
        (npy(X, descr="|O"), "'|O'"),
        (npy(X, descr=[("a", "<f4")]), "[('a', '<f4')]"),
    ],
)
def test_arrays_of_other_types_are_named_and_left_alone(array, what, text, tmp_path):
    (tmp_path / "x.npz").write_bytes(zipped([("a.npy", array), ("b.npy", npy(X))]))
    with opened(tmp_path / "x.npz", text=text) as file:
        assert file.refused == {"a": f"an array of type {what}"}
        assert list(file.stored) == ["b"]
        np.testing.assert_array_equal(file.read("b"), X)


@pytest.mark.parametrize("words", [np.array(["one", "größer"]), np.array([b"one", b"two"])])
def test_words_are_read_where_they_are_asked_for(words, tmp_path):
    np.savez(tmp_path / "x.npz", a=words)
    np.testing.assert_array_equal(read(tmp_path / "x.npz", text=True)["a"], words)
    assert read(tmp_path / "x.npz") == {}


def test_a_name_that_no_line_can_show_is_no_damage(tmp_path):
    (tmp_path / "x.npz").write_bytes(zipped([("a\x1b[2J.npy", npy(X))]))
    with pytest.raises(OddName, match="is not a name for an array"):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize(("members", "why"), WRONG.values(), ids=WRONG)
def test_an_archive_that_breaks_a_rule_is_refused(members, why, tmp_path):
    (tmp_path / "x.npz").write_bytes(zipped(members))
    with pytest.raises(ValueError, match=why):
        read(tmp_path / "x.npz")


def head(name="a", **changes):
    return lambda heads: heads[name].update(changes)


LIES = {
    "overlap": (head("b", data_offsets=[0, 120]), "'b' does not begin where the one before ends"),
    "size": (head(shape=[31]), "'a' does not have the size"),
    "order": (head(data_offsets=[120, 0]), "a damaged place"),
    "fraction": (head(data_offsets=[0.0, 120.0]), "a damaged place"),
    "beyond": (head("b", data_offsets=[120, 248], shape=[16]), "do not end where the file ends"),
    "shape": (head(shape=[-30]), "a damaged shape"),
    "text": (head(shape="30"), "a damaged head"),
    "more": (head(ghost=1), "a damaged head"),
    "no head": (lambda heads: heads.update(a=3), "a damaged head"),
    "bfloat16": (head(dtype="BF16"), "'a' does not have the size"),
}


@pytest.mark.parametrize(("lie", "why"), LIES.values(), ids=LIES)
def test_heads_of_safetensors_that_lie_are_refused(lie, why, tmp_path):
    content = safetensors({"a": X, "b": np.zeros(15)}, lie)
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=why):
        read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", ["F8_E5M2", "a\nb"])
def test_types_that_numpy_does_not_have_are_named_and_left_alone(dtype, tmp_path):
    content = safetensors({"a": X, "b": np.zeros(15)}, head(dtype=dtype))
    (tmp_path / "x.safetensors").write_bytes(content)
    with opened(tmp_path / "x.safetensors") as file:
        assert file.refused == {"a": f"an array of type {dtype!r}"}
        assert list(file.stored) == ["b"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1]", "its heads are damaged"),
        ('{"a": {}, "a": {}}', "'a' is there twice"),
        ("x", "Expecting value"),
        (json.dumps({str(i): 0 for i in range(50_001)}), "more than 50,000 arrays"),
    ],
)
def test_heads_of_safetensors_that_are_none_are_refused(text, why, tmp_path):
    content = len(text).to_bytes(8, "little") + text.encode()
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=why):
        read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [0, 4, 2**40, 2**63])
def test_a_length_that_lies_is_not_believed(length, tmp_path):
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + bytes(99))
    with pytest.raises(ValueError, match=r"begins like neither|Expecting value"):
        read(tmp_path / "x")


def test_compressed_arrays_are_refused_where_nothing_may_grow(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=X)
    with pytest.raises(ValueError, match="compressed members"):
        read(tmp_path / "x.npz", compressed=False)
    (tmp_path / "y.npz").write_bytes(zipped([("a.npy", npy(X))], zipfile.ZIP_LZMA))
    with pytest.raises(ValueError, match="other than deflate"):
        read(tmp_path / "y.npz")


def test_more_arrays_than_any_model_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MOST_ARRAYS", 3)
    members = [(f"{i}.npy", npy(X)) for i in range(4)]
    (tmp_path / "x.npz").write_bytes(zipped(members[:3]))
    assert len(read(tmp_path / "x.npz")) == 3
    content = bytearray(zipped(members))
    for claimed in (4, 2):  # the second time the end of the archive lies
        content[-12:-10] = claimed.to_bytes(2, "little")
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ValueError, match="holds more than 3 arrays"):
            read(tmp_path / "x.npz")
    monkeypatch.setattr(arrays, "MOST_DIRECTORY", 99)
    with pytest.raises(ValueError, match="more than 99 bytes"):
        read(tmp_path / "x.npz")


def listening(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, listening, lambda path: path.symlink_to("/dev/zero")]
)
def test_only_regular_files_are_opened(make, tmp_path):
    make(tmp_path / "x.npz")
    with pytest.raises(OSError, match="not a regular file"):
        read(tmp_path / "x.npz")


def test_a_link_to_a_file_is_followed_and_a_missing_one_is_missing(tmp_path):
    np.savez(tmp_path / "x.npz", a=X)
    (tmp_path / "link.npz").symlink_to(tmp_path / "x.npz")
    np.testing.assert_array_equal(read(tmp_path / "link.npz")["a"], X)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "y.npz")


@pytest.mark.parametrize("order", ["C", "F"])
def test_one_number_that_is_not_finite_is_found(order):
    x = np.zeros((1031, 1033), np.float32, order)  # more than one piece
    assert all_finite(x)
    for bad in (np.nan, np.inf, -np.inf):
        for place in ((0, 0), (1030, 1032), (515, 7)):
            x[place] = bad
            assert not all_finite(x)
            x[place] = 0
    assert all_finite(np.arange(3))
