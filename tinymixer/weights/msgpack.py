"""Files of Flax: trees of arrays in MessagePack, as `flax.serialization.to_bytes` writes them.

A tree is a map of names to trees or arrays. An array is an extension of type 1 that holds, again in
MessagePack, its shape, the name of its type and its bytes. See https://msgpack.org/spec. Only heads
are read at first; bytes of arrays are read when they are asked for.
"""

import os
import struct
from typing import IO, Any

import numpy as np

from tinymixer.arrays import MOST_ARRAYS, TYPES, ArrayFile, Stored, numbers, require_names, stated

DEEPEST, MOST_ITEMS, MOST_TEXT = 16, 2**20, 4096
ARRAY, COMPLEX, SCALAR = 1, 2, 3  # the types of extensions that Flax has
KINDS = {dtype.name: dtype for dtype in TYPES}  # by the name that NumPy has for it
FIXED = {  # first byte -> how a number of that kind is laid out
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
LENGTHS = {  # first byte -> what it begins, and of how many bytes the length is
    0xC4: ("bytes", 1),
    0xC5: ("bytes", 2),
    0xC6: ("bytes", 4),
    0xC7: ("extension", 1),
    0xC8: ("extension", 2),
    0xC9: ("extension", 4),
    0xD9: ("text", 1),
    0xDA: ("text", 2),
    0xDB: ("text", 4),
    0xDC: ("list", 2),
    0xDD: ("list", 4),
    0xDE: ("map", 2),
    0xDF: ("map", 4),
}


class MsgpackFile(ArrayFile):
    """The arrays of a tree by name, "params/stem/kernel". refused: what are not numbers."""

    kind = "Flax"

    def __init__(self, file: IO[bytes]):
        super().__init__()
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self._items = 0
        self._starts: dict[str, int] = {}
        file.seek(0)
        self._read("", 0)
        if file.tell() != self._size:
            raise ValueError("its tree does not end where the file ends")
        require_names([*self.stored, *self.refused])

    def read(self, name: str) -> np.ndarray:
        self._file.seek(self._starts[name])
        return numbers(self._file, self.stored[name], name)

    def _read(self, name: str, depth: int) -> Any:
        """The next value. What is in a map is entered under its name; a map itself gives None."""
        self._items += 1
        if self._items > MOST_ITEMS or len(self.stored) > MOST_ARRAYS:
            raise ValueError(f"it holds more than {MOST_ARRAYS:,} arrays or {MOST_ITEMS:,} values")
        kind, n = self._head()
        if kind == "value":
            return n
        if kind == "text":
            if n > MOST_TEXT:
                self._skip(n)
                return None
            return self._take(n).decode()
        if kind == "bytes":
            self._skip(n)
        elif kind == "extension":
            self._extension(name, n)
        else:
            if depth >= DEEPEST:
                raise ValueError(f"its tree is more than {DEEPEST} deep")
            for i in range(n):
                key = str(i) if kind == "list" else self._read("", DEEPEST)
                if not isinstance(key, str):
                    raise ValueError("a name of its tree is not text")
                self._read(f"{name}/{key}" if name else key, depth + 1)
        return None

    def _head(self) -> tuple[str, Any]:
        """What comes next, and its length in bytes or items, or the value itself."""
        first = self._take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return "value", first if first < 0x80 else first - 256
        if first < 0xC0:
            kind = "map" if first < 0x90 else "list" if first < 0xA0 else "text"
            return kind, first & (0x1F if kind == "text" else 0x0F)
        if first in (0xC0, 0xC2, 0xC3):
            return "value", {0xC0: None, 0xC2: False, 0xC3: True}[first]
        if first in FIXED:
            layout = FIXED[first]
            return "value", struct.unpack(layout, self._take(struct.calcsize(layout)))[0]
        if first in LENGTHS:
            kind, width = LENGTHS[first]
            return kind, int.from_bytes(self._take(width), "big")
        if 0xD4 <= first <= 0xD8:
            return "extension", 1 << (first - 0xD4)
        raise ValueError("it has a byte that begins nothing")

    def _extension(self, name: str, n: int) -> None:
        """Enter an array of n bytes. Its numbers are left where they are."""
        type_, start = self._take(1)[0], self._file.tell()
        if type_ == ARRAY:
            if self._head() != ("list", 3):
                raise ValueError("an array of its tree is damaged")
            kind, rank = self._head()
            shape = tuple(self._head()[1] for _ in range(rank if rank <= 32 else 0))
            text, length = self._head()
            if kind != "list" or rank > 32 or text != "text" or length > 64:
                raise ValueError("an array of its tree is damaged")
            dtype = self._take(length).decode()
            kind, nbytes = self._head()
            place = self._file.tell()
            if kind != "bytes" or place + nbytes != start + n or name in self.stored:
                raise ValueError("an array of its tree is damaged")
            if dtype in KINDS or dtype == "bfloat16":
                self._enter(name, shape, dtype, place, nbytes)
            else:
                self.refused[name] = f"an array of {dtype}" if dtype.isprintable() else "an array"
        elif type_ in (COMPLEX, SCALAR):
            self.refused[name] = "a complex number" if type_ == COMPLEX else "a number of NumPy"
        self._file.seek(start)
        self._skip(n)

    def _enter(self, name: str, shape: Any, dtype: str, place: int, nbytes: int) -> None:
        bfloat16 = dtype == "bfloat16"
        found: Stored = stated(name, shape, KINDS.get(dtype, np.dtype("<f4")), bfloat16=bfloat16)
        if found.nbytes != nbytes:
            raise ValueError("an array of its tree does not have the size that it states")
        self.stored[name], self._starts[name] = found, place

    def _take(self, n: int) -> bytes:
        found = self._file.read(n)
        if len(found) != n:
            raise ValueError("it ends too early")
        return found

    def _skip(self, n: int) -> None:
        place = self._file.tell() + n
        if place > self._size:
            raise ValueError("it ends too early")
        self._file.seek(place)
