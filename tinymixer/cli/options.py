"""What several commands share: options, finding a run, and where results are written."""

import argparse
import ast
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinymixer.arrays import opened
from tinymixer.backend import to_device
from tinymixer.errors import CheckpointError, TinymixerError, brief

# --- Options ------------------------------------------------------------------------------------


def add_data_dir(parser: Any, **settings: Any) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of the data sets; default: $TINYMIXER_DATA, else data/",
        **settings,
    )


def add_workers(parser: Any) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes or threads, whichever is faster, that share the work of a batch; default: "
        "one for each processor",
    )


def check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise TinymixerError(f"--workers {workers}: expected 1 or more")


def add_device(parser: Any) -> None:
    parser.add_argument(
        "--device", default="cpu", choices=["cpu", "gpu"], help="where to compute; default cpu"
    )


def check_device(device: str) -> None:
    """Raise TinymixerError if `device` cannot be used, before anything is downloaded for it."""
    to_device(np.zeros(1), device)


def check_precision(device: str, precision: str) -> None:
    if device == "cpu" and precision != "fp32":
        raise TinymixerError(
            f"--precision {precision}: a CPU computes in fp32 only; add --device gpu"
        )


def add_graph(parser: Any) -> None:
    parser.add_argument(
        "--graph",
        action="store_true",
        help="on a GPU: record the kernel launches of a step once and replay them as one, if that "
        "gives the same bits; not tested on a GPU yet",
    )


def check_graph(args: argparse.Namespace) -> None:
    if args.graph and args.device == "cpu":
        raise TinymixerError("--graph replays the kernel launches of a GPU; add --device gpu")


def add_quiet(parser: Any) -> None:
    parser.add_argument("--quiet", action="store_true", help="print only the result")


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
    if name in ("name", "rng"):  # arguments of `create_model` that are not options of a model
        raise argparse.ArgumentTypeError(f"a model has no option {name!r}")
    try:
        found = ast.literal_eval(value)  # a number, or several: --set depths=2,2,6,2
        json.dumps(found)  # as a run's files will
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, value
    return name, found


# --- A run --------------------------------------------------------------------------------------


def add_run(parser: Any) -> None:
    parser.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="a run's folder, or one of its checkpoints; default: the newest run under runs/",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the pictures; default: the run's"
    )


def newest_run() -> Path | None:
    """The last checkpoint of the newest run under runs/; None if there is no run."""
    return max(Path("runs").glob("*/last.npz"), key=lambda x: x.stat().st_mtime, default=None)


def find_checkpoint(run: Path | None) -> Path:
    """The checkpoint that --run means. Raises CheckpointError if there is none."""
    if run is None:
        newest = newest_run()
        if newest is None:
            raise CheckpointError(
                "there is no run under runs/; train a model with `tinymixer train`, or name the "
                "folder of a run with --run"
            )
        return newest
    return run / "last.npz" if run.is_dir() else run


# --- What is written ------------------------------------------------------------------------------


def writable_folder(path: Path) -> Path:
    """`path`, created if it does not exist. Raises TinymixerError if it cannot be written to."""
    require_writable(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error) from error
    return path


def require_writable(folder: Path) -> None:
    """Raise TinymixerError if nothing can be written to `folder`, or it cannot be made."""
    there = next(x for x in (folder, *folder.absolute().parents) if os.path.lexists(x))
    try:
        with tempfile.TemporaryFile(dir=there):  # its name is its own, so that many can try at once
            pass
    except OSError as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: Path, error: OSError) -> TinymixerError:
    return TinymixerError(
        f"cannot write to {folder}: {error.strerror or error}; choose another folder with --out"
    )


def output_file(text: str) -> Path:
    """The FILE of an option. It is written at the end, so a wrong one is refused at the start."""
    path = Path(text)
    if os.path.exists(path) and not os.path.isfile(path):  # a device would be replaced by a file
        raise argparse.ArgumentTypeError(
            f"{text} is not a regular file; give the name of a file to write"
        )
    if os.path.isfile(path) and _is_checkpoint(path):
        raise argparse.ArgumentTypeError(
            f"{text} is a checkpoint of a run, which would be lost; give the name of another file"
        )
    try:
        require_writable(path.absolute().parent)
    except TinymixerError as error:
        parent = next(parent for parent in path.absolute().parents if os.path.exists(parent))
        raise argparse.ArgumentTypeError(
            f"cannot write {text}: {parent} is not a folder that you can write to; choose another"
        ) from error
    return path


def _is_checkpoint(path: Path) -> bool:
    """Whether the file holds what a run saves, whatever its name."""
    try:
        with opened(path) as file:
            return "header" in file.stored and any(x.startswith("weights/") for x in file.stored)
    except Exception:  # another kind of file may make the reader raise anything
        return False


def require_other_outputs(actions: Iterable[argparse.Action], args: argparse.Namespace) -> None:
    """Raise TinymixerError if a file that the command line is to write is another of its files."""
    given = [
        (action, value)
        for action in actions
        for value in _listed(getattr(args, action.dest, None))
        if isinstance(value, str | Path)
    ]
    for action, path in given:
        for other, value in given:
            if action.type is output_file and other is not action and _same_file(path, value):
                raise TinymixerError(
                    f"{_name(action)} {path} is the same file as {_name(other)} {value}, which "
                    "would be lost; give another name"
                )


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1] if action.option_strings else str(action.metavar)


def _same_file(path: str | Path, value: str | Path) -> bool:
    """Whether `value`, or the FILE in a FILE:NAME, is the file `path`, under any name."""
    for name in (str(value), str(value).rpartition(":")[0]):
        if os.path.exists(path) and os.path.exists(name):
            if os.path.samefile(path, name):
                return True
        elif name and os.path.realpath(path) == os.path.realpath(name):
            return True
    return False


def load_figures() -> ModuleType:
    """`tinymixer.train.figures`, imported only to draw: matplotlib takes up to a second.

    Raises TinymixerError if matplotlib does not start or draw; long work calls this before it
    begins.
    """
    try:
        from tinymixer.train import figures

        figures.card(1, 1, "a title").savefig(io.BytesIO(), format="png")
    except Exception as error:  # it reads the user's settings, which can make it raise anything
        raise TinymixerError(
            f"matplotlib does not start: {brief(error)}. Unset MPLBACKEND, or mend your "
            "matplotlibrc"
        ) from error
    return figures


def save_pictures(pictures: Mapping[str, Any], folder: Path) -> None:
    """Save each figure of matplotlib in `folder` under its name, and print that."""
    from tinymixer.train import figures

    for name, figure in pictures.items():
        figures.save(figure, folder / name)
        print(f"wrote {folder / name}")
