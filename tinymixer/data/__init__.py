"""Floor 1. Images and labels: CIFAR-10, CIFAR-100, and `shapes`, which is drawn on the fly.

    data = load("cifar10")                          # from --data-dir, $TINYMIXER_DATA or data/
    x = normalise(data.test_images, data.mean, data.std)

A data set is four arrays in memory. Pixels stay uint8 until they are normalised.
"""

import os
from pathlib import Path

import numpy as np

from tinymixer.data import cifar, shapes
from tinymixer.data.augment import IGNORED, Augment, normalise
from tinymixer.data.dataset import Dataset
from tinymixer.data.download import fetch
from tinymixer.errors import DataError

__all__ = ["IGNORED", "NAMES", "Augment", "Dataset", "add", "find", "load", "normalise"]

_LAYOUTS = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}
NAMES = (*_LAYOUTS, "shapes")
MOST_SHAPES = 2**32  # training images; test images are numbered from here
TRAIN_SHAPES, TEST_SHAPES = 20_000, 4_000  # images by default


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    train_size: int | None = None,
    test_size: int | None = None,
    pixels: bool = False,
    seed: int = 0,
) -> Dataset:
    """The data set `name`, one of NAMES, in memory.

    Only the first `train_size` and `test_size` images are kept; None keeps all of them, or 20,000
    and 4,000 shapes, drawn from `seed`. With `pixels` every pixel has a label, and "background" is
    the last class. A missing data set is downloaded first if `download` is true.

    Raises DataError for a data set that is unknown, missing, damaged or without labels for pixels,
    and for a size below 1 or above the number of images.
    """
    for option, size in (("train_size", train_size), ("test_size", test_size)):
        if size is not None and size < 1:
            raise DataError(f"{name}: {option}={size}: expected at least one image")
        if size is not None and name == "shapes" and size > MOST_SHAPES:
            raise DataError(f"{name}: {option}={size}: expected at most {MOST_SHAPES:,} images")
    if pixels and name in _LAYOUTS:
        raise DataError(f"{name} has no labels for pixels, only for images; `shapes` has both")
    if name == "shapes":
        train_size = TRAIN_SHAPES if train_size is None else train_size
        test_size = TEST_SHAPES if test_size is None else test_size
        return _shapes(train_size, test_size, seed, pixels)
    layout = _layout(name)
    path = find(name, data_dir)
    if path is None:
        if not download:
            raise _missing(name, data_dir)
        path = _download(layout, _home(data_dir))
    *train, test = cifar.read(layout, path).values()
    train_images, train_labels = cifar.images_and_labels(layout, train)
    test_images, test_labels = cifar.images_and_labels(layout, [test])
    for option, size, images in (
        ("train_size", train_size, train_images),
        ("test_size", test_size, test_images),
    ):
        if size is not None and size > len(images):
            raise DataError(f"{name}: {option}={size}: expected at most {len(images):,} images")
    return Dataset(
        name,
        train_images[:train_size],
        train_labels[:train_size],
        test_images[:test_size],
        test_labels[:test_size],
        layout.class_names,
        layout.mean,
        layout.std,
    )


def find(name: str, data_dir: str | Path | None = None) -> Path | None:
    """The folder or archive that holds a data set; None if it is not found, or needs no file.

    Looks into `data_dir`, then $TINYMIXER_DATA, then ./data, then data/ of the checkout.
    """
    if name == "shapes":
        return None
    layout = _layout(name)
    found = (cifar.locate(layout, folder) for folder in _folders(data_dir))
    return next((path for path in found if path), None)


def add(file: str | Path, data_dir: str | Path | None = None) -> Path:
    """Store the data set in a user's archive in the standard binary layout.

    All of it is checked before anything is written. Returns the folder that now holds it, under
    `data_dir` or where `load` would download to. Raises DataError for another or a damaged file.
    """
    file = Path(file)
    for layout in _LAYOUTS.values():
        if file.name in layout.archives or file.name in (layout.folder, layout.python_folder):
            if not file.exists():
                raise DataError(f"{file}: no such file; give the path of an archive that exists")
            if file.is_dir() and file.name in layout.archives:
                raise DataError(f"{file} is a folder; give the path of the archive itself")
            return cifar.write(layout, cifar.read(layout, file), _home(data_dir))
    known = " or ".join(name for layout in _LAYOUTS.values() for name in layout.archives)
    raise DataError(
        f"{file}: expected an archive with its published name, {known}; rename it if you renamed it"
    )


def _layout(name: str) -> cifar.Layout:
    if name not in _LAYOUTS:
        raise DataError(f"unknown data set {name!r}: expected one of {', '.join(NAMES)}")
    return _LAYOUTS[name]


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


def _missing(name: str, data_dir: str | Path | None) -> DataError:
    layout = _LAYOUTS[name]
    looked = ", ".join(str(folder) for folder in _folders(data_dir))
    return DataError(
        f"{layout.title} was not found in {looked}. Download it with `tinymixer data download "
        f"{name}`, add its archive ({' or '.join(layout.archives)}) with `tinymixer data add "
        "FILE`, or name its folder with --data-dir. The built-in `shapes` needs no file"
    )


def _download(layout: cifar.Layout, data_dir: Path) -> Path:
    archive = fetch(layout.sources, data_dir)
    folder = cifar.write(layout, cifar.read(layout, archive), data_dir)
    archive.unlink()  # its whole content is in the folder
    return folder


def _shapes(train_size: int, test_size: int, seed: int, pixels: bool) -> Dataset:
    """Training images are numbered from 0, test images from 2**32: the two never overlap."""
    train_images, train_labels, train_masks = shapes.draw(np.arange(train_size), seed)
    test_images, test_labels, test_masks = shapes.draw(MOST_SHAPES + np.arange(test_size), seed)
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
