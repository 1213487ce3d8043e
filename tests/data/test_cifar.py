"""CIFAR files: four forms give the same arrays; damaged and hostile ones, one clear error."""

import gzip
import hashlib
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from fake_cifar import SMALL, fake_files, members_of, tar_gz

from tinymixer.data import cifar, containers
from tinymixer.errors import DataError

FORMS = ("binary", "python")


def archive_name(layout, form):
    return next(name for name in layout.archives if form in name)


def unpack(folder, members):
    for name, content in members.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def assert_same(files, expected):
    assert list(files) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(files[name], expected[name])


# --- What is right is read ----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [True, False])
def test_all_forms_give_the_same_records(layout, form, packed, tmp_path):
    expected = fake_files(layout)
    members = members_of(layout, expected, form)
    if packed:
        tar_gz(tmp_path / archive_name(layout, form), members)
    else:
        unpack(tmp_path, members)
    path = cifar.locate(layout, tmp_path)
    assert path.name == (
        archive_name(layout, form)
        if packed
        else {"binary": layout.folder, "python": layout.python_folder}[form]
    )
    assert_same(cifar.read(layout, path), expected)


def test_pickles_of_python_3_are_read_too(ten, tmp_path):
    expected = fake_files(ten)
    folder = tmp_path / ten.python_folder
    folder.mkdir()
    for name, file in zip(ten.python_files, ten.files, strict=True):
        content = {b"labels": expected[file][:, 0].tolist(), b"data": expected[file][:, 1:].copy()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    assert_same(cifar.read(ten, folder), expected)


def test_a_column_major_array_is_read_as_it_was(ten, tmp_path):
    records = fake_files(ten)["test_batch.bin"]
    pixels = np.asfortranarray(records[:, 1:])
    pickled = pickle.dumps({b"labels": records[:, 0].tolist(), b"data": pixels}, protocol=2)
    np.testing.assert_array_equal(
        cifar._records(ten, "test_batch.bin", "test_batch", pickled), records
    )


def test_planar_records_become_images(layout):
    files = list(fake_files(layout).values())
    images, labels = cifar.images_and_labels(layout, files)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    records = np.concatenate(files)
    first_pixel = len(layout.label_keys)
    for n, y, x, colour in [(0, 0, 0, 0), (3, 5, 7, 1), (len(records) - 1, 31, 30, 2)]:
        assert images[n, y, x, colour] == records[n, first_pixel + colour * 1024 + y * 32 + x]
    np.testing.assert_array_equal(labels, records[:, first_pixel - 1])  # the fine one of two


def test_written_files_are_the_standard_ones(layout, tmp_path):
    expected = fake_files(layout)
    folder = cifar.write(layout, expected, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(layout.files)
    assert_same(cifar.read(layout, folder), expected)


def test_published_facts():
    ten, hundred = cifar.CIFAR10, cifar.CIFAR100
    assert ten.records("test_batch.bin") * ten.record_bytes == 30_730_000
    assert hundred.records("train.bin") * hundred.record_bytes == 153_700_000
    assert (ten.label_keys, ten.label_counts) == (("labels",), (10,))
    assert (hundred.label_keys, hundred.label_counts) == (
        ("coarse_labels", "fine_labels"),
        (20, 100),
    )
    for layout in (ten, hundred):
        assert len(set(layout.class_names)) == layout.label_counts[-1]
        assert list(layout.class_names) == sorted(layout.class_names)  # both happen to be sorted


@pytest.mark.parametrize(
    ("layout", "mean", "std", "names", "digest"),
    [
        (
            cifar.CIFAR10,
            (0.49139968, 0.48215841, 0.44653091),
            (0.24703223, 0.24348513, 0.26158784),
            {0: "airplane", 3: "cat", 5: "dog", 9: "truck"},
            "bb3914949cecedee6d1257f7f5fdb8f43fa3b2c8095fd1763161caf1b873fe59",
        ),
        (
            cifar.CIFAR100,
            (0.50707516, 0.48654887, 0.44091784),
            (0.26733429, 0.25643846, 0.27615047),
            {0: "apple", 42: "leopard", 59: "pine_tree", 99: "worm"},
            "fbe8ad23bbaf24969898a386833b49c3aaf6ad1119d43f7b41cdea1b3416d578",
        ),
    ],
    ids=["cifar10", "cifar100"],
)
def test_constants_are_the_published_ones(layout, mean, std, names, digest):
    """Mean and standard deviation of a colour as many programs print them, of levels from 0 to 1.

    The digest is SHA-256 over the names, one a line: one letter or two places exchanged change it.
    """
    np.testing.assert_allclose(layout.mean, 255 * np.array(mean), rtol=0, atol=6e-4)
    np.testing.assert_allclose(layout.std, 255 * np.array(std), rtol=0, atol=6e-4)
    assert {number: layout.class_names[number] for number in names} == names
    assert hashlib.sha256("\n".join(layout.class_names).encode()).hexdigest() == digest


@pytest.mark.parametrize("layout", [cifar.CIFAR10, cifar.CIFAR100], ids=["cifar10", "cifar100"])
def test_files_and_their_sums_are_the_published_ones(layout):
    """The MD5 sums stand on the data sets' own page."""
    published = {
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    }
    assert {source.file: source.md5 for source in layout.sources}.items() <= published.items()
    assert all(source.url.startswith("https://") for source in layout.sources)
    files = {
        "CIFAR-10": (
            ["cifar-10-batches-bin", "cifar-10-batches-py"],
            [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"],
        ),
        "CIFAR-100": (["cifar-100-binary", "cifar-100-python"], ["train", "test"]),
    }
    folders, names = files[layout.title]
    assert [layout.folder, layout.python_folder] == folders
    assert list(layout.python_files) == names
    assert list(layout.files) == [f"{name}.bin" for name in names]


# --- What is wrong is refused, and the message says where -----------------------------------------


def truncate(files):
    files["data_batch_3.bin"] = files["data_batch_3.bin"].ravel()[:-1]


def empty(files):
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:0]


def lengthen(files):
    files["data_batch_3.bin"] = np.append(files["data_batch_3.bin"], np.uint8(0))


def mislabel(files):
    files["data_batch_3.bin"][17, 0] = 10


def unbalance(files):
    records = files["data_batch_3.bin"]
    records[4, 0] = (records[4, 0] + 1) % 10


def repeat(files):
    files["data_batch_3.bin"] = files["data_batch_2.bin"]


def swap(files):
    wrong = files["data_batch_3.bin"][:10].copy()
    files["data_batch_3.bin"][:10], files["test_batch.bin"] = files["test_batch.bin"].copy(), wrong


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"data_batch_3.bin has 61,459 bytes, expected 61,460\."),
        (empty, r"data_batch_3.bin has 0 bytes, expected 61,460\."),
        (lengthen, r"data_batch_3.bin has 61,461 bytes, expected 61,460\."),
        (mislabel, r"data_batch_3.bin, record 17: labels 10, expected 0 to 9\."),
        (unbalance, r"training files: \d+ records of class \d, expected 10 "),
        (repeat, r"training files: \d+ records of class \d, expected 10 \(are two files swapped"),
        (swap, r"training files: \d+ records of class \d, expected 10 \(are two files swapped"),
    ],
)
def test_damaged_files_are_refused(ten, tmp_path, damage, message):
    files = fake_files(ten)
    damage(files)
    unpack(tmp_path, members_of(ten, files, "binary"))
    with pytest.raises(DataError, match=message) as refusal:
        cifar.read(ten, tmp_path / ten.folder)
    assert "tinymixer data add FILE" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(ten, tmp_path):
    unpack(tmp_path, members_of(ten, fake_files(ten), "binary"))
    (tmp_path / ten.folder / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4.bin cannot be read"):
        cifar.read(ten, tmp_path / ten.folder)


@pytest.mark.parametrize("column", [0, 1])
def test_both_labels_of_cifar100_are_checked(column, tmp_path):
    layout = SMALL["cifar100"]
    files = fake_files(layout)
    files["test.bin"][3, column] = 100
    unpack(tmp_path, members_of(layout, files, "binary"))
    key = layout.label_keys[column]
    with pytest.raises(DataError, match=f"test.bin, record 3: {key} 100, expected 0 to"):
        cifar.read(layout, tmp_path / layout.folder)


def special(kind, name="cifar-10-batches-bin/data_batch_2.bin", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_members_that_are_not_files_are_refused(ten, tmp_path, kind):
    members = members_of(ten, fake_files(ten), "binary")
    members["cifar-10-batches-bin/data_batch_2.bin"] = special(kind)
    path = tar_gz(tmp_path / archive_name(ten, "binary"), members)
    message = "missing: data_batch_2.bin" if kind == tarfile.DIRTYPE else "is not a regular file"
    with pytest.raises(DataError, match=message):
        cifar.read(ten, path)


def test_members_that_lead_elsewhere_are_not_touched(ten, tmp_path):
    expected = fake_files(ten)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    hostile = {
        "../../evil": b"x",
        "/tmp/tinymixer-evil": b"x",
        "cifar-10-batches-bin/../../evil": b"x",
        "cifar-10-batches-bin/link": special(tarfile.SYMTYPE, "cifar-10-batches-bin/link"),
    }
    path = tar_gz(
        inner / archive_name(ten, "binary"), {**hostile, **members_of(ten, expected, "binary")}
    )
    assert_same(cifar.read(ten, path), expected)
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "b", path.name]


def test_a_member_that_comes_twice_is_refused(ten, tmp_path):
    members = list(members_of(ten, fake_files(ten), "binary").items())
    path = tar_gz(tmp_path / archive_name(ten, "binary"), [*members, members[-1]])
    with pytest.raises(DataError, match=r"test_batch.bin occurs twice"):
        cifar.read(ten, path)


def test_a_member_of_the_wrong_size_is_not_read(ten, tmp_path):
    members = members_of(ten, fake_files(ten), "python")
    members["cifar-10-batches-py/data_batch_1"] = bytes(2**21)
    path = tar_gz(tmp_path / archive_name(ten, "python"), members)
    with pytest.raises(DataError, match=r"data_batch_1 has 2,097,152 bytes, expected 61,460 to"):
        cifar.read(ten, path)


@pytest.mark.parametrize("where", ["member", "tail"])
def test_a_bomb_is_not_unpacked(ten, tmp_path, monkeypatch, where):
    monkeypatch.setattr(containers, "MOST_BYTES", 2**21)
    members = members_of(ten, fake_files(ten), "binary")
    path = tmp_path / archive_name(ten, "binary")
    if where == "member":
        tar_gz(path, {"zeros": bytes(2**22), **members})
    else:
        tar_gz(path, members)
        path.write_bytes(path.read_bytes() + gzip.compress(bytes(2**22)))
    with pytest.raises(DataError, match=r"unpacks to more than 2 MiB"):
        cifar.read(ten, path)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.7, 0.999])
