"""Typical wrong answers to the exercises of lesson 14, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def shifted(x, k, delta_of, fill=0.0):
    W, C = x.shape
    y = np.full_like(x, fill)
    for c in range(C):
        for i in range(W):
            if 0 <= i - delta_of(c, C) < W:
                y[i, c] = x[i - delta_of(c, C), c]
    return y


def backwards(x, k):
    return shifted(x, k, lambda c, C: k // 2 - c // -(-C // k))


def in_a_circle(x, k):
    size = -(-x.shape[1] // k)
    columns = [np.roll(column, c // size - k // 2) for c, column in enumerate(x.T)]
    return np.stack(columns, axis=1)


def taking_turns(x, k):
    return shifted(x, k, lambda c, C: c % k - k // 2)


def rounded_down(x, k):
    return shifted(x, k, lambda c, C: c // (C // k) - k // 2)


def channels_first(x, k):
    return shifted(x, k, lambda c, C: c // -(-C // k) - k // 2).T


def added_by_index(dy, source):
    dx = np.zeros_like(dy)
    dx[source] += dy
    return dx


def forward_again(dy, source):
    return dy[source]


def averaged(dy, source):
    return added(dy, source) / np.maximum(np.bincount(source, minlength=len(dy)), 1)


def added(dy, source):
    dx = np.zeros_like(dy)
    np.add.at(dx, source, dy)
    return dx


def opposite_shift(dy, source):
    return np.append(dy[2:], [0.0, 0.0])


WRONG = [
    wrong("shift", "it moves the wrong way", shift_row=backwards),
    wrong("shift", "That is circular padding", shift_row=in_a_circle),
    wrong("shift", "channels take turns", shift_row=taking_turns),
    wrong("shift", "rounded down", shift_row=rounded_down),
    wrong("shift", "yours is (7, 9)", shift_row=channels_first),
    wrong("collect", "only the last one counts", collect=added_by_index),
    wrong("collect", "that is the forward again", collect=forward_again),
    wrong("collect", "the copies are averaged", collect=averaged),
    wrong("collect", "did you shift back with zeros?", collect=opposite_shift),
    wrong("count", "the biases are missing", block_parameters=lambda C: 12 * C * C + 8 * C),
    wrong("count", "the four norms are missing", block_parameters=lambda C: 12 * C * C + 9 * C),
    wrong("count", "share one linear map", block_parameters=lambda C: 11 * C * C + 16 * C),
    wrong("count", "too many matrices", block_parameters=lambda C: 16 * C * C + 17 * C),
]
