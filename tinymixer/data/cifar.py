"""Floor 1. CIFAR-10 and CIFAR-100, in every form in which they are published.

Four forms (binary or Python files, in a folder or in an archive) become one: the records of the
binary files. Everything is checked, down to the last label, before it is used, and nothing is
trusted: no path from an archive is used, and a pickle can call no function but ours.
"""

import gzip
import io
import os
import pickle
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from tinymixer.data.cifar_layout import CIFAR10, CIFAR100, PIXELS, SIDE, Layout, Records
from tinymixer.errors import DataError
from tinymixer.files import write_atomically

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "PIXELS",
    "Layout",
    "images_and_labels",
    "locate",
    "read",
    "write",
]

_ARCHIVE_LIMIT = 2**28  # bytes; the real archives unpack to at most 186 MB


# --- From a path to checked records ------------------------------------------------------------


def locate(layout: Layout, folder: Path) -> Path | None:
    """The first form of the data set that is found in `folder`: a folder or an archive; or None.

    A folder that lacks some of its files is returned only if there is nothing else, so that an
    error can name it; one that lacks all of them is passed over.
    """
    forms = {layout.folder: layout.files, layout.python_folder: layout.python_files}
    if folder.name in forms and folder.is_dir():
        return folder
    there = {
        folder / name: sum((folder / name / file).is_file() for file in files)
        for name, files in forms.items()
    }
    found = [path for path, count in there.items() if count == len(layout.files)]
    found += [folder / name for name in layout.archives if (folder / name).is_file()]
    found += [path for path, count in there.items() if count]
    return found[0] if found else None


def read(layout: Layout, path: Path) -> dict[str, Records]:
    """The records of each binary file, from a folder or an archive of either form, checked.

    Raises DataError that names file and record, what was expected, what was found and what to do.
    """
    blobs = _read_folder(layout, path) if path.is_dir() else _read_archive(layout, path)
    files = {}
    for file, python_file in zip(layout.files, layout.python_files, strict=True):
        if file in blobs:
            files[file] = np.frombuffer(blobs[file], np.uint8).reshape(-1, layout.record_bytes)
        else:
            files[file] = _unpickle(layout, file, blobs[python_file], path)
    _check_labels(layout, files, path)
    return files


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


def write(layout: Layout, files: dict[str, Records], data_dir: Path) -> Path:
    """Store records in the standard binary layout. No file is replaced before all are on disk.

    Raises DataError if the folder cannot be written to; then existing files are unchanged. What a
    crash leaves is in a folder of another name, which the next call uses again.
    """
    folder, part = data_dir / layout.folder, data_dir / f".{layout.folder}.part"
    try:
        for name, records in files.items():
            write_atomically(part / name, records.tobytes())
        if not folder.exists():
            os.rename(part, folder)  # so that it is never seen with only some of its files
        else:
            for name in files:
                os.replace(part / name, folder / name)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}). {layout.title} needs 190 MB "
            "in a folder that you can write to; choose another one with --data-dir"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


# --- Reading files that are not trusted --------------------------------------------------------


def _sizes(layout: Layout) -> dict[str, range]:
    """The files that may be read and the bytes they may have; exact for the binary files."""
    sizes = {}
    for file, python_file in zip(layout.files, layout.python_files, strict=True):
        exact = layout.records(file) * layout.record_bytes
        sizes[f"{layout.folder}/{file}"] = range(exact, exact + 1)
        sizes[f"{layout.python_folder}/{python_file}"] = range(exact, 2 * exact)  # with file names
    return sizes


def _check_size(layout: Layout, name: str, size: int, where: Path) -> None:
    allowed = _sizes(layout)[name]
    if size not in allowed:
        expected = str(allowed[0]) if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
        raise _damaged(layout, where, f"{name} has {size} bytes, expected {expected}")


def _read_folder(layout: Layout, path: Path) -> dict[str, bytes]:
    binary = path.name == layout.folder
    blobs = {}
    for name in layout.files if binary else layout.python_files:
        try:
            _check_size(layout, f"{path.name}/{name}", (path / name).stat().st_size, path)
            blobs[name] = (path / name).read_bytes()
        except OSError as error:
            raise _damaged(layout, path, f"{name} cannot be read ({error.strerror})") from error
    return blobs


