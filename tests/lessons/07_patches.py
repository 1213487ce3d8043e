"""Typical wrong answers to the exercises of lesson 07, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def reshape_alone(x, H, W, P):
    return x.reshape(x.shape[1], H * P, W * P, 3)


def pixels_not_in_place(x, H, W, P):
    B = x.shape[1]
    return x.reshape(H, W, B, P, P, 3).transpose(2, 0, 1, 3, 4, 5).reshape(B, H * P, W * P, 3)


def pixels_on_their_side(x, H, W, P):
    B = x.shape[1]
    return x.reshape(H, W, B, P, P, 3).transpose(2, 0, 4, 1, 3, 5).reshape(B, H * P, W * P, 3)


def images_in_front(x, H, W, P):
    B = x.shape[1]
    return x.reshape(B, H, W, P, P, 3).transpose(0, 1, 3, 2, 4, 5).reshape(B, H * P, W * P, 3)


def not_joined(x, H, W, P):
    return x.reshape(H, W, x.shape[1], P, P, 3).transpose(2, 0, 3, 1, 4, 5)


def kernels_mixed(kernel):
    return kernel.reshape(-1, len(kernel))


def colours_first(kernel):
    return kernel.reshape(len(kernel), -1).T


def rows_for_columns(kernel):
    return kernel.transpose(3, 2, 1, 0).reshape(-1, len(kernel))


def one_kernel_a_row(kernel):
    return kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)


def overwritten(windows, n):
    x = np.zeros(n)
    for i, window in enumerate(windows):
        x[i : i + len(window)] = window
    return x


def averaged(windows, n):
    x, seen = np.zeros(n), np.zeros(n)
    for i, window in enumerate(windows):
        x[i : i + len(window)] += window
        seen[i : i + len(window)] += 1
    return x / seen


def in_the_first_place(windows, n):
    x = np.zeros(n)
    x[: len(windows)] = windows.sum(1)
    return x


def last_number_forgotten(windows, n):
    x = np.zeros(n)
    for i, window in enumerate(windows):
        x[i : i + len(window) - 1] += window[:-1]
    return x


def inverse_order(W1, b1, W2, b2, order):
    back = np.argsort(order)
    return W1[:, back], b1, W2[back], b2[back]


def bias_forgotten(W1, b1, W2, b2, order):
    return W1[:, order], b1, W2[order], b2


def only_the_first(W1, b1, W2, b2, order):
    return W1[:, order], b1, W2, b2


def rows_of_the_first(W1, b1, W2, b2, order):
    return W1[order], b1, W2[order], b2[order]


def columns_of_the_second(W1, b1, W2, b2, order):
    return W1[:, order], b1, W2[:, order], b2[order]


WRONG = [
    wrong("images", "a reshape alone leaves", images_of=reshape_alone),
    wrong("images", "not brought back into the order", images_of=pixels_not_in_place),
    wrong("images", "changed places within each patch", images_of=pixels_on_their_side),
    wrong("images", "the image was split off first", images_of=images_in_front),
    wrong("images", "yours is (3, 2, 4, 5, 4, 3)", images_of=not_joined),
    wrong("kernel", "mixes numbers of different kernels", matrix_of=kernels_mixed),
    wrong("kernel", "the colours still come first", matrix_of=colours_first),
    wrong("kernel", "rows and columns have changed places", matrix_of=rows_for_columns),
    wrong("kernel", "transposed: expected (48, 6)", matrix_of=one_kernel_a_row),
    wrong("fold", "overwrite each other", fold=overwritten),
    wrong("fold", "you averaged", fold=averaged),
    wrong("fold", "added up in its first place", fold=in_the_first_place),
    wrong("fold", "did it get the sum of all", fold=last_number_forgotten),
    wrong("reorder", "the inverse order", reordered=inverse_order),
    wrong("reorder", "b2 was forgotten", reordered=bias_forgotten),
    wrong("reorder", "only W1 was changed", reordered=only_the_first),
    wrong("reorder", "W1 should stay (11, 7), yours is (7, 7)", reordered=rows_of_the_first),
    wrong("reorder", "its columns were moved", reordered=columns_of_the_second),
]
