"""tinymixer eval."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer import data
from tinymixer.cli import own_weights
from tinymixer.cli.options import (
    add_data_dir,
    add_device,
    add_run,
    find_checkpoint,
    load_figures,
    save_pictures,
    writable_folder,
)
from tinymixer.cli.recipe import add_other_images, add_tta, given_fields
from tinymixer.data import Source
from tinymixer.data.folder import keep_apart
from tinymixer.errors import DataError
from tinymixer.train import metrics
from tinymixer.train.checkpoint import load_model
from tinymixer.train.config import Config
from tinymixer.train.evaluation import log_probabilities, measure, segments
from tinymixer.train.parallel import Workers
from tinymixer.train.records import DatasetRecord
from tinymixer.train.tasks import TASKS

SHOWN = 10  # segmented images; of `shapes`, one of each class
WORST = 28  # mistakes shown


def add_options(parser: Any) -> None:
    parser.description = (
        "Test a trained model: its accuracy by class, its confusion matrix and worst mistakes; if "
        "it segments, its intersection over union by class."
    )
    parser.set_defaults(func=run)
    add_data_dir(parser)
    add_device(parser)
    add_tta(parser)
    add_run(parser)
    own_weights.add_weights(parser)
    add_other_images(parser)


def run(args: argparse.Namespace) -> int:
    load_figures()
    own = own_weights.load(args)
    if own is not None:
        dataset, places = own.on(given_fields(args, Source), args.data_dir)
        return _evaluate_images(own.model, dataset, writable_folder(own.out), args, places)
    path = find_checkpoint(args.run)
    model, saved = load_model(path)
    model.to(args.device)
    config = saved.header.config
    dataset = saved.header.load_dataset(args.data_dir, **given_fields(args, Source))
    begun, given = saved.header.dataset, DatasetRecord.of(dataset)
    if differs := begun.difference(given, ("class_names", "image_size", "channels")):
        raise DataError(f"{path} was trained on {differs}; give a data set like it with --dataset")
    dataset = replace(dataset, mean=begun.mean, std=begun.std)  # as the model knows its images
    if args.out and given.source:
        keep_apart(given.source.dataset, args.out / "confusion.png")
    out = writable_folder(args.out or path.parent)
    if given.fingerprint != begun.fingerprint:
        print(f"note: {given.name} is not the same images that {path} was trained on")
    if TASKS[config.task].pixels:
        return _evaluate_pixels(config, model, dataset, out, args)
    return _evaluate_images(model, dataset, out, args)


def _evaluate_images(
    model: Any,
    dataset: data.Dataset,
    out: Path,
    args: argparse.Namespace,
    places: np.ndarray | None = None,
) -> int:
    """`places`: which of the model's classes those of the data set are, if it has others too."""
    model.to(args.device)
    with Workers.of_this_machine(device=args.device) as workers:
        log_p = log_probabilities(
            model, dataset.test_images, dataset.mean, dataset.std, workers, args.tta
        )
    names, figures = dataset.class_names, load_figures()
    if places is not None:
        log_p, names = own_weights.among(log_p, places), (*names, "another class")
    labels, predictions = dataset.test_labels, log_p.argmax(1)
    matrix = metrics.confusion_matrix(labels, predictions, len(names))
    print(metrics.class_table(matrix, names))
    pictures = {"confusion.png": figures.confusion(matrix, names)}
    worst = metrics.worst_mistakes(log_p, labels, WORST)
    if len(worst):
        pictures["mistakes.png"] = figures.mistakes(
            dataset.test_images[worst],
            labels[worst],
            predictions[worst],
            np.exp(log_p[worst]),
            names,
        )
    save_pictures(pictures, out)
    return 0


def _evaluate_pixels(
    config: Config, model: Any, dataset: data.Dataset, out: Path, args: argparse.Namespace
) -> int:
    with Workers.of_this_machine(device=args.device) as workers:
        _, matrix = measure(TASKS[config.task], model, dataset, workers, args.tta)
    print(metrics.iou_table(matrix, dataset.class_names))
    images, truth = dataset.test_images[:SHOWN], dataset.test_labels[:SHOWN]
    predicted = segments(model, images, dataset.mean, dataset.std, args.tta)
    rows = {"truth": truth, "prediction": predicted}
    figure = load_figures().segments(images, rows, dataset.class_names, data.IGNORED)
    save_pictures({"segments.png": figure}, out)
    return 0
