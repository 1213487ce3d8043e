"""tinymixer train."""

import argparse
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tinymixer import data, nn
from tinymixer.cli import complain, own_weights
from tinymixer.cli.options import (
    add_data_dir,
    add_device,
    add_graph,
    add_quiet,
    add_set,
    add_workers,
    check_device,
    check_graph,
    check_precision,
    check_workers,
    find_checkpoint,
    load_figures,
    require_writable,
    writable_folder,
)
from tinymixer.cli.recipe import (
    add_augmentation,
    add_fields,
    changed,
    given_fields,
    given_source,
)
from tinymixer.data import Source
from tinymixer.errors import CheckpointError, DataMissing, TinymixerError, counted
from tinymixer.train import checkpoint
from tinymixer.train.config import Config, recipe
from tinymixer.train.mpi import world
from tinymixer.train.ranks import Ranks
from tinymixer.train.stopping import Stopped
from tinymixer.train.tasks import TASKS
from tinymixer.train.together import shared_by
from tinymixer.train.trainer import Trainer


def add_options(parser: Any) -> None:
    parser.description = (
        "Train a model. Without --dataset it takes CIFAR-10 if it is present or can be downloaded, "
        "and otherwise, or with --task segment, the built-in `shapes`. Ctrl-C saves the run and "
        "stops it; --resume continues it, on a CPU or a GPU, and with --epochs for longer. A GPU "
        "computes a whole batch at once unless --micro-batch is given."
    )
    parser.set_defaults(func=run, for_ranks=True)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run; default: runs/MODEL-DATASET"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="continue the run in this folder, with the options that it began with; --epochs may "
        "give it more",
    )
    own_weights.add_init(parser)
    add_data_dir(parser)
    add_workers(parser)
    add_device(parser)
    add_graph(parser)
    parser.add_argument(
        "--save-every",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="seconds from one checkpoint to the next within an epoch; default 60",
    )
    add_quiet(parser)
    add_set(parser)
    decisive = parser.add_argument_group("what decides the trained weights")
    add_fields(decisive, Source)
    add_fields(decisive, Config)
    add_augmentation(parser)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # NaN is not either
        raise argparse.ArgumentTypeError(f"expected 0 or more seconds, got {text}")
    return seconds


def run(args: argparse.Namespace) -> int:
    check_workers(args.workers)
    check_graph(args)
    load_figures()  # it draws curves.png
    with world() as ranks:
        return _train(args, ranks)


def _train(args: argparse.Namespace, ranks: Ranks) -> int:
    if ranks.size > 1 and args.device == "gpu":
        raise TinymixerError(
            f"--device gpu trains with one process, not {ranks.size}; start it without mpiexec"
        )
    options = {
        "workers": args.workers,
        "processes": None,
        "ranks": ranks,
        "device": args.device,
        "save_every": args.save_every,
        "quiet": args.quiet,
        "graph": args.graph,
    }
    build = _resumed if args.resume else _fresh
    if ranks.rank > 0:
        ranks.gather("the first one has loaded, and maybe downloaded, the data")
    trainer = build(args, options)
    if ranks.rank == 0:
        ranks.gather("the others may load them")
    config, out, images = trainer.config, trainer.out, trainer.split.train_images
    if not args.quiet:
        where = "the GPU" if args.device == "gpu" else shared_by(trainer)
        print(
            f"{config.model}, {trainer.model.num_parameters():,} parameters, on "
            f"{trainer.dataset.name}, {counted(len(images), 'image')}, {where} -> {out}"
        )
    try:
        last = trainer.run()[-1]
    except Stopped as stop:
        complain(
            f"{stop}; the run is saved: tinymixer train --resume {shlex.quote(str(stop.folder))}"
        )
        return 128 + stop.signal
    score, name, best = trainer.task.score, trainer.task.score_name, trainer.best
    chosen = ""
    if best is not None:
        chosen = (
            f" (best validation {name} {getattr(best, f'val_{score}'):.2%} after epoch "
            f"{best.epoch:g}: best.npz)"
        )
    print(
        f"test {name} {getattr(last, f'test_{score}'):.2%} after epoch {last.epoch:g}{chosen}\n"
        f"checkpoints, metrics.jsonl and curves.png are in {out}\n"
        f"next: tinymixer eval --run {shlex.quote(str(out))}"
    )
    return 0


