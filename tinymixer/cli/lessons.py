"""tinymixer lessons."""

import argparse
import filecmp
import os
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tinymixer
from tinymixer.errors import TinymixerError, counted
from tinymixer.files import write_atomically


def add_options(parser: Any) -> None:
    parser.description = (
        "Copy the lessons into a folder of your own, to work in them. A file that is there and "
        "differs is never replaced: you may have worked in it."
    )
    parser.set_defaults(func=run)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder to copy the lessons to; made if missing"
    )


def run(args: argparse.Namespace) -> int:
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TinymixerError(
            f"cannot make the folder {args.folder}: {error.strerror or error}; name another"
        ) from error
    written, kept = 0, []
    for file in course():
        target = args.folder / file.name
        if not os.path.lexists(target):
            write_atomically(target, file.read_bytes())
            written += 1
        elif not (target.is_file() and filecmp.cmp(file, target, shallow=False)):
            kept.append(file.name)
    print(f"copied {written} of {counted(len(course()), 'file')} to {args.folder}")
    if kept:
        print(
            f"kept as they are, since they differ from the course: {', '.join(kept)}. To have them "
            "as new, rename yours or name another folder"
        )
    if find_spec("jupyterlab") is None:
        print("Jupyter is not installed here: python -m pip install jupyterlab")
    print(f"begin with: jupyter lab {shlex.quote(str(args.folder / course()[0].name))}")
    return 0


def course() -> list[Path]:
    """The files of the course, its lessons first: in the installed package, or in a checkout."""
    package = Path(tinymixer.__file__).parent
    for folder in (package / "lessons", package.parent / "lessons"):
        found = [x for x in folder.glob("[!.]*") if x.is_file()]
        if any(x.suffix == ".ipynb" for x in found):
            return sorted(found)
    raise TinymixerError("this copy of tinymixer has no lessons; install it from its wheel")
