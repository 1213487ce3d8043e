"""Own arrays in an .npz file, under the names that are usual."""

import json

import numpy as np
import pytest

from tinymixer import data
from tinymixer.data import npz
from tinymixer.data.dataset import measure_colours
from tinymixer.errors import DataError, Note

N, M, H, W, K = 30, 10, 6, 7, 3
RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, H, W, 3), np.uint8) for n in (N, M))
LABELS, TEST_LABELS = np.arange(N) % K, np.arange(M) % K
WORDS = np.array(["cat", "dog", "Eule"])


def saved(path, **arrays):
    np.savez(path, **arrays)
    return data.load(f"npz:{path}")


def keras(**changes):
    parts = {"x_train": TRAIN, "y_train": LABELS, "x_test": TEST, "y_test": TEST_LABELS}
    return parts | changes


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "y_train", "X_test", "y_test"),
    ],
)
def test_four_arrays_under_usual_names(names, tmp_path):
    four = dict(zip(names, (TRAIN, LABELS, TEST, TEST_LABELS), strict=True))
    dataset = saved(tmp_path / "mine.npz", **four, class_names=WORDS, extra=np.zeros(3))
    np.testing.assert_array_equal(dataset.train_images, TRAIN)
    np.testing.assert_array_equal(dataset.train_labels, LABELS)
    np.testing.assert_array_equal(dataset.test_images, TEST)
    np.testing.assert_array_equal(dataset.test_labels, TEST_LABELS)
    assert (dataset.name, dataset.class_names) == ("mine", ("cat", "dog", "Eule"))
    odd = saved(tmp_path / "mine.npz", **four, class_names=np.array(["a\n", "\x1b[1m", "c"]))
    assert odd.class_names == ("a ", r"\x1b[1m", "c")  # a checkpoint takes nothing else
    assert (dataset.mean, dataset.std) == measure_colours(TRAIN)
    np.testing.assert_allclose(dataset.mean, TRAIN.mean((0, 1, 2)))


def test_grey_images_and_labels_in_a_column(tmp_path):
    np.savez(
        tmp_path / "x.npz",
        **keras(x_train=TRAIN[..., 0], x_test=TEST[..., 0], y_train=LABELS[:, None]),
    )
    dataset = data.load(f"npz:{tmp_path / 'x.npz'}")
    np.testing.assert_array_equal(dataset.train_images, TRAIN[..., :1])
    np.testing.assert_array_equal(dataset.train_labels, LABELS)
    assert dataset.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("x", "y"), ("X", "y"), ("data", "targets")]
)
def test_two_arrays_are_divided(names, tmp_path):
    pair = dict(zip(names, (TRAIN, LABELS), strict=True))
    dataset = saved(tmp_path / "x.npz", **pair)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), [8] * K)
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [2] * K)
    for part in ("train", "test"):
        for image, label in zip(
            getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels"), strict=True
        ):
            [index] = np.flatnonzero((image == TRAIN).all((1, 2, 3)))
            assert LABELS[index] == label
    assert saved(tmp_path / "y.npz", **pair).fingerprint == dataset.fingerprint


def test_names_of_classes_in_bytes_or_beside(tmp_path):
    said = np.frombuffer(json.dumps(["a", "b", "ç"]).encode(), np.uint8)
    assert saved(tmp_path / "x.npz", **keras(class_names=said)).class_names == ("a", "b", "ç")
    (tmp_path / "names.txt").write_text("one\ntwo\nthree", encoding="utf-8")
    assert saved(tmp_path / "x.npz", **keras()).class_names == ("one", "two", "three")
    assert saved(tmp_path / "x.npz", **keras(classes=WORDS)).class_names == ("cat", "dog", "Eule")
    encoded = np.char.encode(np.array(["cat", "dog", "façade"]), "utf-8")
    assert saved(tmp_path / "x.npz", **keras(names=encoded)).class_names == ("cat", "dog", "façade")


def test_labels_that_count_from_1_are_noted(tmp_path):
    with pytest.warns(Note, match="no label to train on is 0, the class '0'; labels count from 0"):
        dataset = saved(tmp_path / "x.npz", **keras(y_train=LABELS + 1, y_test=TEST_LABELS + 1))
    assert dataset.class_names == ("0", "1", "2", "3")


def test_arrays_of_any_type_beside_them_are_left_alone(tmp_path):
    others = {"made": np.datetime64("2026-01-01"), "who": np.array([{}]), "z": np.zeros(2, "c8")}
    assert len(saved(tmp_path / "x.npz", **keras(**others)).train_images) == N


def test_classes_of_pixels(tmp_path):
    maps = {"y_train": np.zeros((N, H, W), np.uint8), "y_test": np.ones((M, H, W), np.uint8)}
    np.savez(tmp_path / "x.npz", **keras(**maps, class_names=WORDS))
    assert data.load(f"npz:{tmp_path / 'x.npz'}", pixels=True).train_labels.shape == (N, H, W)
    with pytest.raises(DataError, match="one for each pixel; add --task segment"):
        data.load(f"npz:{tmp_path / 'x.npz'}")
    np.savez(tmp_path / "x.npz", **keras())
    with pytest.raises(DataError, match="one for each image"):
        data.load(f"npz:{tmp_path / 'x.npz'}", pixels=True)


