"""Floor 1. Dataset: images and labels in memory, checked for what training would not notice."""

import hashlib
from collections import Counter
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from tinymixer.backend import Array, as_index, device_of, to_device, to_numpy
from tinymixer.data.augment import IGNORED
from tinymixer.data.source import Source
from tinymixer.errors import DataError, brief, counted
from tinymixer.options import Number

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
CHANNELS = (1, 3)  # grey, or red, green and blue
MOST_CLASSES = 100_000
OTHER_UNIT = 30  # times too small: a mean or std of pixels 0..1 is 255 times too small


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images with their labels.

    images uint8 (N, H, W, C), C of 1 or 3; labels integers (N,), or (N, H, W) for the class of
    every pixel, IGNORED for a pixel without one; mean and std of each channel over the training
    images, in pixel units 0..255

    Raises DataError for mistakes with which a model would train and learn little: pixels of another
    type, order or size; labels that are not one class for each image (a GPU would not notice: it
    takes an index out of range for another one); mean or std of pixels from 0 to 1; fewer than two
    classes.

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
        _check_text("the name of a data set", self.name)
        _check_class_names(self)
        for part in ("train", "test"):
            images, labels = (getattr(self, f"{part}_{kind}") for kind in ("images", "labels"))
            check_images(f"{self.name}: {part}_images", images)
            check_shape_of_labels(f"{self.name}: {part}_labels", labels, images)
        _check_parts_agree(self)
        _check_colours(self)
        if device_of(self.train_labels) == "cpu":  # on a GPU they come from a checked Dataset
            _check_labels(self, "train", self.train_labels)
            _check_labels(self, "test", self.test_labels)
            _check_unit(self)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.train_images.shape[3]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        return self.train_images.shape[1:3]

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


