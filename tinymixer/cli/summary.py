"""tinymixer summary."""

import argparse
from typing import Any

from tinymixer.cli.options import add_set
from tinymixer.errors import TinymixerError
from tinymixer.fast import reference_ops
from tinymixer.models import list_models
from tinymixer.summary import blueprint, summarise


def add_options(parser: Any) -> None:
    parser.description = (
        "Show the layers of a model with their shapes, parameters, multiply-accumulates and memory."
    )
    parser.set_defaults(func=run)
    parser.add_argument(
        "model", metavar="MODEL", help=f"model to describe, one of {', '.join(list_models())}"
    )
    add_set(parser)
    parser.add_argument(
        "--num-classes",
        dest="set",
        action="append",
        type=_classes,
        metavar="INT",
        help="number of classes, short for --set num_classes=INT; default: the model's own",
    )


def _classes(text: str) -> tuple[str, int]:
    """One more --set: if an option is given twice, the last one counts."""
    try:
        return "num_classes", int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def run(args: argparse.Namespace) -> int:
    try:
        with reference_ops():
            found = summarise(blueprint(args.model, **dict(args.set)))
    except (ValueError, TypeError) as error:
        raise TinymixerError(str(error)) from error
    print(found)
    return 0
