"""Floor 1. Random numbers without a generator: bits = f(seed, stream, epoch, index).

A random number generator has a state, so its n-th number depends on all numbers drawn before it.
Here there is no state: a number is computed from its coordinates. So a stopped run resumes without
a saved state, workers may run in any order, and NumPy and CuPy agree to the last bit.
"""

import math
from collections.abc import Callable
from enum import IntEnum

import numpy as np

from tinymixer.backend import Array, array_module
from tinymixer.errors import TinymixerError


class Stream(IntEnum):
    """What the numbers are used for. Two streams share no number, for any seed, epoch and index."""

    ORDER = 1
    CROP = 2
    FLIP = 3
    CUTOUT = 4
    ERASE = 5
    ERASE_FILL = 6
    MIX = 7
    MIX_BOX = 8
    SHAPES = 9
    SHAPES_NOISE = 10
    DROPOUT = 11
    INIT = 12
    AUTO = 13
    VALIDATION = 14


_LOW = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85


def philox4x32(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> Array:
    """Ten rounds: multiply two words of the counter, swap halves, xor with the others and the key.

    counter 4 x uint64 (...), each word below 2**32; key 2 words  ->  bits uint32 (4, ...)

    For each key a bijection of the counter, so different coordinates never share a block.
    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    a, b, c, d = counter
    key0, key1 = key
    for _ in range(10):
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # 32 x 32 bits: exact in 64
        a, b = (right >> 32) ^ b ^ key0, right & _LOW
        c, d = (left >> 32) ^ d ^ key1, left & _LOW
        key0, key1 = (key0 + _KEY_STEPS[0]) & _LOW, (key1 + _KEY_STEPS[1]) & _LOW
    xp = array_module(a)
    return xp.stack(xp.broadcast_arrays(a, b, c, d)).astype(np.uint32)


def draws(seed: int, stream: Stream, epoch: int, index: Array) -> Array:
    """Four words of 32 random bits for each index: philox(counter=(index, epoch, stream), seed).

    index (...) integers >= 0  ->  bits uint32 (4, ...), on the device of `index`

    Raises TinymixerError for a seed outside 0 .. 2**64 - 1.
    """
    seed = _checked(seed)
    xp = array_module(index)
    index = xp.asarray(index).astype(np.uint64)
    like = xp.zeros_like(index)
    counter = (index & _LOW, index >> 32, like + int(epoch), like + int(stream))
    return philox4x32(counter, (seed & _LOW, seed >> 32))


def uniform(bits: Array) -> Array:
    """u = floor(bits / 2**8) / 2**24, in [0, 1): every value is exact in float32.

    bits uint32 (...)  ->  float32 (...)
    """
    return (bits >> 8).astype(np.float32) * 2.0**-24


def integers(bits: Array, n: int | Array) -> Array:
    """k = floor(bits * n / 2**32), in 0 .. n - 1, by exact integer arithmetic.

    bits uint32 (...), n from 1 to 2**32, a number or an array  ->  int64 (...)

    Each k gets an n-th of all words, plus or minus one: a relative bias below n / 2**32.
    """
    n = np.uint64(n) if isinstance(n, int) else n.astype(np.uint64)
    return ((bits.astype(np.uint64) * n) >> 32).astype(np.int64)


def noise(
    shape: tuple[int, ...],
    seed: int,
    stream: Stream,
    epoch: int,
    index: Array,
    draws: Callable[[int, Stream, int, Array], Array] = draws,
) -> Array:
    """Random bytes, sixteen from each block of four words.

    index (B,), shape (B, ...)  ->  uint8 of that shape; row b depends on index[b] only
    """
    xp = array_module(index)
    size = math.prod(shape[1:])
    blocks = -(-size // 16)
    first = index[:, None].astype(np.int64) * blocks  # also where integers have 32 bits
    bits = draws(seed, stream, epoch, first + xp.arange(blocks))  # (4, B, blocks)
    words = xp.ascontiguousarray(bits.transpose(1, 2, 0)).reshape(len(index), -1)
    return words.view(np.uint8)[:, :size].reshape(shape)


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of n images in epoch `epoch`: each draws 64 bits, and these are sorted.

    ()  ->  int64 (n,)
    """
    high, low, _, _ = draws(seed, Stream.ORDER, epoch, np.arange(n))
    ticket = high.astype(np.uint64) << 32 | low
    return np.argsort(ticket, kind="stable")


def rng_key(seed: int, stream: Stream, *position: int) -> np.ndarray:
    """Where the numbers for one position start: uint64 (6,), two of the key, four of the counter.

    `position` is up to three integers >= 0, such as (epoch, step, micro-batch). It fills the high
    words of the counter, so that 2**64 blocks lie between one position and the next.
    """
    counter = [0, *position, *[0] * (3 - len(position))]
    return np.array([_checked(seed), stream, *counter], np.uint64)


def generator_from(key: np.ndarray) -> np.random.Generator:
    """A NumPy generator that starts at a key, for many numbers."""
    return np.random.Generator(np.random.Philox(key=key[:2], counter=key[2:]))


def generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """The one for a position: `generator_from(rng_key(seed, stream, *position))`."""
    return generator_from(rng_key(seed, stream, *position))


def _checked(seed: int) -> int:
    if not 0 <= seed < 2**64:
        raise TinymixerError(f"seed {seed}: expected an integer from 0 to 2**64 - 1")
    return int(seed)
