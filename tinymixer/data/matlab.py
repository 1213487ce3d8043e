"""Floor 1. Arrays of whole numbers in a MATLAB file of version 5, as CIFAR is published in one.

    arrays(content, most=2**26)["data"]

A file is a header of 128 bytes, then elements: a type, a number of bytes, the bytes. An array is an
element that holds four others: class and flags, shape, name, numbers, in column-major order.
Source: MathWorks, "MAT-File Format", "Level 5 MAT-File Format".
"""

import math
import zlib
from collections.abc import Iterator

import numpy as np

HEAD = b"MATLAB 5.0 MAT-file"
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 9: "<f8"}
_NUMBERS = range(6, 14)  # classes of arrays of real numbers; cells, text and structures come before


def arrays(content: bytes, most: int) -> dict[str, np.ndarray]:
    """The arrays of real numbers by their names; no element may unpack to more than `most` bytes.

    Raises ValueError, or zlib.error, for a file that is damaged or of another kind.
    """
    if not content.startswith(HEAD) or content[124:128] != b"\0\1IM":
        raise ValueError("it is not a MATLAB file of version 5; save it in MATLAB with -v6")
    found = {}
    for kind, element in _elements(content[128:]):
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj()
            element = unpacked.decompress(element, most)
            if not unpacked.eof:
                raise ValueError(f"an element is cut short, or unpacks to more than {most} bytes")
            [(kind, element)] = _elements(element)
        if kind == _MATRIX and (array := _array(element)):
            found[array[0]] = array[1]
    return found


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Types and contents. One of up to four bytes is packed into the eight of its own head."""
    at = 0
    while at < len(content):
        kind, size = (int(x) for x in np.frombuffer(content[at : at + 8].ljust(8, b"\0"), "<u4"))
        start, step = at + 8, 8 + size + (-size % 8 if kind != _COMPRESSED else 0)
        if kind >> 16:
            kind, size, start, step = kind & 0xFFFF, kind >> 16, at + 4, 8
        if start + size > len(content) or (start == at + 4 and size > 4):
            raise ValueError("it is cut short")
        yield kind, content[start : start + size]
        at += step


def _array(element: bytes) -> tuple[str, np.ndarray] | None:
    (_, flags), (_, shape), (_, name), *rest = _elements(element)
    if flags[0] not in _NUMBERS or flags[1] & 8 or not rest:  # 8: complex
        return None
    (kind, numbers), sides = rest[0], tuple(int(n) for n in np.frombuffer(shape, "<i4"))
    dtype = np.dtype(_TYPES.get(kind, "V1"))
    if dtype.kind == "V" or min(sides) < 0 or math.prod(sides) * dtype.itemsize != len(numbers):
        raise ValueError("an array does not have the size that it states")
    return name.decode("latin-1"), np.frombuffer(numbers, dtype).reshape(sides, order="F")
