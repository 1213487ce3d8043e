"""The parts of a file that make its first picture, and what foreign files are by their bytes."""

import re
import struct
import zlib
from dataclasses import dataclass, field

from PIL import Image

from tinymixer.errors import DataError

KINDS = (  # how the files begin that are read
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM.{4}\0\0\0\0|BM.{12}[\x0c-\x7c]\0\0\0", "BMP"),
    (rb"RIFF.{4}WEBP", "WEBP"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF"),
    (rb"P[1-6]\s|P[1-6]#|P[fF]\s", "PPM"),
    (rb".{4}ftypavi[fs]|.{4}ftypm[is]f1.{0,40}avif", "AVIF"),
)
OTHERS = (  # and those that are not
    (rb"II\*\0.{4}CR|FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR|FOVb|.{4}ftypcrx ", "a camera's raw file"),
    (rb".{4}ftyp(hei[cxms]|hev[cxms]|m[is]f1)", "a HEIC picture"),
    (rb"\xff\x0a|\0{3}\x0cJXL ", "a JPEG XL picture"),
    (rb"\0{3}\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"8BPS", "a Photoshop file"),
    (rb"gimp xcf", "a GIMP file"),
    (rb"%PDF", "a PDF document"),
    (rb"\s*%!|\xc5\xd0\xd3\xc6|\x04%!", "a PostScript program"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml.*?<svg\b|<svg\b|<!--.*?<svg\b)", "an SVG drawing"),
    (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)", "a web page"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile"),
    (rb"\0\0[\x01\x02]\0", "an icon"),
    (rb"icns", "an icon"),
    (rb".{4}ftyp|.{4}moov|\x1aE\xdf\xa3|RIFF.{4}AVI |\0\0\x01\xba|FLV\x01", "a video"),
    (rb"v/1\x01", "an OpenEXR picture"),
    (rb"#\?RADIANCE", "a Radiance picture"),
    (rb"DDS |qoif|SIMPLE  =|\x0a[\0-\x05]\x01[\x01\x02\x04\x08]", "a picture of a rare kind"),
    (rb".{128}DICM", "a DICOM file"),
    (rb"\x93NUMPY", "an array of NumPy"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ", "an archive"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
)


def kind_of(content: bytes) -> str:
    """The kind of picture in a file, one of KINDS. Raises DataError that says what else it is."""
    head = bytes(content[:1000])
    if not head:
        raise DataError("its file is empty")
    for pattern, name in OTHERS[:1] + KINDS + OTHERS[1:]:  # a raw file may begin like a TIFF
        if re.match(pattern, head, re.DOTALL):
            if name.isupper():
                return name
            raise DataError(f"it is {name}, which is not read; save it as JPEG or PNG")
    raise DataError("it is not a picture; expected JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM or AVIF")


@dataclass
class Needed:
    """What a decoder gets to see, and what else must be known of a picture.

    notes: what may say how it is turned. scans: how often its pixels are written. size: (width,
    height), where a decoder must not see more than it can hold. unpacked: the bytes that the pixels
    of a PNG become. rows: of one that can be decoded band by band; then content is only what comes
    before its pixels. stream: the pixels of another. white_is_zero: of a TIFF.
    """

    content: bytes
    notes: list[bytes] = field(default_factory=list)
    scans: int = 1
    size: tuple[int, int] | None = None
    unpacked: int = 0
    rows: "Rows | None" = None
    stream: "Inflated | None" = None
    white_is_zero: bool = False


def needed(kind: str, content: bytes) -> Needed:
    """Raises DataError, IndexError or struct.error for a damaged file."""
    match kind:
        case "JPEG":
            return _jpeg(content)
        case "PNG":
            return _png(content)
        case "GIF":
            return _gif(content)
        case "TIFF":
            return _tiff(content)
        case "PPM":
            return _ppm(content)
        case "WEBP":
            return Needed(content, size=_webp_size(content))
    return Needed(content)


# --- JPEG ---------------------------------------------------------------------------------------


_MOST_SEGMENTS = 10_000  # before the pixels of a JPEG; each holds up to 64 kB


def _jpeg(content: bytes) -> Needed:
    """Tables, frame and scans; of the notes only those that say what the colours are."""
    kept, notes, at, components = [content[:2]], [], 2, 0
    progressive = False
    for _ in range(_MOST_SEGMENTS):
        while content[at + 1] == 0xFF:  # fill
            at += 1
        if content[at] != 0xFF:
            raise DataError("its segments are damaged")
        kind, end = content[at + 1], at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        segment = content[at:end]
        if kind == 0xDA:
            break
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            progressive, components = kind in (0xC2, 0xC6, 0xCA, 0xCE), segment[9]
        is_note = 0xE0 <= kind <= 0xEF or kind == 0xFE
        if is_note and segment[4:9] not in (b"JFIF\0", b"Adobe"):
            notes.append(segment[4:])
        else:
            kept.append(segment)
        at = end
    else:
        raise DataError(f"it has more than {_MOST_SEGMENTS:,} segments; its file is damaged")
    scans = 1
    if progressive or segment[4] < components:
        ends = re.compile(rb"\xff[\xd9\xda]").finditer(content, at + 2)
        for end_of_scan in ends:
            if end_of_scan[0] == b"\xff\xd9":
                break
            scans += 1
        scans = max(scans, 2)
    return Needed(b"".join([*kept, memoryview(content)[at:]]), notes, scans)


def coefficients(image: Image.Image) -> float:
    """Bytes for each pixel of a JPEG that is kept as coefficients of 16 bits."""
    sides = [(h, v) for _, h, v, _ in image.layer]  # type: ignore[attr-defined]
    full = max(h for h, _ in sides) * max(v for _, v in sides)
    return 2 * sum(h * v for h, v in sides) / full


# --- PNG ----------------------------------------------------------------------------------------

_VALUES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # for each pixel of a colour type
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = (  # first column, first row, columns apart, rows apart, of each pass of an interlaced PNG
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8)),
    *((2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def _png(content: bytes) -> Needed:
    """Header, palette, transparency and pixels. Those of 8 bits are decoded band by band."""
    if content[12:16] != b"IHDR":
        raise DataError("it does not begin with a header; its file is damaged")
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    before, pixels, notes, at = [content[:8]], [], [], 8
    view = memoryview(content)
    while at + 12 <= len(content):
        n, name = struct.unpack_from(">I4s", content, at)
        body, checksum = view[at + 8 : at + 8 + n], view[at + 8 + n : at + 12 + n]
        if name in (b"IHDR", b"PLTE", b"IDAT") and zlib.crc32(view[at + 4 : at + 8 + n]) != (
            int.from_bytes(checksum, "big")
        ):
            raise DataError("its checksums are wrong; its file is damaged or incomplete")
        at += 12 + n
        if name == b"IDAT":
            pixels.append(body)
        elif name == (b"PLTE" if before[1:] else b"IHDR"):  # a second header is left out
            before.append(_chunk(name, body))
        elif name == b"tRNS":
            before.append(_chunk(name, _transparency(body, depth) if colour in (0, 2) else body))
        elif name in (b"eXIf", b"iTXt"):
            notes.append(bytes(body))
        elif name == b"IEND":
            break
    if colour == 3 and len(before) == 2:
        raise DataError(
            "its colours are numbers of a palette, which is missing; its file is damaged"
        )
    unpacked = 0
    for left, top, across, down in _ADAM7 if interlaced else _WHOLE:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0:
            unpacked += rows * (1 + (columns * depth * _VALUES[colour] + 7) // 8)
    stream = Inflated(pixels)
    if depth == 8 and not interlaced:
        head = b"".join([*before, _chunk(b"IDAT", b"")])
        return Needed(head, notes, unpacked=unpacked, rows=Rows(before, stream, unpacked // height))
    content = b"".join([*before, _chunk(b"IDAT", b"".join(pixels)), _chunk(b"IEND", b"")])
    return Needed(content, notes, unpacked=unpacked, stream=stream)


class Inflated:
    """The bytes that the pieces of a zlib stream become, taken one after the other."""

    def __init__(self, pieces: list[memoryview]):
        self._pieces = (x[i : i + 2**16] for x in pieces for i in range(0, len(x), 2**16))
        self._stream, self._rest = zlib.decompressobj(), b""

    def take(self, n: int) -> bytes:
        """The next n bytes. Raises DataError if there are fewer."""
        found = []
        while n > 0:
            piece = self._rest or next(self._pieces, None)
            if piece is None or self._stream.eof:
                raise DataError("its pixels end early; its file is damaged or incomplete")
            found.append(self._stream.decompress(piece, n))
            self._rest = self._stream.unconsumed_tail
            n -= len(found[-1])
        return b"".join(found)


def check_rows(needed: Needed) -> None:
    """Raise DataError if a PNG has fewer rows than it states: Pillow leaves the rest black."""
    if needed.stream is not None:
        for start in range(0, needed.unpacked, 2**20):
            needed.stream.take(min(2**20, needed.unpacked - start))


@dataclass
class Rows:
    """The rows of a PNG, of `row` bytes each: some of them at a time, as a PNG of their own."""

    before: list[bytes]
    stream: Inflated
    row: int

    def band(self, n: int, above: bytes) -> bytes:
        """The next n rows. They say how they differ from the one before, which is put `above`."""
        first = b"\0" + above if above else b""  # 0: a row that differs from none
        width, _, *rest = struct.unpack_from(">IIBBBBB", self.before[1], 8)
        header = struct.pack(">IIBBBBB", width, n + bool(above), *rest)
        pixels = zlib.compress(first + self.stream.take(n * self.row), 0)
        chunks = [_chunk(b"IHDR", header), *self.before[2:], _chunk(b"IDAT", pixels)]
        return b"".join([self.before[0], *chunks, _chunk(b"IEND", b"")])


def _chunk(name: bytes, body: bytes | memoryview) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(name))
    return b"".join([struct.pack(">I", len(body)), name, body, struct.pack(">I", checksum)])


def _transparency(values: bytes | memoryview, depth: int) -> bytes:
    """The value of the pixels that are transparent, as Pillow compares it.

    Grey of fewer bits is spread over 0..255 before, and colours of 16 bits are cut to 8.
    """
    n = len(values) // 2
    key = struct.unpack(f">{n}H", values[: 2 * n])
    if depth < 8:
        key = tuple(k * 255 // (2**depth - 1) for k in key)
    elif depth == 16 and n == 3:
        key = tuple(k >> 8 for k in key)
    return struct.pack(f">{n}H", *(min(k, 0xFFFF) for k in key))


# --- GIF ----------------------------------------------------------------------------------------


def _gif(content: bytes) -> Needed:
    """The first frame alone, on a screen of its own size: what is around it has no colour."""
    at = 13 + _table(content[10])
    head, control = content[:at], b""
    while content[at] == 0x21:  # an extension
        end = _after_blocks(content, at + 2)
        if content[at + 1] == 0xF9:
            control = content[at:end]
        at = end
    if content[at] != 0x2C:
        raise DataError("it has no picture in it")
    start = at + 10 + _table(content[at + 9])
    frame = content[at : _after_blocks(content, start + 1)]
    size = frame[5:9]
    head = head[:6] + size + head[10:]
    frame = frame[:1] + bytes(4) + frame[5:]  # its left upper corner
    return Needed(head + control + frame + b";")


def _table(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(content: bytes, at: int) -> int:
    while content[at]:
        at += content[at] + 1
    return at + 1


# --- WEBP ---------------------------------------------------------------------------------------


def _webp_size(content: bytes) -> tuple[int, int]:
    """(width, height) as the first chunk of a WEBP states it."""
    match content[12:16]:
        case b"VP8X":
            width, height = (int.from_bytes(content[i : i + 3], "little") for i in (24, 27))
            return width + 1, height + 1
        case b"VP8L":
            both = int.from_bytes(content[21:25], "little")
            return (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


# --- PPM ----------------------------------------------------------------------------------------


def _ppm(content: bytes) -> Needed:
    """Its header without comments."""
    head, at = [content[:2]], 2
    for _ in range(2 if content[1:2] in b"14" else 3):
        word = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([^\s#]{1,10})(?=[\s#])").match(content, at)
        if not word:
            raise DataError("its header is damaged")
        head.append(word[1])
        at = word.end()
    return Needed(b" ".join(head) + content[at:])


# --- TIFF ---------------------------------------------------------------------------------------

_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 13: 4, 16: 8}  # bytes of a value of each type
_OF_PIXELS = {
    *(256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320),
    *(
        322,
        323,
        324,
        325,
        332,
        338,
        339,
        347,
        512,
        513,
        514,
        515,
        519,
        520,
        521,
        529,
        530,
        531,
        532,
    ),
}
_MOST_VALUES = 2**18  # of a tag: strips or tiles, or the colours of a palette


def _tiff(content: bytes) -> Needed:
    """Its first directory alone, with the tags that say where and how the pixels are."""
    order = "<" if content[:2] == b"II" else ">"
    big = 43 in content[2:4]
    count, entry, pointer = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    (start,) = struct.unpack_from(order + pointer, content, 8 if big else 4)
    (n,) = struct.unpack_from(order + count, content, start)
    at, step = start + struct.calcsize("=" + count), struct.calcsize("=" + entry)
    kept, white_is_zero = [], False
    for i in range(min(n, 4096)):
        tag, kind, values, value = struct.unpack_from(order + entry, content, at + i * step)
        if tag == 50706 or (tag == 254 and int.from_bytes(value.strip(b"\0") or b"\0") & 1):
            raise DataError("it is a camera's raw file, which is not read; save it as JPEG or PNG")
        if tag == 262:
            white_is_zero = not any(value)
        if tag in _OF_PIXELS:
            if values > _MOST_VALUES and _WIDTHS.get(kind) != 1:
                raise DataError(f"its tag {tag} has {values:,} values; its file is damaged")
            kept.append(content[at + i * step : at + (i + 1) * step])
    directory = struct.pack(order + count, len(kept)) + b"".join(kept) + bytes(8 if big else 4)
    alone = content[:start] + directory + content[start + len(directory) :]  # in its own place
    return Needed(alone, white_is_zero=white_is_zero)


# --- How a picture is turned --------------------------------------------------------------------


def orientation(notes: list[bytes]) -> int:
    """1 to 8, as Exif or XMP says; 1 where neither says it in a way that can be read."""
    for note in notes:
        head = note.removeprefix(b"Exif\0\0")
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
        if order is None:
            continue
        try:
            (start,) = struct.unpack_from(order + "I", head, 4)
            (n,) = struct.unpack_from(order + "H", head, start)
            for at in range(start + 2, start + 2 + 12 * n, 12):
                tag, kind = struct.unpack_from(order + "HH", head, at)
                if tag == 0x0112:
                    (turn,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), head, at + 8)
                    return int(turn)
        except struct.error:
            continue
    found = re.search(rb"tiff:Orientation(?:=\"|>)([1-8])", b"".join(notes))
    return int(found[1]) if found else 1
