"""Floor 1. A table of labels: lines of a picture's name and its class, divided by commas,
semicolons or tabs.
"""

import csv
import io
from pathlib import PurePosixPath

from tinymixer.errors import counted

MOST_BYTES = 2**25
_NAMES = ("id", "image", "image_id", "filename", "file", "name", "path")
_LABELS = ("label", "class", "category", "target")


def labels_of(content: bytes) -> dict[str, str] | None:
    """The class of each picture, by its name without folders and suffix; None for another table.

    The first line names the columns, "id,label" for example. A line without a class says nothing.
    Raises ValueError for a line that is damaged, and for a picture that has two classes.
    """
    try:
        text = content.decode(
            "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        )
    except UnicodeDecodeError as error:
        raise ValueError("it is not in UTF-8; save it as CSV in UTF-8") from error
    comma = max(",;\t", key=text.partition("\n")[0].count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=comma, strict=True)
    try:
        head = [name.strip().lower() for name in next(lines, [])]
        name = next((head.index(x) for x in _NAMES if x in head), None)
        label = next((head.index(x) for x in _LABELS if x in head), None)
        if name is None or label is None:
            return None
        found: dict[str, str] = {}
        for line in lines:
            if not line:
                continue
            if len(line) != len(head):
                raise ValueError(
                    f"line {lines.line_num} has {counted(len(line), 'entry')}, not {len(head)}"
                )
            key = stem(line[name].strip())
            if not line[label].strip():
                continue
            if found.setdefault(key, line[label].strip()) != line[label].strip():
                raise ValueError(f"line {lines.line_num} gives picture {key[:60]!r} another class")
    except csv.Error as error:
        raise ValueError(f"line {lines.line_num}: {error}") from error
    return found


def stem(name: str) -> str:
    """The name of a picture without folders and suffix."""
    return PurePosixPath(name.replace("\\", "/")).stem
