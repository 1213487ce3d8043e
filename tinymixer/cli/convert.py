"""tinymixer convert."""

import argparse
import os
from pathlib import Path
from typing import Any

from tinymixer.cli.options import add_set, output_file
from tinymixer.errors import TinymixerError
from tinymixer.models import list_models, options_of
from tinymixer.summary import blueprint
from tinymixer.weights import (
    LAYOUTS,
    Weights,
    find_layout,
    known,
    load_state,
    num_classes_in,
    read_weights,
    save_state,
)


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
        help="layout of IN: official is that of the system's authors; default: found by the names",
    )
    parser.add_argument(
        "--to", choices=LAYOUTS, default="tinymixer", help="layout of OUT; default tinymixer"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="numbers of OUT"
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="where IN holds averaged weights (EMA) and raw ones, take the raw; default: averaged",
    )
    add_set(parser)


def run(args: argparse.Namespace) -> int:
    if args.source.exists() and args.target.exists() and os.path.samefile(args.source, args.target):
        raise TinymixerError(f"{args.target} is IN itself; give another name for OUT")
    try:
        with read_weights(args.source, average=not args.raw) as weights:
            lines = _convert(args, weights)
    except TinymixerError:
        raise
    except (ValueError, TypeError) as error:
        raise TinymixerError(str(error)) from error
    print("\n".join(lines))
    return 0


def _convert(args: argparse.Namespace, weights: Weights) -> list[str]:
    """Write OUT, and answer what to print of it."""
    said = weights.record
    name = args.model or said.get("model")
    if name is None:
        raise TinymixerError(f"{args.source} does not say which model it is of; add --model NAME")
    options = (said.get("model_options", {}) if said.get("model") == name else {}) | dict(args.set)
    model = blueprint(name, **options)
    layout = find_layout(model, weights) if args.layout == "auto" else args.layout
    facts = known(type(model).__name__, layout)
    if facts:
        options = {"gelu": facts.gelu} | options
    if "num_classes" not in dict(args.set):
        found = num_classes_in(weights, model, layout)
        options |= {"num_classes": found} if found else {}
    model = blueprint(name, **options)
    load_state(model, weights, layout)
    record = {"model": name, "model_options": options_of(name, **options), "layout": args.to}
    record |= {key: said[key] for key in ("class_names", "mean", "std") if key in said}
    if facts:
        record = {"mean": list(facts.mean), "std": list(facts.std)} | record
    save_state(model, args.target, args.to, record=record, dtype=args.dtype)
    lines = [
        f"wrote {args.target}: {name}, {model.num_parameters():,} parameters, {args.to}",
        *(f"{args.source}: {note}" for note in weights.notes),
    ]
    if facts:
        lines.append(
            f"{args.source} has the layout {layout}, whose code computes GELU in its "
            f"{facts.gelu} form, and sees pixels of mean {_listed(record['mean'])} and std "
            f"{_listed(record['std'])}; OUT says so"
        )
    theirs = known(type(model).__name__, args.to)
    if theirs and theirs.gelu != options_of(name, **options)["gelu"]:
        lines.append(
            f"the code of the layout {args.to} computes GELU in its {theirs.gelu} form, and will "
            "give slightly other outputs"
        )
    return lines


def _listed(numbers: Any) -> str:
    return ", ".join(f"{x:g}" for x in dict.fromkeys(numbers))
