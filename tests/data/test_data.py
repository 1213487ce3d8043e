"""Finding, adding and loading data sets by name."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_cifar import fake_files, members_of, tar_gz

from tinymixer import data
from tinymixer.data import cifar, shapes
from tinymixer.errors import DataError


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A working folder without data; the checkout's own is out of sight."""
    monkeypatch.delenv("TINYMIXER_DATA", raising=False)
    monkeypatch.setattr(data, "__file__", str(tmp_path / "a" / "b" / "c" / "__init__.py"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def archive(layout, folder, form="binary"):
    folder.mkdir(parents=True, exist_ok=True)
    name = next(name for name in layout.archives if form in name)
    return tar_gz(folder / name, members_of(layout, fake_files(layout), form))


def test_the_three_places_in_their_order(ten, tmp_path, monkeypatch):
    assert data.find("cifar10", tmp_path / "given") is None
    for place in ("cwd/data", "env", "given"):
        monkeypatch.setenv("TINYMIXER_DATA", str(tmp_path / "env"))
        path = archive(ten, tmp_path / place)
        assert data.find("cifar10", tmp_path / "given").samefile(path)
    assert data.find("cifar10").parent == tmp_path / "env"


def test_the_folder_itself_may_be_given(ten, tmp_path):
    folder = cifar.write(ten, fake_files(ten), tmp_path)
    assert data.find("cifar10", folder) == folder


@pytest.mark.parametrize("form", ["binary", "python"])
def test_add_then_load(layout, form, tmp_path):
    name = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100"}[layout.title]
    folder = data.add(archive(layout, tmp_path / "downloads", form), tmp_path / "home")
    assert folder == tmp_path / "home" / layout.folder
    loaded = data.load(name, tmp_path / "home")
    files = list(fake_files(layout).values())
    images, labels = cifar.images_and_labels(layout, files[:-1])
    np.testing.assert_array_equal(loaded.train_images, images)
    np.testing.assert_array_equal(loaded.train_labels, labels)
    np.testing.assert_array_equal(loaded.test_labels, files[-1][:, len(layout.label_keys) - 1])
    np.testing.assert_array_equal(
        loaded.test_images, cifar.images_and_labels(layout, files[-1:])[0]
    )
    assert loaded.num_classes == len(loaded.class_names) == layout.label_counts[-1]
    assert (loaded.name, loaded.class_names) == (name, layout.class_names)
    assert (loaded.mean, loaded.std) == (layout.mean, layout.std)


def test_of_fewer_images_the_first_are_kept_with_their_labels(ten, tmp_path):
    data.add(archive(ten, tmp_path))
    whole, part = data.load("cifar10"), data.load("cifar10", train_size=7, test_size=3)
    for which, size in (("train", 7), ("test", 3)):
        for kind in ("images", "labels"):
            found, expected = (getattr(x, f"{which}_{kind}") for x in (part, whole))
            np.testing.assert_array_equal(found, expected[:size])


def test_an_archive_is_loaded_where_it_lies(ten, tmp_path):
    archive(ten, tmp_path / "cwd" / "data", "python")
    assert len(data.load("cifar10").train_images) == 100


def test_adding_a_damaged_archive_loses_nothing(ten, tmp_path):
    home = tmp_path / "home"
    good = archive(ten, tmp_path / "downloads")
    data.add(good, home)
    before = data.load("cifar10", home).fingerprint
    good.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a complete"):
        data.add(good, home)
    assert data.load("cifar10", home).fingerprint == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("holiday.zip", "it is of no data set that is known; it holds beach.jpg. Expected an arch"),
        ("cifar-10-binary.tar.gz", "no such file"),
    ],
)
def test_adding_something_else_is_refused(name, message, tmp_path):
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as archive:
        archive.writestr("beach.jpg", b"x")
    with pytest.raises(DataError, match=message):
        data.add(tmp_path / name, tmp_path)


def test_a_folder_under_the_name_of_an_archive_is_read_as_a_folder(ten, tmp_path):
    folder = tmp_path / "cifar-10-binary.tar.gz"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"x")
    with pytest.raises(DataError, match=r"tar\.gz: data_batch_1 has 1 byte, expected 61,460 to"):
        data.add(folder, tmp_path)


def test_the_home_of_a_user_that_there_is_not_is_refused(monkeypatch):
    with pytest.raises(DataError, match="~no-such-user/x: Could not determine home directory"):
        data.find("cifar10", "~no-such-user/x")
    monkeypatch.setenv("TINYMIXER_DATA", "~no-such-user/y")
    with pytest.raises(DataError, match="~no-such-user/y: Could not determine home directory"):
        data.load("cifar10")


def test_an_unknown_name_is_refused_with_the_known_ones():
    for ask in (data.load, data.find):
        with pytest.raises(DataError, match="'imagenet': expected one of cifar10, cifar100, mnist"):
            ask("imagenet")


def test_missing_data_say_where_was_looked_and_what_to_do(tmp_path):
    with pytest.raises(DataError) as error:
        data.load("cifar10", tmp_path / "given")
    for words in (str(tmp_path / "given"), "cifar-10-binary.tar.gz", "data add FILE", "shapes"):
        assert words in str(error.value)


def test_a_download_is_stored_in_the_standard_layout(ten, tmp_path, monkeypatch):
    def fetch(sources, folder):
        assert sources == ten.sources
        return archive(ten, folder, "python")

    monkeypatch.setattr(cifar, "fetch", fetch)
    home = tmp_path / "home"
    assert len(data.load("cifar10", home, download=True).test_images) == 10
    assert [path.name for path in home.iterdir()] == [ten.folder]


