"""Floor 2. Which mistake explains a wrong gradient, from what its error looks like."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from tinymixer.backend import Array
from tinymixer.errors import counted


def likeliest_cause(
    numeric: Array, dx: Array, x: Array, sizes: Mapping[int, str], Jw: Array | None = None
) -> str:
    """What would turn `dx`, the gradient that backward claims, into `numeric`, in words.

    Each known mistake predicts what the right gradient would be; the first prediction that
    explains the error to a thousandth is named. sizes: what each number of elements is the size
    of. Jw: what a backward gives that forgot to transpose, if it has the shape of x.
    """
    if not np.isfinite(numeric).all():
        return "the forward itself is not finite near this input"
    if not np.isfinite(dx).all():
        return (
            f"{counted(int(np.count_nonzero(~np.isfinite(dx))), 'element')} not finite: "
            f"0/0, log 0, overflow"
        )
    error = numeric - dx
    largest = np.abs(error).max()

    def explains(prediction: Array) -> bool:
        return bool(np.abs(numeric - prediction).max() < 1e-3 * largest)

    if dx.size == 1:
        return "a single element, which any factor would explain: check at an input with more"
    if not dx.any():
        return "all zero: this input's term is missing, or was cut off from the tape"
    if explains(np.zeros_like(dx)):
        return "this gradient should be zero: a term too many, or one that should cancel it"
    several = np.count_nonzero(dx) > 1  # of a single number every error is a factor
    factor = float((dx * numeric).sum() / (numeric * numeric).sum()) if several else 0.0
    if factor and explains(dx / factor):
        return _explain_factor(factor, sizes)
    if dx.ndim == 2 and dx.shape[0] == dx.shape[1] and explains(dx.T):
        return "transposed: two indices of the product are swapped"
    if Jw is not None and np.abs(dx - Jw).max() < 1e-3 * largest:
        return "transposed: this is J dy, expected Jᵀ dy; a matrix in backward lacks its transpose"
    for axis, length in enumerate(dx.shape):
        if length == 1:
            continue
        if explains(np.flip(dx, axis)):
            return f"reversed along axis {axis}"
        for shift in (1, -1):
            if explains(np.roll(dx, shift, axis)):
                return f"shifted by one along axis {axis}: an index that starts one off"
        if length > 2 and explains(dx + error.mean(axis, keepdims=True)):
            return (
                f"the error is constant along axis {axis}: a term is missing (or too many) that is "
                f"a sum or mean over axis {axis}"
            )
        if length > 3 and explains(dx + _line_through(error, x, axis)):
            return (
                f"along axis {axis} the error is a straight line in the input: a term is missing "
                f"(or too many) that is the input times a sum or mean over axis {axis}"
            )
    wrong = np.argwhere(np.abs(error) > 1e-3 * largest)
    if 10 * len(wrong) <= dx.size:
        return f"{len(wrong)} of {dx.size} elements are wrong, the first at {wrong[0].tolist()}"
    return (
        "no simple pattern: a factor transposed, saved wrongly, or of another formula? Compare "
        "backward with the derivation term by term"
    )


def _explain_factor(factor: float, sizes: Mapping[int, str]) -> str:
    if abs(factor + 1) < 1e-3:
        return "the sign: every element is minus what it should be"
    sign = " and of the wrong sign" if factor < 0 else ""
    ratio = abs(factor)
    for n, what in sizes.items():
        if n > 1 and abs(ratio - n) < 1e-3 * n:
            return f"{n} times too large{sign}: a missing 1/N with N = {n}, {what}?"
        if n > 1 and abs(ratio * n - 1) < 1e-3:
            return f"{n} times too small{sign}: a 1/N too many, with N = {n}, {what}?"
    return f"off by the factor {ratio:.6g}{sign}, everywhere: a constant"


def size_names(arrays: Mapping[str, Array]) -> dict[int, str]:
    """What each number of elements is: an axis, or the product of two axes, of which array."""
    names: dict[int, str] = {}
    for name, x in arrays.items():
        for axis, n in enumerate(x.shape):
            names.setdefault(n, f"the length of axis {axis} of {name}")
        for i, j in combinations(range(x.ndim), 2):
            names.setdefault(x.shape[i] * x.shape[j], f"axes {i} and {j} of {name} together")
        names.setdefault(x.size, f"all elements of {name}")
    return names


def _line_through(error: Array, x: Array, axis: int) -> Array:
    """The least-squares a + b x along `axis` through the error."""
    centred = x - x.mean(axis, keepdims=True)
    mean = error.mean(axis, keepdims=True)
    squares = np.maximum((centred**2).sum(axis, keepdims=True), 1e-300)  # 0 for a constant x
    return mean + (centred * error).sum(axis, keepdims=True) / squares * centred
