"""tinymixer predict."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer import data
from tinymixer.cli.options import (
    add_device,
    add_run,
    find_checkpoint,
    load_figures,
    save_pictures,
    writable_folder,
)
from tinymixer.data.pictures import as_seen, read_picture
from tinymixer.errors import DataError
from tinymixer.train.checkpoint import load_model
from tinymixer.train.evaluation import log_probabilities, segments
from tinymixer.train.parallel import Workers
from tinymixer.train.tasks import TASKS

TOP = 5  # classes printed for a picture


def add_options(parser: Any) -> None:
    parser.description = (
        "Show what a trained model sees in your pictures: its five most probable classes, or the "
        "classes of the pixels of one that segments, printed and drawn."
    )
    parser.set_defaults(func=run)
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="picture to classify: PNG, JPEG, ..."
    )
    add_device(parser)
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    figures = load_figures()
    sources = _by_name(args.images)
    pictures = [read_picture(path) for path in args.images]
    path = find_checkpoint(args.run)
    model, saved = load_model(path)
    model.to(args.device)
    out = writable_folder(args.out or path.parent)
    record = saved.header.dataset
    names, colours = record.class_names, (record.mean, record.std)
    task = TASKS[saved.header.config.task]
    height, width = model.image_size
    for (name, source), picture in zip(sources.items(), pictures, strict=True):
        seen = as_seen(picture, height, width)
        if task.pixels:
            classes = segments(model, seen[None], *colours)
            found = [f"{names[k]} {(classes == k).mean():.1%}" for k in np.unique(classes)]
            figure = figures.segments(seen[None], {"prediction": classes}, names, data.IGNORED)
        else:
            with Workers(1) as workers:
                p = np.exp(log_probabilities(model, seen[None], *colours, workers)[0])
            found = [f"{names[k]} {p[k]:.1%}" for k in p.argsort()[::-1][:TOP]]
            figure = figures.prediction(np.asarray(picture), seen, p, names)
        print(f"{source}: {', '.join(found)}")
        save_pictures({name: figure}, out)
    return 0


def _by_name(images: list[Path]) -> dict[str, Path]:
    """The images by the name of the picture drawn of each. Raises DataError for equal names."""
    sources: dict[str, Path] = {}
    for source in images:
        name = f"prediction-{source.stem}.png"
        if name in sources:
            raise DataError(
                f"{sources[name]} and {source} would both be drawn as {name}, so one would be "
                "lost; rename one, or predict them one by one, each with its own --out"
            )
        sources[name] = source
    return sources
