"""Files that are damaged, foreign or made to do harm: each one clear error, soon, in little memory.

Forty ways to be wrong as an archive or a folder of CIFAR. None may advise to lose what is there.
"""

import gzip
import io
import os
import pickle
import struct
import tarfile
import time
import zipfile
import zlib

import cifar_forms
import pytest
from cifar_forms import unpacked, zipped
from fake_cifar import SMALL, fake_files, tar_gz
from fuzz_files import _memory

from tinymixer import data
from tinymixer.data import cifar, containers
from tinymixer.errors import DataError

LAYOUT = SMALL["cifar10"]
FILES = fake_files(LAYOUT)
BINARY = cifar_forms.binary(LAYOUT, FILES)
BINARY.pop("cifar-10-batches-bin/readme.html")
PYTHON = cifar_forms.python(LAYOUT, FILES)
MATLAB = cifar_forms.matlab(LAYOUT, FILES)
SECONDS, MEGABYTES = 20, 1000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(containers, "MOST_BYTES", 2**24)
    for name, layout in SMALL.items():
        monkeypatch.setitem(data.PUBLISHED, name, data.Published(layout, cifar))


def content(path, write=None):
    return lambda place: (place / path).write_bytes(write)


def tar(*members, pad=b""):
    """A .tar.gz of raw blocks."""
    return lambda place: (place / "cifar-10.tar.gz").write_bytes(
        gzip.compress(b"".join(members) + bytes(1024) + pad, 1)
    )


