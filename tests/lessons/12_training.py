"""Typical wrong answers to the exercises of lesson 12, each with what the check must say to it."""

import math

import numpy as np
from notebooks import wrong

from tinymixer import ops


def least(K, smoothing):
    q = np.full(K, smoothing / K)
    q[0] += 1 - smoothing
    return -(q * np.log(q)).sum()


def least_for_the_others(K, smoothing):
    q = np.full(K, smoothing / (K - 1))
    q[0] = 1 - smoothing
    return -(q * np.log(q)).sum()


def loss_of(model, x, labels):
    return ops.SoftmaxCrossEntropy()(model(x), labels)


def piled_up(model, x, labels, lr):
    loss = loss_of(model, x, labels)
    loss.backward()
    for p in model.parameters():
        p.data -= lr * p.grad
    return loss.item()


def uphill(model, x, labels, lr):
    loss, sink = loss_of(model, x, labels), {}
    loss.backward(into=sink)
    for p in model.parameters():
        p.data += lr * sink[p]
    return loss.item()


def nothing_moves(model, x, labels, lr):
    loss, sink = loss_of(model, x, labels), {}
    loss.backward(into=sink)
    for p in model.parameters():
        weights = p.data
        weights = weights - lr * sink[p]
    return loss.item()


def summed(model, x, labels, lr):
    loss, sink = loss_of(model, x, labels), {}
    loss.backward(into=sink)
    for p in model.parameters():
        p.data -= lr * len(x) * sink[p]
    return loss.item()


def no_bias(model, x, labels, lr):
    loss, sink = loss_of(model, x, labels), {}
    loss.backward(into=sink)
    model.W.data -= lr * sink[model.W]
    return loss.item()


def a_tensor(model, x, labels, lr):
    loss, sink = loss_of(model, x, labels), {}
    loss.backward(into=sink)
    for p in model.parameters():
        p.data -= lr * sink[p]
    return loss


def into_path(path, pieces):
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def part_left(path, pieces):
    part = path.with_name("new.part")
    into_path(part, pieces)
    part.replace(path)


def copied(path, pieces):
    part = path.with_name("new.part")
    into_path(part, pieces)
    path.write_bytes(part.read_bytes())


def at_once(path, pieces):
    path.write_bytes(b"".join(pieces))


def copied_and_tidied(path, pieces):
    part = path.with_name("new.part")
    try:
        copied(path, pieces)
    finally:
        part.unlink()


def swallowed(path, pieces):
    part = path.with_name("new.part")
    try:
        into_path(part, pieces)
        part.replace(path)
    except RuntimeError:
        part.unlink()


def in_bits(K):
    return math.log2(K)


WRONG = [
    wrong("bounds", "base 2", first_loss=in_bits, least_loss=least),
    wrong("bounds", "the sign", first_loss=lambda K: math.log(1 / K), least_loss=least),
    wrong("bounds", "a probability", first_loss=lambda K: 1 / K, least_loss=least),
    wrong("bounds", "no smoothing", first_loss=math.log, least_loss=lambda K, smoothing: 0.0),
    wrong("bounds", "gets no part", first_loss=math.log, least_loss=least_for_the_others),
    wrong(
        "bounds",
        "label's term alone",
        first_loss=math.log,
        least_loss=lambda K, smoothing: -math.log(1 - smoothing + smoothing / K),
    ),
    wrong("step", "accumulate", sgd_step=piled_up),
    wrong("step", "uphill", sgd_step=uphill),
    wrong("step", "no weight has moved", sgd_step=nothing_moves),
    wrong("step", "sum over the images", sgd_step=summed),
    wrong("step", "bias is left out", sgd_step=no_bias),
    wrong("step", "as a number", sgd_step=a_tensor),
    wrong("class", "looks like columns", right_by_class=lambda m: m.diagonal() / m.sum(0)),
    wrong("class", "shares of all images", right_by_class=lambda m: m.diagonal() / m.sum()),
    wrong("class", "looks like counts", right_by_class=lambda m: m.diagonal()),
    wrong("class", "all classes together", right_by_class=lambda m: m.trace() / m.sum()),
    wrong("save", "path itself is written to", save=into_path),
    wrong("save", "is left beside it", save=part_left),
    wrong("save", "left behind", save=copied),
    wrong("save", "overwritten where it lies", save=at_once),
    wrong("save", "overwritten where it lies", save=copied_and_tidied),
    wrong("save", "swallowed", save=swallowed),
]
