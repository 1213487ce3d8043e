"""Typical wrong answers to the exercises of lesson 03, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def one_side(f, x, v, w, h):
    return (w * (f(x + h * v) - f(x))).sum() / h


def no_two(f, x, v, w, h):
    return (w * (f(x + h * v) - f(x - h * v))).sum() / h


def no_w(f, x, v, w, h):
    return (f(x + h * v) - f(x - h * v)).sum() / (2 * h)


def no_v(f, x, v, w, h):
    return (w * (f(x + h) - f(x - h))).sum() / (2 * h)


def no_sum(f, x, v, w, h):
    return w * (f(x + h * v) - f(x - h * v)) / (2 * h)


def padded(dy):
    """dy with a token of zeros in front, and with one behind."""
    edge = np.zeros_like(dy[:1])
    return np.concatenate([edge, dy]), np.concatenate([dy, edge])


def lost_at_the_end(dy):
    later, earlier = padded(dy)
    return (later - earlier) * (np.arange(7) < 6)[:, None, None]


WRONG = [
    wrong("step", "as small as it gets", best_step=lambda epsilon: epsilon),
    wrong("step", "to one side", best_step=lambda epsilon: epsilon**0.5),
    wrong("step", "after Richardson", best_step=lambda epsilon: epsilon**0.2),
    wrong("step", "for every epsilon", best_step=lambda epsilon: 1e-5),
    wrong("step", "far from the bottom", best_step=lambda epsilon: 100 * epsilon ** (1 / 3)),
    wrong("central", "one side only", central=one_side),
    wrong("central", "the 2 is missing", central=no_two),
    wrong("central", "w is missing", central=no_w),
    wrong("central", "v is missing", central=no_v),
    wrong("central", "Multiply by w and sum", central=no_sum),
    wrong("adjoint", "differences again", backward=lambda dy: dy[1:] - dy[:-1]),
    wrong("adjoint", "the sign", backward=lambda dy: padded(dy)[1] - padded(dy)[0]),
    wrong("adjoint", "with the minus is missing", backward=lambda dy: padded(dy)[0]),
    wrong("adjoint", "not the inverse", backward=lambda dy: padded(dy)[0].cumsum(0)),
    wrong("adjoint", "wrong at an end: token 6", backward=lost_at_the_end),
    wrong("mend", "nothing has changed", centred_backward=lambda dy: dy),
    wrong("mend", "wrong sign", centred_backward=lambda dy: dy + dy.mean(0)),
    wrong("mend", "1/S is missing", centred_backward=lambda dy: dy - dy.sum(0)),
    wrong("mend", "axis 1", centred_backward=lambda dy: dy - dy.mean(1, keepdims=True)),
    wrong("mend", "the report says", centred_backward=lambda dy: 2 * (dy - dy.mean(0))),
]
