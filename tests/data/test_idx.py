"""MNIST, Fashion-MNIST and KMNIST: IDX files of any name, packed or not, and the right ones."""

import gzip
import hashlib
import io

import numpy as np
import pytest
from cifar_forms import unpacked, zipped
from fake_cifar import tar_gz
from own_files import H, N, W, arrays, files, written

from tinymixer import data
from tinymixer.data import idx
from tinymixer.errors import DataError, DataMissing


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv("TINYMIXER_DATA", raising=False)
    monkeypatch.setattr(data, "__file__", str(tmp_path / "a" / "b" / "c" / "__init__.py"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def assert_loaded(dataset, made):
    for part, x in made.items():
        found = getattr(dataset, part)
        np.testing.assert_array_equal(found, x[..., None] if x.ndim == 3 else x)
    assert dataset.train_images.shape == (N, H, W, 1)
    assert dataset.train_labels.dtype == np.int64
    pixels = made["train_images"].astype(float)
    np.testing.assert_allclose(dataset.mean, [pixels.mean()])
    np.testing.assert_allclose(dataset.std, [pixels.std()])


@pytest.mark.parametrize("naming", ["{}", "{0}/{0}"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "MNIST/raw"),
        ("mnist", "mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("fashion_mnist", "data/fashion"),
        ("kmnist", "KMNIST/raw"),
        ("kmnist", "."),
    ],
)
def test_files_are_found_where_others_put_them(name, folder, packed, naming, tmp_path):
    made = arrays()
    suffix = ".gz" if packed and "/" not in naming else ""
    unpacked(tmp_path / "data" / folder, files(made, naming + suffix, packed))
    dataset = data.load(name, tmp_path / "data")
    assert_loaded(dataset, made)
    assert dataset.class_names == idx.LAYOUTS[name].class_names
    assert dataset.name == name


def test_other_names_of_the_four_files_are_known(tmp_path):
    made = arrays()
    named = {
        "train_images": "train-images.idx3-ubyte",
        "train_labels": "train_labels (1).gz",
        "test_images": "test-images-idx3-ubyte",
        "test_labels": "t10k-labels.idx1-ubyte",
    }
    unpacked(tmp_path, {named[part]: written(x) for part, x in made.items()})
    assert_loaded(data.load("mnist", tmp_path), made)


def test_the_three_are_told_apart(tmp_path):
    """By their first labels, whatever the folder is called; else by the folder."""
    mnist, fashion = arrays(idx.MNIST.begins), arrays(idx.FASHION.begins)
    unpacked(tmp_path / "FashionMNIST" / "raw", files(fashion))
    with pytest.raises(DataMissing, match="MNIST was not found"):
        data.load("mnist", tmp_path)
    unpacked(tmp_path / "loose", files(mnist))
    assert_loaded(data.load("mnist", tmp_path), mnist)
    assert_loaded(data.load("fashion_mnist", tmp_path), fashion)
    with pytest.raises(DataError, match="these are the files of MNIST"):
        data.load("fashion_mnist", tmp_path / "loose")
    kmnist = arrays(idx.KMNIST.begins)
    unpacked(tmp_path / "other" / "MNIST", files(kmnist))
    assert_loaded(data.load("kmnist", tmp_path / "other" / "MNIST"), kmnist)
    with pytest.raises(DataError, match="these are the files of KMNIST"):
        data.load("mnist", tmp_path / "other")


@pytest.mark.parametrize("packed", ["tar.gz", "zip", "folder"])
def test_add_tells_by_the_labels_or_the_name(packed, tmp_path):
    for name, begins, place in (
        ("mnist", idx.MNIST.begins, "archive"),
        ("fashion_mnist", idx.FASHION.begins, "archive"),
        ("kmnist", idx.KMNIST.begins, "archive"),
        ("kmnist", (), "kmnist"),
    ):
        made = arrays(begins)
        members = files(made, packed=True)
        if packed == "folder":
            given = unpacked(tmp_path / name / place, members)
        else:
            write = zipped if packed == "zip" else tar_gz
            given = write(tmp_path / f"{place}-{name[0]}.{packed}", members)
        home = tmp_path / "home"
        assert data.add(given, home) == home / name
        assert_loaded(data.load(name, home), made)


def test_add_does_not_guess(tmp_path):
    given = unpacked(tmp_path / "digits", files(arrays()))
    with pytest.raises(DataError, match="in a folder of that name"):
        data.add(given, tmp_path / "home")


def test_a_download_is_stored_unpacked(tmp_path, monkeypatch):
    made = arrays(idx.FASHION.begins)
    contents = files(made, "{}.gz", packed=True)

    def fetch(sources, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / sources[0].file).write_bytes(contents[sources[0].file])
        return folder / sources[0].file

    monkeypatch.setattr(idx, "fetch", fetch)
    home = tmp_path / "home"
    assert_loaded(data.load("fashion_mnist", home, download=True), made)
    assert sorted(p.name for p in home.rglob("*") if p.is_file()) == sorted(idx.PARTS.values())


def test_sums_and_names_are_the_published_ones():
    """The MD5 sums, as many programs check them; SHA-256 over all of them, one a line."""
    sums = "\n".join(md5 for layout in idx.LAYOUTS.values() for md5 in layout.md5)
    digest = "a2d29042b2f2f3909a878bb7952c8408d9431d635f6de8b58cda9302c6c60ac0"
    assert hashlib.sha256(sums.encode()).hexdigest() == digest
    for layout in idx.LAYOUTS.values():
        assert len(set(layout.class_names)) == 10
        for sources, name in zip(layout.sources, idx.PARTS.values(), strict=True):
            assert all(s.file == f"{name}.gz" and s.url.startswith("https://") for s in sources)


def bomb(size):
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9) as out:
        out.write(bytes([0, 0, 8, 3]) + np.array([size, 1024, 1024], ">u4").tobytes())
        for _ in range(size):
            out.write(bytes(2**20))
    return file.getvalue()


def head(*numbers, kind=8):
    return bytes([0, 0, kind, len(numbers)]) + np.array(numbers, ">u4").tobytes()


IMAGES = head(N, H, W) + bytes(N * H * W)
WRONG = {
    "cut short": (IMAGES[:-1], r"states 60 x 28 x 28 numbers and has 47039"),
    "longer": (IMAGES + b"x", "states 60 x 28 x 28 numbers and has 47041"),
    "empty": (b"", "it is empty"),
    "a head only": (head(N, H, W), "states 60 x 28 x 28 numbers and has 0"),
    "half a head": (head(N, H, W)[:9], "is not an IDX file of bytes with 3 axes"),
    "absurd": (head(2**32 - 1, 2**32 - 1, 2**32 - 1) + b"x", "states 4294967295 x"),
    "floats": (head(N, H, W, kind=13) + bytes(4 * N * H * W), "not an IDX file of bytes"),
    "labels": (head(N) + bytes(N), "with 3 axes; it begins 00000801"),
    "another count": (head(N - 1, H, W) + bytes((N - 1) * H * W), "60 labels for 59 train images"),
    "none": (head(0, H, W), "60 labels for 0 train images"),
    "a web page": (b"<!DOCTYPE html><title>404</title>", "it is a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
    "half packed": (gzip.compress(IMAGES)[:-9], "is not a complete .gz file"),
    "packed and spoiled": (gzip.compress(IMAGES)[:20] + b"\xff" * 30, "not a complete .gz file"),
    "a bomb": (bomb(300), "unpacks to more than 256 MiB"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_named(kind, tmp_path):
    content, message = WRONG[kind]
    made = files(arrays())
    made["train-images-idx3-ubyte"] = content
    unpacked(tmp_path / "mnist", made)
    with pytest.raises(DataError, match=message) as error:
        data.load("mnist", tmp_path, download=True)
    assert "data download mnist" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_label_that_is_no_class_is_refused(tmp_path):
    made = arrays()
    made["test_labels"][3] = 10
    unpacked(tmp_path / "mnist", files(made))
    with pytest.raises(DataError, match="test label 10, expected 0 to 9"):
        data.load("mnist", tmp_path)


def test_a_missing_file_is_named(tmp_path):
    made = files(arrays())
    del made["t10k-images-idx3-ubyte"]
    unpacked(tmp_path / "mnist", made)
    with pytest.raises(DataError, match="1 file missing: t10k-images-idx3-ubyte"):
        data.load("mnist", tmp_path)
