"""Floor 1. CIFAR-10 and CIFAR-100, in every form in which they are distributed.

Binary, Python, MATLAB or parquet files, or a folder of pictures; in a folder or in an archive: all
become the records of the binary files. What is there is decided by the names and the contents of
the files within, never by the name of an archive. Everything is checked, down to the last label,
before it is used.
"""

import contextlib
from pathlib import Path

import numpy as np

from tinymixer.backend import as_index
from tinymixer.data import cifar_pickle, cifar_pictures, matlab, parquet
from tinymixer.data.cifar_find import locate, recognises
from tinymixer.data.cifar_layout import CIFAR10, CIFAR100, PIXELS, SIDE, Layout, Records
from tinymixer.data.containers import entries, members
from tinymixer.data.dataset import Dataset
from tinymixer.data.download import fetch
from tinymixer.data.storing import write_folder
from tinymixer.errors import DataError, brief, counted

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "PIXELS",
    "Layout",
    "download",
    "images_and_labels",
    "locate",
    "read",
    "recognises",
    "write",
]


# --- From a path to checked records ------------------------------------------------------------


def read(layout: Layout, path: Path) -> dict[str, Records]:
    """The records of each binary file, from a folder or an archive of any form, checked.

    Raises DataError that names file and record, what was expected, what was found and what to do.
    """
    try:
        files = _of_folder(layout, path) if path.is_dir() else _of_archive(layout, path)
        files = {file: files[file] for file in layout.files}
        _check_labels(layout, files)
    except (ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise damaged(layout, path, brief(error)) from error
    return files


def dataset(layout: Layout, name: str, path: Path) -> Dataset:
    """The data set in a folder or an archive that `locate` found."""
    *train, test = read(layout, path).values()
    return Dataset(
        name,
        *images_and_labels(layout, train),
        *images_and_labels(layout, [test]),
        layout.class_names,
        layout.mean,
        layout.std,
    )


def store(layout: Layout, path: Path, data_dir: Path) -> Path:
    """Check what `path` holds, and store it in the standard form."""
    return write(layout, read(layout, path), data_dir)


def damaged(layout: Layout, where: Path, what: str) -> DataError:
    name = layout.title.lower().replace("-", "")
    return DataError(
        f"{where}: {what}. Download {layout.title} with `tinymixer data download {name}`, add "
        "another archive of it with `tinymixer data add FILE`, or name another folder with "
        "--data-dir"
    )


def _check_size(layout: Layout, file: str, name: str, size: int) -> None:
    allowed = layout.sizes(file, name)
    if size not in allowed:
        expected = " to ".join(f"{n:,}" for n in dict.fromkeys((allowed[0], allowed[-1])))
        raise ValueError(f"{name} has {counted(size, 'byte')}, expected {expected}")


def _of_folder(layout: Layout, path: Path) -> dict[str, Records]:
    there = {entry.name for entry in entries(path)}
    names = max(layout.forms, key=lambda names: len(there & set(names)))
    if not there & set(names):
        return _of_pictures(layout, path)
    files = {}
    for file, name in zip(layout.files, names, strict=True):
        try:
            _check_size(layout, file, name, (path / name).stat().st_size)
            content = (path / name).read_bytes()
        except OSError as error:
            raise ValueError(f"{name} cannot be read ({error.strerror})") from error
        files[file] = _records(layout, file, name, content)
    return files


def _of_archive(layout: Layout, path: Path) -> dict[str, Records]:
    """The expected members, each read at once; other members are skipped."""
    found: dict[tuple[str, ...], dict[str, Records]] = {names: {} for names in layout.forms}
    others = False
    for member in members(path):
        names = next((names for names in found if member.base in names), None)
        if names is None:
            others |= bool(cifar_pictures.part_of(member)) or member.base.endswith(".parquet")
            continue
        file = layout.files[names.index(member.base)]
        if not member.whole:
            raise ValueError(f"{member.base} is not a regular file")
        if file in found[names]:
            raise ValueError(f"{member.base} occurs twice")
        _check_size(layout, file, member.base, member.size)
        found[names][file] = _records(layout, file, member.base, member.read())
    best = max(found.values(), key=len)
    if others and not best:
        return _of_pictures(layout, path)
    if missing := sorted(set(layout.files) - best.keys()):
        raise ValueError(f"{counted(len(missing), 'file')} missing: {', '.join(missing)}")
    return best


def _of_pictures(layout: Layout, path: Path) -> dict[str, Records]:
    """From parquet files, which are told apart by their number of rows, or from single pictures."""
    parts: dict[str, Records] = {}
    train, test = len(layout.files[:-1]) * layout.train_records, layout.test_records
    for member in members(path):
        if not member.base.endswith(".parquet"):
            continue
        if member.size > parquet.MOST_FILE:
            raise ValueError(
                f"{member.name} has {counted(member.size, 'byte')}, which no file of it has"
            )
        try:
            count, rows = parquet.rows(member.read(), layout.label_columns)
            part = {train: "training", test: "test"}.get(count)
            if part is None:
                raise ValueError(f"{counted(count, 'row')}, expected {train:,} or {test:,}")
            if part in parts:
                raise ValueError(f"the {part} images are there twice")
            records = np.empty((count, layout.record_bytes), np.uint8)
            for record, (picture, labels) in zip(records, rows, strict=True):
                record[: len(labels)] = labels  # refuses 256 and -1
                record[len(labels) :] = cifar_pictures.planes("a picture", picture)
            parts[part] = records
        except DataError:
            raise
        except Exception as error:  # a damaged file can raise anything
            raise ValueError(f"{member.name} is not as published ({error})") from error
    if not parts and len(layout.label_keys) == 1:
        return cifar_pictures.read(layout, members(path))
    if lacking := [part for part in ("training", "test") if part not in parts]:
        raise ValueError(
            f"its {' and '.join(lacking)} images are missing; give the folder that holds the files "
            "of both"
        )
    pieces = [*np.split(parts["training"], len(layout.files) - 1), parts["test"]]
    return dict(zip(layout.files, pieces, strict=True))


def _records(layout: Layout, file: str, name: str, content: bytes) -> Records:
    """The records of a binary, Python or MATLAB file."""
    if name == file:
        return np.frombuffer(content, np.uint8).reshape(-1, layout.record_bytes)
    try:
        if not name.endswith(".mat"):
            return cifar_pickle.records(layout, file, content)
        exact = layout.records(file) * layout.record_bytes
        found = matlab.arrays(content, most=2 * exact)
        labels = [_bytes(found[key], (layout.records(file), 1)) for key in layout.label_keys]
        return np.concatenate([*labels, _bytes(found["data"], (len(labels[0]), PIXELS))], axis=1)
    except Exception as error:  # a damaged pickle can raise anything
        reason = "it ends too early" if isinstance(error, EOFError) else brief(error)
        raise ValueError(f"{name} is not as published ({reason})") from error


def _bytes(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An array of whole numbers from 0 to 255 as uint8, of this shape."""
    if array.shape != shape or (array != array.astype(np.uint8)).any():
        raise ValueError(f"an array of shape {array.shape}; expected {shape}, from 0 to 255")
    return array.astype(np.uint8)


def _check_labels(layout: Layout, files: dict[str, Records]) -> None:
    """Check that labels are in range and classes equally frequent, in training and in test."""
    *train, test = files.items()
    for column, classes in enumerate(layout.label_counts):
        for name, records in files.items():
            wrong = np.flatnonzero(records[:, column] >= classes)
            if wrong.size:
                label = records[wrong[0], column]
                what = f"{name}, record {wrong[0]}: {layout.label_keys[column]} {label}"
                raise ValueError(f"{what}, expected 0 to {classes - 1}")
        for part, group in (("training", train), ("test", [test])):
            labels = np.concatenate([records[:, column] for _, records in group])
            counts = np.bincount(as_index(labels), minlength=classes)
            wrong = np.flatnonzero(counts != len(labels) // classes)
            if wrong.size:
                what = f"{part} files: {counted(counts[wrong[0]], 'record')} of class {wrong[0]}"
                what += f", expected {len(labels) // classes} (are two files swapped or identical?)"
                raise ValueError(what)


def images_and_labels(layout: Layout, files: list[Records]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 records, planar  ->  images uint8 (N, 32, 32, 3), labels int64 (N,)"""
    count = sum(len(records) for records in files)
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    start = 0
    for records in files:
        planes = records[:, len(layout.label_keys) :].reshape(-1, 3, SIDE, SIDE)
        for colour in range(3):  # one plane at a time: four times faster than a transposed copy
            images[start : start + len(records), :, :, colour] = planes[:, colour]
        start += len(records)
    labels = np.concatenate([records[:, len(layout.label_keys) - 1] for records in files])
    return images, labels.astype(np.int64)


# --- To the standard form -----------------------------------------------------------------------


def write(layout: Layout, files: dict[str, Records], data_dir: Path) -> Path:
    """Store records in the standard binary layout; see `write_folder`."""
    contents = {name: records.tobytes() for name, records in files.items()}
    return write_folder(data_dir / layout.folder, contents, layout.title)


def download(layout: Layout, data_dir: Path) -> Path:
    """Fetch an archive, check it and store what it holds. A file of the user's is left alone."""
    place = data_dir / ".download"
    archive = fetch(layout.sources, place)
    folder = store(layout, archive, data_dir)
    archive.unlink()  # its whole content is in the folder
    with contextlib.suppress(OSError):  # another download may be under way there
        place.rmdir()
    return folder
