"""tinymixer predict."""

import argparse
import csv
import glob
import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from tinymixer import data
from tinymixer.backend import as_index
from tinymixer.cli import own_weights
from tinymixer.cli.options import (
    add_device,
    add_run,
    find_checkpoint,
    load_figures,
    newest_run,
    require_writable,
    save_pictures,
    writable_folder,
)
from tinymixer.cli.output import complain
from tinymixer.cli.recipe import add_tta
from tinymixer.data.pictures import as_seen, is_picture, read_picture
from tinymixer.errors import DataError, printable
from tinymixer.files import write_atomically
from tinymixer.train.checkpoint import load_model
from tinymixer.train.evaluation import log_probabilities, segments
from tinymixer.train.parallel import Workers
from tinymixer.train.records import DatasetRecord
from tinymixer.train.tasks import TASKS

TOP = 5  # classes printed for a picture
ON_A_PAGE, ON_A_PAGE_OF_PIXELS = 40, 10  # pictures that are read, predicted and drawn together
MOST_PAGES = 10  # of the sheet; the table has all pictures
THUMBNAIL = 180  # pixels a side, on a page
NAMED = 20  # unreadable pictures that are printed one by one
SHEET, TABLE = "predictions.png", "predictions.csv"


def add_options(parser: Any) -> None:
    parser.description = (
        "Show what a trained model sees in your pictures: its five most probable classes, or the "
        "classes of the pixels of one that segments, printed and drawn. Of several pictures it "
        f"draws sheets and writes a table, {TABLE}. Pictures that cannot be read, and folders and "
        "patterns without any, are named at the end, and the exit code is then 2."
    )
    parser.set_defaults(func=run)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="picture (JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM, AVIF), folder with pictures in it or "
        "in its folders, or pattern such as 'photos/*.jpg'",
    )
    add_tta(parser)
    add_device(parser)
    add_run(parser)
    own_weights.add_weights(parser)


def run(args: argparse.Namespace) -> int:
    load_figures()
    sources, empty = find_pictures(args.images)
    if not sources:
        raise DataError(empty[0])
    if not (args.run or args.weights or args.model or args.set or newest_run()):
        args.weights = Path(own_weights.USUAL)
        print(f"no run under runs/ yet: predicting with the pretrained weights {args.weights}")
    own = own_weights.load(args)
    if own is not None:
        sees, out = Sees(own.model.to(args.device), own, False, args.device, args.tta), own.out
    else:
        path = find_checkpoint(args.run)
        model, saved = load_model(path)
        pixels = TASKS[saved.header.config.task].pixels
        sees = Sees(model.to(args.device), saved.header.dataset, pixels, args.device, args.tta)
        out = args.out or path.parent
    require_writable(out)
    _keep_apart(args.images, out)
    if len(sources) == 1 and not empty:
        return _predict(sources[0], sees, out)
    code = _predict_all(sources, sees, out)
    for problem in empty:
        code = complain(problem)
    return code


# --- Which pictures -----------------------------------------------------------------------------


