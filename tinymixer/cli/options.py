"""What several commands share: options made from a dataclass, and finding a run."""

import argparse
import ast
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np
from matplotlib.figure import Figure

from tinymixer import data
from tinymixer.backend import to_device
from tinymixer.data.autoaugment import POLICIES
from tinymixer.errors import CheckpointError, TinymixerError
from tinymixer.train import figures
from tinymixer.train.config import RECIPES, TASK_RECIPES, Config


def add_fields(parser: Any, dataclass: type, *, leave_out: Iterable[str] = ()) -> None:
    """An option for each field, `--batch-size INT` for batch_size. One not given is not set."""
    hints = get_type_hints(dataclass)
    for field in fields(dataclass):
        if field.name in leave_out:
            continue
        kinds = [t for t in (get_args(hints[field.name]) or (hints[field.name],)) if t != NoneType]
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kinds[0],
            default=argparse.SUPPRESS,
            metavar=kinds[0].__name__.upper(),
            help=_default(field),
        )


def _default(field: Field) -> str:
    """What an option is if it is not given, and where a recipe has something else."""
    words = f"default {'all' if field.default is None else field.default}"
    for name, options in (RECIPES | TASK_RECIPES).items():
        options = vars(options.get("augment", data.Augment())) | options
        if options.get(field.name, field.default) != field.default:
            words += f", for {name} {options[field.name]}"
    return words


def add_augmentation(parser: Any) -> None:
    group = parser.add_argument_group(
        "augmentation",
        "Of each training image, anew in each epoch. --padding is reflect or zero, --flip is none, "
        f"random or alternating, --auto-augment is none or a policy: {', '.join(POLICIES)}.",
    )
    add_fields(group, data.Augment)


def given_fields(args: argparse.Namespace, dataclass: type) -> dict[str, Any]:
    """The fields of `dataclass` that options were given for."""
    return {f.name: getattr(args, f.name) for f in fields(dataclass) if hasattr(args, f.name)}


def changed(config: Config, args: argparse.Namespace) -> Config:
    """`config` with what the command line changes."""
    return replace(
        config,
        **given_fields(args, Config),
        model_options=config.model_options | dict(args.set),
        augment=replace(config.augment, **given_fields(args, data.Augment)),
    )


def add_graph(parser: Any) -> None:
    parser.add_argument(
        "--graph",
        action="store_true",
        help="on a GPU: record the launches of a step once and replay them as one, if that gives "
        "the same bits; not yet seen on a GPU",
    )


def check_graph(args: argparse.Namespace) -> None:
    if args.graph and args.device == "cpu":
        raise TinymixerError("--graph replays the launches of a GPU; --device gpu")


def add_set(parser: Any) -> None:
    parser.add_argument(
        "--set",
        action="append",
        type=_setting,
        default=[],
        metavar="OPTION=VALUE",
        help="change an option of the model, e.g. --set gelu=erf --set hidden_dim=96",
    )


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected OPTION=VALUE, got {text!r}")
    if name in ("name", "rng"):  # those `create_model` takes besides a model's options
        raise argparse.ArgumentTypeError(f"a model has no option {name!r}")
    try:
        found = ast.literal_eval(value)  # a number, or several: --set depths=2,2,6,2
        json.dumps(found)  # as a run's files will
    except (ValueError, SyntaxError, TypeError):
        return name, value
    return name, found


def add_device(parser: Any) -> None:
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"], help="default cpu")


def check_precision(device: str, precision: str) -> None:
    if device == "cpu" and precision != "fp32":
        raise TinymixerError(f"--precision {precision}: a CPU knows only fp32; --device gpu")


def check_device(device: str) -> None:
    """Raise TinymixerError where `device` cannot be used, before anything is downloaded for it."""
    to_device(np.zeros(1), device)


def add_run(parser: Any) -> None:
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="a run's folder, or one of its checkpoints; default: the newest under runs/",
    )
    parser.add_argument("--out", type=Path, help="folder for the pictures; default: the run's")


def find_checkpoint(run: Path | None, name: str = "last.npz") -> Path:
    """The checkpoint that --run means. Raises CheckpointError if there is none."""
    if run is None:
        runs = sorted(Path("runs").glob("*/last.npz"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise CheckpointError("no run under runs/; train one with `tinymixer train`, or --run")
        run = runs[-1].parent
    return run / name if run.is_dir() else run


def writable_folder(path: Path) -> Path:
    """`path`, made if it is not there. Raises TinymixerError if nothing can be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".tinymixer-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TinymixerError(
            f"cannot write to {path}: {error.strerror or error}; choose another --out"
        ) from error
    return path


def output_file(text: str) -> Path:
    """The FILE of an option, written when all work is done: what will not do is refused first."""
    path = Path(text)
    if os.path.exists(path) and not os.path.isfile(path):  # a device would be replaced by a file
        raise argparse.ArgumentTypeError(f"{text} is no regular file; name one to write to")
    place = next(place for place in path.absolute().parents if os.path.exists(place))
    if not os.path.isdir(place) or not os.access(place, os.W_OK):
        raise argparse.ArgumentTypeError(
            f"cannot write {text}: {place} is no folder that one can write to; choose another"
        )
    return path


def save_pictures(pictures: Mapping[str, Figure], folder: Path) -> None:
    """Save each figure in `folder` under its name, and say so."""
    for name, figure in pictures.items():
        figures.save(figure, folder / name)
        print(f"wrote {folder / name}")
