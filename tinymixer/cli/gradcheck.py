"""Floor 6. `tinymixer gradcheck`: every gradient proven, in one command."""

import argparse
import json
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import tinymixer
from tinymixer import nn
from tinymixer.cli import own_function
from tinymixer.cli.options import load_figures, output_file
from tinymixer.engine import Tensor
from tinymixer.errors import TinymixerError, counted
from tinymixer.fast.cpu import keep_freed_memory
from tinymixer.files import write_atomically
from tinymixer.gradcheck import CASES, Finding, Report, check_model
from tinymixer.gradcheck.findings import place, worst_of
from tinymixer.gradcheck.mutants import HABITS, MUTANTS, OURS, catchers
from tinymixer.gradcheck.numeric import Curve
from tinymixer.gradcheck.show import curve_figure, error_against_step
from tinymixer.gradcheck.subject import of_function, of_model
from tinymixer.gradcheck.verdict import FAILED, PASSED, TOLERANCES, UNDECIDED
from tinymixer.models import MODELS, create_model
from tinymixer.processors import processors

SMALL = ("_nano", "_pico")  # other models of a system are made of the same parts
IN_TRAINING = 3  # images, where a batch normalises: one alone would have the mean of its batch
OTHER_SIZE = 20, 12  # no multiple of what regions and strides divide by
REGULARISED = {"drop_path_rate": 0.3, "dropout": 0.1}  # where a system has them
OPERATIONS_OF_A_PROCESS = 4  # at least: it takes half a second to start
MOST_PROCESSES = 8  # the longest job is an eighth of all
CURVE_OF = "TokenMLP"  # what the plot shows if no operation or model is named


def add_options(parser: Any) -> None:
    parser.description = (
        "Compare hand-written gradients with central differences, the complex step and adjoints, "
        "in float64. Without options: every operation of tinymixer. With a function of your own, "
        "my_file.py:my_function or module:name, that function, at random inputs of the shapes that "
        "--input gives. Exit code 0 if all is right, 1 if any is wrong, 3 if it cannot be decided "
        "at these inputs."
    )
    own_function.add_options(parser)
    what = parser.add_mutually_exclusive_group()
    for option, example in ("op", "operation, e.g. LayerNorm"), ("model", "model, e.g. mixer_nano"):
        what.add_argument(
            f"--{option}",
            metavar="NAME",
            action="append",
            default=[],
            help=f"check one {example}; may be given several times",
        )
    what.add_argument(
        "--all",
        action="store_true",
        help="check every operation and a small model of every system",
    )
    what.add_argument(
        "--mutants", action="store_true", help=f"plant {len(MUTANTS)} bugs and count those caught"
    )
    parser.add_argument(
        "--json", metavar="FILE", type=output_file, help="write the report into FILE as JSON"
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=output_file,
        help="draw the error against the step size into FILE, of your function or of the first "
        "--op or --model",
    )
    parser.set_defaults(func=run)


@dataclass(frozen=True)
class Row:
    """What was found about one operation, over all its cases, or about one model.

    Numbers and words only, which one process can send to another.
    """

    name: str
    cases: int
    verdict: str
    worst: Mapping[str, Finding]  # by method
    order: float | None
    says: Sequence[str]  # of what needs more than one word
    reports: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, name: str, reports: Sequence[Report]) -> "Row":
        """Its verdict is the worst; and what passes here keeps to the bounds of TOLERANCES."""
        found = [finding for report in reports for finding in report.findings]
        worst = {m: worst_of(f for f in found if f.method == m) for m in TOLERANCES}
        worst = {method: f for method, f in worst.items() if f}
        verdicts = {report.verdict for report in reports}
        if any(f.error > TOLERANCES[method] for method, f in worst.items()):
            verdicts.add(FAILED)
        orders = [report.order for report in reports if report.order is not None]
        says = [str(r) if not r else f"{r.name}: {r.symmetry}" for r in reports if not r or r.zeros]
        return cls(
            name,
            len(reports),
            next((v for v in (FAILED, UNDECIDED) if v in verdicts), PASSED),
            worst,
            max(orders, key=lambda p: abs(p - 4), default=None),
            says,
            [report.as_dict() for report in reports],
        )

    def cells(self) -> list[str]:
        found, worst = [self.worst.get(m) for m in TOLERANCES], self.worst.get("differences")
        return [
            self.name,
            str(self.cases),
            *(f"{f.error:.1e}" if f else "-" for f in found),
            f"{self.order:.2f}" if self.order is not None else "-",
            place(worst.input, worst.index) if worst else "-",
            "FAILED" if self.verdict == FAILED else self.verdict,
        ]


