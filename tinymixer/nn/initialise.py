"""Initialisers: the numbers that weights start with.

An initialiser is `init(rng, shape, fan_in) -> Parameter`. fan_in is how many products each output
of the layer adds up: weights of variance 1/fan_in keep the size of what passes through.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinymixer.nn.module import BLANK, Parameter

Rng = np.random.Generator


class Zeros:
    """In place of a generator: weights of zero that take up no memory, to look at shapes only.

    Raises ValueError for more numbers or more arrays than this: a file, or a user, may describe a
    model too large for any memory.
    """

    def __init__(self, numbers: int, arrays: int):
        self.numbers, self.arrays = numbers, arrays

    def weights(self, shape: tuple[int, ...]) -> Parameter:
        self.numbers, self.arrays = self.numbers - math.prod(shape), self.arrays - 1
        if self.numbers < 0 or self.arrays < 0:
            raise ValueError("it describes a larger model than there is room for")
        return Parameter(np.broadcast_to(np.float32(0), shape))


Init = Callable[[Rng, tuple[int, ...], int], Parameter]


def lecun_normal(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
    """W ~ N(0, 1/fan_in), cut at two standard deviations and rescaled to that variance.

    Source: the default of the layers that Mixer was published with (Flax); Klambauer et al. 2017.
    """
    if undrawn(rng):
        return blank(rng, shape)
    draws = rng.standard_normal(shape, dtype=np.float32)
    while (outside := np.abs(draws) > 2).any():
        draws[outside] = rng.standard_normal(int(outside.sum()), dtype=np.float32)
    cut_std = 0.8796256610342398  # of a standard normal variable cut at ±2
    draws *= max(1, fan_in) ** -0.5 / cut_std
    return Parameter(draws)


def fan_in_uniform(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
    """Uniform in ±1/√fan_in, for weights and for biases: variance 1/(3 fan_in).

    Source: the default of the layers that most of Mixer's successors were published with (PyTorch).
    """
    if undrawn(rng):
        return blank(rng, shape)
    return Parameter((2 * rng.random(shape, dtype=np.float32) - 1) * max(1, fan_in) ** -0.5)


def normal(std: float) -> Init:
    """W ~ N(0, std²), independent of the fan-in.

    Released codes cut it at ±2; at their std of 0.02 that is 100 standard deviations away.
    """

    def init(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
        if undrawn(rng):
            return blank(rng, shape)
        return Parameter(std * rng.standard_normal(shape, dtype=np.float32))

    return init


def zero(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
    return blank(rng, shape)


def undrawn(rng: Any) -> bool:
    """Whether `rng` is not a generator but stands for weights of zero."""
    return rng is BLANK or isinstance(rng, Zeros)


def blank(rng: Any, shape: tuple[int, ...]) -> Parameter:
    """Weights of zero, counted where `rng` counts them."""
    return rng.weights(shape) if isinstance(rng, Zeros) else zeros(*shape)


def zeros(*shape: int) -> Parameter:
    return Parameter(np.zeros(shape, np.float32))


def ones(*shape: int) -> Parameter:
    return Parameter(np.ones(shape, np.float32))
