"""Floor 1. A user's pictures: `folder:PATH`, a folder for each class.

    flowers/train/rose/1.jpg        with folders for training and testing (or validation)
    flowers/rose/1.jpg              without: a fifth of each class is kept for testing
    flowers/train/1.jpg             with a table of labels, flowers/labels.csv: "id,label"

Pictures become squares of one size, cut as `predict` cuts them. Decoding takes minutes for
thousands of photos, so the squares are kept, outside the folder: in $XDG_CACHE_HOME/tinymixer or
~/.cache/tinymixer, with a digest of the names, sizes and times of the pictures. Nothing is ever
written into the folder.
"""

import contextlib
import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinymixer.arrays import opened
from tinymixer.data import label_table
from tinymixer.data.containers import Member, Unreadable, entries, members
from tinymixer.data.dataset import Dataset, measure_colours
from tinymixer.data.order import kept_for_testing, mixed
from tinymixer.errors import DataError, brief, counted, harmless, note, printable
from tinymixer.files import write_atomically
from tinymixer.options import Whole

SIDE = 32  # pixels, of the squares that are made by default
SIDES = Whole(1, 4096)
TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation", "dev")
MOST_BYTES = 2**34  # of all squares
NAMED = 5  # pictures that a note names
_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_CACHE = 1  # number of the way in which pictures become squares: another one, other squares


@dataclass(frozen=True)
class Picture:
    """A file, the part that it is in, "train" or "test", and the name of its class."""

    member: Member
    path: Path
    part: str
    kind: str


