"""Typical wrong answers to the exercises of lesson 01, each with what the check must say to it."""

import math

import numpy as np
from notebooks import wrong

from tinymixer.backend import array_module

RIGHT = {
    "x.reshape(24)": True,
    "x[:, 0].reshape(12)": False,
    "x.transpose(2, 0, 1)": True,
    "x.transpose(0, 2, 1).reshape(3, 8)": False,
    "x[0].reshape(8)": True,
    "x + 0": False,
}


def first_axis_fastest(shape):
    return tuple(math.prod(shape[:i]) for i in range(len(shape)))


def written_into(x, b):
    x += b[:, None, None]
    return x


def all_of_numpy(x):
    e = np.exp(x - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def overflowing(x):
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


def one_maximum(x):
    xp = array_module(x)
    e = xp.exp(x - x.max())
    return e / e.sum(-1, keepdims=True)


def no_keepdims(x):
    e = np.exp(x - x.max())
    return e / e.sum(-1)


def one_sum(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def over_the_batch(x):
    e = np.exp(x)
    return e / e.sum(0)


WRONG = [
    wrong("strides", "the first axis is the fastest", strides_of=first_axis_fastest),
    wrong("strides", "in bytes", strides_of=lambda shape: np.zeros(shape).strides),
    wrong("strides", "three strides", strides_of=lambda shape: (*shape, 1)),
    wrong("strides", "only the next axis counts", strides_of=lambda shape: (*shape[1:], 1)),
    wrong(
        "strides",
        "takes its own length along",
        strides_of=lambda shape: tuple(math.prod(shape[i:]) for i in range(len(shape))),
    ),
    wrong("strides", "a tuple", strides_of=math.prod),
    wrong("free", "every other run is left out", free=RIGHT | {"x[:, 0].reshape(12)": True}),
    wrong("free", "makes new numbers", free=RIGHT | {"x + 0": True}),
    wrong("free", "in another order", free=RIGHT | {"x.transpose(2, 0, 1)": False}),
    wrong("bias", "along the channels", add_token_bias=lambda x, b: x + b),
    wrong("bias", "along the images", add_token_bias=lambda x, b: x + b[:, None]),
    wrong("bias", "kept, (4, 4, 4)", add_token_bias=lambda x, b: x + b[:, None, None, None]),
    wrong("bias", "you wrote into x", add_token_bias=written_into),
    wrong("pixels", "float64", to_float=lambda pixels: pixels / 127.5 - 1),
    wrong("pixels", "in uint8", to_float=lambda pixels: (pixels - 128) / 127.5),
    wrong("pixels", "0 .. 1", to_float=lambda pixels: pixels.astype(np.float32) / 255),
    wrong("device", "a function of np is left", softmax=all_of_numpy),
    wrong("device", "it overflows", softmax=overflowing),
    wrong("device", "maximum of all rows", softmax=one_maximum),
    wrong("device", "keepdims=True", softmax=no_keepdims),
    wrong("device", "divided by one sum", softmax=one_sum),
    wrong("device", "over the first axis", softmax=over_the_batch),
]
