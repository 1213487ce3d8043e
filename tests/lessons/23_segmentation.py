"""Typical wrong answers to the exercises of lesson 23, each with what the check must say to it."""

import numpy as np
from notebooks import wrong

from tinymixer.ops.resample import bilinear_matrix

IGNORED = 255


def mean_over(truth, found, K, share):
    counted = truth != IGNORED
    truth, found = truth[counted], found[counted]
    known = [k for k in range(K) if ((truth == k) | (found == k)).any()]
    return np.mean([share(truth == k, found == k) for k in known])


def iou(t, f):
    return (t & f).sum() / max(1, (t | f).sum())


def nothing_ignored(truth, found, K):
    return np.mean([iou(truth == k, found == k) for k in range(3)])


def pixels_right(truth, found, K):
    counted = truth != IGNORED
    return (truth == found)[counted].mean()


def nowhere_is_zero(truth, found, K):
    counted = truth != IGNORED
    truth, found = truth[counted], found[counted]
    return np.mean([iou(truth == k, found == k) for k in range(K)])


def share_found(truth, found, K):
    return mean_over(truth, found, K, lambda t, f: (t & f).sum() / t.sum())


def dice(truth, found, K):
    return mean_over(truth, found, K, lambda t, f: 2 * (t & f).sum() / (t.sum() + f.sum()))


def classes_of_the_truth(truth, found, K):
    counted = truth != IGNORED
    truth, found = truth[counted], found[counted]
    return np.mean([iou(truth == k, found == k) for k in np.unique(truth)])


def not_a_number(truth, found, K):
    return float("nan")


def hats(centres, n):
    return np.maximum(0, 1 - abs(np.asarray(centres)[:, None] - np.arange(n)))


def corners(n, r):
    return hats(np.linspace(0, n - 1, r * n), n)


def dark_border(n, r):
    return hats((np.arange(r * n) + 0.5) / r - 0.5, n)


def half_a_cell_off(n, r):
    return hats(np.minimum(np.arange(r * n) / r, n - 1), n)


WRONG = [
    wrong("enlarge", "nearest", enlarging=lambda n, r: np.repeat(np.eye(n), r, axis=0)),
    wrong("enlarge", "in the corners", enlarging=corners),
    wrong("enlarge", "add up to 1", enlarging=dark_border),
    wrong("enlarge", "half of a cell", enlarging=half_a_cell_off),
    wrong("enlarge", "transposed", enlarging=lambda n, r: bilinear_matrix(n, r * n).T),
    wrong("iou", "ignored pixels are counted as mistakes", mean_iou=nothing_ignored),
    wrong("iou", "the share of pixels that are right", mean_iou=pixels_right),
    wrong("iou", "a class that does not occur counts as 0", mean_iou=nowhere_is_zero),
    wrong("iou", "the share of each class that was found", mean_iou=share_found),
    wrong("iou", "That is the Dice score", mean_iou=dice),
    wrong("iou", "do not divide 0 by 0", mean_iou=not_a_number),
    wrong("iou", "found and not in the truth", mean_iou=classes_of_the_truth),
]
