"""tinymixer summary, tinymixer plot."""

import argparse
from typing import Any

from tinymixer.cli.options import (
    add_run,
    add_set,
    find_checkpoint,
    save_pictures,
    writable_folder,
)
from tinymixer.errors import TinymixerError
from tinymixer.fast import reference_ops
from tinymixer.models import MLPMixer, list_models
from tinymixer.summary import blueprint, summarise
from tinymixer.train import figures
from tinymixer.train.checkpoint import load_model


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "summary", help="layers, shapes, parameters, multiply-accumulates, memory of a model"
    )
    parser.set_defaults(func=summary)
    parser.add_argument("model", metavar="MODEL", help=", ".join(list_models()))
    add_set(parser)
    parser.add_argument("--num-classes", dest="set", action="append", type=_classes, metavar="INT")

    parser = commands.add_parser(
        "plot", help="a run's curves and, of a Mixer, token-mixing weights and patch filters"
    )
    parser.set_defaults(func=plot)
    add_run(parser)


def summary(args: argparse.Namespace) -> int:
    try:
        with reference_ops():
            found = summarise(blueprint(args.model, **dict(args.set)))
    except (ValueError, TypeError) as error:
        raise TinymixerError(str(error)) from error
    print(found)
    return 0


def _classes(text: str) -> tuple[str, int]:
    """One more --set: where an option is given twice, the last one counts."""
    try:
        return "num_classes", int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def plot(args: argparse.Namespace) -> int:
    path = find_checkpoint(args.run)
    model, saved = load_model(path)
    out = writable_folder(args.out or path.parent)
    pictures = {}
    if isinstance(model, MLPMixer):
        height, width = model.image_size
        P = model.patch_embed.patch_size
        maps = {f"block {i}": block.token_mlp.W1.data for i, block in enumerate(model.blocks)}
        pictures = {
            "token-mixing.png": figures.token_maps(maps, (height // P, width // P), n=30),
            "patch-filters.png": figures.patch_filters(model.patch_embed.linear.W.data, P),
        }
    if saved.header["history"]:
        pictures["curves.png"] = figures.curves(saved.header["history"])
    save_pictures(pictures, out)
    return 0
