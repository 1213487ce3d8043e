"""Floor 0. Named arrays in a file, .npz or .safetensors: one reader with one set of rules.

    with opened(path) as file:
        file.stored["head.W"]         # Stored(shape, dtype): what the file states of an array
        file.read("head.W")           # its numbers

A file may be damaged, or made to do harm. So the caller first compares the names, shapes and types
that it states with those that are needed, and only then reads numbers; an array that is not read
costs no memory. The content decides which of the two kinds a file is, not its name.

* Only regular files are opened: no folder, pipe or device.
* An array holds integers, floating-point numbers or booleans, little-endian; no text, no objects,
  no pickle. An array of another type is named, and not read. bfloat16, which NumPy does not have,
  is read as float32, which holds all its numbers.
* It fills its place in the file exactly, is read whole, and its CRC-32, where the file has one,
  is right. No name is there twice, and no two arrays share a byte.
"""

import ast
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

NUMBERS = [np.dtype(kind + size) for kind in "fiu" for size in "1248" if kind + size != "f1"]
TYPES = [*NUMBERS, np.dtype(bool)]
NPY = {dtype.str: dtype for dtype in TYPES}  # by the name that an .npz file has for it
SAFETENSORS = {f"{dtype.kind.upper()}{8 * dtype.itemsize}": dtype for dtype in NUMBERS}
SAFETENSORS["BOOL"] = np.dtype(bool)
MOST_ARRAYS = 50_000
MOST_DIRECTORY = 2**24  # bytes, of an .npz file's table of contents
MOST_HEAD = 2**12  # bytes, of an array's head in an .npz file: its type and shape
MOST_LETTERS = 500  # of a word in an array of text
MOST_HEADS = 2**22  # bytes, of all of them together in a .safetensors file
CHUNK = 2**20  # bytes read at once


class OddName(ValueError):
    """A whole file in which an array has a name that cannot be shown in a line."""


