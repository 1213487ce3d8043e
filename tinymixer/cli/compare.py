"""tinymixer compare: several models under one budget."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinymixer.cli import complain
from tinymixer.cli.options import (
    add_data_dir,
    add_device,
    add_quiet,
    add_set,
    add_workers,
    check_device,
    check_precision,
    check_workers,
    load_figures,
    require_writable,
    writable_folder,
)
from tinymixer.cli.recipe import add_augmentation, add_fields, add_tta, changed, given_source
from tinymixer.data import Source
from tinymixer.data.folder import keep_apart
from tinymixer.errors import TinymixerError
from tinymixer.models import list_models
from tinymixer.train.compare import UNITS, Budget, Comparison, table
from tinymixer.train.config import Config, recipe
from tinymixer.train.stopping import Stopped
from tinymixer.train.tasks import TASKS


def add_options(parser: Any) -> None:
    parser.description = (
        "Train several models on the same data, each under the same budget, and compare them in a "
        "table and two figures. Ctrl-C saves and stops; the same command continues."
    )
    parser.set_defaults(func=run)
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f"models to compare, of {', '.join(list_models())}",
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    for unit, metavar, text in zip(
        UNITS,
        ("N", "S", "M"),
        (
            "budget in passes over the training images",
            "budget in seconds of training, by a trapezoid schedule as with train --minutes",
            "budget in multiply-accumulates: three times those of the forward pass of each image",
        ),
        strict=True,
    ):
        budget.add_argument(
            f"--{unit}", dest="budget", type=_amount(unit), metavar=metavar, help=text
        )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the comparison; default: runs/compare-DATASET-BUDGET",
    )
    add_data_dir(parser)
    add_workers(parser)
    add_device(parser)
    add_tta(parser)
    add_quiet(parser)
    add_set(parser)
    recipe = parser.add_argument_group("the recipe of all models")
    add_fields(recipe, Source, dataset="shapes")
    add_fields(recipe, Config, leave_out=("model", "epochs", "minutes", "freeze"))
    add_augmentation(parser)


def run(args: argparse.Namespace) -> int:
    check_workers(args.workers)
    load_figures()  # a comparison ends with two
    source = given_source(args, "shapes")
    budget = args.budget
    if budget.unit == "seconds":
        args.minutes = budget.amount / 60
    config = changed(recipe(source.kind, getattr(args, "task", "classify")), args)
    check_precision(args.device, config.precision)
    check_device(args.device)
    name = f"compare-{source.name}-{budget.amount:g}-{budget.unit}"
    out = args.out or Path("runs") / name
    if out.exists() and not out.is_dir():
        raise TinymixerError(f"--out {out}: expected a folder, found a file; choose another --out")
    keep_apart(source.dataset, out / "model" / "curves.png")
    require_writable(out)  # before anything is downloaded
    source = replace(source, pixels=TASKS[config.task].pixels)
    dataset = source.load(args.data_dir, download=True)
    comparison = Comparison(
        args.models,
        budget,
        config,
        dataset,
        out,
        workers=args.workers,
        device=args.device,
        quiet=args.quiet,
        tta=args.tta,
    )
    writable_folder(out)
    try:
        results = comparison.run()
    except Stopped as stop:
        complain(f"{stop}; all is saved: the same command continues")
        return 128 + stop.signal
    print(f"{comparison.statement()}\n\n{table(results)}\n")
    print(f"comparison.md, accuracy-macs.png and accuracy-seconds.png are in {out}")
    return 0


def _amount(unit: str) -> Callable[[str], Budget]:
    def budget(text: str) -> Budget:
        try:
            return Budget(unit, float(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return budget