def load(folder: str | Path, side: int | None, seed: int) -> Dataset:
    """The pictures in a folder as squares of `side` pixels, 32 where it is None.

    `seed` decides what is kept for testing where no folder says. Pictures that cannot be read are
    left out, and a note names the first of them. Raises DataError for a folder that is missing, has
    fewer than two classes, or a class without pictures.
    """
    side = SIDE if side is None else side
    root = Path(folder).expanduser()
    if side not in SIDES:
        raise DataError(f"image_size={side!r}: expected {SIDES}")
    if not root.is_dir():
        what = "is a file" if root.exists() else "is not there"
        raise DataError(
            f"{root} {what}; expected a folder with a folder of pictures for each class"
        )
    try:
        root = _outermost(root)
        pictures = _pictures(root)
    except (Unreadable, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{root} cannot be read: {reason}") from error
    names = _class_names(root, pictures)
    squares, reasons = _squares(root, pictures, side)
    _tell(root, pictures, reasons)
    kept = [i for i in range(len(pictures)) if i not in reasons]
    labels = np.array([names.index(pictures[i].kind) for i in kept], np.int64)
    which = [f"{pictures[i].kind}/{pictures[i].path.name}" for i in kept]
    parts = np.array([pictures[i].part for i in kept], "U5")
    for number, name in enumerate(names):
        if not (labels == number).any():
            raise DataError(
                f"{root}: class {printable(name, 60)!r} has no picture that can be read"
            )
    order = mixed(which, labels, seed)
    test = parts == "test" if "test" in parts else kept_for_testing(which, labels, seed)
    train, kept_for_test = order[~test[order]], order[test[order]]
    for part, indices in (("train on", train), ("test on", kept_for_test)):
        if not len(indices):
            raise DataError(f"{root}: there are no pictures to {part}; expected two for each class")
    places = np.array(kept)
    mean, std = measure_colours(squares[places[train]])
    return Dataset(
        printable(root.resolve().name) or "folder",
        squares[places[train]],
        labels[train],
        squares[places[kept_for_test]],
        labels[kept_for_test],
        tuple(map(harmless, names)),
        mean,
        std,
    )


def keep_apart(dataset: str, file: Path) -> None:
    """Raise DataError if `file`, which is to be written, would be found among the pictures.

    Of `folder:PATH`; nothing is looked for beside the folders of the classes, nor beside those for
    training and testing.
    """
    kind, _, place = dataset.partition(":")
    if kind != "folder" or not Path(place).is_dir():
        return
    root = _outermost(Path(place).resolve())
    inside = {path.name.lower(): path for path in entries(root) if path.is_dir()}
    found = file.resolve()
    if any(name in inside for name in TRAIN):
        parts = [path.resolve() for name, path in inside.items() if name in TRAIN + TEST]
        among = any(found.is_relative_to(part) for part in parts)
    else:
        among = root in found.parent.parents
    if among:
        raise DataError(
            f"{file} would be among the pictures of {root}, as one of them or in a class of its "
            "own; choose a place outside of this folder"
        )


# --- Which pictures there are --------------------------------------------------------------------


def _outermost(root: Path) -> Path:
    """The folder that has several others: what an archive unpacks to is often one deeper."""
    for _ in range(3):
        inside = entries(root)
        folders = [path for path in inside if path.is_dir()]
        if len(folders) != 1 or folders[0].name.lower() in TRAIN + TEST:
            break
        if any(path.name.lower().endswith(".csv") for path in inside) or not _folders(folders[0]):
            break
        root = folders[0]
    return root


def _folders(place: Path) -> list[Path]:
    return [path for path in entries(place) if path.is_dir()]


def _pictures(root: Path) -> list[Picture]:
    """Every file in a folder of a class, in order of path. Reading tells which are pictures."""
    folders = {path.name.lower(): path for path in _folders(root)}
    train = next((folders[name] for name in TRAIN if name in folders), None)
    tests = [path for name, path in folders.items() if name in TEST]
    if train is None and tests and (len(tests) == len(folders) or any(map(_folders, tests))):
        raise DataError(
            f"{root} has no folder `train`; expected one beside {', '.join(folders)}. To train on "
            f"what is in {tests[0].name}, with a fifth of it kept for testing, give that folder"
        )
    if train is not None:
        found = _labelled(root, train, "train")
        if not found and _folders(train):  # or it is of a class
            found = _of_classes(train, "train")
        if found:
            used = [train.name]
            for test in (folders[name] for name in TEST if name in folders):
                if kept := _of_test(root, test):
                    found += kept
                    used.append(test.name)
                    break
            kinds = {picture.kind for picture in found}
            _tell_unused(root, [path for path in folders.values() if path.name not in used], kinds)
            return found
    return _labelled(root, root, "train") or _of_classes(root, "train")


def _tell_unused(root: Path, folders: list[Path], kinds: set[str]) -> None:
    """Note which of the other folders are parts, too: by their names, or those of their folders."""
    left = [
        path.name
        for path in folders
        if path.name.lower() in TRAIN + TEST or kinds & {inner.name for inner in entries(path)}
    ]
    if left:
        parts = "a data set has one part to train on and one to test on"
        note(f"{root}: left out {', '.join(left)}; {parts}")


def _of_test(root: Path, test: Path) -> list[Picture]:
    """None if they are of unknown classes, as Kaggle's are: then some to train on are kept."""
    found = _labelled(root, test, "test")
    if not found and _folders(test):
        found = _of_classes(test, "test")
    return found


def _of_classes(folder: Path, part: str) -> list[Picture]:
    """The files of each folder and of those within it; pictures beside the folders are named."""
    kinds = [path.name for path in _folders(folder)]
    every = list(members(folder))
    found = [
        Picture(member, folder / member.name, part, member.folders[0])
        for member in every
        if member.folders
    ]
    loose = [x for x in every if not x.folders and Path(x.base).suffix.lower() in _PICTURES]
    if loose and found:
        number = counted(len(loose), "picture")
        note(f"{folder}: left out {number} beside the folders of the classes, in none of them")
    if empty := sorted(set(kinds) - {picture.kind for picture in found}):
        raise DataError(
            f"{folder / printable(empty[0], 200)} has no pictures; expected some in each folder, "
            "because each is a class"
        )
    return found


def _labelled(root: Path, folder: Path, part: str) -> list[Picture]:
    """The files in a folder that a table of labels names, if there is one; test.csv is for test."""
    best: tuple[list[Picture], int] = [], 0
    for path in entries(root):
        name = path.name.lower()
        if not name.endswith(".csv") or not path.is_file() or "submission" in name:
            continue
        if ("test" in name) != (part == "test") or path.stat().st_size > label_table.MOST_BYTES:
            continue
        try:
            labels = label_table.labels_of(path.read_bytes()) or {}
        except ValueError as error:
            raise DataError(f"{path}: {brief(error)}; expected lines such as 7,cat") from error
        inside = [member for member in members(folder) if not member.base.lower().endswith(".csv")]
        found = [
            Picture(member, folder / member.name, part, labels[label_table.stem(member.base)])
            for member in inside
            if label_table.stem(member.base) in labels
        ]
        if len(found) > len(best[0]):
            best = found, len(inside) - len(found)
    pictures, unnamed = best
    if unnamed:
        note(f"{folder}: left out {counted(unnamed, 'file')} that no table of labels names")
    return pictures


def _class_names(root: Path, pictures: list[Picture]) -> tuple[str, ...]:
    """The classes of the pictures to train on, in order. The test may have no others."""
    names = sorted({picture.kind for picture in pictures if picture.part != "test"})
    if len(names) < 2:
        raise DataError(
            f"{root} has {counted(len(names), 'class')}; expected at "
            "least two folders, each with the pictures of a class"
        )
    if others := sorted({picture.kind for picture in pictures} - set(names)):
        raise DataError(
            f"{root}: class {printable(others[0], 60)!r} is in the test folder, but not in the one "
            "for training; expected the same classes in both"
        )
    return tuple(names)


# --- From pictures to squares --------------------------------------------------------------------


def _squares(root: Path, pictures: list[Picture], side: int) -> tuple[np.ndarray, dict[int, str]]:
    """uint8 (N, side, side, 3), and why some pictures could not be read; those squares are black.

    From the cache, if it holds these pictures as they are now.
    """
    shape = (len(pictures), side, side, 3)
    if np.prod(shape, dtype=float) > MOST_BYTES:
        raise DataError(
            f"{root}: {counted(len(pictures), 'picture')} of {side}x{side} pixels are more than "
            f"{MOST_BYTES >> 30} GiB; use fewer, or a smaller --image-size"
        )
    stated = [[str(p.path), p.member.size, _changed(p.path)] for p in pictures]
    digest = hashlib.sha256(json.dumps([_CACHE, side, stated]).encode()).hexdigest()
    cache = _cache(root, side)
    if cache and (found := _cached(cache, shape, digest)):
        return found
    squares, reasons = _decoded(pictures, shape)
    if cache:
        text = json.dumps({"digest": digest, "reasons": list(reasons.items())})
        said = np.frombuffer(text.encode(), np.uint8)
        with contextlib.suppress(OSError):  # without a place, they are decoded again next time
            write_atomically(cache, lambda file: np.savez(file, squares=squares, said=said))
    return squares, reasons


def _changed(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0 for a link that leads nowhere."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _decoded(pictures: list[Picture], shape: tuple[int, ...]) -> tuple[np.ndarray, dict[int, str]]:
    from tqdm import tqdm  # here, with Pillow, because most programs that read data decode nothing

    from tinymixer.data.pictures import as_seen, read_picture

    squares, reasons = np.zeros(shape, np.uint8), {}
    height, width = shape[1:3]
    for i, picture in enumerate(tqdm(pictures, "pictures", unit="", disable=None, delay=1)):
        try:
            if not picture.member.whole:
                raise DataError("it is not a regular file")
            squares[i] = as_seen(read_picture(picture.path, (height, width)), height, width)
        except DataError as error:
            reason = str(error).removeprefix(
                f"cannot read the picture {printable(str(picture.path))}: "
            )
            reasons[i] = brief(reason, 200)
    return squares, reasons


def _cache(root: Path, side: int) -> Path | None:
    """Where the squares of a folder are kept; None where a user has no such place."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return home / "tinymixer" / f"pictures-{place}-{side}.npz"


def _cached(
    path: Path, shape: tuple[int, ...], digest: str
) -> tuple[np.ndarray, dict[int, str]] | None:
    """What is kept, if it is whole and of these pictures."""
    try:
        with opened(path, compressed=False) as file:
            squares = file.stored["squares"]
            if squares.shape != shape or squares.dtype != np.uint8:
                return None
            said = json.loads(file.read("said").tobytes())
            if said["digest"] != digest:
                return None
            reasons = {int(i): str(reason) for i, reason in said["reasons"]}
            return file.read("squares"), reasons
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None


def _tell(root: Path, pictures: list[Picture], reasons: dict[int, str]) -> None:
    """Note what was left out, in a sentence."""
    if not reasons:
        return
    first = [
        f"{pictures[i].path.relative_to(root)} ({reason})"
        for i, reason in list(reasons.items())[:NAMED]
    ]
    more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    note(
        f"{root}: {len(reasons)} of {counted(len(pictures), 'picture')} cannot be read; left out: "
        f"{', '.join(first)}{more}"
    )
