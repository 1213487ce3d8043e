"""Typical wrong answers to the exercises of lesson 04, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def memory_cut(x, W, b):
    return (W @ x.reshape(-1, len(x)).T).reshape(-1, *x.shape[1:]) + b[:, None, None]


def flat(x, W, b):
    return W @ x.reshape(len(x), -1) + b[:, None]


def bias_in_a_row(x, W, b):
    return (W @ x.reshape(len(x), -1) + b).reshape(-1, *x.shape[1:])


def no_bias(x, W, b):
    return (W @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])


def from_the_right(x, W, b):
    return (x.reshape(len(x), -1) @ W).reshape(-1, *x.shape[1:]) + b[:, None, None]


def by_einsum(x, W, b):
    return np.einsum("ds,sbc->dbc", W, x) + b[:, None, None]


def per_image(x, dy):
    return dy @ x.swapaxes(1, 2)


def across_the_batch(x, dy):
    return dy.reshape(dy.shape[1], -1) @ x.reshape(x.shape[1], -1).T


WRONG = [
    wrong("mix", "no tokens", mix_tokens=memory_cut),
    wrong("mix", "the last step is missing", mix_tokens=flat),
    wrong("mix", "b[:, None]", mix_tokens=bias_in_a_row),
    wrong("mix", "the bias is missing", mix_tokens=no_bias),
    wrong("mix", "do not meet", mix_tokens=from_the_right),
    wrong("mix", "without einsum", mix_tokens=by_einsum),
    wrong("bias", "the sum over the batch is missing", bias_gradient=lambda dy: dy.sum(2)),
    wrong("bias", "the sum over the channels is missing", bias_gradient=lambda dy: dy.sum(1)),
    wrong("bias", "each token has a bias of its own", bias_gradient=lambda dy: dy.sum(0)),
    wrong("bias", "divided by B*C", bias_gradient=lambda dy: dy.mean((1, 2))),
    wrong("bias", "as in ChannelLinear", bias_gradient=lambda dy: dy.sum((0, 1))),
    wrong("weights", "the sum over the batch is missing", weight_gradient=per_image),
    wrong("weights", "cuts memory across tokens", weight_gradient=across_the_batch),
    wrong("weights", "transposed", weight_gradient=lambda x, dy: per_image(x, dy).sum(0).T),
    wrong("weights", "a mean", weight_gradient=lambda x, dy: per_image(x, dy).mean(0)),
    wrong("weights", "C does not meet C", weight_gradient=lambda x, dy: (dy @ x).sum(0)),
    wrong("scale", "the axis of length 1", scale_gradient=lambda x, g, dy: (dy * x).sum((0, 2))),
    wrong("scale", "nothing was summed", scale_gradient=lambda x, g, dy: dy * x),
    wrong("scale", "x is missing", scale_gradient=lambda x, g, dy: dy.sum((0, 2))[:, None]),
    wrong(
        "scale", "g took the place", scale_gradient=lambda x, g, dy: (dy * g).sum((0, 2))[:, None]
    ),
]
