"""Typical wrong answers to the exercises of lesson 19, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def both(share, combine=lambda parts: np.sqrt(sum(parts)), ddof=1):
    """A difference whose error is combined of each model's (standard deviation, runs)."""

    def difference(a, b):
        parts = [share(np.std(x, ddof=ddof), len(x)) for x in (a, b)]
        return np.mean(b) - np.mean(a), combine(parts)

    return difference


def of_a_mean(s, n):
    return s**2 / n


def thrown_together(a, b):
    runs = [*a, *b]
    return np.mean(b) - np.mean(a), np.std(runs, ddof=1) / np.sqrt(len(runs))


WRONG = [
    wrong(
        "budget", "only the forward is paid for", epochs_bought=lambda macs, m, N: macs / (m * N)
    ),
    wrong(
        "budget",
        "backward counts as one product",
        epochs_bought=lambda macs, m, N: macs / (2 * m * N),
    ),
    wrong("budget", "images, not epochs", epochs_bought=lambda macs, m, N: macs / (3 * m)),
    wrong("budget", "rounded down", epochs_bought=lambda macs, m, N: macs // (3 * m * N)),
    wrong("difference", "n - 1 matters", difference=both(of_a_mean, ddof=0)),
    wrong("difference", "spread of single runs", difference=both(lambda s, n: s**2)),
    wrong("difference", "add their squares", difference=both(lambda s, n: s / np.sqrt(n), sum)),
    wrong("difference", "root is missing", difference=both(of_a_mean, sum)),
    wrong("difference", "thrown together", difference=thrown_together),
    wrong("difference", "the sign", difference=lambda a, b: both(of_a_mean)(b, a)),
    wrong("difference", "the means differ by", difference=lambda a, b: (max(b) - max(a), 0.1)),
]
