"""tinymixer plot."""

import argparse
from typing import Any

from tinymixer.cli.options import (
    add_run,
    find_checkpoint,
    load_figures,
    save_pictures,
    writable_folder,
)
from tinymixer.models import MLPMixer
from tinymixer.train.checkpoint import load_model


def add_options(parser: Any) -> None:
    parser.description = (
        "Draw the curves of a run and, of a Mixer, its token-mixing weights and patch filters."
    )
    parser.set_defaults(func=run)
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    figures = load_figures()
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
    if saved.header.history:
        pictures["curves.png"] = figures.curves(saved.header.history)
    save_pictures(pictures, out)
    return 0