def test_a_packed_file_is_read_and_the_source_is_kept(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **keras())
    dataset = data.load(f"npz:{tmp_path / 'x.npz'}", train_size=7)
    assert len(dataset.train_images) == 7
    assert dataset.source.load().fingerprint == dataset.fingerprint


WRONG = {
    "floats": (keras(x_train=TRAIN / 255), r"x_train has shape .* float64; expected uint8"),
    "flat": (keras(x_train=TRAIN.reshape(N, -1)), r"expected \(images, height, width"),
    "channels first": (keras(x_train=TRAIN.transpose(0, 3, 1, 2)), "Put the channels last"),
    "one-hot": (keras(y_train=np.eye(K, dtype=int)[LABELS]), r"labels\.argmax\(1\)"),
    "labels that are floats": (keras(y_test=TEST_LABELS / 1), "expected whole numbers"),
    "words for labels": (
        keras(y_train=WORDS[LABELS]),
        r"holds text; expected numbers; class_names, labels = np.un",
    ),
    "fewer labels": (keras(y_train=LABELS[1:]), "29 labels for 30 train images"),
    "another size": (keras(x_test=TEST[:, 1:]), "training images are 6x7 .*, test images 5x7"),
    "below 0": (keras(y_train=LABELS - 1), "train label -1; expected numbers of classes, from 0"),
    "two classes below 0": (keras(y_train=LABELS % 2 - 1, y_test=TEST_LABELS * 0), "label -1; ex"),
    "more classes than names": (keras(y_train=LABELS + 1, class_names=WORDS), "train label 3 is"),
    "one class": (keras(y_train=LABELS * 0, y_test=TEST_LABELS * 0), "1 class; expected 2"),
    "too many classes": (keras(y_train=LABELS + 10**9), "is not one of its 100000 classes"),
    "a name twice": (keras(class_names=WORDS[[0, 0, 1]]), "has 'cat' twice"),
    "no labels": ({"x_train": TRAIN}, "has no array train_labels or y_train"),
    "other names": ({"pictures": TRAIN}, "has no array images or x or X .*; it has pictures"),
    "nothing": ({}, "it has none"),
    "no images": (keras(x_train=TRAIN[:0], y_train=LABELS[:0]), "no images to train on"),
    "objects": (
        keras(x_train=np.array([{}] * N)),
        "x_train is an array of type '|O'; expected num",
    ),
    "names in two axes": (keras(class_names=WORDS[None]), r"class_names has shape \(1, 3\)"),
    "numbers for names": (keras(class_names=np.arange(3)), "class_names is of type int64; expec"),
    "bytes for names": (
        keras(class_names=np.arange(3).astype(np.uint8)),
        "of type uint8; expected text",
    ),
    "deep names": (keras(class_names=np.frombuffer(b"[" * 90_000, np.uint8)), "expected text, or"),
    "objects for names": (
        keras(class_names=WORDS.astype(object)),
        r"expected text, such as np\.arr",
    ),
    "truths for labels": (keras(y_train=LABELS > 1), r"type bool; .* labels\.astype\(np\.int64\)"),
    "truths for images": (keras(x_train=TRAIN > 9), r"become 0 and 255 by images \* np\.uint8"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_named(kind, tmp_path):
    arrays, message = WRONG[kind]
    file = tmp_path / "x.npz"
    np.savez_compressed(file, **arrays)
    with pytest.raises(DataError, match=message) as error:
        data.load(f"npz:{file}")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an .npz file of images and labels"),
        (b"PK\3\4 and no more", "its end is missing"),
        (b"<html>", "is not an .npz file"),
        (b"\x93NUMPY\1\0", r"it is a single array \(.npy\); save it by its name"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_npz_file_is_named(content, message, tmp_path):
    file = tmp_path / "x.npz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load(f"npz:{file}")
    with pytest.raises(DataError, match=r"is a folder; expected an .npz file.*folder:PATH"):
        data.load(f"npz:{tmp_path}")


def test_a_letter_that_is_none_is_refused(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, **keras(class_names=np.array([0xFFFFFFFF] * 9, "<u4").view("<U3")))
    with pytest.raises(DataError, match="class_names has letters that there are not"):
        data.load(f"npz:{file}")


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MOST_BYTES", 10**5)
    zeros = {"images": np.zeros((100, 64, 64, 3), np.uint8), "labels": np.arange(100) % 2}
    np.savez_compressed(tmp_path / "x.npz", **zeros)
    with pytest.raises(DataError, match=r"unpacks to 0\.0 GB, far more than pictures do"):
        data.load(f"npz:{tmp_path / 'x.npz'}")
    np.savez(tmp_path / "x.npz", **zeros)  # as large as it says
    assert len(data.load(f"npz:{tmp_path / 'x.npz'}").train_images) == 80
