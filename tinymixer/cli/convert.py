"""tinymixer convert."""

import argparse
import os
from pathlib import Path
from typing import Any

from tinymixer.cli.options import add_set, output_file
from tinymixer.cli.own_weights import about, add_key, find_weights, require_classifier
from tinymixer.errors import TinymixerError
from tinymixer.models import list_models, options_of
from tinymixer.summary import blueprint
from tinymixer.weights import LAYOUTS, Weights, known, load_state, read_weights, save_state


def add_options(parser: Any) -> None:
    parser.description = (
        "Convert weights from one layout to another: that of a system's authors, timm's, or ours. "
        "IN may be a file of NumPy, safetensors, PyTorch or Flax: what it is, its content says."
    )
    parser.set_defaults(func=run)
    parser.add_argument(
        "source",
        type=Path,
        metavar="IN",
        help="file of weights to read: .npz, .safetensors or its index, .pth, .msgpack, or a run's "
        "last.npz",
    )
    parser.add_argument(
        "target",
        type=output_file,
        metavar="OUT",
        help="file of weights to write: .npz or .safetensors",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="model that the weights belong to; default: what IN says of itself. One of "
        f"{', '.join(list_models())}",
    )
    parser.add_argument(
        "--from",
        dest="layout",
        choices=("auto", *LAYOUTS),
        default="auto",
        help="layout of IN: official is that of the system's authors; "
        "default auto, found by the names",
    )
    parser.add_argument(
        "--to", choices=LAYOUTS, default="tinymixer", help="layout of OUT; default tinymixer"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="numbers of OUT; default float32",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="where IN holds averaged weights (EMA) and raw ones, take the raw; default: averaged",
    )
    add_set(parser)
    add_key(parser)


def run(args: argparse.Namespace) -> int:
    try:
        path, key = find_weights(args.source), args.checkpoint_key or ""
        with read_weights(path, average=not args.raw, key=key) as weights:
            lines = _convert(args, weights)
    except TinymixerError:
        raise
    except (ValueError, TypeError) as error:
        raise TinymixerError(str(error)) from error
    print("\n".join(lines))
    return 0


def _convert(args: argparse.Namespace, weights: Weights) -> list[str]:
    """Write OUT, and return what to print of it."""
    if args.target.exists() and any(os.path.samefile(args.target, x) for x in weights.files):
        raise TinymixerError(f"{args.target} is a file of IN itself; give another name for OUT")
    require_classifier(weights, "only models that classify are converted")
    found = about(weights, args.model, dict(args.set), args.layout)
    options = found.options | {"num_classes": found.num_classes, "channels": found.channels}
    options = options_of(found.model, **{k: x for k, x in options.items() if x is not None})
    model = blueprint(found.model, **options)
    load_state(model, weights, found.layout)
    record = {
        "model": found.model,
        "model_options": options,
        "layout": args.to,
        **{key: _listed(getattr(found, key)) for key in ("class_names", "mean", "std")},
    }
    save_state(model, args.target, args.to, record=record, dtype=args.dtype)
    lines = [
        f"wrote {args.target}: {found.model}, {model.num_parameters():,} parameters, {args.to}",
        *(f"{args.source}: {note}" for note in weights.notes),
    ]
    theirs, ours = (
        known(type(model).__name__, x, found.num_classes) for x in (found.layout, args.to)
    )
    if theirs:
        colours = f"pixels of mean {_shown(found.mean)} and std {_shown(found.std)}"
        if weights.record or options["gelu"] != theirs.gelu:
            lines.append(f"{args.target} says: GELU in its {options['gelu']} form, {colours}")
        else:
            lines.append(
                f"{args.source} has the layout {found.layout}, whose code computes GELU in its "
                f"{theirs.gelu} form, and sees {colours}; {args.target} says so"
            )
    if ours and ours.gelu != options["gelu"]:
        lines.append(
            f"the code of the layout {args.to} computes GELU in its {ours.gelu} form, and will "
            "give slightly other outputs"
        )
    return lines


def _listed(found: Any) -> list[Any] | None:
    return None if found is None else list(found)


def _shown(numbers: Any) -> str:
    return ", ".join(f"{x:g}" for x in dict.fromkeys(numbers))
