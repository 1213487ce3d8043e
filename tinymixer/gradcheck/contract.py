"""Floor 2. The rules for what is checked, and the message for each that is broken."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinymixer.backend import Array
from tinymixer.engine import Tensor
from tinymixer.errors import counted


class BrokenContract(Exception):
    """A Function breaks one of its rules, whatever the numbers are."""


class NotATensor(TypeError):
    """What a composition returned cannot be walked back."""


class NothingToCheck(Exception):
    """There is no gradient to compare, or no forward to compare it with, at these inputs."""


def widened(x: Any, dtype: Any = np.float64) -> Array:
    """A read-only copy of x, in dtype if floating: float64 is the precision that proves most.

    Raises NothingToCheck for what is not an array of numbers.
    """
    try:
        x = np.array(x.data if isinstance(x, Tensor) else x)
    except ValueError as error:
        raise NothingToCheck(
            f"an input is not an array: its rows differ in length ({error})"
        ) from None
    if x.dtype.kind not in "fiub":
        raise NothingToCheck(
            f"an input holds {x.dtype}; give real numbers, or integers for labels and indices"
        )
    x = x.astype(dtype) if x.dtype.kind == "f" else x
    x.flags.writeable = False
    return x


@contextmanager
def broken_if_it_raises(what: str) -> Iterator[None]:
    """Turn what a forward or backward raises into a sentence, with the line it came from."""
    try:
        yield
    except (BrokenContract, NothingToCheck, NotATensor):
        raise
    except Exception as error:
        if "read-only" in str(error):
            raise BrokenContract(
                "forward or backward writes into an array that it was given, which others may "
                "still need: compute into a new one"
            ) from error
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename.rsplit('/', 1)[-1]}, line {last.lineno}: {last.line}"
        kind = BrokenContract if what == "backward" else NothingToCheck
        raise kind(f"{what} raises {type(error).__name__}: {error} ({place})") from error


def output(y: Any) -> Array:
    """What a forward returned, as an array of real numbers (complex in a complex step)."""
    if y is None or isinstance(y, tuple | list | dict):
        what = "nothing" if y is None else f"a {type(y).__name__}"
        raise NothingToCheck(f"forward returns {what}; a Function has one output, an array")
    y = np.asarray(y)
    if y.dtype.kind in "iub":
        raise NothingToCheck(
            f"forward returns {y.dtype}: a choice or a count has no derivative. Check the function "
            "that takes it as a constant"
        )
    if y.dtype.kind not in "fc":
        raise NothingToCheck(f"forward returns {y.dtype}; expected real numbers")
    return y


def as_tuple(gradients: Any) -> tuple:
    return tuple(gradients) if isinstance(gradients, tuple | list) else (gradients,)


def check_gradients(
    first: tuple, again: tuple, names: list[str], arrays: Sequence[Array], variable: Mapping
) -> None:
    if len(first) != len(arrays):
        raise BrokenContract(
            f"backward returns {counted(len(first), 'gradient')} for "
            f"{counted(len(arrays), 'input')}; return one each, "
            "None for a constant"
        )
    for i, (name, x, dx, same) in enumerate(zip(names, arrays, first, again, strict=True)):
        if i not in variable and dx is not None:
            raise BrokenContract(f"d{name} should be None: {name} is a constant")
        if i not in variable:
            continue
        if dx is None:
            raise BrokenContract(f"d{name} is None, yet y depends on {name}; is it a constant?")
        shape, dtype = np.shape(dx), getattr(dx, "dtype", type(dx).__name__)
        if shape != x.shape or dtype != x.dtype:
            hint = ""
            if shape == x.shape[::-1] != x.shape:
                hint = ": transposed"
            elif np.size(dx) > x.size:
                hint = ": a sum over the axes along which it was broadcast is missing"
            raise BrokenContract(
                f"d{name} is {dtype} {shape}; expected {x.dtype} {x.shape}, like {name} "
                f"itself{hint}"
            )
        if not np.array_equal(dx, same, equal_nan=True):
            raise BrokenContract(
                f"a second backward(dy) gives another d{name}: the first one changed what forward "
                "saved, or backward draws random numbers"
            )
