"""The terms of a layout: where a layer of ours is in a released checkpoint, and in what form.

A Rule names a layer of ours, its place in a released checkpoint ("theirs"), and the names that its
arrays have there. Where they are laid out differently, a View says how: their array is split into
axes, the axes are put into another order, and joined into ours. Both work in both directions.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np


class View(NamedTuple):
    """How their array becomes ours: split it into axes, put these in order, join them."""

    theirs: tuple[int, ...]  # its shape
    split: tuple[int, ...]
    order: tuple[int, ...]

    def read(self, theirs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return theirs.reshape(self.split).transpose(self.order).reshape(shape)

    def write(self, ours: np.ndarray) -> np.ndarray:
        axes = ours.reshape([self.split[i] for i in self.order])
        return np.ascontiguousarray(axes.transpose(np.argsort(self.order)).reshape(self.theirs))


Viewed = Callable[[tuple[int, ...]], View]  # by the shape of our array


def same(shape: tuple[int, ...]) -> View:
    return View(shape, shape, tuple(range(len(shape))))


def transposed(shape: tuple[int, ...]) -> View:
    """A matrix (out, in), ours (in, out)."""
    return View(shape[::-1], shape[::-1], (1, 0))


def kernel(k: int) -> Viewed:
    """A convolution's (out, in, k, k), ours (k * k * in, out)."""

    def view(shape: tuple[int, ...]) -> View:
        theirs = (shape[1], shape[0] // k**2, k, k)
        return View(theirs, theirs, (2, 3, 1, 0))

    return view


def kernel_last(k: int) -> Viewed:
    """A convolution's (k, k, in, out), ours (k * k * in, out)."""
    return lambda shape: same((k, k, shape[0] // k**2, shape[1]))


def interleaved(p: int) -> Viewed:
    """A vector of (channel, member), ours (member, channel), with p members."""
    return lambda shape: View(shape, (shape[0] // p, p), (1, 0))


def interleaved_in(p: int) -> Viewed:
    """A 1 x 1 convolution whose inputs are (channel, member), ours (member, channel)."""

    def view(shape: tuple[int, ...]) -> View:
        n, out = shape
        return View((out, n, 1, 1), (out, n // p, p), (2, 1, 0))

    return view


def interleaved_out(p: int, convolution: bool) -> Viewed:
    """A map whose outputs are (channel, member), ours (member, channel)."""

    def view(shape: tuple[int, ...]) -> View:
        n_in, n = shape
        theirs = (n, n_in, 1, 1) if convolution else (n, n_in)
        return View(theirs, (n // p, p, n_in), (2, 1, 0))

    return view


# What the arrays of a layer are called, and how they are viewed.
Arrays = Mapping[str, tuple[str, Viewed]]

NORM: Arrays = {
    "gamma": ("weight", same),
    "beta": ("bias", same),
    "running_mean": ("running_mean", same),
    "running_var": ("running_var", same),
}


def linear(weight: Viewed = transposed, bias: Viewed = same) -> Arrays:
    return {"W": ("weight", weight), "b": ("bias", bias)}


def mlp(view: Viewed = transposed, first: str = "fc1", second: str = "fc2") -> Arrays:
    """The arrays of a ChannelMLP. Those of a TokenMLP are (out, in) already: view=same."""
    return {
        "W1": (f"{first}.weight", view),
        "b1": (f"{first}.bias", same),
        "W2": (f"{second}.weight", view),
        "b2": (f"{second}.bias", same),
    }


@cache
def _pattern(ours: str) -> re.Pattern[str]:
    return re.compile(re.escape(ours).replace(r"\*", r"(\d+)"))


class Rule(NamedTuple):
    """A layer of ours, `blocks.*.norm` with numbers for the stars, and where it is in theirs."""

    ours: str
    theirs: str | Callable[..., str]  # "blocks.{}.norm1." or a function of the numbers
    arrays: Arrays

    def find(self, name: str) -> tuple[str, Viewed] | None:
        """What the array `name` of ours is called in theirs, and how it is viewed."""
        layer, _, array = name.rpartition(".")
        match = _pattern(self.ours).fullmatch(layer) if array in self.arrays else None
        if match is None:
            return None
        numbers = [int(number) for number in match.groups()]
        place = self.theirs(*numbers) if callable(self.theirs) else self.theirs.format(*numbers)
        their_array, view = self.arrays[array]
        return place + their_array, view
