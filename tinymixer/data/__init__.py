"""Floor 1. Images and labels: published data sets, `shapes`, drawn on the fly, and your own.

    data = load("cifar10")                          # from --data-dir, $TINYMIXER_DATA or data/
    data = load("folder:flowers", image_size=64)    # your own pictures, a folder for each class
    x = normalise(data.test_images, data.mean, data.std)

A data set is four arrays in memory. Pixels stay uint8 until they are normalised.
"""

import os
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer.data import cifar, folder, idx, npz, shapes
from tinymixer.data.augment import IGNORED, Augment, normalise
from tinymixer.data.containers import Unreadable, members
from tinymixer.data.dataset import Dataset
from tinymixer.data.download import alone_in
from tinymixer.data.source import MOST_IMAGES, NAMES, OWN, Source
from tinymixer.errors import DataError, DataMissing, brief, counted

__all__ = [
    "IGNORED",
    "NAMES",
    "OWN",
    "Augment",
    "Dataset",
    "Source",
    "add",
    "download",
    "find",
    "load",
    "normalise",
]

MOST_SHAPES = MOST_IMAGES  # training images; test images are numbered from here
TRAIN_SHAPES, TEST_SHAPES = 20_000, 4_000  # images by default


# --- The table of loaders ------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A data set that is in files: what it is, and the functions that find, read and store them.

    Each takes `layout` first: locate(folder), recognises(path), dataset(name, path), store(path,
    data_dir), download(data_dir).
    """

    layout: Any
    room: Any


PUBLISHED = {
    "cifar10": Published(cifar.CIFAR10, cifar),
    "cifar100": Published(cifar.CIFAR100, cifar),
    **{name: Published(layout, idx) for name, layout in idx.LAYOUTS.items()},
}


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    train_size: int | None = None,
    test_size: int | None = None,
    pixels: bool = False,
    seed: int = 0,
    image_size: int | None = None,
) -> Dataset:
    """The data set `name`, one of NAMES, "folder:PATH" or "npz:FILE", in memory.

    Only the first `train_size` and `test_size` images are kept; None keeps all of them, or 20,000
    and 4,000 shapes, drawn from `seed`. With `pixels` every pixel has a label, and "background" is
    the last class of shapes. A missing data set is downloaded first if `download` is true.
    `image_size` is the side, in pixels, that the pictures of a folder are brought to; the seed
    decides which of your own images are kept for testing by default.

    Raises DataError for a data set that is unknown, damaged or without labels for pixels, and for a
    size below 1 or above the number of images; DataMissing for one that is not there.
    """
    for option, size in (("train_size", train_size), ("test_size", test_size)):
        if size is not None and size < 1:
            raise DataError(f"{name}: {option}={size}: expected at least one image")
        if size is not None and name == "shapes" and size > MOST_SHAPES:
            raise DataError(f"{name}: {option}={size}: expected at most {MOST_SHAPES:,} images")
    kind, colon, place = name.partition(":")
    if image_size is not None and kind != "folder":
        raise DataError(f"{name} has images of one size; image_size is for folder:PATH")
    if name == "shapes":
        train_size = TRAIN_SHAPES if train_size is None else train_size
        test_size = TEST_SHAPES if test_size is None else test_size
        drawn = _shapes(train_size, test_size, seed, pixels)
        return drawn.loaded_from(Source(name, train_size, test_size, image_size, pixels, seed))
    if pixels and (name in PUBLISHED or kind == "folder"):
        raise DataError(f"{name} has no labels for pixels, only for images; `shapes` has both")
    if colon and place and kind == "folder":
        dataset = folder.load(place, image_size, seed)
    elif colon and place and kind == "npz":
        dataset = npz.load(place, seed)
        if pixels != (dataset.train_labels.ndim == 3):
            labels = "one for each image" if pixels else "one for each pixel; add --task segment"
            raise DataError(f"{name} has labels of another kind, {labels}")
    else:
        dataset = _published(name, data_dir, download)
    source = Source(name, train_size, test_size, image_size, pixels, seed)
    return _first(dataset, train_size, test_size).loaded_from(source)


def _published(name: str, data_dir: str | Path | None, download: bool) -> Dataset:
    loader = _loader(name)
    path = find(name, data_dir)
    if path is None:
        if not download:
            raise _missing(name, data_dir)
        home = _home(data_dir)
        with alone_in(home):
            path = find(name, data_dir) or loader.room.download(loader.layout, home)
    return loader.room.dataset(loader.layout, name, path)


def _first(dataset: Dataset, train_size: int | None, test_size: int | None) -> Dataset:
    """The data set with the first images of each part only."""
    fewer = {}
    for part, size in (("train", train_size), ("test", test_size)):
        there = len(getattr(dataset, f"{part}_images"))
        if size is not None and size > there:
            raise DataError(
                f"{dataset.name}: {part}_size={size}: expected at most {counted(there, 'image')}"
            )
        if size is not None:
            for kind in ("images", "labels"):
                fewer[f"{part}_{kind}"] = getattr(dataset, f"{part}_{kind}")[:size]
    return replace(dataset, **fewer) if fewer else dataset


def _loader(name: str) -> Published:
    if name not in PUBLISHED:
        raise DataError(
            f"unknown data set {brief(repr(name), 60)}: expected one of {', '.join(NAMES)}, or "
            f"your own as {' or '.join(f'{kind}:{place}' for kind, place in OWN.items())}"
        )
    return PUBLISHED[name]


def _shapes(train_size: int, test_size: int, seed: int, pixels: bool) -> Dataset:
    """Training images are numbered from 0, test images from 2**32: the two never overlap."""
    train_images, train_labels, train_masks = shapes.draw(np.arange(train_size), seed)
    test_images, test_labels, test_masks = shapes.draw(
        MOST_SHAPES + np.arange(test_size, dtype=np.int64), seed
    )
    names = shapes.CLASS_NAMES
    if pixels:
        train_labels = shapes.of_pixels(train_labels, train_masks)
        test_labels = shapes.of_pixels(test_labels, test_masks)
        names = (*names, "background")
    return Dataset(
        "shapes",
        train_images,
        train_labels,
        test_images,
        test_labels,
        names,
        shapes.MEAN,
        shapes.STD,
    )


# --- Where published data sets are ---------------------------------------------------------------


def find(name: str, data_dir: str | Path | None = None) -> Path | None:
    """The folder or archive that holds a data set; None if it is not found, or needs no file.

    Looks into `data_dir`, then $TINYMIXER_DATA, then ./data, then data/ of the checkout.
    """
    if name == "shapes":
        return None
    loader = _loader(name)
    for place in _folders(data_dir):
        try:
            if path := loader.room.locate(loader.layout, place):
                return path
        except OSError as error:
            raise DataError(f"{place} cannot be read: {error.strerror or error}") from error
    return None


def download(name: str, data_dir: str | Path | None = None) -> Dataset:
    """The data set, downloaded unless a whole one is there. A damaged one stays where it is."""
    try:
        return load(name, data_dir, download=True)
    except DataMissing:
        raise
    except DataError:
        if name not in PUBLISHED:
            raise
    home, loader = _home(data_dir), PUBLISHED[name]
    with alone_in(home):
        try:
            return load(name, data_dir)  # another process may have downloaded it meanwhile
        except DataError:
            loader.room.download(loader.layout, home)
    return load(name, data_dir)


def add(file: str | Path, data_dir: str | Path | None = None) -> Path:
    """Store the published data set in a file or folder of the user's, in its standard form.

    Which one it is, and in which form, its content says. All of it is checked before anything is
    written. Returns the folder that now holds it, under `data_dir` or where `load` would download
    to. Raises DataError for anything else, and for a damaged file.
    """
    path = Path(file).expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file; give the path of an archive that exists")
    for loader in PUBLISHED.values():
        if loader.room.recognises(loader.layout, path):
            if path.is_dir():
                path = loader.room.locate(loader.layout, path) or path
            home = _home(data_dir)
            with alone_in(home):
                return loader.room.store(loader.layout, path, home)
    raise DataError(f"{path}: {_why_unknown(path)}. {_WHAT_CAN_BE_ADDED}")


_WHAT_CAN_BE_ADDED = (
    "Expected an archive or a folder of CIFAR-10 or CIFAR-100 as published, under any name, or one "
    "with the four IDX files of MNIST, Fashion-MNIST or KMNIST in a folder of that name. Train on "
    "pictures of your own with --dataset folder:PATH, on arrays with --dataset npz:FILE"
)


def _why_unknown(path: Path) -> str:
    """What is wrong with a file that is of no published data set, as far as its content tells."""
    try:
        found = [member.base for member in islice(members(path), 3)]
    except (Unreadable, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return brief(reason)
    if not found:
        return "it holds no files"
    return f"it is of no data set that is known; it holds {brief(', '.join(found), 120)}"


def _folders(data_dir: str | Path | None) -> list[Path]:
    """The folders to look in, in this order."""
    checkout = Path(__file__).parents[2] / "data"
    given = [data_dir, os.environ.get("TINYMIXER_DATA"), "data"]
    try:
        folders = [Path(folder).expanduser() for folder in given if folder]
    except RuntimeError as error:  # the ~name of a user who does not exist
        asked = " or ".join(str(folder) for folder in given[:2] if folder)
        raise DataError(
            f"{asked}: {str(error).rstrip('.')}; expected the path of a folder in --data-dir, and "
            "in TINYMIXER_DATA if that is set"
        ) from error
    return [*folders, checkout] if (checkout / "checksums.txt").exists() else folders


def _home(data_dir: str | Path | None) -> Path:
    """The folder for new data: the one that the user named, else the first that exists."""
    folders = _folders(data_dir)
    if data_dir or os.environ.get("TINYMIXER_DATA"):
        return folders[0]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _missing(name: str, data_dir: str | Path | None) -> DataMissing:
    loader = PUBLISHED[name]
    looked = ", ".join(str(folder) for folder in _folders(data_dir))
    return DataMissing(
        f"{loader.layout.title} was not found in {looked}. Download it with `tinymixer data "
        f"download {name}`, add {loader.layout.what_to_add} with `tinymixer data add FILE`, or "
        "name its folder with --data-dir. The built-in `shapes` needs no file"
    )
