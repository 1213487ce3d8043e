"""Pictures of the kinds that cameras and programs write, as upright RGB of 8 bits.

The first bytes of a file choose its decoder, never its name, from a list of those that start no
other program: JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM, and AVIF where Pillow has it. What decoding
will take is known before it starts. Of JPEG, PNG, GIF and TIFF a decoder gets only the parts that
make the first picture (`parts`), so no comment, profile, preview or further frame can harm.
"""

import io
import logging
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from tinymixer.arrays import open_regular
from tinymixer.data import parts
from tinymixer.errors import DataError, brief

DECODERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}
if WebPImagePlugin.SUPPORTED:
    DECODERS["WEBP"] = WebPImagePlugin.WebPImageFile
with suppress(ImportError):  # a Pillow before 11.3
    from PIL import AvifImagePlugin

    if AvifImagePlugin.SUPPORTED:
        DECODERS["AVIF"] = AvifImagePlugin.AvifImageFile

SUFFIXES = (  # of what is meant as a picture, also of kinds that are not read
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".dng", ".cr2"),
    *(".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
)
MOST_BYTES = 2**29  # that a file and its decoded picture may take
MOST_SIDE = 2**17  # pixels in a row or column
MOST_WORK = 2**31  # pixels that decoding may visit: those of a picture times its scans
MOST_IN_PYTHON = 2**20  # pixels of the rare kinds that Pillow decodes in Python, at a few µs each
FINE = 8  # pixels of what is returned to each one that is asked for, along each side
LEAST = 64  # pixels a side that are always asked for: enough to look at
BAND = 2**20  # pixels that are brought to RGB at once
TURNS = {  # the orientation that a camera writes -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}  # of a pixel in Pillow's modes; else 4
DECODING = {"WEBP": 16, "AVIF": 12, "TIFF": 8}  # those that a decoder takes, where it is more

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to the terminal
_alone = threading.Lock()  # the filters of warnings, and standard error, are the whole process's


def read_picture(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """The first picture of a file: upright, RGB, 8 bits, what is transparent on white.

    Where only `size`, (height, width), is needed, a large picture comes in fewer pixels, but still
    at least FINE times as many along each side. `info["size"]` is (width, height) of the whole.

    Raises DataError, in one sentence, for a file that is not a picture, damaged, of a kind that is
    not read, or would take more than MOST_BYTES to decode.
    """
    least = None if size is None else FINE * max(LEAST, *size)
    try:
        return _decode(_content(Path(path)), least)
    except DataError as error:
        reason = str(error)
    except FileNotFoundError:
        reason = "there is no such file"
    except MemoryError:
        reason = "there is not enough memory for it"
    except Exception as error:  # a decoder may raise anything for a damaged file
        reason = "its file is damaged or incomplete"
        if isinstance(error, OSError | SyntaxError | RuntimeError):  # others say nothing to a user
            reason = getattr(error, "strerror", None) or f"{brief(error)}; {reason}"
    raise DataError(f"cannot read the picture {path}: {reason}")


def as_seen(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """The middle of the picture in the model's size: uint8 (height, width, 3)."""
    scale = min(picture.width / width, picture.height / height)
    w, h = width * scale, height * scale
    left, top = (picture.width - w) / 2, (picture.height - h) / 2
    box = (left, top, left + w, top + h)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX, box=box))


def is_picture(path: Path) -> bool:
    """Whether a file in a folder is meant as a picture: by its name, or else by its first bytes."""
    if path.name.startswith(".") or path.is_dir():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True  # also one that is damaged or of a kind that is not read: to be named
    try:
        with open_regular(path) as file:
            return parts.kind_of(file.read(1000)) in DECODERS
    except (OSError, DataError):
        return False


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise DataError("it is a folder; give the file of a picture")
    if path.exists() and not path.is_file():  # a device never ends, a pipe may never begin
        raise DataError("it is not a regular file; give the file of a picture")
    if path.stat().st_size > MOST_BYTES:
        raise _too_large(f"its file has {path.stat().st_size / 1e6:,.0f} MB")
    return path.read_bytes()


def _decode(content: bytes, least: int | None) -> Image.Image:
    kind = parts.kind_of(content)
    if kind not in DECODERS:
        raise DataError(f"this Pillow does not read {kind}; save it as JPEG or PNG")
    needed = parts.needed(kind, content)
    del content
    if needed.size:  # WEBP takes the memory for its pixels as soon as it is opened
        _check(needed.size, DECODING["WEBP"], needed)
    with _quiet():
        image = DECODERS[kind](io.BytesIO(needed.content))
    whole = image.size
    if kind == "JPEG" and least:
        image.draft(None, (least, least))  # an 8th of the pixels is hardly any work
    once = BYTES.get(image.mode, 4)
    if least is None and image.mode != "RGB":
        once += 4  # for what is returned
    _check(image.size, max(once, DECODING.get(kind, 0)), needed)
    if needed.scans > 1:  # a progressive JPEG is kept as coefficients until its last scan
        _check(whole, parts.coefficients(image), needed)
    if math.prod(whole) * needed.scans > MOST_WORK:
        scans = f" in {needed.scans} scans" if needed.scans > 1 else ""
        raise _too_large(f"it has {whole[0]} × {whole[1]} pixels{scans}")
    in_python = {tile[0] for tile in image.tile} & {"ppm", "ppm_plain", "bmp_rle"}
    if in_python and math.prod(whole) > MOST_IN_PYTHON:
        raise _too_large(f"it has {whole[0]} × {whole[1]} pixels in a form that is slow to read")
    parts.check_rows(needed)
    if kind == "TIFF":  # its tags are read when it is loaded, too
        with _quiet(), _no_standard_error():
            image.load()
        if image.mode.startswith("I;16") and needed.white_is_zero:
            image.info["inverted"] = True
    if needed.rows is None:
        image.load()
    upright = _rgb(image, kind, least, needed.rows)
    turn = TURNS.get(parts.orientation(needed.notes or [image.info.get("exif", b"")]))
    if turn is not None:
        upright = upright.transpose(turn)
        whole = whole if (upright.width < upright.height) == (whole[0] < whole[1]) else whole[::-1]
    upright.info = {"size": whole}
    return upright


def _check(size: tuple[int, int], each: float, needed: parts.Needed) -> None:
    """Raise DataError if a picture of `size` takes too much memory, at `each` bytes a pixel."""
    decoded = max(math.prod(size) * each, needed.unpacked)
    if decoded + len(needed.content) > MOST_BYTES or max(size) > MOST_SIDE:
        raise _too_large(f"it has {size[0]} × {size[1]} pixels")


def _too_large(what: str) -> DataError:
    return DataError(
        f"{what}, and decoding it would take more than {MOST_BYTES / 1e6:,.0f} MB or many seconds; "
        "save it smaller, or as a plain JPEG (baseline, not progressive)"
    )


def _rgb(image: Image.Image, kind: str, least: int | None, rows: parts.Rows | None) -> Image.Image:
    """The picture in RGB, band by band: it is never there twice; reduced by a whole number."""
    width, height = image.size
    if image.mode == "F" or (image.mode == "I" and kind not in ("PNG", "PPM")):  # there: 16 bits
        raise DataError(
            f"its pixels have no known value of white (Pillow's mode {image.mode}); expected 8 or "
            "16 bits for each colour. Save it in such a format"
        )
    k = 1 if least is None else max(1, min(width, height) // least)
    if k == 1 and rows is None and image.mode == "RGB" and "transparency" not in image.info:
        return image.convert("RGB")
    rgb = Image.new("RGB", (math.ceil(width / k), math.ceil(height / k)))
    step, above = k * max(1, BAND // (k * width)), b""
    for top in range(0, height, step):
        n = min(step, height - top)
        if rows is None:
            band = image.crop((0, top, width, top + n))
        else:
            band = _decoded(rows.band(n, above))
            above = band.crop((0, band.height - 1, width, band.height)).tobytes()
            band = band.crop((0, band.height - n, width, band.height))
        rgb.paste(_on_white(band).reduce(k), (0, top // k))
    return rgb


def _decoded(png: bytes) -> Image.Image:
    with _quiet():
        band = PngImagePlugin.PngImageFile(io.BytesIO(png))
    band.load()
    return band


def _on_white(band: Image.Image) -> Image.Image:
    if band.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        x = np.asarray(band)
        grey = (x >> 8).astype(np.uint8)
        if "inverted" in band.info:
            grey = ~grey
        if (clear := band.info.get("transparency")) is not None:
            grey[x == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if band.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in band.info:
        white = Image.new("RGBA", band.size, "white")
        band = Image.alpha_composite(white, band.convert("RGBA"))
    return band.convert("RGB")


@contextmanager
def _quiet() -> Iterator[None]:
    """In its `with` block, drop the warnings of Pillow."""
    with _alone, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """In its `with` block, drop what C libraries such as libtiff write to standard error."""
    try:
        error = os.dup(2)
    except OSError:  # closed: nothing can be written
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(error, 2)
        os.close(error)
