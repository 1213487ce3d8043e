"""Typical wrong answers to the exercises of lesson 18, each with what the check must say to it."""

import numpy as np
from notebooks import wrong

from tinymixer.ops.resample import bicubic_matrix, bilinear_matrix


def cut_the_memory(x, r):
    H, W, B, C = x.shape
    return x.reshape(r * H, W, B, C // r)


def neighbours(x, r):
    H, W, B, C = x.shape
    return x.reshape(H, W, B, C // r, r).transpose(4, 0, 1, 2, 3).reshape(r * H, W, B, -1)


def places_first(x, r):
    H, W, B, C = x.shape
    return x.reshape(H, W, B, r, C // r).transpose(0, 3, 1, 2, 4).reshape(r * H, W, B, -1)


def a_list_of_rafts(x, r):
    H, W, B, C = x.shape
    return x.reshape(H, W, B, r, C // r).transpose(3, 0, 1, 2, 4)


def mlp(n, ratio):
    return 2 * ratio * n * n + ratio * n + n


WRONG = [
    wrong("raft", "cut the memory", vertical_rafts=cut_the_memory),
    wrong("raft", "members are m apart", vertical_rafts=neighbours),
    wrong("raft", "members in front", vertical_rafts=places_first),
    wrong("raft", "becomes (6, 2, 5, 3)", vertical_rafts=a_list_of_rafts),
    wrong(
        "count",
        "LayerNorms are missing",
        raft_block_parameters=lambda H, W, C, r: mlp(r * H, 2) + mlp(r * W, 2) + mlp(C, 4),
    ),
    wrong(
        "count",
        "the raft size is missing",
        raft_block_parameters=lambda H, W, C, r: mlp(H, 2) + mlp(W, 2) + mlp(C, 4) + 6 * C,
    ),
    wrong(
        "count",
        "the biases are missing",
        raft_block_parameters=lambda H, W, C, r: (
            4 * (r * H) ** 2 + 4 * (r * W) ** 2 + 8 * C * C + 6 * C
        ),
    ),
    wrong(
        "resample",
        "by an inverse",
        resize_backward=lambda dy, A_h, A_w: np.linalg.pinv(A_h) @ dy @ np.linalg.pinv(A_w).T,
    ),
    wrong(
        "resample",
        "interpolated the gradient",
        resize_backward=lambda dy, A_h, A_w: bilinear_matrix(4, 6) @ dy @ bicubic_matrix(7, 5).T,
    ),
    wrong(
        "resample",
        "the columns are missing",
        resize_backward=lambda dy, A_h, A_w: A_h.T @ dy,
    ),
    wrong(
        "resample",
        "x was (6, 5)",
        resize_backward=lambda dy, A_h, A_w: dy,
    ),
]
