"""Floor 1. MNIST, Fashion-MNIST and KMNIST: grey images in IDX files, packed by gzip or not.

An IDX file is a type and a number of axes, the length of each, the numbers. The three sets have
files of the same names and shapes; which one it is, the first labels tell, or else a folder's name.
"""

import contextlib
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinymixer.data import containers
from tinymixer.data.containers import Member, Unreadable, entries, members
from tinymixer.data.dataset import Dataset, measure_colours
from tinymixer.data.download import Source, fetch
from tinymixer.data.storing import write_folder
from tinymixer.errors import DataError, brief, counted

PARTS = {  # of a Dataset: the published name of its file
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
AXES = {"images": 3, "labels": 1}
LOOKED_AT = 2_000  # files and folders, to find a data set in a folder
_NAME = re.compile(r"(train|t10k|test)[-_. ]?(images?|labels?)", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """One of the three sets. words: what a folder's name says of it; begins: its first labels."""

    name: str
    title: str
    words: tuple[str, ...]
    class_names: tuple[str, ...]
    begins: tuple[int, ...]
    places: tuple[str, ...]  # addresses that the names of the files are added to
    md5: tuple[str, ...]  # of the four files, packed by gzip

    @property
    def what_to_add(self) -> str:
        return f"a folder with its files ({', '.join(PARTS.values())}, also as .gz)"

    @property
    def sources(self) -> tuple[tuple[Source, ...], ...]:
        """For each file, where it is."""
        return tuple(
            tuple(Source(f"{place}{name}.gz", md5) for place in self.places)
            for name, md5 in zip(PARTS.values(), self.md5, strict=True)
        )


MNIST = Layout(
    "mnist",
    "MNIST",
    ("mnist",),
    tuple("0123456789"),
    (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
FASHION = Layout(
    "fashion_mnist",
    "Fashion-MNIST",
    ("fashion",),
    (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
KMNIST = Layout(
    "kmnist",
    "KMNIST",
    ("kmnist", "kuzushiji"),
    ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    (8, 7, 0, 1, 4, 2, 4, 8, 1, 1),
    ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
)
LAYOUTS = {layout.name: layout for layout in (MNIST, FASHION, KMNIST)}
_OTHERS = ("emnist", "qmnist")  # which have MNIST's name in theirs, and other classes


# --- Where it is -------------------------------------------------------------------------------


def locate(layout: Layout, folder: Path) -> Path | None:
    """The folder or archive that holds the data set, up to three folders deeper; or None.

    One with its name comes before one without, or with another's name but its first labels.
    """
    if not folder.is_dir():
        return folder if folder.is_file() and recognises(layout, folder) else None
    whole, parts, left = [], [], LOOKED_AT
    for place, name in _places(folder, _named(folder.absolute().name), 3):
        if left <= 0:
            continue
        inside = entries(place)[:left]
        left -= len(inside)
        found = {part for path in inside for part in _parts(path)}
        if len(found) == len(PARTS):
            if name in (layout.name, None) or recognises(layout, place):
                whole.append((name != layout.name, place))
        elif found and name == layout.name:
            parts.append(place)
        for path in inside:
            own = _named(path.name) or name
            if path.is_file() and own == layout.name and not _NAME.search(path.name):
                whole += [(False, path)] if recognises(layout, path) else []
    return min(whole, key=lambda found: found[0])[1] if whole else next(iter(parts), None)


def recognises(layout: Layout, path: Path) -> bool:
    """Whether a file or a folder holds this one of the three, by its first labels or its name."""
    try:
        for member in members(path):
            if _part(member.base) == "train_labels" and member.size <= containers.MOST_BYTES:
                labels = _array(member, 1)
                return _name(path.absolute(), member, labels) == layout.name
    except (ValueError, OSError):
        pass
    return False


def _name(path: Path, member: Member, labels: np.ndarray) -> str | None:
    """The data set whose training labels begin so; else the one that the innermost name says."""
    words = [path.parent.name, path.name, *member.folders]
    names = [_by_labels(labels), *(_named(word) for word in reversed(words))]
    return next((name for name in names if name), None)


def _by_labels(labels: np.ndarray) -> str | None:
    begins = tuple(labels[:10].tolist())
    return next((x.name for x in LAYOUTS.values() if x.begins == begins), None)


def _named(word: str) -> str | None:
    """The data set that a file or a folder of this name says it is of."""
    word = word.lower()
    others = [other for other in _OTHERS if other in word]
    named = [x.name for x in (FASHION, KMNIST, MNIST) if any(w in word for w in x.words)]
    return next(iter(others + named), None)


def _places(folder: Path, name: str | None, deep: int) -> Iterator[tuple[Path, str | None]]:
    """The folder and those within, each with the data set that it is named after."""
    yield folder, name
    if deep:
        try:
            inner = [path for path in entries(folder)[:LOOKED_AT] if path.is_dir()]
        except OSError:  # another user's
            return
        for path in inner:
            yield from _places(path, _named(path.name) or name, deep - 1)


def _part(name: str) -> str | None:
    """The part of a Dataset that a file with this name holds: "train_images", for example."""
    match = _NAME.search(name)
    if match is None:
        return None
    which = "train" if match[1].lower() == "train" else "test"
    return f"{which}_{match[2].lower().rstrip('s')}s"


def _parts(path: Path) -> list[str]:
    """The part in a file, or in a folder of the same name, as Kaggle unpacks it."""
    part = _part(path.name)
    whole = path.is_file() or (path.is_dir() and any(_part(p.name) == part for p in entries(path)))
    return [part] if part and whole else []


# --- From files to arrays ----------------------------------------------------------------------


def read(layout: Layout, path: Path) -> dict[str, np.ndarray]:
    """The four arrays of a Dataset, checked: images uint8 (N, H, W), labels uint8 (N,).

    Raises DataError for files that are damaged, lack a part or are those of another data set.
    """
    found: dict[str, np.ndarray] = {}
    try:
        for member in members(path):
            part = _part(member.base)
            if part is None or len(member.folders) > (2 if not path.is_dir() else 1):
                continue
            if part in found:
                raise ValueError(f"{part.replace('_', ' ')} are there twice: {member.name}")
            found[part] = _array(member, AXES[part.partition("_")[2]])
        if missing := [name for part, name in PARTS.items() if part not in found]:
            raise ValueError(f"{counted(len(missing), 'file')} missing: {', '.join(missing)}")
        for which in ("train", "test"):
            images, labels = found[f"{which}_images"], found[f"{which}_labels"]
            if len(images) != len(labels) or not images.size:
                raise ValueError(
                    f"{counted(len(labels), 'label')} for {counted(len(images), f'{which} image')}"
                )
            if labels.max() >= len(layout.class_names):
                raise ValueError(f"{which} label {labels.max()}, expected 0 to 9")
        other = _by_labels(found["train_labels"])
        if other not in (layout.name, None):
            raise ValueError(f"these are the files of {LAYOUTS[other].title}")
    except (ValueError, OSError) as error:
        raise damaged(layout, path, brief(error)) from error
    return found


def dataset(layout: Layout, name: str, path: Path) -> Dataset:
    """The data set in a folder or an archive that `locate` found."""
    arrays = read(layout, path)
    images = {part: arrays[part][..., None] for part in ("train_images", "test_images")}
    labels = {part: arrays[part].astype(np.int64) for part in ("train_labels", "test_labels")}
    mean, std = measure_colours(images["train_images"])
    return Dataset(name, **images, **labels, class_names=layout.class_names, mean=mean, std=std)


def damaged(layout: Layout, where: Path, what: str) -> DataError:
    return DataError(
        f"{where}: {what}. Download {layout.title} with `tinymixer data download {layout.name}`, "
        "add a folder or an archive with its four files with `tinymixer data add FILE`, or name "
        "another folder with --data-dir"
    )


def _array(member: Member, axes: int) -> np.ndarray:
    """The numbers of an IDX file, uint8 with so many axes, whole."""
    if not member.whole:
        raise ValueError(f"{member.base} is not a regular file")
    if member.size > containers.MOST_BYTES:
        raise ValueError(
            f"{member.base} has {counted(member.size, 'byte')}, which no file of it has"
        )
    content = member.read()
    if content.startswith(b"\x1f\x8b"):
        content = _unpacked(member.base, content)
    if reason := containers.foreign(content[: containers.BLOCK]):
        raise Unreadable(f"{member.base}: {reason}")
    head = 4 + 4 * axes
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) < head:
        raise ValueError(
            f"{member.base} is not an IDX file of bytes with {counted(axes, 'axis')}; "
            f"it begins {content[:4].hex()}"
        )
    shape = tuple(np.frombuffer(content[4:head], ">u4").tolist())
    if math.prod(shape) != len(content) - head:
        raise ValueError(
            f"{member.base} states {' x '.join(map(str, shape))} numbers and has "
            f"{len(content) - head}"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _unpacked(name: str, content: bytes) -> bytes:
    unpacked = zlib.decompressobj(31)  # gzip, with its checksum
    try:
        whole = unpacked.decompress(content, containers.MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"{name} is not a complete .gz file ({error})") from error
    if not unpacked.eof:
        if unpacked.unconsumed_tail:
            raise ValueError(f"{name} unpacks to more than {containers.MOST_BYTES >> 20} MiB")
        raise ValueError(f"{name} is not a complete .gz file")
    return whole


def store(layout: Layout, path: Path, data_dir: Path) -> Path:
    """Check what `path` holds, and store it under its published names in a folder of its own."""
    contents = {}
    for part, array in read(layout, path).items():
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        contents[PARTS[part]] = head + array.tobytes()
    return write_folder(data_dir / layout.name, contents, layout.title)


def download(layout: Layout, data_dir: Path) -> Path:
    """Fetch the four files, check and store them. A file of the user's is left alone."""
    place = data_dir / ".download" / layout.name
    archives = [fetch(sources, place) for sources in layout.sources]
    folder = store(layout, place, data_dir)
    for archive in archives:
        archive.unlink()  # its whole content is in the folder
    with contextlib.suppress(OSError):  # another download may be under way there
        place.rmdir()
        place.parent.rmdir()
    return folder
