"""tinymixer lr-find: which learning rate to begin with."""

import argparse
from dataclasses import replace
from typing import Any

from tinymixer import nn
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
    output_file,
    save_pictures,
)
from tinymixer.cli.recipe import add_augmentation, add_fields, changed, given_source
from tinymixer.data import Source
from tinymixer.data.folder import keep_apart
from tinymixer.train.config import Config, recipe
from tinymixer.train.lr_find import range_test
from tinymixer.train.tasks import TASKS

RATES = (
    "lr",
    "lr_final",
    "schedule",
    "warmup_epochs",
    "epochs",
    "minutes",
    "ema",
)  # what a test has no use for


def add_options(parser: Any) -> None:
    parser.description = (
        "Train a fresh model for a few steps while the learning rate rises from tiny to far too "
        "high, draw the loss against it, and suggest an --lr for `tinymixer train`. Nothing but "
        "the figure is saved."
    )
    parser.set_defaults(func=run)
    test = parser.add_argument_group("the range test")
    test.add_argument(
        "--low",
        type=float,
        default=1e-5,
        metavar="LR",
        help="rate of the first step; default 1e-05",
    )
    test.add_argument(
        "--high", type=float, default=1.0, metavar="LR", help="rate of the last step; default 1"
    )
    test.add_argument(
        "--steps",
        type=int,
        default=200,
        metavar="N",
        help="steps from one to the other; default 200",
    )
    test.add_argument(
        "--plot",
        type=output_file,
        default="lr-find.png",
        metavar="FILE",
        help="draw the losses into FILE; default lr-find.png",
    )
    add_data_dir(parser)
    add_workers(parser)
    add_device(parser)
    add_quiet(parser)
    add_set(parser)
    group = parser.add_argument_group("the training that the rate is for")
    add_fields(group, Source, dataset="shapes")
    add_fields(group, Config, leave_out=RATES)
    add_augmentation(parser)


def run(args: argparse.Namespace) -> int:
    check_workers(args.workers)
    figures = load_figures()
    source = given_source(args, "shapes")
    config = changed(recipe(source.kind, getattr(args, "task", "classify")), args)
    check_precision(args.device, config.precision)
    check_device(args.device)
    keep_apart(source.dataset, args.plot)
    config.build_model(10, nn.BLANK)  # a wrong option is named before anything is downloaded
    source = replace(source, pixels=TASKS[config.task].pixels)
    found = range_test(
        config,
        source.load(args.data_dir, download=True),
        low=args.low,
        high=args.high,
        steps=args.steps,
        workers=args.workers,
        device=args.device,
        quiet=args.quiet,
    )
    print(found)
    figure = figures.range_test(found.rates, found.losses, found.smoothed, found.suggested)
    save_pictures({args.plot.name: figure}, args.plot.parent)
    return 0
