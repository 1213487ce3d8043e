"""Floor 1. CIFAR-10 as 60,000 small pictures: a folder for each class, or a table of labels.

train/cat/0001.png, test/cat/0001.png, as many copies of it are; or train/1.png and trainLabels.csv,
test/1.png and testLabels.csv. Kaggle's own folder has no labels for its test pictures.
"""

import io
import warnings
from collections.abc import Iterable
from hashlib import sha256

import numpy as np

from tinymixer.data import label_table
from tinymixer.data.cifar_layout import SIDE, Layout, Records
from tinymixer.data.containers import Member
from tinymixer.errors import counted

_PARTS = ("train", "test")
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MOST_BYTES = 2**16  # of one picture, which has 3 kB of pixels
Picture = tuple[str, bytes]  # name, content


def part_of(member: Member) -> str | None:
    """ "train" or "test", by the folder that a picture is in; None if it is not one of CIFAR's."""
    if not member.base.lower().endswith(_SUFFIXES):
        return None
    return next((folder for folder in reversed(member.folders) if folder in _PARTS), None)


def read(layout: Layout, members: Iterable[Member]) -> dict[str, Records]:
    """The records of all pictures, in the files of the layout.

    Pictures come in an order that mixes the classes: by the SHA-256 of their part, class and name.
    Raises ValueError for pictures that are damaged, too many, too few or without a class.
    """
    found: dict[str, list[tuple[str, str, bytes]]] = {part: [] for part in _PARTS}
    tables: dict[str, dict[str, str]] = {}
    *train, _ = layout.files
    most = len(train) * layout.train_records
    for member in members:
        if part := part_of(member):
            if member.size > _MOST_BYTES or not member.whole:
                raise ValueError(
                    f"{member.name} has {counted(member.size, 'byte')}, expected a small picture"
                )
            if part == "test" and len(found[part]) >= layout.test_records and not _class(member):
                continue  # Kaggle's 300,000 pictures without labels
            found[part].append((member.name, _class(member), member.read()))
            if len(found[part]) > most:
                raise ValueError(f"more than {counted(most, 'picture')} are in {part}")
        elif member.base.lower().endswith(".csv") and member.size <= label_table.MOST_BYTES:
            table = label_table.labels_of(member.read())
            if table is not None and "submission" not in member.base.lower():
                tables["test" if "test" in member.base.lower() else "train"] = table
    if tables and "test" not in tables and not any(name for _, name, _ in found["test"]):
        raise ValueError(
            "its test pictures have no labels, and without those it is not whole. Train on what "
            "has labels, of which a fifth is kept for testing, with --dataset folder:PATH"
        )
    groups = {"train": train, "test": list(layout.files[-1:])}
    return {
        file: records
        for part, files in groups.items()
        for file, records in _files(layout, files, part, found[part], tables.get(part)).items()
    }


def _class(member: Member) -> str:
    """The name of the folder that a picture is in, unless that is its part's."""
    return "" if member.folders[-1] in _PARTS else member.folders[-1]


def _files(
    layout: Layout,
    files: list[str],
    part: str,
    pictures: list[tuple[str, str, bytes]],
    table: dict[str, str] | None,
) -> dict[str, Records]:
    expected = sum(map(layout.records, files))
    if len(pictures) != expected:
        raise ValueError(f"{part} has {counted(len(pictures), 'picture')}, expected {expected:,}")
    numbers = {name: i for i, name in enumerate(layout.class_names)}
    records = np.empty((expected, layout.record_bytes), np.uint8)
    rows = []
    for name, kind, content in pictures:
        kind = kind or (table or {}).get(label_table.stem(name), "")
        if kind not in numbers:
            raise ValueError(
                f"{name} is of class {kind[:60]!r}, expected one of {', '.join(layout.class_names)}"
            )
        rows.append(
            (
                sha256(f"{part}/{kind}/{label_table.stem(name)}".encode()).digest(),
                name,
                kind,
                content,
            )
        )
    for record, (_, name, kind, content) in zip(records, sorted(rows), strict=True):
        record[0] = numbers[kind]
        record[1:] = planes(name, content)
    return dict(zip(files, np.split(records, len(files)), strict=True))


def planes(name: str, content: bytes) -> np.ndarray:
    """The red, green and blue planes of a picture of 32x32 pixels, PNG or JPEG.  ->  uint8 (3072,)

    Its size is looked at before it is decoded. There are 60,000: what Pillow does beside decoding,
    to find the decoder and to copy pixels, would take longer than that.
    """
    from PIL import JpegImagePlugin, PngImagePlugin  # here, as most forms hold no pictures

    png = content.startswith(b"\x89PNG")
    decoder = PngImagePlugin.PngImageFile if png else JpegImagePlugin.JpegImageFile
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Pillow only warns of, no picture of CIFAR has
            image = decoder(io.BytesIO(content))
            if image.size != (SIDE, SIDE):
                raise ValueError(f"{image.width}x{image.height} pixels, expected {SIDE}x{SIDE}")
            pixels = (image if image.mode == "RGB" else image.convert("RGB")).tobytes()
            return np.frombuffer(pixels, np.uint8).reshape(SIDE * SIDE, 3).T.ravel()
    except Exception as error:  # a decoder can raise anything
        raise ValueError(f"{name} cannot be read ({error})") from error
