"""Run this lesson here: what a page of the book needs to run its lesson in the reader's browser.

run_here.toml names the lessons. Python itself is Pyodide, in the version below; a copy of it comes
from its release or from anywhere else, and has to have these bytes.
"""

import hashlib
import json
import shutil
import tomllib
import zipfile
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tqdm

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LESSONS: dict[str, dict[str, str]] = tomllib.loads((HERE / "run_here.toml").read_text("utf-8"))

VERSION = "0.27.7"
LOCK = "pyodide-lock.json"  # has the SHA-256 of every package
CORE = {  # and these are those of the files of the npm package `pyodide`
    LOCK: "9c45b916001a750f4102fc287494f3eab215909c7535c626a20db80fd6333e2c",
    "pyodide.mjs": "04c052c815abb0bf2981fa38c2dfa58e3120ee5288c956df2b2a15e301782c5f",
    "pyodide.asm.js": "6b4c90de5b7172873f04f21884d0e9d2274e305fe32116558fe3e4fbe3618d51",
    "pyodide.asm.wasm": "a50dd1843f805a0b7c45b61037ee0d7b26dfe85efe0e18ef95a34ad24e401f5f",
    "python_stdlib.zip": "16611534726e5d8ac2bd8f926410b2dcb8d6f49aa24913463533b457a2115c16",
}
PACKAGES = ("numpy", "matplotlib", "pillow", "threadpoolctl")
MEGABYTES = 27  # of all these files together
EXAMPLE = f"https://cdn.jsdelivr.net/pyodide/v{VERSION}/full/"


def release(folder: Path) -> list[Path]:
    """The files of Pyodide that a lesson needs, or ValueError: one is missing, or is another."""
    files = [verified(folder / name, digest) for name, digest in CORE.items()]
    known = json.loads((folder / LOCK).read_text("utf-8"))["packages"]
    entries: dict[str, dict[str, Any]] = {}
    asked = list(PACKAGES)
    while asked:
        name = asked.pop()
        if name not in entries:
            entries[name] = known[name]
            asked += known[name]["depends"]
    return files + [verified(folder / x["file_name"], x["sha256"]) for x in entries.values()]


def verified(file: Path, digest: str) -> Path:
    if not file.is_file():
        raise ValueError(f"{file} is missing; expected the files of Pyodide {VERSION}")
    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        raise ValueError(f"{file} has another SHA-256 than that file of Pyodide {VERSION}")
    return file


def pack(archive: Path) -> None:
    """The package as it is here, and tqdm, of Python alone, as this environment has it."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for top in (ROOT / "tinymixer", Path(tqdm.__file__).parent):
            for path in sorted(top.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    packed.write(path, path.relative_to(top.parent))


def cells(lesson: dict[str, Any], shorter: dict[str, str]) -> list[dict[str, str]]:
    """The code of a lesson, without outputs, and the words for its figures."""
    found = []
    for cell in lesson["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            for long, short in shorter.items():
                source = source.replace(long, short)
            found.append({"source": source, "alt": cell["metadata"].get("alt", "")})
    return found


def checked(pyodide: str) -> str | list[Path]:
    """What --pyodide names: an address, or the files of a folder. Or ValueError."""
    if "://" not in pyodide:
        return release(Path(pyodide))
    if not (pyodide.startswith("https://") and f"v{VERSION}/" in pyodide and pyodide[-1] == "/"):
        raise ValueError(
            f"--pyodide {pyodide}: expected a folder, or the https address of the files of Pyodide"
            f" {VERSION}, which ends in a slash: {EXAMPLE}"
        )
    return pyodide


def button(name: str, pyodide: str | list[Path] | None) -> str:
    """The markdown in a lesson's page, with what is loaded, from where, and what is shorter."""
    if pyodide is None or name not in LESSONS:
        return ""
    origin = urlsplit(pyodide).netloc if isinstance(pyodide, str) else "this site"
    shorter = [
        f"<code>{escape(short)}</code> in place of <code>{escape(long)}</code>"
        for long, short in LESSONS[name].items()
    ]
    note = (
        f"<p>Training is shorter here than in the lesson: {'; '.join(shorter)}.</p>\n"
        if shorter
        else ""
    )
    return f"""
```{{raw}} html
<div id="run-here" data-lesson="run/{name}.json">
<p><button type="button" data-run>Run this lesson here</button>
It runs in your browser, and you can change its code. The button loads Python for browsers
(Pyodide {VERSION}), NumPy and matplotlib, {MEGABYTES} MB in all, from {escape(origin)}. What you
type stays in this page.</p>
{note}<div class="run-bar" hidden><span role="status"></span> <span class="time"></span>
<button type="button" data-stop>Stop</button><button type="button" data-run>Run all</button></div>
</div>
<script defer src="_static/run_here.js"></script>
```
"""


def sentence(pyodide: str | list[Path] | None) -> str:
    """For the first page of the book."""
    if pyodide is None:
        return (
            "Nothing on these pages is loaded from elsewhere: the book works without a network."
            " Built with `--pyodide`, it runs lessons in the browser, too."
        )
    where = (
        "**To run a lesson** without installing anything, press *Run this lesson here* on its page"
    )
    if isinstance(pyodide, str):
        host = urlsplit(pyodide).netloc
        return f"{where}. Only then is something loaded from elsewhere: Python, from {host}."
    return f"{where}. Nothing is loaded from elsewhere: Python comes with the book."


def write(book: Path, pyodide: str | list[Path]) -> None:
    """What the button loads: the package, the cells of each lesson, and Pyodide if it is a copy."""
    place = book / "run"
    place.mkdir()
    pack(place / "tinymixer.zip")
    origin = pyodide
    if not isinstance(pyodide, str):
        origin = "run/pyodide/"
        (book / origin).mkdir()
        for file in pyodide:
            shutil.copy(file, book / origin)
    for name, shorter in LESSONS.items():
        lesson = json.loads((ROOT / "lessons" / f"{name}.ipynb").read_text("utf-8"))
        about = {"pyodide": origin, "packages": PACKAGES, "cells": cells(lesson, shorter)}
        (place / f"{name}.json").write_text(json.dumps(about), "utf-8")
