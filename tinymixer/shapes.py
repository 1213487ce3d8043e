"""Floor 0. Shape lines: what a Function takes, in one line that is enforced.

    x (S, ...), W (D, S), b (D) optional

A letter stands for one size, the same wherever it appears: a capital one for 1 or more, a small one
also for 0, and `_` for any size, another one each time. `...` stands for any axes, the same
wherever they appear, and `*` for axes that broadcast as NumPy's do. An argument with a star,
`*branches`, may be there once or several times.

An argument is an array of floating point numbers, real or complex, unless a word after its shape
says otherwise: `integers`; `reals`, of any type; `numbers`, which may also be plain Python ones. An
`optional` argument may be left out.
"""

import re
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tinymixer.errors import counted

KINDS = {  # of numbers: the dtypes that they may have, and how to convert to them
    "floats": ("fc", "an array of floating point numbers. Convert: {}.astype(np.float32)"),
    "integers": ("iu", "an array of integers. Convert: {}.astype(np.int64)"),
    "reals": ("biuf", "an array of real numbers. Make one: np.asarray({})"),
    "numbers": ("biufc", "an array of numbers, or a number. Make one: np.asarray({}, np.float32)"),
}

OTHER_MEANINGS = np.matrix, np.ma.MaskedArray  # of the operators of arrays


class Argument(NamedTuple):
    """One argument of a shape line."""

    name: str
    axes: tuple[str, ...]
    kind: str
    optional: bool
    several: bool


class Given(NamedTuple):
    """What is checked of an array or a number; dtype is None for what has none."""

    type: type
    shape: tuple[int, ...]
    dtype: Any


def seen(x: Any) -> Given:
    """What is checked of anything given as an array or a number."""
    return Given(type(x), getattr(x, "shape", ()), getattr(x, "dtype", None))


@lru_cache(maxsize=4096)  # what comes again and again, as in training, is looked up
def check_shapes(name: str, line: str, cures: tuple, *given: tuple) -> None:
    """Raise TypeError or ValueError unless the arguments of a function of this name fit its line.

    `given` holds (type, shape, dtype) of each; `cures` are pairs: a letter or an argument, and what
    to do if it does not fit.
    """
    known: dict[str, tuple[Any, str]] = {}  # a letter or a group: its size or shape, and whose
    for argument, x in assigned(name, line, [Given(*x) for x in given]):
        check_numbers(name, argument, x)
        letter, expected = misfit(argument, x.shape, known)
        if expected:
            cure = dict(cures).get(letter) or dict(cures).get(argument.name)
            raise ValueError(
                f"{name}: {argument.name} is {x.shape}; expected {expected}"
                f"{f'. {cure}' if cure else ''}"
            )


@lru_cache
def arguments_of(line: str) -> tuple[Argument, ...]:
    """A shape line in parts."""
    parts = []
    for star, name, axes, words in re.findall(r"(\*?)(\w+) \(([^)]*)\)((?: \w+)*)", line):
        kind = next((word for word in words.split() if word in KINDS), "floats")
        parts.append(Argument(name, tuple(axes.split(", ")), kind, "optional" in words, bool(star)))
    return tuple(parts)


def assigned(name: str, line: str, given: list[Given]) -> list[tuple[Argument, Given]]:
    """Everything given, with the argument that it is. Raises TypeError for a wrong number."""
    arguments, n = list(arguments_of(line)), len(given)
    for at, argument in enumerate(arguments):
        if argument.several and n > len(arguments):
            arguments[at:at] = [argument] * (n - len(arguments))
            break
    if not sum(not argument.optional for argument in arguments) <= n <= len(arguments):
        raise TypeError(f"{name}: expected {line}; got {counted(n, 'argument')}")
    return list(zip(arguments, given, strict=False))


def check_numbers(name: str, argument: Argument, x: Given) -> None:
    """Raise TypeError unless x holds numbers of the argument's kind."""
    dtypes, expected = KINDS[argument.kind]
    if x.dtype is None:
        fits = issubclass(x.type, int | float | complex) and argument.kind == "numbers"
        got = f"of type {x.type.__name__}"
    else:
        fits = getattr(x.dtype, "kind", "") in dtypes and not issubclass(x.type, OTHER_MEANINGS)
        got = f"{x.type.__name__} of {x.dtype} {x.shape}"
    if not fits:
        expected = expected.format(argument.name)
        raise TypeError(f"{name}: {argument.name} is {got}; expected {expected}")


def misfit(argument: Argument, shape: tuple[int, ...], known: dict) -> tuple[str, str]:
    """What does not fit, a letter or the argument, and what was expected; empty if all fits."""
    axes, here = argument.axes, f"{argument.name} {shape}"
    expected = f"({', '.join(axes)}{',' * (len(axes) == 1)})"
    group = next((axis for axis in axes if axis in ("...", "*")), "")
    more = len(shape) - len(axes)  # axes than names
    if more < -1 or (not group and more):
        return argument.name, expected
    if group:
        at = axes.index(group)
        found = shape[at : at + more + 1]
        before, source = known.get(group, (found, here))
        if group == "..." and found != before:
            return group, f"{expected} with {before} for the axes ..., as in {source}"
        try:
            known[group] = np.broadcast_shapes(before, found), source
        except ValueError:
            return group, f"{expected} that broadcasts with {source}"
        axes, shape = axes[:at] + axes[at + 1 :], shape[:at] + shape[at + more + 1 :]
    for axis, n in zip(axes, shape, strict=True):
        size, source = known.setdefault(axis, (n, here)) if axis != "_" else (n, here)
        if n != size:
            return axis, f"{expected} with {axis} = {size}, as in {source}"
        if n == 0 and axis[0].isupper():
            return axis, f"{expected} with {axis} of 1 or more"
    return "", ""
