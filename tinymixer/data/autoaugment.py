"""Floor 1. AutoAugment: two operations for each image, drawn from a policy found by a search.

The policy is that of Cubuk et al. 2019, arXiv:1805.09501: its operations are in table 6, and
CIFAR-10's twenty-five pairs of them in table 7. Each does to an image what Pillow's ImageOps or
ImageEnhance does. The fourteen are of three kinds: a pixel is taken from another position, or its
level is looked up in a table, or it is blended with a pixel of another image. All in integers, so
that NumPy and the kernel of fast/gpu agree bit for bit.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import partial

import numpy as np

from tinymixer.backend import Array, array_module, as_index, device_constant
from tinymixer.data.draws import integers

GREY = 128  # fills what lies outside an image: close to zero after normalisation
MOST = 9  # magnitudes are 0 to 9, in ninths of an operation's range


class Operation(IntEnum):
    """The operations of the policies."""

    SHEAR_X = 0
    SHEAR_Y = 1
    TRANSLATE_X = 2
    TRANSLATE_Y = 3
    ROTATE = 4
    INVERT = 5
    SOLARIZE = 6
    POSTERIZE = 7
    AUTOCONTRAST = 8
    EQUALIZE = 9
    BRIGHTNESS = 10
    CONTRAST = 11
    COLOR = 12
    SHARPNESS = 13
    NOTHING = 14


_numbers = [int(operation) for operation in Operation]  # CuPy compares with plain ints only
SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, ROTATE = _numbers[:5]  # `_moved`
INVERT, SOLARIZE, POSTERIZE, AUTOCONTRAST, EQUALIZE = _numbers[5:10]  # `_relevelled`
BRIGHTNESS, CONTRAST, COLOR, SHARPNESS, NOTHING = _numbers[10:]  # `_blended`, but for one

# Pairs of (operation, tenths of its probability, magnitude). One pair is drawn for each image.
Policy = tuple[tuple[tuple[int, int, int], tuple[int, int, int]], ...]
POLICIES: dict[str, Policy] = {
    "none": (),
    "cifar10": (
        ((INVERT, 1, 7), (CONTRAST, 2, 6)),
        ((ROTATE, 7, 2), (TRANSLATE_X, 3, 9)),
        ((SHARPNESS, 8, 1), (SHARPNESS, 9, 3)),
        ((SHEAR_Y, 5, 8), (TRANSLATE_Y, 7, 9)),
        ((AUTOCONTRAST, 5, 8), (EQUALIZE, 9, 2)),
        ((SHEAR_Y, 2, 7), (POSTERIZE, 3, 7)),
        ((COLOR, 4, 3), (BRIGHTNESS, 6, 7)),
        ((SHARPNESS, 3, 9), (BRIGHTNESS, 7, 9)),
        ((EQUALIZE, 6, 5), (EQUALIZE, 5, 1)),
        ((CONTRAST, 6, 7), (SHARPNESS, 6, 5)),
        ((COLOR, 7, 7), (TRANSLATE_X, 5, 8)),
        ((EQUALIZE, 3, 7), (AUTOCONTRAST, 4, 8)),
        ((TRANSLATE_Y, 4, 3), (SHARPNESS, 2, 6)),
        ((BRIGHTNESS, 9, 6), (COLOR, 2, 8)),
        ((SOLARIZE, 5, 2), (INVERT, 0, 3)),
        ((EQUALIZE, 2, 0), (AUTOCONTRAST, 6, 0)),
        ((EQUALIZE, 2, 8), (EQUALIZE, 6, 4)),
        ((COLOR, 9, 9), (EQUALIZE, 6, 6)),
        ((AUTOCONTRAST, 8, 4), (SOLARIZE, 2, 8)),
        ((BRIGHTNESS, 1, 3), (COLOR, 7, 0)),
        ((SOLARIZE, 4, 5), (AUTOCONTRAST, 9, 3)),
        ((TRANSLATE_Y, 9, 9), (TRANSLATE_Y, 7, 9)),
        ((AUTOCONTRAST, 9, 2), (SOLARIZE, 8, 3)),
        ((EQUALIZE, 8, 8), (INVERT, 1, 3)),
        ((TRANSLATE_Y, 7, 9), (AUTOCONTRAST, 9, 1)),
    ),
}


def auto_augment(batch: Array, bits: Array, name: str, outside: int = GREY) -> Array:
    """Each image after two operations of the policy `name`, chosen by its random words.

    batch uint8 (B, H, W, 3), or classes of pixels (B, H, W), bits uint32 (4, B)  ->  as batch
    """
    for operation, strength in _drawn(bits, name):
        batch = operate(batch, operation, strength, outside)
    return batch


def operate(batch: Array, operation: Array, strength: Array, outside: int = GREY) -> Array:
    """Each image after its own operation.

    batch uint8 (B, H, W, 3), or classes of pixels (B, H, W), which are only moved; operation and
    strength (B,); outside: the value of pixels from outside the image  ->  an array like batch

    Images with one kind of operation are computed together. The CPU has to know which they are, so
    with CuPy arrays this waits for the GPU; the kernel of fast/gpu does not.
    """
    xp = array_module(batch)
    kinds: list[tuple[int, int, Callable[[Array, Array, Array], Array]]] = [
        (SHEAR_X, ROTATE, partial(_moved, outside=outside)),
        (INVERT, EQUALIZE, _relevelled),
        (BRIGHTNESS, SHARPNESS, _blended),
    ]
    batch = batch.copy()
    for first, last, made in kinds[:1] if batch.ndim == 3 else kinds:
        some = xp.nonzero((operation >= first) & (operation <= last))[0]
        if len(some):
            batch[some] = made(batch[some], operation[some], strength[some])
    return batch


def _drawn(bits: Array, name: str) -> Iterator[tuple[Array, Array]]:
    """First and second operation of each image, and their strengths.  bits (4, B)  ->  (B,), (B,)

    The four words decide: which pair, whether its first operation happens, whether its second
    does, and the signs of both.
    """
    xp = array_module(bits)
    steps = policy(bits, name)
    pair = steps[integers(bits[0], len(steps))]  # (B, 2, 3)
    for step in range(2):
        operation, tenths, strength = pair[:, step].T
        happens = integers(bits[1 + step], 10) < tenths
        mirrored = (operation <= ROTATE) & ((bits[3] >> step) % 2 == 1)
        yield xp.where(happens, operation, NOTHING), xp.where(mirrored, -strength, strength)


@device_constant
def policy(name: str) -> np.ndarray:
    """(operation, tenths of its probability, strength) of each step.  ->  int64 (pairs, 2, 3)"""
    pairs = [
        [
            (operation, tenths, strength_of(operation, magnitude))
            for operation, tenths, magnitude in p
        ]
        for p in POLICIES[name]
    ]
    return np.array(pairs, np.int64)


def strength_of(operation: int, magnitude: int) -> int:
    """The number that an operation computes with. A higher magnitude changes or brightens more.

    Operations that move pixels take the magnitude itself, with a random sign.
    """
    if operation <= ROTATE:
        return magnitude
    if operation >= BRIGHTNESS:
        return 1 + 2 * magnitude  # tenths of the image: 0.1 to 1.9
    if operation == SOLARIZE:
        return 256 - round(256 * magnitude / MOST)  # the first level that is inverted
    if operation == POSTERIZE:
        return 256 - 2 ** round(4 * magnitude / MOST)  # keeps the highest eight to four bits
    return 0  # invert: from level 0 upwards; the others have no strength


def _moved(images: Array, operation: Array, strength: Array, outside: int) -> Array:
    """Shear, translate, rotate: an affine map says where each pixel is taken from, or `outside`.

    images (B, H, W, ...), operation and strength (B,)  ->  (B, H, W, ...)
    """
    xp = array_module(images)
    height, width = images.shape[1:3]
    a, b, c, d, e, f = maps(images, height, width)[operation, strength + MOST].T[..., None, None]
    y, x = xp.arange(height)[:, None], xp.arange(width)
    column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16  # (B, H, W)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = (xp.arange(len(images))[:, None, None] * height + row) * width + column
    pixels = images.reshape(-1, *images.shape[3:])
    moved = xp.take(pixels, as_index(source * inside), axis=0)
    moved[~inside] = outside
    return moved


@device_constant
def maps(height: int, width: int) -> np.ndarray:
    """Where the pixel (x, y) comes from: column (a x + b y + c) >> 16, row (d x + e y + f) >> 16.

    ()  ->  (a, b, c, d, e, f), int64 (5, 19, 6), of each operation and each magnitude from -9 to 9

    Up to 0.3 of shear, 150 of 331 pixels of shift and 30 degrees, about the middle of the image.
    """
    middle = np.array([width, height]) / 2
    table = np.empty((5, 2 * MOST + 1, 2, 3))
    for operation, k in np.ndindex(table.shape[:2]):
        share = k / MOST - 1
        linear, shift = np.eye(2), np.zeros(2)
        if operation in (SHEAR_X, SHEAR_Y):
            linear[operation - SHEAR_X, SHEAR_Y - operation] = 0.3 * share
        elif operation in (TRANSLATE_X, TRANSLATE_Y):
            axis = operation - TRANSLATE_X
            shift[axis] = 150 / 331 * share * (width, height)[axis]
        else:
            cos, sin = np.cos(np.radians(30 * share)), np.sin(np.radians(30 * share))
            linear[...] = [[cos, -sin], [sin, cos]]
        table[operation, k, :, :2] = linear
        table[operation, k, :, 2] = linear @ (0.5 - middle) + middle + shift  # of pixels' middles
    return np.floor(65536 * table + 0.5).astype(np.int64).reshape(5, -1, 6)


def _relevelled(images: Array, operation: Array, strength: Array) -> Array:
    """Invert, solarize, posterize, autocontrast, equalize: a table maps each level to a new one.

    images uint8 (B, H, W, 3), operation and strength (B,)  ->  uint8 (B, H, W, 3)

    Each image has a table for each colour. Its entries for levels that no pixel has are not used.
    """
    xp = array_module(images)
    operation, strength = operation[:, None, None], strength[:, None, None]
    C = images.shape[-1]
    entries = 256 * xp.arange(C * len(images)).reshape(-1, 1, 1, C) + images
    counts = xp.bincount(as_index(entries.ravel()), minlength=C * 256 * len(images))
    counts = counts.reshape(-1, C, 256)
    level = xp.arange(256)
    table = xp.where(level < strength, level, 255 - level)  # solarize, and invert with strength 0
    table = xp.where(operation == POSTERIZE, level & strength, table)
    table = xp.where(operation == AUTOCONTRAST, _stretched(counts), table)
    table = xp.where(operation == EQUALIZE, _equalized(counts), table)
    return xp.take(table.astype(np.uint8), as_index(entries))


def _stretched(counts: Array) -> Array:
    """255 (level - lowest) / (highest - lowest), so that levels reach from black to white.

    counts (..., 256), of pixels at each level  ->  the new levels (..., 256)
    """
    xp = array_module(counts)
    level, lowest, highest = xp.arange(256), *_ends(counts)
    return xp.where(
        lowest < highest, 255 * (level - lowest) // xp.maximum(highest - lowest, 1), level
    )


def _equalized(counts: Array) -> Array:
    """(pixels below level + step / 2) / step, so that all levels are about equally frequent.

    counts (..., 256)  ->  the new levels (..., 256)

    Steps are 255ths of the pixels below the highest level; with less than one pixel in a step, or
    with a single level, nothing changes.
    """
    xp = array_module(counts)
    up_to = counts.cumsum(-1)
    below = up_to - counts
    _, highest = _ends(counts)
    step = xp.take_along_axis(below, highest, -1) // 255
    level = (below + step // 2) // xp.maximum(step, 1)
    return xp.where(step > 0, xp.minimum(level, 255), xp.arange(256))


def _ends(counts: Array) -> tuple[Array, Array]:
    """The lowest and the highest level that a pixel has.  (..., 256)  ->  (..., 1), (..., 1)"""
    there = counts > 0
    return there.argmax(-1)[..., None], 255 - there[..., ::-1].argmax(-1)[..., None]


def _blended(images: Array, operation: Array, strength: Array) -> Array:
    """Brightness, contrast, color, sharpness: tenths of the image, the rest from another image.

    images uint8 (B, H, W, 3), operation and strength (B,)  ->  uint8 (B, H, W, 3)

    The other image is black, the mean grey, the grey image, or the smoothed image. With more than
    ten tenths the result moves away from it.
    """
    xp = array_module(images)
    operation, tenths = (
        a.astype(np.int16).reshape(-1, 1, 1, 1) for a in (operation, strength)
    )  # int16 holds 19 times a level, and negative values
    grey = _luma(images)
    other = xp.where(operation == COLOR, grey, _mean(grey) * (operation == CONTRAST))
    images, other = (
        images.astype(np.int16),
        other.repeat(images.shape[-1], -1),
    )  # to broadcast is slower
    other = xp.where(operation == SHARPNESS, _smoothed(images), other)
    blend = tenths * images + (10 - tenths) * other
    return (xp.minimum(xp.maximum(blend, 0), 2550) // 10).astype(np.uint8)


def _luma(images: Array) -> Array:
    """0.299 R + 0.587 G + 0.114 B in 65536ths, rounded.  uint8 (..., 3)  ->  int16 (..., 1)

    A grey image (..., 1) is its own.
    """
    if images.shape[-1] == 1:
        return images.astype(np.int16)
    red, green, blue = (images[..., c : c + 1].astype(np.int32) for c in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.int16)


def _mean(grey: Array) -> Array:
    """The mean of each image, rounded.  int16 (B, H, W, 1)  ->  int16 (B, 1, 1, 1)"""
    pixels = grey[0].size
    total = grey.reshape(len(grey), -1).sum(1, dtype=np.int64)
    return ((2 * total + pixels) // (2 * pixels)).astype(np.int16)[:, None, None, None]


def _smoothed(images: Array) -> Array:
    """(4 x + the sum of the 3 x 3 pixels about x) / 13, rounded; at the edge x stays.

    int16 (B, H, W, 3)  ->  int16 (B, H, W, 3)
    """
    smooth = images.copy()
    y = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    y = y[:, :, :-2] + y[:, :, 1:-1] + y[:, :, 2:] + 4 * images[:, 1:-1, 1:-1]
    smooth[:, 1:-1, 1:-1] = (y + 6) // 13
    return smooth
