"""tinymixer convert."""

import argparse
from pathlib import Path
from typing import Any

from tinymixer.cli.options import add_set, output_file
from tinymixer.errors import TinymixerError
from tinymixer.models import list_models
from tinymixer.summary import blueprint
from tinymixer.weights import LAYOUTS, load_state, num_classes_in, save_state


def add_options(parser: Any) -> None:
    parser.description = (
        "Convert weights from one layout to another: that of a system's authors, timm's, or ours."
    )
    parser.set_defaults(func=run)
    parser.add_argument(
        "source",
        type=Path,
        metavar="IN",
        help="file of weights to read: .npz, .safetensors, or a run's last.npz",
    )
    parser.add_argument(
        "target",
        type=output_file,
        metavar="OUT",
        help="file of weights to write: .npz or .safetensors",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help=f"model that the weights belong to, one of {', '.join(list_models())}",
    )
    parser.add_argument(
        "--from",
        dest="layout",
        choices=LAYOUTS,
        required=True,
        help="layout of IN: official is that of the system's authors",
    )
    parser.add_argument(
        "--to", choices=LAYOUTS, default="tinymixer", help="layout of OUT; default tinymixer"
    )
    add_set(parser)


def run(args: argparse.Namespace) -> int:
    options = dict(args.set)
    try:
        if "num_classes" not in options:
            found = num_classes_in(args.source, blueprint(args.model, **options), args.layout)
            options |= {"num_classes": found} if found else {}
        model = blueprint(args.model, **options)
        load_state(model, args.source, args.layout)
        save_state(model, args.target, args.to)
    except TinymixerError:
        raise
    except (ValueError, TypeError) as error:
        raise TinymixerError(str(error)) from error
    print(f"wrote {args.target}: {args.model}, {model.num_parameters():,} parameters, {args.to}")
    return 0
