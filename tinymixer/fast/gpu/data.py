"""Twins of what becomes of the data: dropout's numbers, and augmentation."""

import math
from typing import Any

import numpy as np

from tinymixer import data
from tinymixer.backend import Array, array_module
from tinymixer.data import autoaugment, draws
from tinymixer.data.draws import Stream
from tinymixer.fast.gpu import kernels
from tinymixer.fast.gpu.kernels import WIDE, one_thread_each
from tinymixer.fast.table import twin_of

WORDS = 8  # of 32 bits, that one block of Philox has
MOST_IMAGES = 65535  # augmented at once: so far a grid reaches in y


@twin_of(draws.rng_key, "gpu")
def rng_key(seed: int, stream: Stream, *position: int) -> Array:
    """Written by a kernel, which takes the numbers as its arguments: nothing is copied."""
    import cupy

    key = cupy.empty(6, np.uint64)
    kernels.launch("write_rng_key", (1, 1), key, *draws.rng_key(seed, stream, *position))
    return key


@twin_of(draws.generator_from, "gpu")
class Generator:
    """The same numbers, made where `key` is.

    It draws what a model asks for in training: uniform numbers, of which each takes one word.
    """

    def __init__(self, key: Array):
        self._key, self._taken = key, 0  # words of 32 bits

    def random(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """Uniform in [0, 1), float32."""
        u, first = array_module(self._key).empty(shape, dtype), self._taken
        if not u.size:
            return u
        self._taken += u.size
        blocks = -(-self._taken // WORDS) - first // WORDS
        kernels.launch(
            "uniform", one_thread_each(blocks), u, np.int64(u.size), np.uint64(first), self._key
        )
        return u


@twin_of(data.Augment, "gpu")
class Augment(data.Augment):
    """Crop and flip in one launch, the operations of a policy in one, and the random words of all
    else in one for each use.

    As array operations, Philox alone is ten rounds of ten launches. The bits are the same.
    """

    @staticmethod
    def _draws(seed: int, stream: Stream, epoch: int, index: Array) -> Array:
        index = _whole_numbers(index)
        words = array_module(index).empty((4, *index.shape), np.uint32)
        place = np.uint64(seed), np.uint32(stream), np.uint32(epoch)
        size = np.int64(index.size)
        kernels.launch("random_words", one_thread_each(index.size), index, words, size, *place)
        return words

    def _crop_and_flip(
        self, images: Array, indices: Array, epoch: int, seed: int, outside: int
    ) -> Array:
        """images uint8 (N, H, W, 3), or labels (N, H, W); indices from 0 to N - 1."""
        height, width = images.shape[1:3]
        mirrored_once = self.crop_padding < min(height, width)
        if images.dtype != np.uint8 or not mirrored_once or len(indices) > MOST_IMAGES:
            return super()._crop_and_flip(images, indices, epoch, seed, outside)
        xp = array_module(images)
        batch = xp.empty((len(indices), *images.shape[1:]), np.uint8)
        size = math.prod(images.shape[1:])
        coin_epoch, turns = (0, epoch) if self.flip == "alternating" else (epoch, 0)
        kernels.launch(
            "crop_and_flip",
            (-(-size // WIDE), len(batch)),
            xp.ascontiguousarray(images),
            _whole_numbers(indices),
            batch,
            *map(np.int32, (height, width, size // (height * width), self.crop_padding)),
            *map(np.int32, (self.padding == "zero", outside, self.flip != "none")),
            np.uint64(seed),
            *map(np.uint32, (epoch, coin_epoch, turns)),
        )
        return batch

    def _by_policy(
        self, batch: Array, indices: Array, epoch: int, seed: int, outside: int
    ) -> Array:
        """batch uint8 (B, H, W, 3), or labels (B, H, W), is written over: it is the crop's own."""
        grey = batch.shape[3:] == (1,)  # the kernel takes a single channel for classes of pixels
        if self.auto_augment == "none" or batch.dtype != np.uint8 or grey:
            return super()._by_policy(batch, indices, epoch, seed, outside)
        xp = array_module(batch)
        batch = xp.ascontiguousarray(batch)
        policy = autoaugment.policy(batch, self.auto_augment)
        height, width = batch.shape[1:3]
        kernels.launch(
            "auto_augment",
            (len(batch), 1),
            *(batch, xp.empty_like(batch), _whole_numbers(indices)),
            *(policy, autoaugment.maps(batch, height, width)),
            *map(np.int32, (len(policy), height, width, math.prod(batch.shape[3:]), outside)),
            *(np.uint64(seed), np.uint32(epoch)),
        )
        return batch


def _whole_numbers(x: Array) -> Array:
    return array_module(x).ascontiguousarray(x.astype(np.int64, copy=False))
