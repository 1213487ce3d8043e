"""tinymixer plot."""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from tinymixer.cli.options import (
    add_data_dir,
    add_run,
    find_checkpoint,
    load_figures,
    save_pictures,
    writable_folder,
)
from tinymixer.cli.recipe import add_other_images, given_fields
from tinymixer.data import IGNORED, Source
from tinymixer.data.draws import permutation
from tinymixer.errors import DataError
from tinymixer.models import MLPMixer
from tinymixer.train.checkpoint import Checkpoint, load_model
from tinymixer.train.layers import layer_figures
from tinymixer.train.parallel import Workers
from tinymixer.train.records import DatasetRecord
from tinymixer.train.step import TrainingStep
from tinymixer.train.validation import held_back

IMAGES = 64  # on which the layers are looked at
SHOWN, COLUMNS = 40, 10  # images of a batch, and of one with classes of pixels


def add_options(parser: Any) -> None:
    parser.description = (
        "Draw the curves of a run, what goes on in each layer of its model and, of a Mixer, its "
        "token-mixing weights and patch filters."
    )
    parser.set_defaults(func=run)
    add_data_dir(parser)
    add_run(parser)
    parser.add_argument(
        "--batch",
        action="store_true",
        help="draw instead the first images of the run as the model sees them: augmented, with the "
        "classes that it learns",
    )
    add_other_images(parser)


def run(args: argparse.Namespace) -> int:
    figures = load_figures()
    path = find_checkpoint(args.run)
    model, saved = load_model(path)
    if args.batch:
        figure = _batch(_training_step(model, saved, args))
        save_pictures({"batch.png": figure}, writable_folder(args.out or path.parent))
        return 0
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
    try:
        step = _training_step(model, saved, args)
        indices = _first_images(step, IMAGES)
        pictures["layers.png"] = figures.layers(layer_figures(step, indices, epoch=0))
    except DataError as error:
        print(f"layers.png is not drawn, because it needs training images: {error}")
    save_pictures(pictures, out)
    return 0


def _training_step(model: Any, saved: Checkpoint, args: argparse.Namespace) -> TrainingStep:
    """A step of the run's training, without dropout. Raises DataError if its images are missing."""
    header = saved.header
    dataset = header.load_dataset(args.data_dir, **given_fields(args, Source))
    given = DatasetRecord.of(dataset)
    if differs := header.dataset.difference(given, ("class_names", "image_size", "channels")):
        raise DataError(f"the run was trained on {differs}, so these are other images")
    if given.fingerprint != header.dataset.fingerprint:
        print(f"note: {given.name} is not the same images that the run was trained on")
    dataset = replace(dataset, mean=header.dataset.mean, std=header.dataset.std)
    if header.config.val_size:
        dataset = held_back(dataset, header.config.val_size)
    return TrainingStep(header.config, model, dataset, Workers(1), drops=False)


def _first_images(step: TrainingStep, n: int) -> np.ndarray:
    """The indices of the first images that the run learned from."""
    return permutation(step.config.seed, 0, len(step.dataset.train_images))[:n]


def _batch(step: TrainingStep) -> Any:
    figures, dataset = load_figures(), step.dataset
    images, targets = step.inputs(_first_images(step, SHOWN), 0, 0, 0)[:2]
    if targets.ndim == 3:
        rows = {"classes": targets[:COLUMNS]}
        return figures.segments(images[:COLUMNS], rows, dataset.class_names, IGNORED)
    return figures.batch(images, targets, dataset.class_names)
