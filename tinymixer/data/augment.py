"""Floor 1. Augmentation of whole batches: each image's changes depend on (seed, epoch, image) only.

All decisions are made in integers and pixels stay uint8, so NumPy and CuPy agree bit for bit and a
batch may be divided anywhere. The partner of a mixed image is drawn from the whole data set, not
from the batch, so that no image depends on the others of its batch.
"""

from dataclasses import dataclass

import numpy as np

from tinymixer.backend import Array, array_module, device_constant
from tinymixer.data.autoaugment import GREY, POLICIES, auto_augment
from tinymixer.data.draws import Stream, draws, integers, noise
from tinymixer.options import Between, OneOf, check_options, option

_ONE = 256  # mixing weights are whole 256ths
IGNORED = 255  # the label of a pixel without a class


SHARE = Between(0, 1)
ALPHA = Between(0.001, 32, or_zero=True)  # with a smaller one almost nothing would be mixed


@dataclass(frozen=True)
class Augment:
    """What is done to the training images. Nothing by default.

    Sources: alternating flips: Jordan 2024, arXiv:2404.00498; auto_augment: Cubuk et al. 2019,
    arXiv:1805.09501; cutout: DeVries and Taylor 2017, arXiv:1708.04552; random_erasing: Zhong et
    al. 2017, arXiv:1708.04896; mixup: Zhang et al. 2017, arXiv:1710.09412; cutmix: Yun et al. 2019,
    arXiv:1905.04899.

    Raises TinymixerError for options out of range.
    """

    crop_padding: int = option(
        0, Between(0, 31), "pixels added on each side before a random crop to the old size; 0: off"
    )
    padding: str = option(
        "reflect", OneOf(("reflect", "zero")), "mirror the image at its edge pixels, or add black"
    )
    flip: str = option(
        "none",
        OneOf(("none", "random", "alternating")),
        "mirror left and right: random, by a coin in each epoch, or alternating, every other epoch",
    )
    auto_augment: str = option(
        "none",
        OneOf(POLICIES),
        "two operations that move, recolour or sharpen an image, drawn from the policy found on a "
        "data set",
    )
    cutout: int = option(0, Between(0, 31), "side in pixels of a grey square; 0: off")
    random_erasing: float = option(
        0.0, SHARE, "probability that noise fills a rectangle of the image; 0: off"
    )
    mixup: float = option(
        0.0, ALPHA, "mix two images, in a proportion drawn from Beta(mixup, mixup); 0: off"
    )
    cutmix: float = option(
        0.0, ALPHA, "paste a box of another image, its area drawn from Beta(cutmix, cutmix); 0: off"
    )
    mix_probability: float = option(
        1.0,
        SHARE,
        "share of the images that are mixed; with both on, half by mixup and half by cutmix",
    )

    _draws = staticmethod(draws)  # a subclass may compute the same numbers in another way

    def __post_init__(self) -> None:
        check_options(self, "augmentation")

    @property
    def mixes(self) -> bool:
        """Whether targets become shares of classes."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_probability > 0

    def __call__(
        self,
        images: Array,
        labels: Array,
        indices: Array,
        *,
        epoch: int,
        seed: int,
        num_classes: int,
    ) -> tuple[Array, Array]:
        """The augmented images at `indices`, and their targets.

        images uint8 (N, H, W, 3), labels (N,): the whole training set; indices (B,)
        ->  batch uint8 (B, H, W, 3), targets (B,) of the labels' dtype; float32 (B, K) if it mixes

        Labels of pixels, uint8 (N, H, W), move with their pixels: targets (B, H, W), IGNORED in a
        black or grey border and unchanged behind a hole. Such images are not mixed.
        """
        if type(indices) is not type(images):
            indices = array_module(images).asarray(indices)
        batch = self._view(images, indices, epoch, seed)
        if labels.ndim == 3:
            targets = self._crop_and_flip(labels, indices, epoch, seed, outside=IGNORED)
            return batch, self._by_policy(targets, indices, epoch, seed, outside=IGNORED)
        if not self.mixes:
            return batch, labels[indices]
        return self._mix(batch, images, labels, indices, epoch, seed, num_classes)

    def _view(self, images: Array, indices: Array, epoch: int, seed: int) -> Array:
        """Each image by itself: cropped, flipped, changed, with holes.  ->  uint8 (B, H, W, 3)"""
        batch = self._crop_and_flip(images, indices, epoch, seed, outside=0)
        batch = self._by_policy(batch, indices, epoch, seed, outside=GREY)
        if self.cutout:
            batch = self._cut_out(batch, self._draws(seed, Stream.CUTOUT, epoch, indices))
        if self.random_erasing:
            batch = self._erase(batch, indices, epoch, seed)
        return batch

    def _crop_and_flip(
        self, images: Array, indices: Array, epoch: int, seed: int, outside: int
    ) -> Array:
        """One indexing operation: each pixel of the result is taken from a row and a column."""
        if self.flip == "none" and not self.crop_padding:
            return images[indices]
        xp = array_module(images)
        height, width = images.shape[1:3]
        y, x = xp.arange(height)[None], xp.arange(width)[None]
        if self.flip != "none":
            x = xp.where(self._flipped(indices, epoch, seed)[:, None], width - 1 - x, x)  # (B, W)
        if self.crop_padding:
            bits = self._draws(seed, Stream.CROP, epoch, indices)[:2, :, None]
            shift = integers(bits, 2 * self.crop_padding + 1) - self.crop_padding
            y, x = y + shift[0], x + shift[1]  # (B, H), (B, W)
        rows, columns = _reflect(y, height), _reflect(x, width)
        batch = images[indices[:, None, None], rows[:, :, None], columns[:, None, :]]
        if self.crop_padding and self.padding == "zero":
            beyond = (rows != y)[:, :, None] | (columns != x)[:, None, :]  # (B, H, W)
            beyond = beyond.reshape(*beyond.shape, *(1 for _ in batch.shape[3:]))
            batch = xp.where(beyond, batch.dtype.type(outside), batch)
        return batch

    def _flipped(self, indices: Array, epoch: int, seed: int) -> Array:
        if self.flip == "random":
            return self._draws(seed, Stream.FLIP, epoch, indices)[0] % 2 == 1
        return (self._draws(seed, Stream.FLIP, 0, indices)[0] + epoch) % 2 == 1

    def _by_policy(
        self, batch: Array, indices: Array, epoch: int, seed: int, outside: int
    ) -> Array:
        if self.auto_augment == "none":
            return batch
        bits = self._draws(seed, Stream.AUTO, epoch, indices)
        return auto_augment(batch, bits, self.auto_augment, outside)

    def _cut_out(self, batch: Array, bits: Array) -> Array:
        """A grey square about a random pixel; at the border, part of it falls outside the image."""
        height, width = batch.shape[1:3]
        top = integers(bits[0], height) - self.cutout // 2
        left = integers(bits[1], width) - self.cutout // 2
        hole = _box(batch, top, left, self.cutout, self.cutout)
        return array_module(batch).where(hole[..., None], np.uint8(GREY), batch)

    def _erase(self, batch: Array, indices: Array, epoch: int, seed: int) -> Array:
        """A rectangle of noise, in a share of the images."""
        xp = array_module(batch)
        bits = self._draws(seed, Stream.ERASE, epoch, indices)
        rectangles = _erasable(batch, *batch.shape[1:3])
        height, width = rectangles[integers(bits[0], len(rectangles))].T  # (B,), (B,)
        top = integers(bits[1], batch.shape[1] - height + 1)
        left = integers(bits[2], batch.shape[2] - width + 1)
        hole = _box(batch, top, left, height[:, None], width[:, None])
        hole &= _happens(bits[3], self.random_erasing)[:, None, None]
        fill = noise(batch.shape, seed, Stream.ERASE_FILL, epoch, indices, self._draws)
        return xp.where(hole[..., None], fill, batch)

    def _mix(
        self,
        batch: Array,
        images: Array,
        labels: Array,
        indices: Array,
        epoch: int,
        seed: int,
        K: int,
    ) -> tuple[Array, Array]:
        """(w * image + (256 - w) * partner) / 256, rounded; the targets in the same proportion.

        w has a value per pixel: constant over the image in mixup, 256 or 0 in CutMix.
        """
        xp = array_module(batch)
        bits = self._draws(seed, Stream.MIX, epoch, indices)
        partners = integers(bits[0], len(images))
        w = self._weights(batch, bits[1:], self._draws(seed, Stream.MIX_BOX, epoch, indices))
        own = w.sum((1, 2), dtype=np.float32)[:, None] / (_ONE * w[0].size)  # (B, 1): exact
        one_hot = xp.eye(K, dtype=np.float32)
        targets = own * one_hot[labels[indices]] + (1 - own) * one_hot[labels[partners]]

        w = w[..., None]
        mixed = w * batch + (_ONE - w) * self._view(images, partners, epoch, seed)
        return ((mixed + _ONE // 2) >> 8).astype(np.uint8), targets

    def _weights(self, batch: Array, bits: Array, box_bits: Array) -> Array:
        """The weight of the image itself in each of its pixels, in 256ths.  ->  uint16 (B, H, W)"""
        xp = array_module(batch)
        w = xp.full(batch.shape[:3], _ONE, np.uint16)
        mixed = _happens(bits[0], self.mix_probability)
        cut = _happens(bits[1], 0.5 * (self.cutmix > 0) + 0.5 * (self.mixup == 0))
        if self.mixup:
            share = _beta(self.mixup, bits[2])
            w = xp.where((mixed & ~cut)[:, None, None], share[:, None, None], w)
        if self.cutmix:
            sides = _cutmix_sides(batch, *batch.shape[1:3])
            height, width = sides[_beta(self.cutmix, bits[2])].T
            top = integers(box_bits[0], batch.shape[1]) - height // 2
            left = integers(box_bits[1], batch.shape[2]) - width // 2
            box = _box(batch, top, left, height[:, None], width[:, None])
            w = xp.where((mixed & cut)[:, None, None] & box, np.uint16(0), w)
        return w


def normalise(images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """(x - mean) / std per colour.

    images uint8 (..., 3), mean and std in pixel units 0..255  ->  float32 (..., 3)
    """
    scale, shift = _scale_and_shift(images, tuple(mean), tuple(std))
    y = images * scale
    y += shift
    return y


@device_constant
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    scale = 1.0 / np.array(std)
    return np.stack([scale, -np.array(mean) * scale]).astype(np.float32)


def _reflect(i: Array, n: int) -> Array:
    """Indices outside 0 .. n - 1, mirrored about the edge pixels: -1 becomes 1.

    Between two mirrors the pattern repeats after 2 (n - 1) pixels; n = 1 has only one pixel.
    """
    return (n - 1) - abs((n - 1) - i % max(1, 2 * (n - 1)))


def _box(batch: Array, top: Array, left: Array, height: Array | int, width: Array | int) -> Array:
    """Which pixels lie inside each image's box.  top, left (B,)  ->  bool (B, H, W)

    height and width are numbers, or (B, 1).
    """
    xp = array_module(batch)
    y = xp.arange(batch.shape[1]) - top[:, None]  # (B, H), counted from the top edge of the box
    x = xp.arange(batch.shape[2]) - left[:, None]
    return ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]


def _happens(bits: Array, probability: float) -> Array:
    return bits.astype(np.uint64) < int(probability * 2**32)


def _beta(alpha: float, bits: Array) -> Array:
    """Draws from Beta(alpha, alpha) by inversion, in 256ths.  bits (B,)  ->  uint16 (B,)"""
    steps = _beta_steps(bits, alpha)
    return array_module(bits).searchsorted(steps, bits, side="right").astype(np.uint16)


@device_constant
def _beta_steps(alpha: float) -> np.ndarray:
    """2**32 F((k + 1/2) / 256) for k = 0 .. 255, F the distribution function of Beta(alpha, alpha).

    F(x) is the integral of (s (1 - s))**(alpha - 1); t = s**alpha removes the pole that is at zero
    for alpha below 1, and the half above 1/2 follows by symmetry.
    """
    power = min(alpha, 1.0)
    t = np.linspace(0.0, 0.5**power, 4097)
    s = t ** (1.0 / power)
    density = s ** (alpha - power) * (1.0 - s) ** (alpha - 1.0)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    lower = 0.5 * np.interp(((np.arange(128) + 0.5) / _ONE) ** power, t, area / area[-1])
    steps = np.concatenate([lower, 1.0 - lower[::-1]]) * 2**32
    return steps.clip(0, 2**32 - 1).astype(np.uint32)


@device_constant
def _cutmix_sides(height: int, width: int) -> np.ndarray:
    """Height and width of the box that leaves w / 256 of the image, for w = 0 .. 256."""
    share = np.sqrt(1.0 - np.arange(_ONE + 1) / _ONE)
    return np.rint(share[:, None] * [height, width]).astype(np.int64)


@device_constant
def _erasable(height: int, width: int) -> np.ndarray:
    """Sides of all rectangles of 2 to 33 % of the image that are no longer than 3.3 times wide."""
    h, w = np.mgrid[1 : height + 1, 1 : width + 1].reshape(2, -1)
    area, longer = h * w / (height * width), np.maximum(h / w, w / h)
    return np.stack([h, w], 1)[(area >= 0.02) & (area <= 0.33) & (longer <= 3.3)]