def test_a_truncated_archive_is_refused(ten, tmp_path, position):
    path = tar_gz(
        tmp_path / archive_name(ten, "binary"), members_of(ten, fake_files(ten), "binary")
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * position)])
    with pytest.raises(DataError, match=r"not a complete .tar.gz|files missing|it is empty"):
        cifar.read(ten, path)


def test_a_flipped_bit_in_an_archive_is_noticed(ten, tmp_path):
    path = tar_gz(
        tmp_path / archive_name(ten, "binary"), members_of(ten, fake_files(ten), "binary")
    )
    whole = path.read_bytes()
    for offset in np.random.default_rng(0).integers(200, len(whole), 20):
        broken = bytearray(whole)
        broken[offset] ^= 4
        path.write_bytes(broken)
        with pytest.raises(DataError, match=archive_name(ten, "binary")):
            cifar.read(ten, path)


def test_an_archive_without_the_files_is_refused(ten, tmp_path):
    path = tar_gz(tmp_path / archive_name(ten, "binary"), {"holiday.jpg": b"x"})
    with pytest.raises(DataError, match=r"6 files missing: data_batch_1.bin"):
        cifar.read(ten, path)


class Gadget:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda path: pickle.dumps(Gadget(os.mkdir, str(path)), 2),
            "asks for posix.mkdir|nt.mkdir",
        ),
        (
            lambda path: pickle.dumps(Gadget(eval, f"open({str(path)!r}, 'w')"), 2),
            "asks for .*eval",
        ),
        (lambda path: pickle.dumps(np.zeros(3), 2), "not uint8"),
        (lambda path: pickle.dumps(np.array([{}]), 2), "not uint8"),
        (lambda path: pickle.dumps({b"labels": [1]}, 2), "cannot reshape"),
        (lambda path: pickle.dumps({b"labels": [256] * 20}, 2), r"range\(0, 256\)"),
        (lambda path: pickle.dumps({b"labels": 5}, 2), "int"),
        (lambda path: pickle.dumps([1, 2], 2), "list"),
        (lambda path: b"\x80\x02}", "it ends too early"),
        (lambda path: b"\x93\x00garbage", "."),
        (lambda path: b"", "it ends too early"),
    ],
)
def test_a_hostile_or_damaged_pickle_is_refused(ten, content, message, tmp_path):
    victim = tmp_path / "victim"
    with pytest.raises(ValueError, match=f"data_batch_1 is not as published .*({message})"):
        cifar._records(ten, "data_batch_1.bin", "data_batch_1", content(victim))
    assert not victim.exists()