HEADINGS = ["operation", "cases", *TOLERANCES, "order", "worst difference at", "verdict"]


def run(args: argparse.Namespace) -> int:
    if args.function or args.input:
        return own_function.run(args)
    if args.mutants and args.plot:
        raise TinymixerError("--plot draws healthy gradients; leave it out beside --mutants")
    if args.plot:
        load_figures()  # before the work, in case matplotlib does not start
    start = time.perf_counter()
    if args.mutants:
        return _run_mutants(args, start)
    jobs = _jobs(args)
    rows = list(tqdm(_rows(jobs), total=len(jobs), disable=None, leave=False))
    rows.sort(key=lambda row: row.name in MODELS)  # operations first
    print(_table([HEADINGS, *(row.cells() for row in rows)]))
    for words in (words for row in rows for words in row.says):
        print(f"\n{words}")
    summary = _summary(rows)
    print(f"\n{summary}\n{_versions(start)}")
    if args.json:
        found = [
            {
                "name": row.name,
                "verdict": row.verdict,
                "passed": row.verdict == PASSED,
                "reports": row.reports,
            }
            for row in rows
        ]
        _write(args.json, {"summary": summary, "versions": _versions(start), "rows": found})
    if args.plot:
        load_figures().save(curve_figure(*_curve(args)), args.plot)
        print(f"wrote {args.plot}")
    return own_function.exit_code(row.verdict for row in rows)


Job = tuple[str, Callable[[str], list[Report]]]


def _rows(jobs: Sequence[Job]) -> Iterator[Row]:
    """Each in turn; many are shared by processes, as threads wait for Python's interpreter lock."""
    models = sum(name in MODELS for name, _ in jobs)
    worth = models + (len(jobs) - models) // OPERATIONS_OF_A_PROCESS
    processes = min(processors(), MOST_PROCESSES, worth)
    if processes < 2:
        yield from map(_row, jobs)
        return
    from concurrent.futures import ProcessPoolExecutor  # here: in a browser they do not import
    from multiprocessing import get_context

    spawned = get_context("spawn")  # a fork copies locks that other threads hold
    with ProcessPoolExecutor(processes, spawned, _start) as pool:
        _hold_interrupts(True)  # which a new process inherits: it has no answer yet
        try:
            futures = [pool.submit(_row, job) for job in jobs]
        finally:
            _hold_interrupts(False)
        for future in futures:
            yield future.result()


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it; the first process says so
    _hold_interrupts(False)
    keep_freed_memory()


def _hold_interrupts(hold: bool) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        how = signal.SIG_BLOCK if hold else signal.SIG_UNBLOCK
        signal.pthread_sigmask(how, {signal.SIGINT})


def _row(job: Job) -> Row:
    name, check = job
    with threadpool_limits(1):  # matrices are small, and other processes need the cores
        return Row.of(name, check(name))


def _jobs(args: argparse.Namespace) -> Sequence[Job]:
    """(name, check) for all that is asked for, the longest first."""
    operations = list(dict.fromkeys(type(case.op).__name__ for case in CASES))
    for kind, names, known in ("model", args.model, MODELS), ("operation", args.op, operations):
        for name in names:
            if name not in known:
                raise TinymixerError(f"no {kind} {name!r}; there are {', '.join(known)}")
    models = list(dict.fromkeys(args.model))
    if args.all:
        models = [name for name in MODELS if name.endswith(SMALL)]
    elif args.op or args.model:
        operations = list(dict.fromkeys(args.op))
    return [(name, _check_model) for name in models] + [(n, _check_operation) for n in operations]


def _check_operation(name: str) -> list[Report]:
    return [case.check() for case in CASES if type(case.op).__name__ == name]