@dataclass(frozen=True)
class Stored:
    """What a file states of an array; dtype is the one that it is read as.

    fortran: whether the first axis varies fastest. bfloat16: whether the file holds numbers of that
    type, the upper halves of those of float32.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool = False
    bfloat16: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """As many bytes as it takes in the file."""
        return self.size * (2 if self.bfloat16 else self.dtype.itemsize)


class ArrayFile:
    """An open file of arrays: `stored` says what it states of each, `read` reads one.

    Beside them it may hold texts (metadata), arrays of kinds that are not read (refused: "an array
    of type '<c8'"), and other things that are not arrays (ignored: what they are), each by name.
    """

    kind = ""  # what such a file is called

    def __init__(self) -> None:
        self.stored: dict[str, Stored] = {}
        self.metadata: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.ignored: dict[str, str] = {}

    def read(self, name: str) -> np.ndarray:
        """The array `name`, whole. Raises ValueError where the file does not hold what it states.

        For a damaged file it also raises what Python's `zipfile` raises.
        """
        raise NotImplementedError


@contextmanager
def opened(path: Path, *, compressed: bool = True, text: bool = False) -> Iterator[ArrayFile]:
    """The file of arrays at `path`; without `compressed`, it is refused if an array is.

    With `text`, an array of an .npz file may hold words of up to MOST_LETTERS letters or bytes.

    Raises OSError for what cannot be opened or is not a regular file; ValueError, or what Python's
    `zipfile` raises, for what breaks a rule.
    """
    with open_regular(path) as file:
        start = file.read(4)
        if start == b"\x93NUM":
            raise ValueError("it is a single array (.npy); save it by its name, with numpy.savez")
        if start in (b"PK\3\4", b"PK\5\6"):
            with zipfile.ZipFile(with_small_directory(file)) as archive:
                yield Npz(archive, os.fstat(file.fileno()).st_size, compressed, text)
        else:
            yield Safetensors(file, os.fstat(file.fileno()).st_size)


def all_finite(array: np.ndarray) -> bool:
    """Whether no number is NaN or infinite. In pieces, so that it takes hardly any memory."""
    flat = array.reshape(-1, order="A")
    return all(bool(np.isfinite(flat[i : i + CHUNK]).all()) for i in range(0, flat.size, CHUNK))


def open_regular(path: Path) -> IO[bytes]:
    """`path`, open for reading. A pipe is refused at once: to open it could wait for ever."""
    if stat.S_ISREG(os.stat(path).st_mode):
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise OSError(None, "it is not a regular file", str(path))


class Npz(ArrayFile):
    """A zip archive of .npy files: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html"""

    kind = ".npz"

    def __init__(
        self, archive: zipfile.ZipFile, size: int, compressed: bool = True, text: bool = False
    ):
        super().__init__()
        members = archive.infolist()
        if len(members) > MOST_ARRAYS:
            raise ValueError(f"it holds more than {MOST_ARRAYS:,} arrays")
        if not compressed and any(x.compress_type != zipfile.ZIP_STORED for x in members):
            raise ValueError("it has compressed members")
        if any(x.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for x in members):
            raise ValueError("its members are compressed by a method other than deflate")
        plain = [x for x in members if x.compress_type == zipfile.ZIP_STORED]
        if sum(x.file_size for x in plain) > size:
            raise ValueError("its members claim more bytes than the file has")
        if other := [x.filename for x in members if not x.filename.endswith(".npy")]:
            raise ValueError(f"it has a member that is not an array: {short(other[0])}")
        self._archive, self._heads = archive, {}
        self._members = {x.filename.removesuffix(".npy"): x for x in members}
        require_names([x.filename.removesuffix(".npy") for x in members])
        for name, member in self._members.items():
            with archive.open(member) as content:
                dtype, fortran, shape, self._heads[name] = _npy_head(content, name)
            if (kind := _npy_type(dtype, text)) is None:
                self.refused[name] = f"an array of type {short(dtype)}"
                continue
            self.stored[name] = stated(name, shape, kind, fortran=fortran)
            if self._heads[name] + self.stored[name].nbytes != member.file_size:
                raise ValueError(f"array {short(name)} does not have the size that it states")

    def read(self, name: str) -> np.ndarray:
        with self._archive.open(self._members[name]) as content:
            content.read(self._heads[name])  # is part of what the CRC is taken over
            return numbers(content, self.stored[name], name)


def with_small_directory(file: IO[bytes], most: int = MOST_ARRAYS) -> IO[bytes]:
    """`file`, a zip archive, if its table of contents, which `zipfile` reads whole, is small.

    Raises ValueError for more than `most` members.
    """
    file.seek(max(0, file.seek(0, os.SEEK_END) - 98))
    tail = file.read().rjust(98, b"\0")
    record, locator, end = tail[:56], tail[56:76], tail[76:]  # the first two: only of large files
    count, directory = end[10:12], end[12:16]
    if locator.startswith(b"PK\6\7") and record.startswith(b"PK\6\6"):
        count, directory = record[32:40], record[40:48]
    if not end.startswith(b"PK\5\6"):
        raise ValueError("its end is missing")
    if int.from_bytes(count, "little") > most:
        raise ValueError(
            f"it holds more than {most:,} {'arrays' if most == MOST_ARRAYS else 'files'}"
        )
    if int.from_bytes(directory, "little") > MOST_DIRECTORY:
        raise ValueError(f"its table of contents has more than {MOST_DIRECTORY:,} bytes")
    return file


def _npy_type(descr: Any, words: bool) -> np.dtype | None:
    """The type of the numbers, or words, of a .npy file that calls it so; None for another."""
    if not isinstance(descr, str):
        return None
    letters = re.fullmatch(r"(?:<U|\|S)(\d{1,4})", descr) if words else None
    if letters and 1 <= int(letters[1]) <= MOST_LETTERS:
        return np.dtype(descr)
    return NPY.get(descr)


def _npy_head(content: IO[bytes], name: str) -> tuple[Any, bool, Any, int]:
    """The type, order and shape that a .npy file states first, and the bytes that takes."""
    start = content.read(8)
    width = {b"\x93NUMPY\1\0": 2, b"\x93NUMPY\2\0": 4}.get(start)
    if width is None:
        raise ValueError(f"array {short(name)} does not begin like a .npy file of numbers")
    length = int.from_bytes(content.read(width), "little")
    if length > MOST_HEAD:
        raise ValueError(f"array {short(name)} has a head of {length:,} bytes")
    text = content.read(length).decode("latin1")
    try:
        head = ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        head = None
    if not isinstance(head, dict) or head.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError(f"array {short(name)} has a damaged head")
    if not isinstance(head["fortran_order"], bool):
        raise ValueError(f"array {short(name)} has a damaged head")
    return head["descr"], head["fortran_order"], head["shape"], 8 + width + length


class Safetensors(ArrayFile):
    """The length of the heads in 8 bytes, the heads in JSON, the numbers of all arrays.

    Source: https://github.com/huggingface/safetensors, "Format".
    """

    kind = ".safetensors"

    def __init__(self, file: IO[bytes], size: int):
        super().__init__()
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MOST_HEADS):
            raise ValueError("it begins like neither .npz nor .safetensors")
        heads = json.loads(file.read(length), object_pairs_hook=_without_doubles)
        if not isinstance(heads, dict):
            raise ValueError("its heads are damaged")
        said = heads.pop("__metadata__", None)
        texts = said.items() if isinstance(said, dict) else ()
        self.metadata = {key: text for key, text in texts if isinstance(text, str)}
        if len(heads) > MOST_ARRAYS:
            raise ValueError(f"it holds more than {MOST_ARRAYS:,} arrays")
        require_names(list(heads))
        self._file, self._starts = file, {}
        ends = {}
        for name, head in heads.items():
            if not isinstance(head, dict) or head.keys() != {"dtype", "shape", "data_offsets"}:
                raise ValueError(f"array {short(name)} has a damaged head")
            dtype, shape, offsets = head["dtype"], head["shape"], head["data_offsets"]
            if not isinstance(dtype, str) or not isinstance(shape, list):
                raise ValueError(f"array {short(name)} has a damaged head")
            if not are_counts(offsets, list) or len(offsets) != 2 or offsets[0] > offsets[1]:
                raise ValueError(f"array {short(name)} has a damaged place")
            self._starts[name], ends[name] = 8 + length + offsets[0], 8 + length + offsets[1]
            if dtype not in SAFETENSORS and dtype != "BF16":
                self.refused[name] = f"an array of type {short(dtype)}"
                continue
            kind = SAFETENSORS.get(dtype, SAFETENSORS["F32"])
            self.stored[name] = stated(name, tuple(shape), kind, bfloat16=dtype == "BF16")
            if self.stored[name].nbytes != offsets[1] - offsets[0]:
                raise ValueError(f"array {short(name)} does not have the size that it states")
        reached = 8 + length
        for name in sorted(heads, key=lambda name: (self._starts[name], ends[name])):
            if self._starts[name] != reached:
                raise ValueError(f"array {short(name)} does not begin where the one before ends")
            reached = ends[name]
        if reached != size:
            raise ValueError("its arrays do not end where the file ends")

    def read(self, name: str) -> np.ndarray:
        self._file.seek(self._starts[name])
        return numbers(self._file, self.stored[name], name)


def stated(name: str, shape: Any, dtype: np.dtype, **how: bool) -> Stored:
    """Stored, with sizes that NumPy can have: it counts bytes in 63 bits, and 32 axes at most."""
    if not are_counts(shape, tuple) or len(shape) > 32:
        raise ValueError(f"array {short(name)} has a damaged shape")
    if math.prod(max(n, 1) for n in shape) >= 2**60:
        raise ValueError(f"array {short(name)} is larger than any memory")
    return Stored(shape, dtype, **how)


def numbers(content: IO[bytes], stored: Stored, name: str) -> np.ndarray:
    """The next `stored.nbytes` bytes of `content` as an array."""
    raw = np.empty(stored.nbytes, np.uint8)
    for i in range(0, stored.nbytes, CHUNK):
        piece = raw[i : i + CHUNK].data
        if content.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise ValueError(f"array {short(name)} ends too early")
    array = from_bfloat16(raw.view("<u2")) if stored.bfloat16 else raw.view(stored.dtype)
    return array.reshape(stored.shape, order="F" if stored.fortran else "C")


def from_bfloat16(halves: np.ndarray) -> np.ndarray:
    """float32 of the bits of bfloat16, given as uint16: they are its upper half."""
    return (halves.astype("<u4") << 16).view("<f4")


def are_counts(found: Any, kind: type[list] | type[tuple]) -> bool:
    return type(found) is kind and all(type(n) is int and 0 <= n < 2**60 for n in found)


def require_names(names: list[str]) -> None:
    """Raise ValueError for a name that is there twice, OddName for one that no line can show."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"array {short(name)} is there twice")
        if not name.isprintable() or len(name) > 500:
            raise OddName(f"{short(name)} is not a name for an array")
        seen.add(name)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if pairs:
        require_names([name for name, _ in pairs])
    return dict(pairs)


def short(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 60 else text[:57] + "..."
