"""tinymixer compare: several models under one budget."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinymixer.cli.options import (
    add_augmentation,
    add_device,
    add_fields,
    add_set,
    changed,
    check_device,
    check_precision,
    writable_folder,
)
from tinymixer.errors import TinymixerError
from tinymixer.models import list_models
from tinymixer.train.compare import UNITS, Budget, Comparison, table
from tinymixer.train.config import Config, recipe
from tinymixer.train.stopping import Stopped


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="train several models under one budget, and see what each makes of it",
        description="Train several models on the same data, each under the same budget, and show "
        "what came of it in a table and two figures. Ctrl-C stops it; the same command goes on.",
    )
    parser.set_defaults(func=run)
    parser.add_argument("models", nargs="+", metavar="MODEL", help=", ".join(list_models()))
    budget = parser.add_mutually_exclusive_group(required=True)
    for unit, metavar, text in zip(
        UNITS,
        ("N", "S", "M"),
        (
            "passes over the training images",
            "of training, by the speed measured beforehand",
            "multiply-accumulates in all: three times the forward ones of each image",
        ),
        strict=True,
    ):
        budget.add_argument(
            f"--{unit}", dest="budget", type=_amount(unit), metavar=metavar, help=text
        )
    parser.add_argument("--out", type=Path, help="folder; default runs/compare-DATASET-BUDGET")
    parser.add_argument("--data-dir", metavar="DIR", help="where data sets are")
    parser.add_argument("--workers", type=int, help="threads; default: one for each processor")
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but the result")
    add_set(parser)
    recipe = parser.add_argument_group("the recipe, common to all")
    recipe.add_argument("--dataset", default="shapes", metavar="STR", help="default shapes")
    add_fields(recipe, Config, leave_out=("model", "model_options", "dataset", "epochs", "augment"))
    add_augmentation(parser)


def run(args: argparse.Namespace) -> int:
    if args.workers is not None and args.workers < 1:
        raise TinymixerError(f"--workers {args.workers}: expected 1 or more")
    config = changed(recipe(args.dataset, getattr(args, "task", "classify")), args)
    check_precision(args.device, config.precision)
    check_device(args.device)
    budget = args.budget
    name = f"compare-{config.dataset}-{budget.amount:g}-{budget.unit}"
    out = args.out or Path("runs") / name
    dataset = config.load_dataset(args.data_dir, download=True)
    comparison = Comparison(
        args.models,
        budget,
        config,
        dataset,
        out,
        workers=args.workers,
        device=args.device,
        quiet=args.quiet,
    )
    writable_folder(out)
    try:
        results = comparison.run()
    except Stopped as stop:
        print(f"tinymixer: {stop}; all is saved: the same command goes on", file=sys.stderr)
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
