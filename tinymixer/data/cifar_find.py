"""Floor 1. Finding CIFAR-10 and CIFAR-100: in a folder, by what the files in it are."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tinymixer.data import cifar_pictures, label_table, parquet
from tinymixer.data.cifar_layout import Layout
from tinymixer.data.containers import Member, Unreadable, entries, members

LOOKED_AT = 2_000  # files and folders, to find a data set in a folder
FIRST = 12  # files of an archive, to find out what it is


def locate(layout: Layout, folder: Path) -> Path | None:
    """The best form of the data set in `folder`, or up to two folders deeper; or None.

    A folder with all of its files comes first, the standard one before others; then an archive;
    then what lacks some of its files or only has its name, so that an error can say so.
    """
    if not folder.is_dir():
        return folder if folder.is_file() and recognises(layout, folder) else None
    whole, archives, parts, left = [], [], [], LOOKED_AT
    for place in _places(folder):
        inside = entries(place)[:left]
        left -= len(inside)
        counts = [_count(layout, place, names) for names in layout.forms]
        if len(layout.files) in counts or _holds_pictures(layout, place, inside):
            whole.append(place)
        elif any((place / name).is_file() for names in layout.forms for name in names):
            parts += [place] if _specific(layout) or _named(layout, place) else []
        for path in inside:
            if path.is_file() and not _is_part(layout, path.name):
                archives += [path] if recognises(layout, path) else []
                parts += [path] if _named(layout, path) else []
    whole.sort(key=lambda place: place.name != layout.folder)
    if folder.name in (layout.folder, layout.python_folder):
        parts.append(folder)
    return next(iter([*whole, *archives, *parts]), None)


def recognises(layout: Layout, path: Path) -> bool:
    """Whether a file or a folder holds this data set, or some of it, as its first files tell."""
    try:
        if path.is_dir():
            return locate(layout, path) is not None
        return any(_tells(layout, member) for member in islice(members(path), FIRST))
    except (Unreadable, OSError):
        return False


def _is_part(layout: Layout, name: str) -> bool:
    return any(name in names for names in layout.forms)


def _specific(layout: Layout) -> bool:
    """Whether the names of its files say more than "train" and "test"."""
    return "batch" in layout.files[0]


def _named(layout: Layout, path: Path) -> bool:
    number = layout.title.removeprefix("CIFAR-")
    return re.search(rf"cifar[-_ ]?{number}(?!\d)", path.name, re.IGNORECASE) is not None


def _places(folder: Path) -> Iterator[Path]:
    """The folder, and the folders in it, two deep."""
    yield folder
    inner = [path for path in entries(folder)[:LOOKED_AT] if path.is_dir()]
    yield from inner
    for place in inner:
        try:
            yield from (path for path in entries(place)[:LOOKED_AT] if path.is_dir())
        except OSError:  # another user's
            continue


def _count(layout: Layout, place: Path, names: tuple[str, ...]) -> int:
    """How many files of a form are in a folder, each of a size that it may have."""
    found = [(file, place / name) for file, name in zip(layout.files, names, strict=True)]
    return sum(p.is_file() and p.stat().st_size in layout.sizes(f, p.name) for f, p in found)


def _holds_pictures(layout: Layout, place: Path, inside: list[Path]) -> bool:
    """Whether a folder has the pictures of CIFAR-10, or parquet files that say they are these."""
    if (place / "train" / layout.class_names[0]).is_dir() and len(layout.label_keys) == 1:
        return (place / "train" / layout.class_names[-1]).is_dir()
    tables = [path for path in inside if path.suffix.lower() in (".csv", ".parquet")]
    parts = [place / "train", place / "test"]
    if not tables and all(part.is_dir() for part in parts):
        tables = [path for path in entries(parts[0])[:FIRST] if path.suffix == ".parquet"]
    return any(recognises(layout, path) for path in tables)


def _tells(layout: Layout, member: Member) -> bool:
    """Whether there is nothing else that this file could be a part of."""
    if _is_part(layout, member.base):
        sizes = (layout.sizes(f, member.base) for f in layout.files)
        return _specific(layout) or any(member.size in size for size in sizes)
    try:
        if member.base.endswith(".parquet") and member.size <= parquet.MOST_FILE:
            parquet.rows(member.read(), layout.label_columns)
            return True
        if len(layout.label_keys) > 1:
            return False
        if member.base.endswith(".csv") and member.size <= label_table.MOST_BYTES:
            table = label_table.labels_of(member.read()) or {}
            return bool(table) and set(table.values()) <= set(layout.class_names)
    except Exception:  # a damaged file can raise anything, and is not ours
        return False
    part = cifar_pictures.part_of(member)
    return part is not None and member.folders[-1] in layout.class_names
