"""tinymixer train."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinymixer import data, nn
from tinymixer.cli.options import (
    add_augmentation,
    add_device,
    add_fields,
    add_graph,
    add_set,
    changed,
    check_device,
    check_graph,
    check_precision,
    find_checkpoint,
    given_fields,
    writable_folder,
)
from tinymixer.errors import CheckpointError, DataError, TinymixerError
from tinymixer.train import checkpoint
from tinymixer.train.config import Config, recipe
from tinymixer.train.trainer import Trainer


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model. Without --dataset it takes CIFAR-10 where that is or can be "
        "had, and the built-in `shapes` otherwise, or to segment. Ctrl-C stops it; --resume goes "
        "on, on either device. A GPU computes a batch as a whole unless --micro-batch is given.",
    )
    parser.set_defaults(func=run)
    parser.add_argument("--out", type=Path, help="folder of the run; default runs/MODEL-DATASET")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with a stopped run")
    parser.add_argument("--data-dir", metavar="DIR", help="where data sets are")
    parser.add_argument("--workers", type=int, help="threads; default: one for each processor")
    add_device(parser)
    add_graph(parser)
    parser.add_argument("--save-every", type=_seconds, default=60.0, metavar="SECONDS")
    parser.add_argument("--quiet", action="store_true", help="print nothing but the result")
    add_set(parser)
    add_fields(
        parser.add_argument_group("what decides the trained weights"),
        Config,
        leave_out=("model_options", "augment"),
    )
    add_augmentation(parser)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:  # nor is nan
        raise argparse.ArgumentTypeError(f"expected 0 or more seconds, got {text}")
    return seconds


def run(args: argparse.Namespace) -> int:
    if args.workers is not None and args.workers < 1:
        raise TinymixerError(f"--workers {args.workers}: expected 1 or more")
    check_graph(args)
    options = {
        "workers": args.workers,
        "device": args.device,
        "save_every": args.save_every,
        "quiet": args.quiet,
        "graph": args.graph,
    }
    trainer = _resumed(args, options) if args.resume else _fresh(args, options)
    config, out, images = trainer.config, trainer.out, trainer.dataset.train_images
    if not args.quiet:
        where = "the GPU" if args.device == "gpu" else f"{trainer.workers.count} workers"
        print(
            f"{config.model}, {trainer.model.num_parameters():,} parameters, on {config.dataset}, "
            f"{len(images):,} images, {where} -> {out}"
        )
    last = trainer.run()[-1]
    metric = trainer.task.metric
    best = max(trainer.history, key=lambda figures: getattr(figures, metric))
    print(
        f"{trainer.task.metric_name} {getattr(last, metric):.2%} after epoch {last.epoch:g} "
        f"(best {getattr(best, metric):.2%} after epoch {best.epoch:g})\n"
        f"checkpoints, metrics.jsonl and curves.png are in {out}\n"
        f"next: tinymixer eval --run {out}"
    )
    return 0


def _fresh(args: argparse.Namespace, options: dict[str, Any]) -> Trainer:
    if args.out:
        checkpoint.require_unused(args.out)
    given = given_fields(args, Config)
    task = given.get("task", "classify")
    wanted = given.get("dataset", "shapes" if task == "segment" else "cifar10")
    config = changed(recipe(wanted, task), args)
    check_precision(args.device, config.precision)
    check_device(args.device)
    config.build_model(10, nn.BLANK)  # a wrong option is named before anything is downloaded
    if wanted not in (given.get("dataset"), "shapes") and not _cifar10_is_to_be_had(args.data_dir):
        config = changed(recipe("shapes", task), args)
    if args.device == "gpu" and "micro_batch" not in given:  # which has no small cache to fit
        config = replace(config, micro_batch=config.batch_size)
    out = args.out or _new_folder(f"{config.model}-{config.dataset}")
    trainer = Trainer(config, config.load_dataset(args.data_dir, download=True), out, **options)
    writable_folder(out)  # last: what is refused leaves no empty one
    return trainer


def _resumed(args: argparse.Namespace, options: dict[str, Any]) -> Trainer:
    if args.out:
        raise CheckpointError("--resume goes on in the run's own folder; leave out --out")
    path = find_checkpoint(args.resume)
    saved = checkpoint.load(path).header.config
    begun, asked = saved.plain(), changed(saved, args).plain()
    if asked != begun:
        name = next(name for name in begun if asked[name] != begun[name])
        raise CheckpointError(
            f"{path} was begun with {name}={begun[name]!r}, not {asked[name]!r}, and another "
            "setting would be another run; leave the option out, or start a new --out"
        )
    return Trainer.resume(path, saved.load_dataset(args.data_dir), **options)


def _cifar10_is_to_be_had(data_dir: str | None) -> bool:
    try:
        data.load("cifar10", data_dir, download=True)
    except DataError:
        print(
            "CIFAR-10 is not to be had here (`tinymixer data download cifar10` says why): training "
            "on the built-in shapes instead"
        )
        return False
    return True


def _new_folder(name: str) -> Path:
    """runs/NAME, or runs/NAME-2, ...: the first that holds no run yet."""
    number, path = 1, Path("runs") / name
    while checkpoint.of_run(path):
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path
