"""Floor 1. A data set that needs no file: ten shapes on textured backgrounds, drawn by the program.

Image i is a pure function of (seed, i). Shapes vary in position, size (16 to 25 pixels), angle (up
to 0.5 radians in both directions) and colour, and are lighter as often as darker than their
background. So no single pixel tells the class: a linear classifier fails, a small Mixer does not.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from tinymixer.data.draws import Stream, draws, noise, uniform
from tinymixer.errors import TinymixerError

SIDE = 32
_NUMBERS = 52  # random numbers that describe one image, noise apart; a multiple of 4
_CHUNK = 100  # images drawn together: their arrays fit the cache

Plane = np.ndarray  # float32 (n, 1, 32, 32), or what broadcasts against it

# --- What the shapes are -----------------------------------------------------------------------
# Each is an implicit function f(u, v), negative inside, with a slope of about 1 at its edge. The
# shape fills a disc of radius 1 or a little less.


def _circle(u: Plane, v: Plane, radius: float = 0.88) -> Plane:
    return np.sqrt(u * u + v * v) - radius


def _box(u: Plane, v: Plane, half_width: float, half_height: float) -> Plane:
    return np.maximum(abs(u) - half_width, abs(v) - half_height)


def _ring(u: Plane, v: Plane) -> Plane:
    return abs(_circle(u, v, 0.72)) - 0.22


def _moon(u: Plane, v: Plane) -> Plane:
    return np.maximum(_circle(u, v, 0.95), -_circle(u - 0.5, v, 0.8))


def _square(u: Plane, v: Plane) -> Plane:
    return _box(u, v, 0.82, 0.82)


def _bar(u: Plane, v: Plane) -> Plane:
    return _box(u, v, 1.0, 0.28)


def _cross(u: Plane, v: Plane) -> Plane:
    return np.minimum(_box(u, v, 1.0, 0.28), _box(u, v, 0.28, 1.0))


def _triangle(u: Plane, v: Plane) -> Plane:
    return np.maximum(0.866 * abs(u) - 0.5 * v, v) - 0.53


def _star(u: Plane, v: Plane) -> Plane:
    """Five points: by symmetry, a tenth of the plane is enough, between a tip and a valley."""
    turn = np.arctan2(u, -v) * (5 / (2 * np.pi))
    angle = abs(turn - np.rint(turn)) * (2 * np.pi / 5)  # 0 at a tip, pi / 5 in a valley
    radius = np.sqrt(u * u + v * v)
    tip, valley = (1.0, 0.0), (0.38 * math.cos(math.pi / 5), 0.38 * math.sin(math.pi / 5))
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    across = (x - tip[0]) * valley[1] + y * (tip[0] - valley[0])
    return across / math.dist(tip, valley)


def _hourglass(u: Plane, v: Plane) -> Plane:
    return np.maximum(0.78 * abs(u) - 0.62 * abs(v) - 0.07, abs(v) - 0.8)


def _arrow(u: Plane, v: Plane) -> Plane:
    head = np.maximum(0.707 * (u + abs(v)) - 0.707, 0.05 - u)
    return np.minimum(head, _box(u + 0.4, v, 0.6, 0.18))


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "ring": _ring,
    "moon": _moon,
    "square": _square,
    "bar": _bar,
    "cross": _cross,
    "triangle": _triangle,
    "star": _star,
    "hourglass": _hourglass,
    "arrow": _arrow,
}
CLASS_NAMES = tuple(SHAPES)
MEAN = (127.3, 127.3, 127.3)  # of 20,000 images, pixel units 0..255
STD = (69.3, 69.3, 69.3)


# --- How a picture is made ---------------------------------------------------------------------


def draw(indices: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and masks of the given indices; the label of image i is i mod 10.

    indices (N,)  ->  images uint8 (N, 32, 32, 3), labels int64 (N,), masks bool (N, 32, 32)

    A mask is True where the shape covers half a pixel or more. Raises TinymixerError for a
    negative index.
    """
    indices = np.asarray(indices, np.int64)
    if indices.size and indices.min() < 0:
        raise TinymixerError(f"shapes: image index {indices.min()}: expected 0 or more")
    images = np.empty((len(indices), SIDE, SIDE, 3), np.uint8)
    masks = np.empty((len(indices), SIDE, SIDE), bool)
    for start in range(0, len(indices), _CHUNK):
        part = slice(start, start + _CHUNK)
        images[part], masks[part] = _draw_chunk(indices[part], seed)
    return images, indices % len(SHAPES), masks


