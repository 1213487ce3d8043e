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
    """In place of a generator: weights of zero, but no more numbers and no more arrays than this.

    For a model that a file describes, which may be too large for any memory: ValueError.
    """

    def __init__(self, numbers: int, arrays: int):
        self.numbers, self.arrays = numbers, arrays

    def random(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        self.numbers, self.arrays = self.numbers - math.prod(shape), self.arrays - 1
        if self.numbers < 0 or self.arrays < 0:
            raise ValueError("it describes a larger model than the file holds")
        return np.zeros(shape, dtype)

    standard_normal = random


Init = Callable[[Rng, tuple[int, ...], int], Parameter]


def lecun_normal(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
    """W ~ N(0, 1/fan_in), cut at two standard deviations and rescaled to that variance.

    Source: the default of the layers that Mixer was published with (Flax); Klambauer et al. 2017.
    """
    if rng is BLANK:
        return zeros(*shape)
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
    if rng is BLANK:
        return zeros(*shape)
    return Parameter((2 * rng.random(shape, dtype=np.float32) - 1) * max(1, fan_in) ** -0.5)


def normal(std: float) -> Init:
    """W ~ N(0, std²), independent of the fan-in.

    Released codes cut it at ±2; at their std of 0.02 that is 100 standard deviations away.
    """

    def init(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
        if rng is BLANK:
            return zeros(*shape)
        return Parameter(std * rng.standard_normal(shape, dtype=np.float32))

    return init


def zero(rng: Rng, shape: tuple[int, ...], fan_in: int) -> Parameter:
    return zeros(*shape)


def zeros(*shape: int) -> Parameter:
    return Parameter(np.zeros(shape, np.float32))


def ones(*shape: int) -> Parameter:
    return Parameter(np.ones(shape, np.float32))
