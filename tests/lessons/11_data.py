"""Typical wrong answers to the exercises of lesson 11, each with what the check must say to it."""

import numpy as np
from notebooks import wrong

from tinymixer.data.draws import permutation


def in_uint8(images, mean, std):
    return (images - np.array(mean, np.uint8)) / np.array(std)


def over_255(images, mean, std):
    return (images / 255 - np.array(mean)) / np.array(std)


def no_std(images, mean, std):
    return images - np.array(mean)


def own_mean(images, mean, std):
    return (images - images.mean((1, 2), keepdims=True)) / images.std((1, 2), keepdims=True)


def colours_forgotten(images, mean, std):
    return (images - np.mean(mean)) / np.mean(std)


def into_a(a, b, top, left, side):
    a[top : top + side, left : left + side] = b[top : top + side, left : left + side]
    return a, 1 - side * side / a[..., 0].size


def whole_square(a, b, top, left, side):
    return into_a(a.copy(), b, top, left, side)


def share_of_b(a, b, top, left, side):
    mixed, share = into_a(a.copy(), b, top, left, side)
    return mixed, 1 - share


def share_of_the_side(a, b, top, left, side):
    return into_a(a.copy(), b, top, left, side)[0], 1 - side / len(a)


def corner_of_b(a, b, top, left, side):
    mixed = a.copy()
    square = mixed[top : top + side, left : left + side]
    square[...] = b[: square.shape[0], : square.shape[1]]
    return mixed, 1 - square.size / mixed.size


WRONG = [
    wrong("normalise", "done in uint8", normalised=in_uint8),
    wrong("normalise", "by 255 first", normalised=over_255),
    wrong("normalise", "by std is missing", normalised=no_std),
    wrong("normalise", "its own mean and deviation", normalised=own_mean),
    wrong("normalise", "should become", normalised=colours_forgotten),
    wrong(
        "resume",
        "one image: it is a batch",
        remaining=lambda seed, epoch, step, size, n: permutation(seed, epoch, n)[step:],
    ),
    wrong(
        "resume",
        "seen already",
        remaining=lambda seed, epoch, step, size, n: permutation(seed, epoch, n)[: step * size],
    ),
    wrong(
        "resume",
        "the order of epoch 0",
        remaining=lambda seed, epoch, step, size, n: permutation(seed, 0, n)[step * size :],
    ),
    wrong(
        "resume",
        "a permutation of 8 images",
        remaining=lambda seed, epoch, step, size, n: permutation(seed, epoch, n - step * size),
    ),
    wrong(
        "resume",
        "one batch too many or too few",
        remaining=lambda seed, epoch, step, size, n: permutation(seed, epoch, n)[
            (step + 1) * size :
        ],
    ),
    wrong("cutmix", "wrote into a", cutmix=into_a),
    wrong("cutmix", "the whole square", cutmix=whole_square),
    wrong("cutmix", "b's share", cutmix=share_of_b),
    wrong("cutmix", "a share of the side", cutmix=share_of_the_side),
    wrong("cutmix", "corner of b", cutmix=corner_of_b),
]
