"""Floor 1. An own data set in one file: `npz:FILE`, written by numpy.savez.

    np.savez("mine.npz", train_images=..., train_labels=..., test_images=..., test_labels=...,
             class_names=np.array(["cat", "dog"]))

Other usual names are known: x_train, y_train, x_test and y_test, as Keras has them, or images and
labels alone, of which a fifth is kept for testing. Images are uint8 (N, H, W, C), or (N, H, W) if
they are grey; labels (N,) or (N, 1). Names of classes may also be JSON in bytes, or the lines of
names.txt beside the file; without them, classes are called by their numbers. Other arrays in the
file are left alone. No pickle is read.
"""

import contextlib
import json
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tinymixer.arrays import ArrayFile, opened
from tinymixer.data.dataset import (
    MOST_CLASSES,
    Dataset,
    check_images,
    check_shape_of_labels,
    measure_colours,
)
from tinymixer.data.order import kept_for_testing, mixed
from tinymixer.errors import DataError, brief, note, printable

NAMES = {  # what is wanted: the names that it may have, in order
    "train_images": ("train_images", "x_train", "X_train", "train_x", "images_train", "train_data"),
    "train_labels": ("train_labels", "y_train", "Y_train", "train_y", "labels_train"),
    "test_images": ("test_images", "x_test", "X_test", "test_x", "images_test", "test_data"),
    "test_labels": ("test_labels", "y_test", "Y_test", "test_y", "labels_test"),
    "images": ("images", "x", "X", "data", "arr_0"),
    "labels": ("labels", "y", "Y", "targets", "arr_1"),
    "class_names": ("class_names", "classes", "names", "label_names"),
}
MOST_BYTES = 2**29  # of arrays that are packed more than PACKED times: pictures hardly are
PACKED = 20
MOST_NAMES = 2**24  # bytes of the names of classes


def load(file: str | Path, seed: int) -> Dataset:
    """The data set in an .npz file; `seed` decides what is kept for testing by default.

    Raises DataError for a file that is damaged, lacks an array, or holds what a Dataset refuses.
    """
    path = Path(file).expanduser()
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected an .npz file. For pictures, use folder:PATH")
    try:
        with opened(path, text=True) as archive:
            there = {part: _name(archive, names) for part, names in NAMES.items()}
            arrays, names = _read(path, archive, there)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except DataError:
        raise
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is not an .npz file of images and labels, as numpy.savez writes: "
            f"{brief(error)}"
        ) from error
    except RuntimeError as error:  # zipfile, for a password
        raise DataError(f"{path} cannot be read: {brief(error)}") from error
    if "images" in arrays:
        arrays = _divided(arrays["images"], arrays["labels"], seed)
    count = 1 + max(int(arrays[f"{part}_labels"].max(initial=0)) for part in ("train", "test"))
    for part in ("train", "test"):
        if (lowest := arrays[f"{part}_labels"].min(initial=0)) < 0:
            raise DataError(
                f"{path}: {part} label {lowest}; expected numbers of classes, from 0 on"
            )
    names = names or _beside(path) or tuple(str(i) for i in range(max(0, min(count, MOST_CLASSES))))
    if not len(arrays["train_images"]):
        raise DataError(f"{path}: it has no images to train on")
    mean, std = measure_colours(arrays["train_images"])
    names = tuple(map(printable, names))
    dataset = Dataset(printable(path.stem), **arrays, class_names=names, mean=mean, std=std)
    if not (dataset.train_labels == 0).any():
        note(f"{path}: no label to train on is 0, the class {names[0]!r}; labels count from 0")
    return dataset


def _name(archive: ArrayFile, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in {**archive.stored, **archive.refused}), None)