def _read_archive(layout: Layout, path: Path) -> dict[str, bytes]:
    """The expected members, each read into memory; other members are skipped.

    The stream is read to its end, because gzip's checksum is there.
    """
    sizes = _sizes(layout)
    blobs: dict[str, bytes] = {}
    try:
        with gzip.open(path) as unpacked:
            stream = _Limited(unpacked, layout, path)
            with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
                for member in archive:
                    name = member.name.removeprefix("./")
                    if name not in sizes:
                        continue
                    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                        raise _damaged(layout, path, f"{name} is not a regular file")
                    if Path(name).name in blobs:
                        raise _damaged(layout, path, f"{name} occurs twice")
                    _check_size(layout, name, member.size, path)
                    content = archive.extractfile(member)
                    blobs[Path(name).name] = content.read() if content else b""
            while stream.read(2**20):
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise _damaged(layout, path, f"not a complete .tar.gz archive ({error})") from error
    names = next((f for f in (layout.files, layout.python_files) if blobs.keys() >= set(f)), None)
    if names is None:
        missing = sorted(set(layout.files) - blobs.keys())
        raise _damaged(layout, path, f"{len(missing)} of its files missing: {', '.join(missing)}")
    return {name: blobs[name] for name in names}


class _Limited(io.RawIOBase):
    """A stream that raises an error after more bytes than any real archive holds."""

    def __init__(self, stream: io.BufferedIOBase, layout: Layout, path: Path) -> None:
        self.stream, self.left = stream, _ARCHIVE_LIMIT
        self.error = _damaged(layout, path, f"unpacks to more than {_ARCHIVE_LIMIT >> 20} MiB")

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise self.error
        return data


class _Pixels:
    """Stands in for the one NumPy array of a Python file, and accepts only bytes."""

    array: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, column_major, content = state
        if not isinstance(dtype, _Dtype) or dtype.name != "u1":
            raise ValueError("its pixels are not uint8")
        order: Literal["C", "F"] = "F" if column_major else "C"
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order=order)


class _Dtype:
    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple) -> None:
        pass  # the byte order, which bytes do not need


class _CifarUnpickler(pickle.Unpickler):
    """Accepts only the names that CIFAR's Python files mention, and maps them to stand-ins."""

    _STAND_INS: ClassVar[dict[str, Any]] = {
        "numpy.core.multiarray._reconstruct": lambda *_: _Pixels(),
        "numpy._core.multiarray._reconstruct": lambda *_: _Pixels(),
        "numpy.ndarray": _Pixels,
        "numpy.dtype": _Dtype,
        "_codecs.encode": lambda text, _: text.encode("latin-1"),
    }

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        if wanted not in self._STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {wanted}, which no CIFAR file does")
        return self._STAND_INS[wanted]


def _unpickle(layout: Layout, file: str, blob: bytes, where: Path) -> Records:
    """Records from a dictionary: lists of labels, and `data`, an array of planar pixels."""
    count = layout.records(file)
    try:
        raw = _CifarUnpickler(io.BytesIO(blob), encoding="bytes").load()
        content = {key.decode() if isinstance(key, bytes) else key: raw[key] for key in raw}
        labels = [bytes(list(content[key])) for key in layout.label_keys]  # refuses 256 and -1
        columns = [np.frombuffer(column, np.uint8).reshape(count, 1) for column in labels]
        pixels = content["data"].array.reshape(count, PIXELS)
    except Exception as error:  # a damaged pickle can raise anything
        name = file.removesuffix(".bin")
        raise _damaged(layout, where, f"{name} is not as published ({error})") from error
    return np.concatenate([*columns, pixels], axis=1)


def _check_labels(layout: Layout, files: dict[str, Records], where: Path) -> None:
    """Check that labels are in range and classes equally frequent, in training and in test."""
    *train, test = files.items()
    for column, classes in enumerate(layout.label_counts):
        for name, records in files.items():
            wrong = np.flatnonzero(records[:, column] >= classes)
            if wrong.size:
                label = records[wrong[0], column]
                what = f"{name}, record {wrong[0]}: {layout.label_keys[column]} {label}"
                raise _damaged(layout, where, f"{what}, expected 0 to {classes - 1}")
        for part, group in (("training", train), ("test", [test])):
            labels = np.concatenate([records[:, column] for _, records in group])
            counts = np.bincount(labels, minlength=classes)
            wrong = np.flatnonzero(counts != len(labels) // classes)
            if wrong.size:
                what = f"{part} files: {counts[wrong[0]]} records of class {wrong[0]}"
                what += f", expected {len(labels) // classes} (are two files swapped or identical?)"
                raise _damaged(layout, where, what)


def _damaged(layout: Layout, where: Path, what: str) -> DataError:
    return DataError(
        f"{where}: {what}. Move it away, then download {layout.title} again with `tinymixer data "
        f"download`, or add its archive with `tinymixer data add FILE`"
    )
