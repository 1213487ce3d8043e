"""Typical wrong answers to the exercises of lesson 05, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def ramp(C):
    """A token of C channels with mean 0 and variance 1."""
    x = np.arange(C) - (C - 1) / 2
    return x / x.std()


def of_variance(share):
    return lambda C, eps: ramp(C) * np.sqrt(share * eps)


def unbiased(C, eps):
    return ramp(C) * np.sqrt(eps * (C - 1) / C)


def two_lengths(x_hat, gamma):
    return 1 / gamma, -3 / gamma


def multiplied(x_hat, gamma):
    return gamma, gamma * x_hat


WRONG = [
    wrong("eps", "your token: it is its variance", half_variance=lambda C, eps: ramp(C) * eps),
    wrong("eps", "half of eps", half_variance=of_variance(0.5)),
    wrong("eps", "divided by C - 1", half_variance=unbiased),
    wrong("eps", "the token is flat", half_variance=lambda C, eps: np.full(C, 0.5)),
    wrong("eps", "the variance of your x_hat is 0.750", half_variance=of_variance(3)),
    wrong("eps", "yours has the shape (1, 6)", half_variance=lambda C, eps: ramp(C)[None]),
    wrong("lost", "gamma is missing", lost_gradients=lambda x_hat, gamma: (0 * gamma + 1, x_hat)),
    wrong("lost", "you multiplied by gamma", lost_gradients=multiplied),
    wrong("lost", "a multiple of the other", lost_gradients=two_lengths),
    wrong(
        "lost", "a gradient of zeros", lost_gradients=lambda x_hat, gamma: (0 * gamma, 1 / gamma)
    ),
    wrong("lost", "and 0.", lost_gradients=lambda x_hat, gamma: (1 / gamma, x_hat)),
    wrong("lost", "that is (2, 5); yours is (5,)", lost_gradients=lambda x_hat, gamma: 1 / gamma),
    wrong(
        "parameters",
        "the sum over the batch is missing: your dgamma has shape (3, 5)",
        parameter_gradients=lambda dy, x_hat: ((dy * x_hat).sum(0), dy.sum(0)),
    ),
    wrong(
        "parameters",
        "the channels are what must remain",
        parameter_gradients=lambda dy, x_hat: ((dy * x_hat).sum(-1), dy.sum(-1)),
    ),
    wrong(
        "parameters",
        "dgamma is a mean",
        parameter_gradients=lambda dy, x_hat: ((dy * x_hat).mean((0, 1)), dy.sum((0, 1))),
    ),
    wrong(
        "parameters",
        "x_hat is missing in dgamma",
        parameter_gradients=lambda dy, x_hat: (dy.sum((0, 1)), dy.sum((0, 1))),
    ),
    wrong(
        "parameters",
        "return dgamma first",
        parameter_gradients=lambda dy, x_hat: (dy.sum((0, 1)), (dy * x_hat).sum((0, 1))),
    ),
    wrong(
        "axes",
        "BatchNorm looks like the axes that are kept",
        axes_of={"LayerNorm": (3,), "GroupNorm": (0, 1, 3), "BatchNorm": (3,)},
    ),
    wrong(
        "axes",
        "GroupNorm looks like images are mixed",
        axes_of={"LayerNorm": (3,), "GroupNorm": (0, 1, 2, 3), "BatchNorm": (0, 1, 2)},
    ),
    wrong(
        "axes",
        "GroupNorm looks like C is missing",
        axes_of={"LayerNorm": (3,), "GroupNorm": (0, 1), "BatchNorm": (0, 1, 2)},
    ),
]
