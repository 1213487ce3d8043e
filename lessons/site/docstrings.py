"""Docstrings as they are meant: words are words, and drawings stay as they are drawn."""

import re
from itertools import groupby
from typing import Any

COLUMNS = re.compile(r"\S(?:   |  ->  )")  # of a table, or shapes
PAPER = re.compile(r"\barXiv (\d{4}\.\d{4,5})")


def to_rst(lines: list[str]) -> list[str]:
    """The same text with every character standing for itself, but `code` and numbers of papers.

    Lines that are set in, and those that give shapes, are shown as they are drawn.
    """
    found: list[str] = []
    for kind, group in groupby(lines, key=kind_of):
        paragraph = list(group)
        if kind == "set in" or any(COLUMNS.search(x) for x in paragraph):
            found += [".. code-block:: none", "", *(f"    {line}" for line in paragraph), ""]
        elif kind == "words":
            found += [*map(words, paragraph), ""]
    return found


def kind_of(line: str) -> str:
    return "set in" if line.strip() and line[0] == " " else "words" if line.strip() else "blank"


def words(line: str) -> str:
    pieces = re.split(r"`([^`]+)`", line)
    text, code = pieces[::2], pieces[1::2]
    text = [PAPER.sub(paper, re.sub(r"([\\*_|`])", r"\\\1", piece)) for piece in text]
    if text[0]:
        text[0] = re.sub(r"^(?=[^\\`])", r"\\", text[0])  # no list, no title, no directive
    joined = text[0]
    for inside, after in zip(code, text[1:], strict=True):
        joined += rf"\ ``{inside.strip()}``\ {after}"
    return joined


def paper(number: re.Match[str]) -> str:
    return rf"\ `{number[0]} <https://arxiv.org/abs/{number[1]}>`__\ "


def process(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines)


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True}
