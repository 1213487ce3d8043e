"""Floor 1. Images and labels: CIFAR-10, CIFAR-100, and `shapes`, which is drawn on the fly.

    data = load("cifar10")                          # from --data-dir, $TINYMIXER_DATA or data/
    x = normalise(data.test_images, data.mean, data.std)

A data set is four arrays in memory. Pixels stay uint8 until they are normalised.
"""

import hashlib
import os
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tinymixer.backend import Array, device_of, to_device, to_numpy
from tinymixer.data import cifar, shapes
from tinymixer.data.augment import IGNORED, Augment, normalise
from tinymixer.data.download import alone_in, fetch
from tinymixer.data.source import MOST_IMAGES, Source
from tinymixer.errors import DataError

__all__ = ["IGNORED", "NAMES", "Augment", "Dataset", "Source", "add", "find", "load", "normalise"]

_LAYOUTS = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}
NAMES = (*_LAYOUTS, "shapes")
MOST_SHAPES = MOST_IMAGES  # training images; test images are numbered from here
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")  # of a Dataset
TRAIN_SHAPES, TEST_SHAPES = 20_000, 4_000  # images by default


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images with their labels.

    images uint8 (N, 32, 32, 3); labels int64 (N,), or uint8 (N, 32, 32) for the class of every
    pixel, IGNORED for a pixel without one; mean and std of each colour over the training images, in
    pixel units 0..255

    Raises DataError if there is not one label for each image, if a label is not one of the classes
    (a GPU would not notice: it takes an index out of range for another one), or if all labels are
    IGNORED, because then there is nothing to learn or to measure.

    source: where it can be loaded from again. A data set that is made or changed in memory has
    none: `dataclasses.replace` leaves it out.
    """

    name: str
    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: Source | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if device_of(self.train_labels) == "cpu":  # on a GPU they come from a checked Dataset
            for part in ("train", "test"):
                images, labels = (getattr(self, f"{part}_{kind}") for kind in ("images", "labels"))
                self._check(part, images, labels)

    def _check(self, part: str, images: Array, labels: Array) -> None:
        if len(images) != len(labels):
            raise DataError(
                f"{self.name}: {len(images)} {part} images have {len(labels)} labels; expected one "
                "label for each image"
            )
        known = (labels != IGNORED) | (labels.ndim < 3)
        if not known.any():
            raise DataError(
                f"{self.name}: none of its {len(labels)} {part} images has a label; expected at "
                f"least one. Use more images, or give their pixels a class instead of {IGNORED}"
            )
        lowest, highest = (f(labels, where=known, initial=0) for f in (np.min, np.max))
        if lowest < 0 or highest >= self.num_classes:
            raise DataError(
                f"{self.name}: {part} label {lowest if lowest < 0 else highest} is not one of its "
                f"{self.num_classes} classes, 0..{self.num_classes - 1}. Correct the label, or "
                "give class_names a name for every class"
            )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the four arrays, by which a checkpoint knows what it was trained on."""
        digest = hashlib.sha256()
        for array in (getattr(self, name) for name in _ARRAYS):
            digest.update(f"{array.shape}{array.dtype.str}".encode())
            digest.update(np.ascontiguousarray(to_numpy(array)).data)
        return digest.hexdigest()

    def to(self, device: str) -> "Dataset":
        """This data set with its four arrays on `device`, "cpu" or "gpu"."""
        if device == device_of(self.train_images):
            return self
        moved = replace(self, **{name: to_device(getattr(self, name), device) for name in _ARRAYS})
        return moved.loaded_from(self.source)

    def loaded_from(self, source: Source | None) -> "Dataset":
        """This data set, which says from now on where it was loaded from."""
        same = copy(self)  # and keep a fingerprint that is computed already
        object.__setattr__(same, "source", source)
        return same


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
        drawn = _shapes(train_size, test_size, seed, pixels)
        return drawn.loaded_from(Source(name, train_size, test_size, image_size, pixels, seed))
    layout = _layout(name)
    path = find(name, data_dir)
    if path is None:
        if not download:
            raise _missing(name, data_dir)
        home = _home(data_dir)
        with alone_in(home):
            path = find(name, data_dir) or _download(layout, home)
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
    ).loaded_from(Source(name, train_size, test_size, image_size, pixels, seed))


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
            files, home = cifar.read(layout, file), _home(data_dir)
            with alone_in(home):
                return cifar.write(layout, files, home)
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