def _check_model(name: str) -> list[Report]:
    """In evaluation; then in training, at another image size if the system allows one.

    In training stochastic depth and dropout are on, drawn alike in every forward, and what two
    backward calls add up to is checked.
    """
    system, config = MODELS[name][0], MODELS[name][1]
    model, x = create_model(name), images(name)
    report = check_model(model, x)
    if not report:  # the same mistake again would tell nothing new, and take its time
        return [report]
    options = {k: v for k, v in REGULARISED.items() if k in signature(system).parameters}
    trained, x = system(**config | options, rng=np.random.default_rng(0)), other_images(name)
    again = check_model(trained, x, in_training, twice=True, thorough=False)
    height, width = x.shape[1:3]
    title = f"{again.name} in training at {height}x{width}, twice"
    return [report, replace(again, name=title)]


def in_training(model: nn.Module, x: np.ndarray) -> Tensor:
    """The output for images x as in training, but without the updates that it asks for."""
    with nn.auxiliary():
        return model(x, rng=np.random.default_rng(0))


def other_images(name: str) -> np.ndarray:
    """Normalised images of another size than the model is made for, or of its own."""
    other = np.random.default_rng(0).standard_normal((IN_TRAINING, *OTHER_SIZE, 3))
    try:
        create_model(name)(other.astype(np.float32))
    except ValueError:  # it mixes tokens, and so has one size
        return images(name, IN_TRAINING)
    return other


def images(name: str, count: int = 1) -> np.ndarray:
    """Normalised images for the model: (count, height, width, 3)."""
    size = MODELS[name][1]["image_size"]
    return np.random.default_rng(0).standard_normal((count, size, size, 3))


def _summary(rows: list[Row]) -> str:
    models = sum(row.name in MODELS for row in rows)
    cases = sum(row.cases for row in rows if row.name not in MODELS)
    worst = []
    for method, tolerance in TOLERANCES.items():
        errors = [row.worst[method].error for row in rows if method in row.worst]
        if errors:
            worst.append(f"{method} {max(errors):.1e} (at most {tolerance:.0e})")
    failed = sum(row.verdict == FAILED for row in rows)
    return (
        f"{counted(len(rows) - models, 'operation')} in {counted(cases, 'case')}, "
        f"{counted(models, 'model')}; {failed} failed; "
        f"worst relative error: {', '.join(worst)}"
    )


def _versions(start: float) -> str:
    return (
        f"tinymixer {tinymixer.__version__}, NumPy {np.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}, "
        f"{counted(processors(), 'processor')}, float64; {time.perf_counter() - start:.0f} s"
    )


def _run_mutants(args: argparse.Namespace, start: float) -> int:
    """Plant each bug in turn: which checks catch it, and what each alone would let through."""
    checks = [*OURS, *HABITS]
    with threadpool_limits(1):
        caught = [catchers(mutant) for mutant in tqdm(MUTANTS, disable=None, leave=False)]
    lines = [["operation", "planted bug", *checks]]
    for mutant, names in zip(MUTANTS, caught, strict=True):
        marks = ["caught" if check in names else "-" for check in checks]
        lines.append([mutant.op.__name__, mutant.bug, *marks])
    misses = [sum(check not in names for names in caught) for check in checks]
    lines.append(["", "missed by this check alone", *map(str, misses)])
    together = sum(not set(OURS).isdisjoint(names) for names in caught)
    print(_table(lines))
    print(f"\n{', '.join(OURS)} together: {together} of {len(MUTANTS)} caught")
    print(f"beside them, habits of the field: {', '.join(HABITS)}\n{_versions(start)}")
    if args.json:
        bugs = [
            {"operation": mutant.op.__name__, "bug": mutant.bug, "caught by": names}
            for mutant, names in zip(MUTANTS, caught, strict=True)
        ]
        missed = dict(zip(checks, misses, strict=True))
        _write(args.json, {"missed alone": missed, "bugs": bugs})
    return 0 if together == len(MUTANTS) else 1


def _write(file: Path, content: dict[str, Any]) -> None:
    write_atomically(file, (json.dumps(content, indent=1) + "\n").encode())


def _table(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return "\n".join(padded)


def _curve(args: argparse.Namespace) -> tuple[str, Curve]:
    """The error against the step size of what was asked for."""
    if args.model:
        name, rng = args.model[0], np.random.default_rng(0)
        return name, error_against_step(of_model(create_model(name), images(name), rng))
    name = [*args.op, CURVE_OF][0]
    case = next(case for case in CASES if type(case.op).__name__ == name)
    return name, error_against_step(of_function(case.op, *case.arrays, constants=case.constants))