def _read(
    path: Path, archive: ArrayFile, there: dict[str, str | None]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays that are needed, and the names of the classes; types and shapes come first."""
    parts = ["train", "test"]
    wanted = [f"{part}_{kind}" for part in parts for kind in ("images", "labels")]
    if not any(there[part] for part in wanted):
        wanted, parts = ["images", "labels"], [""]
    if missing := [NAMES[part] for part in wanted if there[part] is None]:
        raise DataError(
            f"{path} has no array {' or '.join(missing[0])}; it has "
            f"{brief(', '.join(archive.stored) or 'none', 200)}"
        )
    for part in (*wanted, "class_names"):
        if (name := there[part]) in archive.refused:
            expected = "text, such as np.array(names)" if part == "class_names" else "numbers"
            raise DataError(f"{path}: {name} is {archive.refused[name]}; expected {expected}")
    stored = {part: archive.stored[str(there[part])] for part in wanted}
    for part, head in stored.items():
        what = f"{path}: {there[part]}"
        if head.dtype.kind in "US":
            cure = "; class_names, labels = np.unique(labels, return_inverse=True) makes them of it"
            cure = cure if part.endswith("labels") else ""
            raise DataError(f"{what} holds text; expected numbers{cure}")
        grey = len(head.shape) == 3 and head.dtype == np.uint8
        if part.endswith("images") and not grey:
            check_images(what, head)
    for part in parts:
        images, labels = (f"{part}_{kind}".lstrip("_") for kind in ("images", "labels"))
        if len(stored[labels].shape) != 2 or stored[labels].shape[1] != 1:
            check_shape_of_labels(f"{path}: {there[labels]}", stored[labels], stored[images])
    size = sum(head.nbytes for head in stored.values())
    if size > max(MOST_BYTES, PACKED * path.stat().st_size):
        raise DataError(f"{path} unpacks to {size / 1e9:,.1f} GB, far more than pictures do")
    arrays = {part: archive.read(str(there[part])) for part in wanted}
    for part, array in arrays.items():
        if part.endswith("images") and array.ndim == 3:
            arrays[part] = array[..., None]
        elif part.endswith("labels") and array.ndim == 2:
            arrays[part] = array[:, 0]
    return arrays, _class_names(path, archive, there["class_names"])


def _class_names(path: Path, archive: ArrayFile, name: str | None) -> tuple[str, ...]:
    """Words, or bytes of JSON; none if there is no such array."""
    if name is None:
        return ()
    stored = archive.stored[name]
    if stored.nbytes > MOST_NAMES or len(stored.shape) != 1:
        raise DataError(
            f"{path}: {name} has shape {stored.shape}; expected one name for each class"
        )
    array = archive.read(name)
    if stored.dtype.kind == "S":
        return tuple(x.decode(errors="replace") for x in array.tolist())
    if stored.dtype.kind == "U":
        if np.frombuffer(array.tobytes(), "<u4").max(initial=0) > sys.maxunicode:
            raise DataError(f"{path}: {name} has letters that there are not; it is damaged")
        return tuple(str(x) for x in array)
    if stored.dtype == np.uint8:
        found = None
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(array.tobytes())
        if isinstance(found, list) and all(isinstance(x, str) for x in found):
            return tuple(found)
    raise DataError(
        f"{path}: {name} is of type {stored.dtype}; expected text, or a list of names as JSON in "
        "bytes (uint8)"
    )


def _beside(path: Path) -> tuple[str, ...]:
    """The lines of names.txt beside the file; none if there is no such file."""
    file = path.with_name("names.txt")
    if not file.is_file():
        return ()
    if file.stat().st_size > MOST_NAMES:
        raise DataError(f"{file} has {file.stat().st_size} bytes; expected a name on each line")
    try:
        return tuple(file.read_text(encoding="utf-8-sig").split("\n")[: MOST_CLASSES + 1])
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}; expected a name on each line") from error


def _divided(images: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Four fifths to train on, the rest for testing; both mix the classes."""
    names = [str(i) for i in range(len(labels))]
    if labels.ndim == 1:
        test, order = kept_for_testing(names, labels, seed), mixed(names, labels, seed)
    else:  # classes of pixels: all images are of one kind
        one = np.zeros(len(labels), int)
        test, order = kept_for_testing(names, one, seed), mixed(names, one, seed)
    train, kept = order[~test[order]], order[test[order]]
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[kept],
        "test_labels": labels[kept],
    }