def test_a_full_disk_leaves_the_old_files(ten, tmp_path, monkeypatch):
    old = fake_files(ten)
    folder = cifar.write(ten, old, tmp_path)
    new = {name: 255 - records for name, records in old.items()}
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) >= 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        cifar.write(ten, new, tmp_path)
    assert_same(cifar.read(ten, folder), old)
    assert sorted(path.name for path in folder.iterdir()) == sorted(ten.files)
    assert list(tmp_path.iterdir()) == [folder]


class Killed(BaseException):
    """As SIGKILL: nothing is tidied up afterwards."""


def killed_write(monkeypatch, layout, data_dir, function, n):
    """Write records, and be killed at the n-th call of a function of the operating system."""
    right, calls = getattr(os, function), []

    def kill(*args, **kwargs):
        calls.append(args)
        if len(calls) == n:
            raise Killed
        return right(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, kill)
        patch.setattr(Path, "unlink", lambda *args, **kwargs: None)
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(Killed):
            cifar.write(layout, fake_files(layout), data_dir)


@pytest.mark.parametrize(
    ("function", "n"), [("fsync", 1), ("fsync", 5), ("replace", 1), ("replace", 6), ("rename", 1)]
)
def test_what_a_killed_write_leaves_does_not_hide_the_archive(
    ten, tmp_path, monkeypatch, function, n
):
    archive = tar_gz(tmp_path / ten.archives[0], members_of(ten, fake_files(ten), "binary"))
    killed_write(monkeypatch, ten, tmp_path, function, n)
    assert cifar.locate(ten, tmp_path) == archive
    assert_same(cifar.read(ten, cifar.locate(ten, tmp_path)), fake_files(ten))
    folder = cifar.write(ten, fake_files(ten), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([archive, folder])  # nothing piles up
    assert sorted(path.name for path in folder.iterdir()) == sorted(ten.files)


def test_a_folder_that_lacks_files_is_named_only_if_there_is_nothing_better(ten, tmp_path):
    (tmp_path / ten.folder).mkdir()
    (tmp_path / ten.folder / ".data_batch_1.bin.24447.part").write_bytes(b"half")
    assert cifar.locate(ten, tmp_path) is None
    folder = cifar.write(ten, fake_files(ten), tmp_path)
    (folder / "data_batch_4.bin").unlink()
    assert cifar.locate(ten, tmp_path) == folder
    unpack(tmp_path, members_of(ten, fake_files(ten), "python"))
    assert cifar.locate(ten, tmp_path) == tmp_path / ten.python_folder


def test_a_folder_that_cannot_be_made_is_an_error(ten, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        cifar.write(ten, fake_files(ten), tmp_path / "file")