def _fresh(args: argparse.Namespace, options: dict[str, Any]) -> Trainer:
    if args.out:
        checkpoint.require_unused(args.out)
    require_writable(args.out or Path("runs"))  # before anything is downloaded
    given = given_fields(args, Config)
    task = given.get("task", "classify")
    source = given_source(args, "shapes" if task == "segment" else "cifar10")
    init = own_weights.find_init(args)
    if init is not None:
        source = init.source(source)

    def recipe_for(kind: str) -> Config:
        config = changed(recipe(kind, task), args)
        return config if init is None else init.config(config)

    config = recipe_for(source.kind)
    check_precision(args.device, config.precision)
    check_device(args.device)
    if source.shape is not None:  # a wrong option is named before anything is downloaded
        height, width, channels = source.shape
        config.build_model(10, nn.BLANK, channels, (height, width))
    if (
        not hasattr(args, "dataset")
        and source.kind == "cifar10"
        and not _have_cifar10(args.data_dir)
    ):
        source = replace(source, dataset="shapes")
        config = recipe_for("shapes")
    if args.device == "gpu" and "micro_batch" not in given:  # a GPU has no small cache to fit
        config = replace(config, micro_batch=config.batch_size)
    out = args.out or _new_folder(f"{config.model}-{source.name}")
    source = replace(source, pixels=TASKS[config.task].pixels)
    dataset = source.load(args.data_dir, download=True)
    trainer = Trainer(config, dataset if init is None else init.seen(dataset), out, **options)
    if init is not None:
        started = init.start(trainer)
        if not args.quiet:
            print(f"{config.begun_from}: {started}")
    writable_folder(out)  # last, so that a refused run leaves no empty folder
    return trainer


def _resumed(args: argparse.Namespace, options: dict[str, Any]) -> Trainer:
    if args.out:
        raise CheckpointError("--resume continues a run in its own folder; leave out --out")
    if args.init:
        raise CheckpointError("--resume goes on with a run's own weights; leave out --init")
    path = find_checkpoint(args.resume)
    header = checkpoint.load(path).header
    epochs = getattr(args, "epochs", None)
    same_end = replace(changed(header.config, args), epochs=header.config.epochs)
    _require_same(path, header.config.plain(), same_end.plain())
    source, given = header.dataset.source, given_fields(args, Source)
    if source is not None:
        asked = replace(source, **given)
        if source.path and asked.path:  # the user's files may have moved: what they hold decides
            asked = replace(asked, dataset=source.dataset)
        _require_same(path, asdict(source), asdict(asked))
    dataset = header.load_dataset(args.data_dir, **given)
    trainer = Trainer.resume(path, dataset, epochs=epochs, **options)
    if trainer.extended != header.extended and not args.quiet:
        where, (done, planned) = (trainer.steps_done, trainer.steps_per_epoch), trainer.extended[-1]
        was, now = (config.learning_rate(*where) for config in (header.config, trainer.config))
        print(
            f"going on at epoch {done:g}, to epoch {epochs:g} and not {planned:g}: the "
            f"{trainer.config.schedule} schedule is computed anew for so many epochs, and the "
            f"learning rate goes from {was:.3g} to {now:.3g}"
        )
    return trainer


def _require_same(path: Path, begun: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise CheckpointError for the first option that the run in `path` did not begin with."""
    for name, value in asked.items():
        if isinstance(value, dict):
            _require_same(path, begun[name], value)
        elif name not in begun or begun[name] != value:
            was = f"with {name}={begun[name]!r}, not " if name in begun else f"without {name}="
            raise CheckpointError(
                f"{path} was begun {was}{value!r}, and with another value it would be another "
                "run; leave the option out, or start a new run with --out"
            )


def _have_cifar10(data_dir: str | None) -> bool:
    """Is CIFAR-10 present, or can it be downloaded? Otherwise a line says what is trained on."""
    try:
        data.load("cifar10", data_dir, download=True)
    except DataMissing:  # a damaged one is an error
        print(
            "CIFAR-10 is not here and could not be downloaded (`tinymixer data download cifar10` "
            "says why): training on the built-in shapes instead"
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