def test_new_data_go_where_the_user_said(ten, tmp_path, monkeypatch):
    file = archive(ten, tmp_path / "downloads")
    assert data.add(file) == Path("data") / ten.folder
    monkeypatch.setenv("TINYMIXER_DATA", str(tmp_path / "env"))
    assert data.add(file) == tmp_path / "env" / ten.folder
    assert data.add(file, tmp_path / "given") == tmp_path / "given" / ten.folder


def test_shapes_are_loaded_in_any_number():
    loaded = data.load("shapes", train_size=30, test_size=20, seed=3)
    assert len(loaded.train_images) == 30
    np.testing.assert_array_equal(loaded.test_labels, np.arange(2**32, 2**32 + 20) % 10)
    np.testing.assert_array_equal(loaded.train_images, shapes.draw(np.arange(30), 3)[0])
    larger = data.load("shapes", train_size=40, test_size=20, seed=3)
    np.testing.assert_array_equal(larger.test_images, loaded.test_images)
    assert (loaded.mean, loaded.std) == (shapes.MEAN, shapes.STD)
    assert data.find("shapes") is None


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("option", ["train_size", "test_size"])
@pytest.mark.parametrize("name", ["shapes", "cifar10"])
def test_a_part_without_images_is_refused(name, option, size, ten, tmp_path):
    data.add(archive(ten, tmp_path))
    with pytest.raises(DataError, match=f"{name}: {option}={size}: expected at least one image"):
        data.load(name, **{option: size})


@pytest.mark.parametrize("option", ["train_size", "test_size"])
def test_more_images_than_there_are_are_refused(option, ten, tmp_path):
    data.add(archive(ten, tmp_path))
    there = len(getattr(data.load("cifar10"), option.replace("size", "images")))
    data.load("cifar10", **{option: there})
    with pytest.raises(DataError, match=f"{option}={there + 1}: expected at most {there} images"):
        data.load("cifar10", **{option: there + 1})


def test_fingerprint_tells_data_apart():
    base = data.load("shapes", train_size=10, test_size=10)
    assert base.fingerprint == data.load("shapes", train_size=10, test_size=10).fingerprint
    others = [
        data.load("shapes", train_size=10, test_size=10, seed=1),
        data.load("shapes", train_size=9, test_size=11),
        replace(base, train_labels=base.train_labels[::-1]),
        replace(base, test_labels=base.test_labels[::-1]),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert len(base.fingerprint) == 64


@pytest.mark.parametrize("pixels", [False, True], ids=["images", "pixels"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_labels_out_of_range_are_refused_before_any_device_sees_them(part, pixels):
    """CuPy would take class 10 of 10 for class 0, and say nothing."""
    dataset = data.load("shapes", train_size=5, test_size=3, pixels=pixels)
    labels = getattr(dataset, f"{part}_labels").astype(np.int64)
    K = dataset.num_classes
    for wrong in (K, -1):
        labels[1] = wrong
        with pytest.raises(DataError, match=rf"{part} label {wrong} is not one of its {K} classes"):
            replace(dataset, **{f"{part}_labels": labels})
    labels[1] = K - 1
    replace(dataset, **{f"{part}_labels": labels})
    labels[1] = data.IGNORED
    if pixels:
        replace(dataset, **{f"{part}_labels": labels})
    with pytest.raises(DataError, match=rf"{len(labels) - 1} labels for \d+ {part} images"):
        replace(dataset, **{f"{part}_labels": labels[1:]})


@pytest.mark.parametrize("part", ["train", "test"])
def test_data_without_any_label_are_refused(part):
    dataset = data.load("shapes", train_size=5, test_size=3, pixels=True)
    labels = np.full_like(getattr(dataset, f"{part}_labels"), data.IGNORED)
    message = f"not one of {len(labels)} {part} images has a label; .* instead of 255"
    with pytest.raises(DataError, match=message):
        replace(dataset, **{f"{part}_labels": labels})
    labels[-1, 0, 0] = 0
    replace(dataset, **{f"{part}_labels": labels})
    plain = data.load("shapes", train_size=5, test_size=3)
    none = {f"{part}_{kind}": getattr(plain, f"{part}_{kind}")[:0] for kind in ("images", "labels")}
    with pytest.raises(DataError, match=f"it has no {part} images"):
        replace(plain, **none)


def test_shapes_have_a_class_for_every_pixel():
    """On the shape it is the image's, off it the last one; the images are the same."""
    plain = data.load("shapes", train_size=13, test_size=4)
    dense = data.load("shapes", train_size=13, test_size=4, pixels=True)
    assert dense.class_names == (*plain.class_names, "background")
    assert dense.num_classes == 11
    for part, first in (("train", 0), ("test", 2**32)):
        images, labels = (getattr(dense, f"{part}_{kind}") for kind in ("images", "labels"))
        np.testing.assert_array_equal(images, getattr(plain, f"{part}_images"))
        assert (labels.shape, labels.dtype) == (images.shape[:3], np.uint8)
        _, numbers, masks = shapes.draw(first + np.arange(len(images)))
        for label, number, mask in zip(labels, numbers, masks, strict=True):
            assert (label[mask] == number).all()
            assert (label[~mask] == 10).all()
    assert dense.fingerprint != plain.fingerprint


def test_labels_of_pixels_are_refused_where_there_are_none():
    with pytest.raises(
        DataError, match="cifar10 has no labels for pixels, only for images; `shapes` has both"
    ):
        data.load("cifar10", pixels=True)