def block(name, size, kind=b"0", written=None):
    """A tar header, and `written` bytes of content."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    body = bytes(max(0, min(size, 2**16))) if written is None else written
    return info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)


def pax(records):
    return block("PaxHeaders/x", len(records), b"x", records)


SPARSE = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n38 GNU.sparse.name=data_batch_1.bin\n"
BATCH = "cifar-10-batches-bin/data_batch_1.bin"


def zip_of(members, **changes):
    def write(place):
        file = zipped(place / "cifar-10.zip", members)
        blob = bytearray(file.read_bytes())
        entry = blob.find(b"PK\1\2")
        for at, value in changes.get("directory", {}).items():
            blob[entry + at : entry + at + len(value)] = value
        file.write_bytes(blob)

    return write


def python(pickled):
    """A folder with one Python file that is wrong."""
    name = "cifar-10-batches-py/data_batch_1"
    size = len(PYTHON[name])
    padded = pickled + b"N0" * ((size - len(pickled)) // 2 + 1) + b"."
    return lambda place: unpacked(place, PYTHON | {name: padded[: size + 2]})


def nested(depth):
    """A dictionary whose key is a tuple of tuples, each twice the one before: slow to hash."""
    return b"\x80\x02}(" + b"K\x01" + b"q\x00h\x00\x86" * 1 + b"q\x01h\x01\x86" * depth + b"K\x01u."


def matlab(blob):
    name = "cifar-10-batches-mat/data_batch_1.mat"
    return lambda place: unpacked(place, MATLAB | {name: blob})


def packed_matlab(element):
    packed = zlib.compress(element)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    return head + struct.pack("<II", 15, len(packed)) + packed


def table(text):
    def write(place):
        members = cifar_forms.table(LAYOUT, FILES) | {"cifar-10/trainLabels.csv": text}
        unpacked(place, members)

    return write


def pictures(change):
    def write(place):
        members = cifar_forms.pictures(LAYOUT, FILES)
        first = next(iter(members))
        unpacked(place, members | change(first, members[first]))

    return write


def large_png(name, _):
    from PIL import Image

    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "PNG")
    return {name: file.getvalue()}


def many_files(place):
    with zipfile.ZipFile(place / "cifar-10.zip", "w") as archive:
        for i in range(3000):
            archive.writestr(f"{i}", b"")


LARGEST = "unpacks to more than 16 MiB"
WRONG = {
    "empty": (content("cifar-10-python.tar.gz", b""), "it is empty"),
    "a web page": (content("cifar-10 (1).tar.gz", b"<!DOCTYPE html>\n<p>"), "it is a web page"),
    "7z": (content("cifar-10.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99)), "it is a 7z archive"),
    "RAR": (content("cifar-10.rar", b"Rar!\x1a\7"), "it is a RAR archive"),
    "xz": (content("cifar-10.tar.xz", b"\xfd7zXZ\0"), "compressed by xz"),
    "bzip2": (content("cifar10.tar.bz2", b"BZh91AY"), "compressed by bzip2"),
    "a pointer": (content("cifar-10.gz", b"version https://git-lfs.github.com/spec/v1"), "Git LFS"),
    "HDF5": (content("cifar-10.h5", b"\x89HDF\r\n"), "it is an HDF5 file"),
    "noise": (content("cifar-10.bin", bytes(range(256)) * 9), "6 files missing"),
    "gzip of noise": (content("cifar-10.gz", gzip.compress(b"x" * 999)), "not a complete .tar.gz"),
    "gzip of zeros": (tar(bytes(512)), "6 files missing"),
    "a gzip bomb": (tar(block("x", 2**30, written=bytes(2**25))), LARGEST),
    "a bomb behind the end": (tar(pad=bytes(2**24)), LARGEST),
    "a pax bomb": (tar(pax(b"11 a=bcdef\n" * 2**20), block(BATCH, 61460)), "files missing"),
    "pax sparse, cut": (tar(pax(SPARSE), block("GNUSparseFile.0/data_batch_1.bin", 512)), "512 b"),
    "pax sparse, no end": (
        tar(pax(SPARSE), block("y/data_batch_1.bin", 9, b"0", b"99999999")),
        "9 b",
    ),
    "old sparse": (tar(block(BATCH, 61460, b"S")), "is not a regular file"),
    "a size below 0": (tar(block(BATCH, -5)), "not a complete|negative"),
    "a size beyond all": (tar(block("x", 2**62)), "not a complete .tar.gz"),
    "a size of 8 TB": (tar(block(BATCH, 2**43)), "has 8,796,093,022,208 bytes, expected 61,460"),
    "a long name": (tar(block("x", 2**27, b"L")), "not a complete .tar.gz"),
    "a bad sum": (tar(b"x" * 512), "not a complete .tar.gz"),
    "a link": (tar(block(BATCH, 0, tarfile.SYMTYPE)), "is not a regular file"),
    "cut": (
        lambda place: (
            (place / "cifar-10.tar.gz").write_bytes(
                tar_gz(place / "x", BINARY).read_bytes()[:100_000]
            )
            and (place / "x").unlink()
        ),
        "not a complete .tar.gz",
    ),
    "zip, cut": (
        lambda place: (
            (place / "cifar-10.zip").write_bytes(zipped(place / "x", BINARY).read_bytes()[:-30])
            and (place / "x").unlink()
        ),
        "not a complete .zip",
    ),
    "zip, encrypted": (zip_of(BINARY, directory={8: b"\1\0"}), "encrypted .zip"),
    "zip, LZMA": (zip_of(BINARY, directory={10: b"\x0e\0"}), "another compression than deflate"),
    "zip, sizes that lie": (zip_of(BINARY, directory={24: b"\xff\xff\xff\x7f"}), "bytes, expected"),
    "zip, a place that lies": (
        zip_of(BINARY, directory={42: b"\xff\xff\0\0"}),
        "not a complete|has",
    ),
    "zip bomb": (zip_of({BATCH: bytes(2**25)}), "has 33,554,432 bytes, expected 61,460"),
    "zip, a wrong sum": (zip_of({**BINARY}, directory={16: b"abcd"}), "not a complete .zip|has"),
    "zip of nothing": (many_files, "6 files missing"),
    "pickle, a memo of 2**31": (python(b"\x80\x02}r\xff\xff\xff\x7fU\6labelsNs."), "data_batch_1"),
    "pickle, nested keys": (python(nested(60)), "data_batch_1 is not as published"),
    "pickle, a call": (python(pickle.dumps(os.system, 2)), "it asks for posix.system|nt.system"),
    "pickle, a number of words": (python(b"\x80\x02\x8b\xff\xff\xff\x7f"), "data_batch_1"),
    "pickle, a deep list": (python(b"\x80\x02" + b"(" * 50_000), "data_batch_1"),
    "pickle, sets": (python(b"\x80\x04\x8f(K\x01\x90."), "data_batch_1"),
    "MATLAB, version 4": (matlab(bytes(200)), "not a MATLAB file of version 5"),
    "MATLAB, version 7.3": (
        matlab(b"MATLAB 7.3 MAT-file" + bytes(200)),
        "not a MATLAB file of vers",
    ),
    "MATLAB, a bomb": (matlab(packed_matlab(bytes(10**7))), "unpacks to more than"),
    "MATLAB, cut": (matlab(MATLAB["cifar-10-batches-mat/data_batch_1.mat"][:-9]), "cut short|publ"),
    "MATLAB, no arrays": (matlab(packed_matlab(b"")[:128]), "is not as published"),
    "table, other classes": (table(b"id,label\n1,zebra\n"), "is of class|missing"),
    "table, one class twice": (table(b"id,label\n1,cat\n1,dog\n"), "another class|missing"),
    "table, no text": (table(b"id,label\n\xff\xfe\n"), "not in UTF-8; save it as CSV in UTF-8"),
    "table, one long line": (table(b"id,label\n" + b"x" * 200_000), "field larger|missing|labels"),
    "pictures, too large": (pictures(large_png), "12000x12000 pixels, expected 32x32"),
    "pictures, damaged": (pictures(lambda name, x: {name: x[:40]}), "cannot be read"),
    "pictures, one too many": (
        pictures(lambda name, x: {name.replace("0", "9", 1): x, name + "x.png": x}),
        "more than 100 pictures are in train",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_archive_is_named(kind, tmp_path):
    write, message = WRONG[kind]
    place = tmp_path / "cifar-10"
    place.mkdir()
    write(place)
    given = next(iter(sorted(place.iterdir())))
    before, start = _memory(reset=True), time.perf_counter()
    with pytest.raises(DataError, match=message) as error:
        cifar.read(LAYOUT, cifar.locate(LAYOUT, place) or given)
    assert time.perf_counter() - start < SECONDS
    assert _memory() - before < MEGABYTES
    said = str(error.value)
    assert len(said.splitlines()) == 1
    assert len(said) < 1500
    assert str(place) in said
    for word in ("remove", "delete", "move it", "erase"):
        assert word not in said.lower()
    with pytest.raises(DataError):
        data.add(given, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_parquet_files_that_are_wrong(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as pq

    good = cifar_forms.parquet(LAYOUT, FILES)
    name = "plain_text/train-00000-of-00001.parquet"

    def wrote(**columns):
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file)
        return file.getvalue()

    image = cifar_forms.png(FILES["test_batch.bin"][0])
    cases = {
        good[name][:-9]: "is not as published",
        b"PAR1" + bytes(40) + b"PAR1": "is not as published",
        wrote(a=[1, 2]): "its columns are a; expected img or image, labels or label",
        wrote(img=["x"] * 100, label=[1] * 100): "is of type string; expected bytes",
        wrote(img=[image] * 7, label=[1] * 7): "7 rows, expected 100 or 10",
        wrote(img=[image] * 100, label=[1] * 100): "0 records of class 0, expected 10",
        wrote(img=[image] * 100, label=[300] * 100): "is not as published",
        wrote(img=[b"x"] * 100, label=[1] * 100): "a picture cannot be read",
    }
    for content, message in cases.items():
        place = unpacked(tmp_path / str(len(content)), good | {name: content})
        with pytest.raises(DataError, match=message):
            cifar.read(LAYOUT, place)


def test_files_without_end_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MOST_FILES", 50)
    for i in range(60):
        (tmp_path / f"{i}").touch()
    with pytest.raises(containers.Unreadable, match="it holds more than 50 files"):
        list(containers.members(tmp_path))
    file = zipped(tmp_path / "x.zip", {f"{i}": b"" for i in range(60)})
    with pytest.raises(containers.Unreadable, match="more than 50 files"):
        list(containers.members(file))
    tar = tar_gz(tmp_path / "x.tar.gz", {f"{i}": b"" for i in range(60)})
    with pytest.raises(containers.Unreadable, match="it holds more than 50 files"):
        list(containers.members(tar))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_opened(make, tmp_path):
    make(tmp_path / "cifar-10-python.tar.gz")
    assert data.find("cifar10", tmp_path) is None
    with pytest.raises(DataError, match="is not a regular file"):
        data.add(tmp_path / "cifar-10-python.tar.gz", tmp_path / "home")