def measure_colours(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, exactly, from how often each level occurs.

    uint8 (N, H, W, C)  ->  (C,), (C,); a channel of one level has a deviation of 1, not 0
    """
    levels = np.arange(256.0)
    counts = np.zeros((images.shape[3], 256), np.int64)
    step = max(1, 2**24 // max(1, images[0].size))  # images counted at once
    for start in range(0, len(images), step):
        for channel, count in enumerate(counts):
            plane = images[start : start + step, ..., channel].ravel()
            count += np.bincount(as_index(plane), minlength=256)
    total = counts.sum(1)
    mean = counts @ levels / total
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / total)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


# --- What is refused -----------------------------------------------------------------------------


def _check_text(what: str, text: Any) -> None:
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{what} is {brief(repr(text), 60)}; expected text")
    if not text.isprintable():  # no record of a run may hold it, so the run could not be read again
        raise DataError(
            f"{what} is {brief(repr(text), 60)}; expected text that can be printed on one line"
        )


def _check_class_names(dataset: Dataset) -> None:
    names, where = dataset.class_names, f"{dataset.name}: class_names"
    if not isinstance(names, tuple | list):
        raise DataError(
            f"{where} is {brief(repr(names), 60)}; expected a tuple of names, one for each class"
        )
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(
            f"{where}: {counted(len(names), 'class')}; expected 2 to "
            f"{MOST_CLASSES:,}, because there must be something to tell apart"
        )
    for i, name in enumerate(names):
        _check_text(f"{where}[{i}]", name)
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(
            f"{where} has {brief(repr(repeated[0]), 60)} twice; expected a name of its own for "
            "each class"
        )


def _check_is_array(what: str, given: Any, cure: str) -> None:
    if isinstance(given, np.ma.MaskedArray):
        raise DataError(
            f"{what} is a masked array, and what is masked would be trained on; expected one "
            "without: keep the images that have no mask, or give what is masked a value by filled()"
        )
    if not hasattr(given, "dtype") or not hasattr(given.dtype, "kind"):
        raise DataError(f"{what} is a {type(given).__name__}; expected an array: {cure}")


def check_images(what: str, images: Any) -> None:
    """uint8 (N, H, W, C)"""
    _check_is_array(what, images, "np.asarray(images, np.uint8)")
    found = f"{what} has shape {images.shape} and type {images.dtype}"
    if images.dtype.kind == "O":
        raise DataError(
            f"{found}, so its images are of several sizes; resize them to one size, then np.stack"
        )
    if images.dtype.kind == "f":
        raise DataError(
            f"{found}; expected uint8, 0 to 255. If they were divided by 255 or normalised, pass "
            "the pixels as they were: a model normalises them itself by mean and std"
        )
    if images.dtype != np.uint8:
        cure = ". Black and white become 0 and 255 by images * np.uint8(255)"
        cure = cure if images.dtype.kind == "b" else ""
        raise DataError(f"{found}; expected pixels of 8 bits, uint8, from 0 to 255{cure}")
    shape = images.shape
    if len(shape) == 4 and shape[3] in CHANNELS and min(shape[1:3]) > 0:
        return
    advice = "expected (images, height, width, channels) with 1 or 3 channels"
    if len(shape) == 3:
        advice += ". Give grey images a channel: images[..., None]"
    elif len(shape) == 4 and shape[1] in CHANNELS:
        advice += ". Put the channels last: images.transpose(0, 2, 3, 1)"
    elif len(shape) == 4 and shape[3] == 4:
        advice += ". Compose transparent images on a background, then keep red, green and blue"
    raise DataError(f"{found}; {advice}")


def check_shape_of_labels(what: str, labels: Any, images: Array) -> None:
    """Integers (N,) or (N, H, W)"""
    _check_is_array(what, labels, "np.asarray(labels)")
    found = f"{what} has shape {labels.shape} and type {labels.dtype}"
    shape, number = labels.shape, counted(images.shape[0], "image")
    if len(shape) == 2 and shape[1] == 1:
        raise DataError(f"{found}; expected one number for each of {number}: labels[:, 0]")
    if len(shape) == 2:
        raise DataError(
            f"{found}; expected the number of a class for each of {number}. One row of ones and "
            "zeros for each image becomes numbers by labels.argmax(1)"
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{found}; expected whole numbers that count from 0: labels.astype(np.int64)"
        )
    if len(shape) not in (1, 3):
        raise DataError(f"{found}; expected one label for each image, or one for each pixel")
    if shape[0] != images.shape[0]:
        whose, _, name = what.rpartition(": ")
        part = "test" if "test" in name else "train"
        raise DataError(
            f"{whose}: {counted(shape[0], 'label')} for "
            f"{counted(images.shape[0], f'{part} image')}; "
            "expected one label for each image"
        )
    if len(shape) == 3 and shape != images.shape[:3]:
        raise DataError(f"{found}; expected one label for each pixel, {images.shape[:3]}")


def _check_parts_agree(dataset: Dataset) -> None:
    """Training and test images of one size and colour, labels of one kind, all on one device."""
    train, test = dataset.train_images.shape[1:], dataset.test_images.shape[1:]
    if train != test:
        raise DataError(
            f"{dataset.name}: training images are {_size(train)}, test images {_size(test)}; "
            "expected one size and one number of channels for both"
        )
    if dataset.train_labels.ndim != dataset.test_labels.ndim:
        raise DataError(
            f"{dataset.name}: train_labels has shape {dataset.train_labels.shape}, test_labels "
            f"{dataset.test_labels.shape}; expected both for images, or both for pixels"
        )
    if len(places := {device_of(getattr(dataset, name)) for name in _ARRAYS}) > 1:
        raise DataError(
            f"{dataset.name}: its arrays are on the {' and the '.join(sorted(places))}; expected "
            "one device: make it of NumPy arrays, then call .to(device)"
        )


def _size(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height}x{width} with {counted(channels, 'channel')}"


def _check_colours(dataset: Dataset) -> None:
    """mean and std: a number for each channel, of pixels 0..255."""
    allowed = {"mean": Number(0, 255), "std": Number(0, 255, above=True)}
    for name, numbers in allowed.items():
        given = getattr(dataset, name)
        if not isinstance(given, tuple | list | np.ndarray) or len(given) != dataset.channels:
            raise DataError(
                f"{dataset.name}: {name}={brief(repr(given), 60)}; expected "
                f"{counted(dataset.channels, 'number')}, one for each channel"
            )
        for number in given:
            if number not in numbers:
                raise DataError(
                    f"{dataset.name}: {name}={brief(repr(given), 60)}; expected {numbers}, in the "
                    "unit of the pixels, 0 to 255"
                )


def _check_labels(dataset: Dataset, part: str, labels: Array) -> None:
    if not len(labels):
        raise DataError(f"{dataset.name}: it has no {part} images; expected at least one")
    known = (labels != IGNORED) | (labels.ndim < 3)
    if not known.any():
        raise DataError(
            f"{dataset.name}: not one of {counted(len(labels), f'{part} image')} "
            f"has a label; expected at "
            f"least one. Use more images, or give their pixels a class instead of {IGNORED}"
        )
    lowest, highest = (f(labels, where=known, initial=0) for f in (np.min, np.max))
    if lowest < 0 or highest >= dataset.num_classes:
        raise DataError(
            f"{dataset.name}: {part} label {lowest if lowest < 0 else highest} is not one of its "
            f"{dataset.num_classes} classes, 0..{dataset.num_classes - 1}. Correct the label, or "
            "give class_names a name for every class"
        )


def _check_unit(dataset: Dataset) -> None:
    """A mean or std up to 1 is of pixels from 0 to 1, unless the images are that dark or even."""
    some = dataset.train_images[:: max(1, len(dataset.train_images) // 64)]
    for name, measure in (("mean", np.mean), ("std", np.std)):
        given, found = getattr(dataset, name), measure(some, axis=(0, 1, 2))
        if any(0 < g <= 1 and f > OTHER_UNIT * g for g, f in zip(given, found, strict=True)):
            about = ", ".join(f"{x:.0f}" for x in found)
            raise DataError(
                f"{dataset.name}: {name}={brief(repr(given), 60)}, but its pixels are from 0 to "
                f"255, with a {name} of about ({about}). Multiply a {name} of pixels from 0 to 1 "
                "by 255"
            )
