"""Execute lessons with a real kernel and write them back with their outputs, normalised.

    python tests/render_lessons.py                                   # all of them
    python tests/render_lessons.py lessons/00_the_whole_story.ipynb

Run it after a change to a lesson, or to code that a lesson shows. A cell that draws pictures of a
data set which is not found here keeps the output that it has.
"""

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from notebooks import LESSONS, ROOT, needs, normalise, read

from tinymixer import data


def execute(notebook: Any) -> Any:
    """Run all cells in a new kernel that finds this checkout, and keep what they show."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    client = NotebookClient(notebook, kernel_name="python3", timeout=600, record_timing=False)
    client.execute(env=environment)
    return notebook


def with_pictures_of(before: Any, notebook: Any) -> Any:
    """The executed notebook, with the outputs from `before` where a data set was not found."""
    for cell, old in zip(notebook.cells, before.cells, strict=True):
        if (name := needs(cell)) and not data.find(name) and old.outputs:
            cell.outputs = old.outputs
            print(f"{cell.id}: {name} was not found, so the output stays as it was")
    return notebook


def main(arguments: list[str]) -> None:
    for path in map(Path, arguments) if arguments else LESSONS:
        notebook = with_pictures_of(read(path), normalise(execute(read(path))))
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
