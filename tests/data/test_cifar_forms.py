"""CIFAR as it is handed around: in other forms, under other names, deeper or shallower."""

import os
import sys

import cifar_forms
import numpy as np
import pytest
from cifar_forms import unpacked, zipped
from fake_cifar import SMALL, fake_files, tar_gz

from tinymixer import data
from tinymixer.data import cifar
from tinymixer.errors import DataError, DataMissing, Note

FORMS = {
    "cifar10": ("binary", "python", "matlab", "pictures", "table", "parquet"),
    "cifar100": ("binary", "python", "matlab", "parquet"),
}
EACH = [(name, form) for name, forms in FORMS.items() for form in forms]


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv("TINYMIXER_DATA", raising=False)
    monkeypatch.setattr(data, "__file__", str(tmp_path / "a" / "b" / "c" / "__init__.py"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for name, layout in SMALL.items():
        monkeypatch.setitem(data.PUBLISHED, name, data.Published(layout, cifar))


def made(name, form):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    layout = SMALL[name]
    files = fake_files(layout)
    return layout, files, getattr(cifar_forms, form)(layout, files)


def assert_loaded(dataset, layout, files, in_order):
    """The images and labels of the records; of pictures, in an order of their own."""
    *train, test = files.values()
    for part, group in (("train", train), ("test", [test])):
        images, labels = cifar.images_and_labels(layout, group)
        found = getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels")
        if not in_order:
            (images, labels), found = (by_content(*x) for x in ((images, labels), found))
        np.testing.assert_array_equal(found[0], images)
        np.testing.assert_array_equal(found[1], labels)


def by_content(images, labels):
    order = sorted(range(len(images)), key=lambda i: images[i].tobytes())
    return images[order], labels[order]


@pytest.mark.parametrize("packed", ["tar.gz", "zip", "folder"])
@pytest.mark.parametrize(("name", "form"), EACH)
def test_every_form_is_found_read_and_added(name, form, packed, tmp_path):
    layout, files, members = made(name, form)
    in_order = form not in ("pictures", "table")
    place = tmp_path / "downloads"
    place.mkdir()
    if packed == "folder":
        given = unpacked(place / "of mine", members)
    elif packed == "zip":
        given = zipped(place / "archive (1).zip", members)
    else:
        given = tar_gz(place / "renamed", members)
    assert_loaded(data.load(name, place), layout, files, in_order)
    home = tmp_path / "home"
    assert data.add(given, home) == home / layout.folder
    assert_loaded(data.load(name, home), layout, files, in_order)
    other = {"cifar10": "cifar100", "cifar100": "cifar10"}[name]
    with pytest.raises(DataMissing):
        data.load(other, place)


@pytest.mark.parametrize("depth", ["", "a", "a/b"])
@pytest.mark.parametrize("form", ["binary", "python", "matlab"])
def test_files_lie_deeper_or_shallower(form, depth, tmp_path):
    layout, files, members = made("cifar10", form)
    loose = {name.rpartition("/")[2]: content for name, content in members.items()}
    unpacked(tmp_path / "data" / depth, loose)
    (tmp_path / "data" / "read me.txt").write_text("hello")
    assert_loaded(data.load("cifar10", tmp_path / "data"), layout, files, True)


@pytest.mark.parametrize(
    "name", ["cifar-10-python (1).tar.gz", "cifar-10-batches-py.tar.gz", "x.zip", "cifar", "a.b"]
)
def test_an_archive_has_any_name(name, tmp_path):
    layout, files, members = made("cifar10", "python")
    file = tar_gz(tmp_path / name, members)
    assert_loaded(data.load("cifar10", tmp_path), layout, files, True)
    assert_loaded(data.load("cifar10", file), layout, files, True)  # itself, with --data-dir


def test_a_browser_may_have_unpacked_the_outer_half(tmp_path):
    layout, files, members = made("cifar10", "binary")
    path = tar_gz(tmp_path / "whole", members)
    import gzip

    (tmp_path / "cifar-10-binary.tar").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert_loaded(data.load("cifar10", tmp_path), layout, files, True)


def test_a_matlab_file_may_be_unpacked(tmp_path):
    layout, files, _ = made("cifar10", "matlab")
    unpacked(tmp_path, cifar_forms.matlab(layout, files, packed=False))
    assert_loaded(data.load("cifar10", tmp_path), layout, files, True)


def test_pictures_come_in_an_order_that_mixes_the_classes(tmp_path):
    _, _, members = made("cifar10", "pictures")
    unpacked(tmp_path, members)
    labels = data.load("cifar10", tmp_path).train_labels
    assert len(set(labels[:20].tolist())) >= 6
    np.testing.assert_array_equal(data.load("cifar10", tmp_path).train_labels, labels)


def test_kaggles_folder_has_no_labels_for_its_test(tmp_path):
    layout, files, _ = made("cifar10", "table")
    unpacked(tmp_path, cifar_forms.table(layout, files, tests=False))
    with pytest.raises(DataError, match=r"test pictures have no labels.* --dataset folder:PATH"):
        data.load("cifar10", tmp_path)
    with pytest.warns(Note, match="left out test; a data set has one part"):
        own = data.load(f"folder:{tmp_path / 'cifar-10'}")
    assert (len(own.train_images), len(own.test_images)) == (80, 20)
    assert own.class_names == tuple(sorted(layout.class_names))


def test_without_pyarrow_a_line_says_so(tmp_path, monkeypatch):
    layout, _, _ = made("cifar10", "binary")
    (tmp_path / "cifar10.bin").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"needs pyarrow.*pip install 'tinymixer\[data\]'"):
        cifar.read(layout, tmp_path / "cifar10.bin")


def test_one_parquet_file_of_two_is_named_as_half(tmp_path):
    _, _, members = made("cifar10", "parquet")
    unpacked(tmp_path, members)
    next(tmp_path.rglob("test-*")).unlink()
    file = next(tmp_path.rglob("train-*"))
    with pytest.raises(DataError, match="its test images are missing; give the folder"):
        data.add(file, tmp_path / "home")


@pytest.mark.parametrize("position", [0.0, 0.3, 0.9])
def test_a_cut_archive_is_damaged_and_not_missing(position, tmp_path):
    _, _, members = made("cifar10", "binary")
    path = tar_gz(tmp_path / "cifar-10-binary (2).tar.gz", members)
    path.write_bytes(path.read_bytes()[: int(position * path.stat().st_size)])
    with pytest.raises(DataError) as error:
        data.load("cifar10", tmp_path, download=True)
    assert not isinstance(error.value, DataMissing)
    for word in ("remove", "delete", "move it away"):
        assert word not in str(error.value).lower()
    for word in ("data download cifar10", "data add FILE", "--data-dir"):
        assert word in str(error.value)


def test_a_download_passes_by_what_is_damaged(tmp_path, monkeypatch):
    layout, files, members = made("cifar10", "binary")
    mine = tar_gz(tmp_path / "cifar-10-binary.tar.gz", members)
    half = mine.read_bytes()[:-5000]
    mine.write_bytes(half)

    def fetch(sources, folder):
        folder.mkdir()
        return tar_gz(folder / "cifar-10-binary.tar.gz", members)

    monkeypatch.setattr(cifar, "fetch", fetch)
    assert_loaded(data.download("cifar10", tmp_path), layout, files, True)
    assert mine.read_bytes() == half
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cwd") == [
        layout.folder,
        mine.name,
    ]


def test_links_that_lead_in_a_circle_do_not_hang(tmp_path):
    layout, files, members = made("cifar10", "binary")
    unpacked(tmp_path / "data", members)
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / layout.folder / "up").symlink_to(tmp_path)
    (tmp_path / "data" / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "data" / "pipe")
    assert_loaded(data.load("cifar10", tmp_path / "data"), layout, files, True)
