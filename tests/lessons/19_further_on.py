"""Typical wrong answers to the exercises of lesson 19, each with what the check must say to it."""

import numpy as np
from notebooks import wrong

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


def split_the_other_way(theirs, p):
    n = theirs.shape[1]
    return theirs.reshape(p, -1, n).transpose(2, 1, 0).reshape(n, -1)


def left_lying(theirs, p):
    n = theirs.shape[1]
    return theirs.reshape(-1, p, n).transpose(1, 0, 2).reshape(-1, n)


WRONG = [
    wrong("iou", "ignored pixels are counted as mistakes", mean_iou=nothing_ignored),
    wrong("iou", "the share of pixels that are right", mean_iou=pixels_right),
    wrong("iou", "a class that does not occur counts as 0", mean_iou=nowhere_is_zero),
    wrong("iou", "the share of each class that was found", mean_iou=share_found),
    wrong("iou", "That is the Dice score", mean_iou=dice),
    wrong("iou", "do not divide 0 by 0", mean_iou=not_a_number),
    wrong("iou", "found and not in the truth", mean_iou=classes_of_the_truth),
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
    wrong("read", "only transposed", read_interleaved=lambda theirs, p: theirs.T),
    wrong("read", "split as (member, channel)", read_interleaved=split_the_other_way),
    wrong("read", "without the transpose into (in, out)", read_interleaved=left_lying),
    wrong(
        "read",
        "a reshape alone",
        read_interleaved=lambda theirs, p: theirs.reshape(theirs.shape[1], -1),
    ),
]
