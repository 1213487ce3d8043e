"""Typical wrong answers to the exercises of lesson 16, each with what the check must say to it."""

from notebooks import wrong


def segments_apart(x):
    H, W, B, C = x.shape
    return x.reshape(H, W, B, C // H, H).swapaxes(0, 4).reshape(H, W, B, C)


def columns_instead(x):
    H, W, B, C = x.shape
    return x.reshape(H, W, B, W, C // W).swapaxes(1, 3).reshape(H, W, B, C)


def rows_for_channels(x):
    return x.swapaxes(0, 3).reshape(x.shape)


def five_axes(x):
    H, W, B, C = x.shape
    return x.reshape(H, W, B, H, C // H).swapaxes(0, 3)


def squares(C):
    return 11 * C * C


WRONG = [
    wrong("swap", "cut the wrong way", swap_rows=segments_apart),
    wrong("swap", "rows and columns are exchanged", swap_rows=columns_instead),
    wrong("swap", "images have mixed", swap_rows=rows_for_channels),
    wrong("swap", "nothing has moved", swap_rows=lambda x: x),
    wrong("swap", "the shape stays", swap_rows=five_axes),
    wrong(
        "weigh",
        "its own weight only",
        softmax_backward=lambda alpha, dalpha: alpha * (1 - alpha) * dalpha,
    ),
    wrong(
        "weigh",
        "second term is missing",
        softmax_backward=lambda alpha, dalpha: alpha * dalpha,
    ),
    wrong(
        "weigh",
        "alpha in front is missing",
        softmax_backward=lambda alpha, dalpha: dalpha - (alpha * dalpha).sum(),
    ),
    wrong(
        "count",
        "LayerNorms are missing",
        permutator_block_parameters=lambda C: squares(C) + C // 4 + 8 * C,
    ),
    wrong(
        "count",
        "all biases are missing",
        permutator_block_parameters=lambda C: squares(C) + 4 * C,
    ),
    wrong(
        "count",
        "the split attention is missing",
        permutator_block_parameters=lambda C: 10 * C * C + 9 * C,
    ),
]
