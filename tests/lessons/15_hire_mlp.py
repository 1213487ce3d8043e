"""Typical wrong answers to the exercises of lesson 15, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def filled(x, p):
    return np.concatenate([x, x[: -len(x) % p]])


def channel_first(x, p):
    apart = filled(x, p).reshape(-1, p, *x.shape[1:])
    return np.moveaxis(apart, 1, 4).reshape(len(apart), *x.shape[1:3], -1)


def cut_the_memory(x, p):
    full = filled(x, p)
    return full.reshape(len(full) // p, *x.shape[1:3], -1)


def far_rows(x, p):
    apart = filled(x, p).reshape(p, -1, *x.shape[1:])
    return np.moveaxis(apart, 0, 3).reshape(apart.shape[1], *x.shape[1:3], -1)


def with_zeros(x, p):
    full = np.concatenate([x, 0 * x[: -len(x) % p]])
    apart = full.reshape(-1, p, *x.shape[1:])
    return np.moveaxis(apart, 1, 3).reshape(len(apart), *x.shape[1:3], -1)


def incomplete_dropped(x, p):
    apart = x[: len(x) // p * p].reshape(-1, p, *x.shape[1:])
    return np.moveaxis(apart, 1, 3).reshape(len(apart), *x.shape[1:3], -1)


def rows_of(dy, p):
    G, W, B, _ = dy.shape
    return np.moveaxis(dy.reshape(G, W, B, p, -1), 3, 1).reshape(G * p, W, B, -1)


def merely_cropped(dy, p, H):
    return rows_of(dy, p)[:H]


def to_the_last(dy, p, H):
    rows = rows_of(dy, p)
    dx = rows[:H].copy()
    dx[H - len(rows[H:]) :] += rows[H:]
    return dx


def overwritten(dy, p, H):
    rows = rows_of(dy, p)
    dx = rows[:H].copy()
    dx[: len(rows[H:])] = rows[H:]
    return dx


def not_cropped(dy, p, H):
    return rows_of(dy, p)


def biased(running_mean, running_var, x, m=0.1):
    rows = x.reshape(-1, x.shape[-1])
    return (1 - m) * running_mean + m * rows.mean(0), (1 - m) * running_var + m * rows.var(0)


def turned_round(running_mean, running_var, x, m=0.1):
    rows = x.reshape(-1, x.shape[-1])
    unbiased = rows.var(0, ddof=1)
    return m * running_mean + (1 - m) * rows.mean(0), m * running_var + (1 - m) * unbiased


def forgetful(running_mean, running_var, x, m=0.1):
    rows = x.reshape(-1, x.shape[-1])
    return rows.mean(0), rows.var(0, ddof=1)


def for_each_image(running_mean, running_var, x, m=0.1):
    return x.mean((0, 1)), x.var((0, 1))


WRONG = [
    wrong("regions", "run over (channel, place)", regions_of_rows=channel_first),
    wrong("regions", "plain reshape cuts memory", regions_of_rows=cut_the_memory),
    wrong("regions", "not its neighbour", regions_of_rows=far_rows),
    wrong("regions", "filled with zeros", regions_of_rows=with_zeros),
    wrong("regions", "incomplete region was dropped", regions_of_rows=incomplete_dropped),
    wrong("adjoint", "were cut off", regions_backward=merely_cropped),
    wrong("adjoint", "went to the last rows", regions_backward=to_the_last),
    wrong("adjoint", "adds both", regions_backward=overwritten),
    wrong("adjoint", "yours is (8, 2, 3, 2)", regions_backward=not_cropped),
    wrong("running", "the biased one", follow=biased),
    wrong("running", "changed places", follow=turned_round),
    wrong("running", "the batch alone", follow=forgetful),
    wrong("running", "one number for each channel", follow=for_each_image),
]
