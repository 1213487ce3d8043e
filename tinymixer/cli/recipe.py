"""Options of the command line that are made from the fields of Source, Config and Augment."""

import argparse
from collections.abc import Iterable
from dataclasses import Field, fields, replace
from typing import Any, get_args

from tinymixer.data import Augment, Source
from tinymixer.errors import TinymixerError
from tinymixer.options import OneOf
from tinymixer.train.config import OPEN_END, RATES, RECIPES, TASK_RECIPES, Config
from tinymixer.train.evaluation import TTA

UNSET = {"image_size": "32"}  # what None stands for in the help, where it is not "all"


def add_fields(
    parser: Any, dataclass: type, *, leave_out: Iterable[str] = (), **defaults: Any
) -> None:
    """An option for each field made by `option()`: `--batch-size INT` for batch_size.

    One not given is not set; `defaults` are what the help says instead of the field's own.
    """
    for field in _options_of(dataclass):
        if field.name in leave_out:
            continue
        (kind, *_) = get_args(field.type) or (field.type,)  # int of int | None
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=argparse.SUPPRESS,
            metavar=kind.__name__.upper(),
            help=_help(field, defaults.get(field.name, field.default)),
        )


def add_other_images(parser: Any) -> None:
    """Options for the fields of a Source: `given_fields` says which of a run's are changed."""
    group = parser.add_argument_group("other images of the same classes")
    kept = dict.fromkeys((field.name for field in fields(Source)), "what the run was trained on")
    add_fields(group, Source, **kept)


def _options_of(dataclass: type) -> list[Field]:
    return [field for field in fields(dataclass) if "help" in field.metadata]


def _help(field: Field, default: Any) -> str:
    """What the option does, the names it knows, its default, and those of other recipes."""
    allowed = field.metadata["allowed"]
    words = f"{field.metadata['help']}; "
    if isinstance(allowed, OneOf):
        words += f"one of {', '.join(allowed.names)}; "
    words += f"default {UNSET.get(field.name, 'all') if default is None else default}"
    for name, options in (RECIPES | TASK_RECIPES).items():
        changes = vars(options.get("augment", Augment()))
        value = options.get(field.name, changes.get(field.name, field.default))
        if field.name in options or value != field.default:
            words += f", for {name} {value}"
    return words


def add_augmentation(parser: Any) -> None:
    group = parser.add_argument_group(
        "augmentation", "Random changes of each training image, drawn anew in each epoch."
    )
    add_fields(group, Augment)


def add_tta(parser: Any) -> None:
    parser.add_argument(
        "--tta",
        default="none",
        choices=TTA,
        help="flip: test each image and its mirror image, and take the mean of their "
        "probabilities; default none",
    )


def given_fields(args: argparse.Namespace, dataclass: type) -> dict[str, Any]:
    """The fields of `dataclass` that the command line gives."""
    options = _options_of(dataclass)
    return {f.name: getattr(args, f.name) for f in options if hasattr(args, f.name)}


def given_source(args: argparse.Namespace, usual: str) -> Source:
    """The Source that the command line gives; `usual` is the data set if it names none."""
    return Source(**{"dataset": usual} | given_fields(args, Source))


def changed(config: Config, args: argparse.Namespace) -> Config:
    """`config` with what the command line changes."""
    given = given_fields(args, Config)
    if given.get("minutes"):
        if given.get("epochs"):
            raise TinymixerError(
                "--minutes decides how many epochs there are; leave out it or --epochs"
            )
        given = OPEN_END | given
    if given.get("optimizer", config.optimizer) != config.optimizer:
        given = {"lr": RATES.get(given["optimizer"], config.lr)} | given
    return replace(
        config,
        **given,
        model_options=config.model_options | dict(args.set),
        augment=replace(config.augment, **given_fields(args, Augment)),
    )
