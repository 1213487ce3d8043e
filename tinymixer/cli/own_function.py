"""Floor 6. `tinymixer gradcheck my_file.py:my_function`: a learner's own gradient, checked."""

import argparse
import json
import re
import runpy
from collections.abc import Iterable
from importlib import import_module
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer.cli.options import load_figures
from tinymixer.engine import Function
from tinymixer.errors import TinymixerError
from tinymixer.files import write_atomically
from tinymixer.gradcheck import Report, check, check_function
from tinymixer.gradcheck.verdict import FAILED, PASSED, UNDECIDED

KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "positive": lambda rng, shape: rng.uniform(0.5, 2, shape),
    "unit": lambda rng, shape: rng.uniform(0, 1, shape),
    "ones": lambda rng, shape: np.ones(shape),
    "zeros": lambda rng, shape: np.zeros(shape),
}
EXAMPLE = "--input x=3,4 --input W=4,2:positive --input labels=3:0..9"
EXIT_CODES = {PASSED: 0, FAILED: 1, UNDECIDED: 3}


def add_options(parser: Any) -> None:
    parser.add_argument(
        "function",
        nargs="?",
        metavar="FILE.py:NAME",
        help="your own Function, or a function composed of Tensors; also module:NAME",
    )
    parser.add_argument(
        "--input",
        metavar="NAME=SHAPE",
        action="append",
        default=[],
        help=f"an input of your function, by shape: {EXAMPLE}. After the colon: "
        f"{', '.join(KINDS)}, or a range of whole numbers. Once for each input",
    )


def exit_code(verdicts: Iterable[str]) -> int:
    """0 if all passed, 1 if any failed, 3 if some could not be decided."""
    found = set(verdicts)
    return next((EXIT_CODES[v] for v in (FAILED, UNDECIDED) if v in found), 0)


def run(args: argparse.Namespace) -> int:
    if not args.function:
        raise TinymixerError(f"--input says what to give a function; name one: {USAGE}")
    if args.all or args.mutants or args.op or args.model:
        raise TinymixerError("your own function is checked alone; leave out --op, --model, --all")
    if args.plot:
        load_figures()  # before the work, in case matplotlib does not start
    f = load(args.function)
    is_function = isinstance(f, Function)
    arrays = inputs(args.input, f.forward if is_function else f, args.function)
    try:
        report: Report = (check_function if is_function else check)(f, *arrays)
    except TypeError as error:  # it returned no Tensor
        raise TinymixerError(f"{args.function}: {error}") from error
    print(report)
    if args.json:
        write_atomically(args.json, (json.dumps(report.as_dict(), indent=1) + "\n").encode())
    if args.plot:
        try:
            load_figures().save(report.plot(), args.plot)
        except ValueError as error:
            raise TinymixerError(str(error)) from error
        print(f"wrote {args.plot}")
    return exit_code([report.verdict])


USAGE = f"tinymixer gradcheck my_file.py:my_function {EXAMPLE}"


def load(where: str) -> Any:
    """The Function or function that `FILE.py:NAME` or `module:NAME` names."""
    place, colon, name = where.rpartition(":")
    if not colon or not place or not name:
        raise TinymixerError(f"{where!r}: expected a file and a name, like {USAGE}")
    try:
        if place.endswith(".py"):
            if not Path(place).is_file():
                raise TinymixerError(f"{place}: no such file")
            found = runpy.run_path(place)
        else:
            found = vars(import_module(place))
    except TinymixerError:
        raise
    except Exception as error:  # whatever a learner's file does
        raise TinymixerError(f"{place} cannot be run: {type(error).__name__}: {error}") from error
    if name not in found:
        those = [n for n, f in found.items() if callable(f) and not n.startswith("_")]
        raise TinymixerError(f"{place} has no {name!r}; it has {', '.join(those) or 'nothing'}")
    f = found[name]
    if isinstance(f, type) and issubclass(f, Function):
        try:
            f = f()
        except TypeError as error:
            raise TinymixerError(
                f"{name} takes options: {error}. Make one in your file, my = {name}(...), and "
                "check that"
            ) from error
    if not callable(f):
        raise TinymixerError(f"{name} is not a function, but of type {type(f).__name__}")
    return f


def inputs(specs: list[str], f: Any, where: str) -> list[np.ndarray]:
    """Random arrays of the shapes asked for, in the order that f takes them."""
    rng, found = np.random.default_rng(0), {}
    for spec in specs:
        name, equals, what = spec.partition("=")
        if not equals or not name:
            raise TinymixerError(f"--input {spec}: expected a name and a shape, like {EXAMPLE}")
        if name in found:
            raise TinymixerError(f"--input {spec}: {name} is given twice")
        found[name] = array(what, spec, rng)
    parameters = [p for p in signature(f).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]
    names = [p.name for p in parameters]
    if unknown := [name for name in found if name not in names]:
        raise TinymixerError(f"{where} takes {', '.join(names)}; there is no {unknown[0]!r}")
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in found]
    if missing:
        raise TinymixerError(f"{where} takes {', '.join(names)}: give --input {missing[0]}=SHAPE")
    given = [name in found for name in names]
    if any(later and not now for now, later in pairwise(given)):
        raise TinymixerError(f"{where}: give an --input for all before {names[given.index(False)]}")
    return [found[name] for name in names if name in found]


def array(what: str, spec: str, rng: np.random.Generator) -> np.ndarray:
    """`3,4`, `3,4:positive`, `3:0..9` or, for one number, `()`."""
    shape_text, _, kind = what.partition(":")
    if not re.fullmatch(r"\(\)|\d+([,x]\d+)*", shape_text):
        raise TinymixerError(
            f"--input {spec}: {shape_text!r} is not a shape; write 3,4, or () for one"
        )
    shape = tuple(int(n) for n in re.findall(r"\d+", shape_text))
    if whole := re.fullmatch(r"(-?\d+)\.\.(-?\d+)", kind):
        low, high = int(whole[1]), int(whole[2])
        if low > high:
            raise TinymixerError(f"--input {spec}: expected a range like 0..9, got {kind}")
        return rng.integers(low, high + 1, shape)
    if kind and kind not in KINDS:
        raise TinymixerError(
            f"--input {spec}: unknown kind {kind!r}; there are {', '.join(KINDS)}, and ranges of "
            "whole numbers, 0..9"
        )
    return KINDS[kind or "normal"](rng, shape)
