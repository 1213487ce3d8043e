"""Options of the command line that are made from the fields of Config and Augment."""

import argparse
from collections.abc import Iterable
from dataclasses import Field, fields, replace
from typing import Any, get_args

from tinymixer.data import Augment
from tinymixer.options import OneOf
from tinymixer.train.config import RECIPES, TASK_RECIPES, Config

KEPT_OUT = ("model_options", "augment")  # they have options of their own: --set, and Augment's


def add_fields(parser: Any, dataclass: type, *, leave_out: Iterable[str] = ()) -> None:
    """An option for each field, `--batch-size INT` for batch_size. One not given is not set."""
    for field in fields(dataclass):
        if field.name in leave_out or field.name in KEPT_OUT:
            continue
        (kind, *_) = get_args(field.type) or (field.type,)  # int of int | None
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=argparse.SUPPRESS,
            metavar=kind.__name__.upper(),
            help=_help(field),
        )


def _help(field: Field) -> str:
    """What the option does, the names it knows, its default, and those of other recipes."""
    allowed = field.metadata["allowed"]
    words = f"{field.metadata['help']}; "
    if isinstance(allowed, OneOf):
        words += f"one of {', '.join(allowed.names)}; "
    words += f"default {'all' if field.default is None else field.default}"
    for name, options in (RECIPES | TASK_RECIPES).items():
        options = vars(options.get("augment", Augment())) | options
        if options.get(field.name, field.default) != field.default:
            words += f", for {name} {options[field.name]}"
    return words


def add_augmentation(parser: Any) -> None:
    group = parser.add_argument_group(
        "augmentation", "Random changes of each training image, drawn anew in each epoch."
    )
    add_fields(group, Augment)


def given_fields(args: argparse.Namespace, dataclass: type) -> dict[str, Any]:
    """The fields of `dataclass` that the command line gives."""
    return {f.name: getattr(args, f.name) for f in fields(dataclass) if hasattr(args, f.name)}


def changed(config: Config, args: argparse.Namespace) -> Config:
    """`config` with what the command line changes."""
    return replace(
        config,
        **given_fields(args, Config),
        model_options=config.model_options | dict(args.set),
        augment=replace(config.augment, **given_fields(args, Augment)),
    )
