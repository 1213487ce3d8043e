"""Typical wrong answers to the exercises of lesson 06, each with what the check must say to it."""

import numpy as np
from notebooks import wrong

from tinymixer.ops.gelu import CUBIC, SLOPE


def gate_only(x, t):
    return 0.5 * (1 + t)


def no_chain_rule(x, t):
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2)


def cube_not_derived(x, t):
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * SLOPE * (1 + CUBIC * x**2)


def square_lost(x, t):
    return 0.5 * (1 + t) + 0.5 * x * (1 - t) * SLOPE * (1 + 3 * CUBIC * x**2)


def sign_of_the_sum(x, t):
    return 0.5 * (1 + t) - 0.5 * x * (1 - t**2) * SLOPE * (1 + 3 * CUBIC * x**2)


def softmax(logits, axis=1):
    e = np.exp(logits)
    return e / e.sum(axis, keepdims=True)


def as_written(logits, q):
    p = softmax(logits)
    return -(q * np.log(p)).sum() / len(q), (p - q) / len(q)


def one_maximum(logits, q):
    z = logits - logits.max()
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    return -(q * log_p).sum() / len(q), (np.exp(log_p) - q) / len(q)


def log_of_p(logits, q):
    p = softmax(logits - logits.max(1, keepdims=True))
    return -(q * np.log(p)).sum() / len(q), (p - q) / len(q)


def never_zero(logits, q):
    p = softmax(logits - logits.max(1, keepdims=True))
    return -(q * np.log(p + 1e-12)).sum() / len(q), (p - q) / len(q)


def one_class_alone(logits, q):
    return log_of_p(logits, np.eye(q.shape[1])[q.argmax(1)])


def one_class_in_the_loss(logits, q):
    return one_class_alone(logits, q)[0], log_of_p(logits, q)[1]


def down_the_images(logits, q):
    p = softmax(logits, 0)
    return -(q * np.log(p)).sum() / len(q), (p - q) / len(q)


def sum_over_the_batch(logits, q):
    p = softmax(logits)
    return -(q * np.log(p)).sum(), p - q


def mean_in_the_loss_only(logits, q):
    p = softmax(logits)
    return -(q * np.log(p)).sum() / len(q), p - q


def mean_over_everything(logits, q):
    p = softmax(logits)
    return -(q * np.log(p)).mean(), (p - q) / q.size


def wanted_minus_predicted(logits, q):
    p = softmax(logits)
    return -(q * np.log(p)).sum() / len(q), (q - p) / len(q)


def one_for_each_image(logits, q):
    p = softmax(logits)
    return -(q * np.log(p)).sum(1), (p - q) / len(q)


def no_new_axis(x, branch, keep, rate):
    return x + branch * keep / (1 - rate)


def not_scaled(x, branch, keep, rate):
    return x + branch * keep[:, None]


def x_dropped_too(x, branch, keep, rate):
    return (x + branch) * keep[:, None] / (1 - rate)


def divided_by_the_rate(x, branch, keep, rate):
    return x + branch * keep[:, None] / rate


def others_skip(x, branch, keep, rate):
    return x + branch * ~keep[:, None] / (1 - rate)


WRONG = [
    wrong("slope", "treat the gate as constant", slope=gate_only),
    wrong("slope", "inner derivative du/dx is missing", slope=no_chain_rule),
    wrong("slope", "lost the 3", slope=cube_not_derived),
    wrong("slope", "1 - t²", slope=square_lost),
    wrong("slope", "a difference quotient says", slope=sign_of_the_sum),
    wrong("loss", "exp overflows", cross_entropy=as_written),
    wrong("loss", "maximum of the whole batch", cross_entropy=one_maximum),
    wrong("loss", "logarithm of a p that has become 0", cross_entropy=log_of_p),
    wrong("loss", "the loss is 1000, yours is 27.6", cross_entropy=never_zero),
    wrong("loss", "only the largest of q", cross_entropy=one_class_alone),
    wrong("loss", "only the largest of q", cross_entropy=one_class_in_the_loss),
    wrong("loss", "down the images", cross_entropy=down_the_images),
    wrong("loss", "missing in the loss", cross_entropy=sum_over_the_batch),
    wrong("loss", "missing in dlogits", cross_entropy=mean_in_the_loss_only),
    wrong("loss", "averaged over the classes", cross_entropy=mean_over_everything),
    wrong("loss", "wrong sign", cross_entropy=wanted_minus_predicted),
    wrong("loss", "yours has shape (3,)", cross_entropy=one_for_each_image),
    wrong("gap", "lost its own share", best_gap=lambda alpha, K: np.log((1 - alpha) / (alpha / K))),
    wrong("gap", "all the spread", best_gap=lambda alpha, K: np.log((1 - alpha) / alpha)),
    wrong(
        "gap",
        "over all K classes",
        best_gap=lambda alpha, K: np.log((1 - alpha) / (alpha / (K - 1))),
    ),
    wrong("gap", "is its logarithm", best_gap=lambda alpha, K: (1 - alpha + alpha / K) * K / alpha),
    wrong("drop", "keep[:, None]", add_branch=no_new_axis),
    wrong("drop", "the scale is missing", add_branch=not_scaled),
    wrong("drop", "x is dropped too", add_branch=x_dropped_too),
    wrong("drop", "divided by the rate", add_branch=divided_by_the_rate),
    wrong("drop", "wrong images skip", add_branch=others_skip),
]
