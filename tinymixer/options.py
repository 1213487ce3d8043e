"""Floor 0. Options: fields of a dataclass that say what they do and which values they may have.

    @dataclass(frozen=True)
    class Recipe:
        epochs: float = option(10, Between(0, 1000), "passes over the training images")
        schedule: str = option("cosine", OneOf(SCHEDULES), "how the learning rate falls")

        def __post_init__(self):
            check_options(self, "training option")

The command line makes its options and their help of the same fields.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from tinymixer.errors import TinymixerError, brief


@dataclass(frozen=True)
class Between:
    """Numbers from low to high, both included; with `or_zero` also 0, which then means "off"."""

    low: float
    high: float
    or_zero: bool = False

    def __contains__(self, value: Any) -> bool:
        return self.low <= value <= self.high or (self.or_zero and value == 0)  # NaN is neither

    def __str__(self) -> str:
        return f"{'0, or ' if self.or_zero else ''}{self.low} to {self.high}"


@dataclass(frozen=True)
class OneOf:
    """The names in a collection, such as the keys of a dictionary to which others may be added."""

    names: Collection[str]

    def __contains__(self, value: Any) -> bool:
        return value in self.names

    def __str__(self) -> str:
        return " or ".join(self.names)


def option(default: Any, allowed: Between | OneOf, what_it_does: str) -> Any:
    """A dataclass field with this default, the values that are allowed, and help in words."""
    return field(default=default, metadata={"allowed": allowed, "help": what_it_does})


def check_options(options: Any, kind: str) -> None:
    """Raise TinymixerError, which calls it a `kind`, for the first field of the dataclass `options`
    whose value is not of the annotated type, or not allowed. True does not count as a number.
    """
    for f in fields(options):
        value, allowed = getattr(options, f.name), f.metadata.get("allowed")
        accepted: Any = _ACCEPTED.get(f.type, f.type)
        if not isinstance(value, accepted) or (isinstance(value, bool) and f.type is not bool):
            expected = getattr(f.type, "__name__", f.type)
        elif allowed is not None and value is not None and value not in allowed:
            expected = allowed
        else:
            continue
        raise TinymixerError(f"{kind} {f.name}={value!r}: expected {expected}")


_ACCEPTED: dict[Any, Any] = {float: float | int, dict[str, Any]: dict}  # for isinstance


# What a single argument may be --------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    """Whole numbers from low to high, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            return False
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"a whole number{_bounds(self)}"


@dataclass(frozen=True)
class Number:
    """Finite numbers from low to high, without low itself if `above`, without high if `below`."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            return False
        if (self.above and value == self.low) or (self.below and value == self.high):
            return False
        return bool(self.low <= value <= self.high and math.isfinite(value))

    def __str__(self) -> str:
        left_out = [self.low] * self.above + [self.high] * self.below
        but = f", but not {left_out[0]}" if left_out else ""
        return f"a finite number{_bounds(self)}{but}"


def _bounds(allowed: Whole | Number) -> str:
    if allowed.high == math.inf:
        return "" if allowed.low == -math.inf else f" of {allowed.low} or more"
    return f" from {allowed.low} to {allowed.high}"


def require(what: str, value: Any, allowed: Any) -> Any:
    """`value` itself. Raises ValueError that begins with `what` unless it is allowed."""
    if (isinstance(allowed, OneOf) and not isinstance(value, str)) or value not in allowed:
        raise ValueError(f"{what}: expected {allowed}, got {brief(repr(value), 60)}")
    return value
