"""Typical wrong answers to the exercises of lesson 13, each with what the check must say to it."""

from functools import reduce

import numpy as np
from notebooks import wrong

from tinymixer.ops.gelu import gelu


def tail_lost(f, x, block):
    y, flat = np.zeros_like(x), x.reshape(-1)
    for start in range(0, x.size - block + 1, block):
        y.reshape(-1)[start : start + block] = f(flat[start : start + block])
    return y


def flat_result(f, x, block):
    flat = x.reshape(-1)
    return np.concatenate([f(flat[i : i + block]) for i in range(0, x.size, block)])


def into_x(f, x, block):
    flat = x.reshape(-1)
    for start in range(0, x.size, block):
        flat[start : start + block] = f(flat[start : start + block])
    return x


def by_rows(f, x, block):
    """Rows for elements: the first axis is cut."""
    return np.concatenate([f(x[i : i + block]) for i in range(0, len(x), block)])


def beyond_the_lowest(form, digits=60):
    """Where GELU, in one of its forms, has the same value again: by halving an interval."""

    def other_input(a):
        low, high = -0.7517, 0.0
        for _ in range(digits):
            middle = (low + high) / 2
            below = gelu(np.array(middle), form) < gelu(np.array(a), form)
            low, high = (middle, high) if below else (low, middle)
        return high

    return other_input


def middle(arrays):
    half = len(arrays) // 2
    return middle(arrays[:half]) + middle(arrays[half:]) if half else arrays[0]


def last_one_lost(arrays):
    while len(arrays) > 1:
        arrays = [arrays[i] + arrays[i + 1] for i in range(0, len(arrays) - 1, 2)]
    return arrays[0]


def first_with_last(arrays):
    while len(arrays) > 1:
        half = (len(arrays) + 1) // 2
        later = arrays[half:]
        arrays = [a + later[i] if i < len(later) else a for i, a in enumerate(arrays[:half])]
    return arrays[0]


def in_place(arrays):
    total = arrays[0]
    for array in arrays[1:]:
        total += array
    return total


WRONG = [
    wrong("blocks", "left out", in_blocks=tail_lost),
    wrong("blocks", "shape is lost", in_blocks=flat_result),
    wrong("blocks", "wrote into x", in_blocks=into_x),
    wrong("blocks", "8 is the most", in_blocks=by_rows),
    wrong("blocks", "8 is the most", in_blocks=lambda f, x, block: f(x)),
    wrong("kept", "a itself", other_input=lambda a: a),
    wrong("kept", "not symmetric", other_input=lambda a: -a),
    wrong("kept", "the erf form", other_input=beyond_the_lowest("erf")),
    wrong("kept", "not to six digits", other_input=beyond_the_lowest("tanh", 16)),
    wrong("kept", "where GELU is lowest", other_input=lambda a: -0.7518),
    wrong("kept", "for your b it is 0.000000", other_input=lambda a: 0.0),
    wrong("kept", "the shape (2,)", other_input=lambda a: np.array([a, -a])),
    wrong("pieces", "mean of means", whole_gradient=lambda g, sizes: sum(g) / len(g)),
    wrong("pieces", "plain sum", whole_gradient=lambda g, sizes: sum(g)),
    wrong(
        "pieces",
        "divide by their number",
        whole_gradient=lambda g, sizes: sum(n * x for x, n in zip(g, sizes, strict=True)),
    ),
    wrong("pieces", "counts as one image", whole_gradient=lambda g, sizes: sum(g) / sum(sizes)),
    wrong("tree", "left to right", tree_sum=lambda arrays: reduce(np.add, arrays)),
    wrong("tree", "cut in the middle", tree_sum=middle),
    wrong("tree", "without a neighbour lost", tree_sum=last_one_lost),
    wrong("tree", "order of the additions", tree_sum=first_with_last),
    wrong("tree", "you were given", tree_sum=in_place),
]
