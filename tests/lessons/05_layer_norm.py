"""Typical wrong answers to the exercises of lesson 05, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def over_the_tokens(x, gamma, beta, eps):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + eps) * gamma + beta


def unbiased(x, gamma, beta, eps):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True, ddof=1)
    return (x - mean) / np.sqrt(variance + eps) * gamma + beta


def eps_outside(x, gamma, beta, eps):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + eps) * gamma + beta


def no_root(x, gamma, beta, eps):
    return (x - x.mean(-1, keepdims=True)) / (x.var(-1, keepdims=True) + eps) * gamma + beta


def axis_lost(x, gamma, beta, eps):
    return (x - x.mean(-1)) / np.sqrt(x.var(-1) + eps) * gamma + beta


def not_scaled_not_shifted(x, gamma, beta, eps):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def mean(v):
    return v.mean(-1, keepdims=True)


def shift_left_in(g, x_hat, scale):
    return scale * (g - x_hat * mean(g * x_hat))


def stretch_left_in(g, x_hat, scale):
    return scale * (g - mean(g))


def statistics_fixed(g, x_hat, scale):
    return scale * g


def not_scaled(g, x_hat, scale):
    return g - mean(g) - x_hat * mean(g * x_hat)


def not_along_x_hat(g, x_hat, scale):
    return scale * (g - mean(g) - mean(g * x_hat))


def scaled_twice(g, x_hat, scale):
    return scale**2 * (g - mean(g) - x_hat * mean(g * x_hat))


WRONG = [
    wrong("forward", "run over the tokens", layer_norm=over_the_tokens),
    wrong("forward", "divided by C - 1", layer_norm=unbiased),
    wrong("forward", "outside the root", layer_norm=eps_outside),
    wrong("forward", "the square root is missing", layer_norm=no_root),
    wrong("forward", "keepdims=True is missing", layer_norm=axis_lost),
    wrong("forward", "gamma and beta are missing", layer_norm=not_scaled_not_shifted),
    wrong("backward", "the first mean is missing", norm_backward=shift_left_in),
    wrong("backward", "the second mean is missing", norm_backward=stretch_left_in),
    wrong("backward", "both means are missing", norm_backward=statistics_fixed),
    wrong("backward", "the scale in front is missing", norm_backward=not_scaled),
    wrong("backward", "points along x_hat", norm_backward=not_along_x_hat),
    wrong("backward", "Orthogonal to (1, ..., 1): True", norm_backward=scaled_twice),
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