def find_pictures(words: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Files as they are named; those in folders and of patterns in natural order, 2.jpg before
    10.jpg.

    And a sentence for each folder without pictures, each pattern that matches none, and for words
    that are neither.
    """
    found: dict[Path, None] = {}
    empty: list[str] = []
    for word in words:
        path = Path(word)
        if not word or "://" in word:
            what = f"{word} is an address" if word else "a name is empty"
            empty.append(f"{what}; give files, folders or patterns of pictures")
            continue
        if path.is_dir():
            inside = [
                Path(folder, name)
                for folder, folders, names in os.walk(path)
                for name in names
                if not any(part.startswith(".") for part in Path(folder).relative_to(path).parts)
            ]
        elif glob.has_magic(word) and not path.exists():
            inside = [Path(match) for match in glob.iglob(word, recursive=True)]
        else:
            found[path] = None
            continue
        pictures = sorted(filter(is_picture, inside), key=_natural)
        if not pictures:
            what = "there is no picture in" if path.is_dir() else "no picture matches"
            empty.append(f"{what} {path}; give files, folders or patterns of pictures")
        found |= dict.fromkeys(pictures)
    return list(found), empty


def _natural(path: Path) -> list[Any]:
    """Sorts 2.jpg before 10.jpg."""
    words = re.split(r"(\d+)", str(path).lower())
    return [int(word) if i % 2 else word for i, word in enumerate(words)]


def _keep_apart(words: Iterable[str], out: Path) -> None:
    """Raise DataError if what is drawn would be a picture when the same words are given again."""
    place = out.resolve()
    for word in filter(None, words):
        path = Path(word)
        if path.is_dir():
            among = place.is_relative_to(path.resolve())
        else:  # of a pattern: a file that is named alone is not a folder of pictures
            matched = [] if path.exists() else glob.iglob(word, recursive=True)
            among = place in {Path(x).resolve() for x in set(map(os.path.dirname, matched))}
        if among:
            raise DataError(
                f"{out}, where the predictions are written, is among the pictures of {word}, and "
                "they would be taken for pictures the next time; choose another folder with --out"
            )


def _keep_sources(sources: list[Path], written: Iterable[Path]) -> None:
    """Raise DataError if what is to be written would replace one of the pictures."""
    known = {(s.st_dev, s.st_ino) for s in (path.stat() for path in sources if path.exists())}
    for path in written:
        if path.exists() and (path.stat().st_dev, path.stat().st_ino) in known:
            raise DataError(
                f"{path} is one of the pictures, and would be replaced by what is drawn of them; "
                "choose another folder with --out"
            )


# --- What the model sees --------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """The predictions of a model for N pictures.

    images uint8 (N, height, width, channels), as seen; shares (N, K), the probabilities of the
    classes or their parts of the pixels; classes (N, height, width) of the pixels, or None.
    """

    images: np.ndarray
    shares: np.ndarray
    classes: np.ndarray | None
    names: tuple[str, ...]

    def top(self, i: int) -> list[tuple[str, float]]:
        best = self.shares[i].argsort(kind="stable")[::-1][:TOP]
        return [(self.names[k], float(self.shares[i, k])) for k in best]

    def line(self, i: int) -> str:
        if self.classes is None:
            said = self.top(i)
        else:
            said = [(self.names[k], self.shares[i, k]) for k in np.flatnonzero(self.shares[i])]
        return ", ".join(f"{printable(name)} {share:.1%}" for name, share in said)


@dataclass(frozen=True)
class Sees:
    """A model and what it was trained on."""

    model: Any
    record: DatasetRecord | own_weights.Ready
    pixels: bool
    device: str
    tta: str = "none"

    def seen(self, picture: Image.Image) -> np.ndarray:
        """What the model sees of a picture: uint8 (height, width, channels)."""
        seen = as_seen(picture, *self.model.image_size)
        if self.record.channels == 1:
            return np.asarray(Image.fromarray(seen).convert("L"))[..., None]
        return seen

    def answer(self, images: list[np.ndarray]) -> Answer:
        x = np.stack(images)
        colours, names = (self.record.mean, self.record.std), self.record.class_names
        if not self.pixels:
            with Workers.of_this_machine(device=self.device) as workers:
                log_p = log_probabilities(self.model, x, *colours, workers, self.tta)
            return Answer(x, np.exp(log_p), None, names)
        classes = segments(self.model, x, *colours, self.tta)
        K = len(names)
        counts = [np.bincount(as_index(each.ravel()), minlength=K) for each in classes]
        shares = np.stack([count / each.size for count, each in zip(counts, classes, strict=True)])
        return Answer(x, shares, classes, names)


# --- What is written ------------------------------------------------------------------------------


def _predict(source: Path, sees: Sees, out: Path) -> int:
    """One picture, drawn in detail."""
    picture = read_picture(source, sees.model.image_size)
    name = f"prediction-{printable(source.stem, 50)}.png".replace("\\", "_")
    _keep_sources([source], [out / name])
    answer = sees.answer([sees.seen(picture)])
    print(f"{printable(str(source))}: {answer.line(0)}")
    if answer.classes is None:
        size = picture.info["size"]
        picture.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
        seen, shares = answer.images[0], answer.shares[0]
        whole = np.asarray(picture)
        figure = load_figures().prediction(whole, seen, shares, answer.names, TOP, size)
    else:
        rows = {"prediction": answer.classes}
        figure = load_figures().segments(answer.images, rows, answer.names, data.IGNORED)
    save_pictures({name: figure}, writable_folder(out))
    return 0


def _predict_all(sources: list[Path], sees: Sees, out: Path) -> int:
    """Page after page, so that no more than the pictures of one are in memory."""
    size = ON_A_PAGE_OF_PIXELS if sees.pixels else ON_A_PAGE
    pieces = [sources[i : i + size] for i in range(0, len(sources), size)]
    names = _page_names(min(len(pieces), MOST_PAGES))
    _keep_sources(sources, [out / name for name in (*names, TABLE)])
    rows: list[tuple[Path, list[tuple[str, float]], str]] = []
    problems: list[str] = []
    pages: list[str] = []
    with tqdm(total=len(sources), desc="pictures", unit="", disable=None, leave=False) as bar:
        for number, piece in enumerate(pieces):
            page = Page([], [], [])
            for source in piece:
                try:
                    page.add(source, sees)
                except DataError as error:
                    problems.append(str(error))
                    rows.append((source, [], str(error)))
                bar.update()
            if not page.sources:
                continue
            answer = sees.answer(page.images)
            for i, source in enumerate(page.sources):
                tqdm.write(f"{printable(str(source))}: {answer.line(i)}")
                rows.append((source, answer.top(i), ""))
            if number < len(names):
                load_figures().save(page.drawn(answer), writable_folder(out) / names[number])
                pages.append(names[number])
    if len(problems) < len(sources):
        _write_table(out / TABLE, rows)
        for name in (*pages, TABLE):
            print(f"wrote {out / name}")
    if len(pieces) > len(names):
        print(f"{TABLE} has all pictures; the {len(names)} sheets show those of the beginning")
    return _name_problems(problems, len(sources))


@dataclass(frozen=True)
class Page:
    """What is read of the pictures that are predicted and drawn together."""

    sources: list[Path]
    images: list[np.ndarray]
    thumbnails: list[np.ndarray]

    def add(self, source: Path, sees: Sees) -> None:
        picture = read_picture(source, sees.model.image_size)
        self.sources.append(source)
        self.images.append(sees.seen(picture))
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        self.thumbnails.append(np.asarray(picture))

    def drawn(self, answer: Answer) -> Any:
        titles = [printable(source.name) for source in self.sources]
        if answer.classes is None:
            return load_figures().predictions(self.thumbnails, titles, answer.shares, answer.names)
        rows = {"prediction": answer.classes}
        return load_figures().segments(answer.images, rows, answer.names, data.IGNORED, titles)


def _page_names(n: int) -> list[str]:
    if n == 1:
        return [SHEET]
    stem, _, suffix = SHEET.rpartition(".")
    return [f"{stem}-{i:0{len(str(n))}}.{suffix}" for i in range(1, n + 1)]


def _write_table(path: Path, rows: list[tuple[Path, list[tuple[str, float]], str]]) -> None:
    """A line for each picture: its most probable classes, or why it cannot be read."""
    columns = max(len(top) for _, top, _ in rows)
    heads = ["class", "probability"]
    for i in range(2, columns + 1):
        heads += [f"class {i}", f"probability {i}"]
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["path", *heads, "problem"])
    for source, top, problem in rows:
        cells = [x for name, share in top for x in (name, f"{share:.6f}")]
        table.writerow([source, *cells, *[""] * (2 * columns - len(cells)), problem])
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"))


def _name_problems(problems: list[str], of: int) -> int:
    """Print what could not be read, at the end where it is seen; the exit code."""
    for problem in problems[:NAMED]:
        complain(problem)
    if len(problems) > NAMED:
        complain(f"... and {len(problems) - NAMED} more, which {TABLE} names")
    if problems and of > 1:
        complain(f"{len(problems)} of {of} pictures could not be read")
    return 2 if problems else 0