def of_pixels(labels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The class of each pixel: that of its shape, or the last one, the background.

    labels (N,), masks bool (N, 32, 32)  ->  uint8 (N, 32, 32)
    """
    return np.where(masks, labels[:, None, None], len(SHAPES)).astype(np.uint8)


def _draw_chunk(indices: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Paper, distractors, the shape, grain, one over the other, in arrays (n, 3, 32, 32)."""
    blocks = indices[:, None] * (_NUMBERS // 4) + np.arange(_NUMBERS // 4)
    numbers = uniform(draws(seed, Stream.SHAPES, 0, blocks))  # (4, n, _NUMBERS / 4)
    queue = iter(numbers.transpose(2, 0, 1).reshape(_NUMBERS, -1, 1, 1, 1))

    ink, paper = _ink_and_paper(queue)
    canvas = paper + _texture(queue)
    for colour in (ink, ink, _colour(queue), _colour(queue)):
        _paint(canvas, _dot(queue), colour)
    for colour in (_colour(queue), _colour(queue)):
        _paint(canvas, _line(queue), colour)
    coverage = _shape(queue, indices % len(SHAPES))
    _paint(canvas, coverage, ink)
    grain = noise(canvas.shape, seed, Stream.SHAPES_NOISE, 0, indices)
    amplitude = _between(queue, 4.0, 14.0) / 255  # 4 to 14 of 255 grey levels
    canvas += amplitude * (grain * np.float32(2 / 255) - 1.0)
    canvas = np.rint(255 * canvas.clip(0.0, 1.0)).astype(np.uint8)
    return canvas.transpose(0, 2, 3, 1), coverage[:, 0] >= 0.5


def _between(queue: Iterator[Plane], low: Plane | float, high: Plane | float) -> Plane:
    """The next random number of each image, in [low, high).  ->  (n, 1, 1, 1)"""
    return low + (high - low) * next(queue)


# Pixel centres: column x to the right, row y downwards.
_X = np.arange(SIDE, dtype=np.float32) + 0.5
_Y = _X[:, None]


def _colour(queue: Iterator[Plane]) -> Plane:
    """A random colour.  ->  (n, 3, 1, 1)"""
    return np.concatenate([_between(queue, 0.0, 1.0) for _ in range(3)], 1)


def _ink_and_paper(queue: Iterator[Plane]) -> tuple[Plane, Plane]:
    """Two colours whose brightness differs by 0.36 to 0.6, up or down.  ->  (n, 3, 1, 1)"""
    half_gap = _between(queue, 0.18, 0.3) * np.sign(_between(queue, -1.0, 1.0))
    middle = _between(queue, 0.4, 0.6)
    tints = [0.5 * _colour(queue) for _ in range(2)]
    tints = [tint - tint.mean(1, keepdims=True) for tint in tints]
    return middle + half_gap + tints[0], middle - half_gap + tints[1]


def _texture(queue: Iterator[Plane]) -> Plane:
    """A gradient across the paper, and two gratings.  ->  (n, 1, 32, 32)"""
    across, _ = _rotate(_X - 16.0, _Y - 16.0, _between(queue, 0.0, 2 * np.pi))
    brightness = _between(queue, 0.0, 0.1) / 16.0 * across
    for _ in range(2):
        across, _ = _rotate(_X, _Y, _between(queue, 0.0, np.pi))
        pitch, phase = 2 * np.pi / _between(queue, 4.0, 16.0), _between(queue, 0.0, 2 * np.pi)
        brightness += _between(queue, 0.0, 0.06) * np.sin(pitch * across + phase)
    return brightness


def _dot(queue: Iterator[Plane]) -> Plane:
    x, y = _between(queue, 0.0, SIDE), _between(queue, 0.0, SIDE)
    return _coverage(_circle(_X - x, _Y - y, 1.0), 1.0)


def _line(queue: Iterator[Plane]) -> Plane:
    x, y = _between(queue, 0.0, SIDE), _between(queue, 0.0, SIDE)
    u, v = _rotate(_X - x, _Y - y, _between(queue, 0.0, np.pi))
    return _coverage(_box(u, v, 6.0, 0.5), 1.0)


def _shape(queue: Iterator[Plane], labels: np.ndarray) -> Plane:
    """How much of each pixel the shape covers, 0 to 1.  ->  (n, 1, 32, 32)"""
    radius = _between(queue, 8.0, 12.5)
    x, y = _between(queue, radius, SIDE - radius), _between(queue, radius, SIDE - radius)
    u, v = _rotate((_X - x) / radius, (_Y - y) / radius, _between(queue, -0.5, 0.5))
    coverage = np.empty_like(u)
    for label, shape in enumerate(SHAPES.values()):
        which = np.flatnonzero(labels == label)
        coverage[which] = _coverage(shape(u[which], v[which]), radius[which])
    return coverage


def _rotate(x: Plane, y: Plane, angle: Plane) -> tuple[Plane, Plane]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * x + sine * y, cosine * y - sine * x


def _coverage(distance: Plane, pixels: Plane | float) -> Plane:
    """Anti-aliasing: a pixel whose centre lies on the edge is half covered."""
    return (0.5 - distance * pixels).clip(0.0, 1.0)


def _paint(canvas: Plane, coverage: Plane, colour: Plane) -> None:
    canvas += coverage * (colour - canvas)
