"""What a run saves about itself, as frozen records: each with one writer and one reader.

`to_json` returns what `json.dumps` takes. `from_json` takes what `json.loads` returned, from any
file, and raises ValueError with one sentence for anything that a run does not write: a name that is
missing or unknown, another type, a number that is not finite or out of bounds.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from tinymixer import data
from tinymixer.errors import CheckpointError, DataError, brief, counted
from tinymixer.train.config import Config
from tinymixer.train.machine import Machine
from tinymixer.train.tasks import TASKS

FRACTION = 0.0, 1.0  # bounds of an accuracy
POSITIVE = 0.0, math.inf


@dataclass(frozen=True)
class EpochFigures:
    """How an epoch went: a line of metrics.jsonl, a point in each curve.

    epoch counts from 1, and is a fraction where the training ends within an epoch. Losses in nats,
    accuracies and IoUs (of a segmentation) in 0..1, seconds of training. With validation images
    (val) the test images are measured after the last epoch only.
    """

    epoch: float
    train_loss: float
    train_accuracy: float
    lr: float
    seconds: float
    images_per_s: float
    test_loss: float | None = None
    test_accuracy: float | None = None
    test_iou: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    val_iou: float | None = None

    @classmethod
    def of(cls, epoch: float, progress: "Progress", **measured: float) -> "EpochFigures":
        """Those of an epoch that is done: of its images, and what else was measured."""
        return cls(
            epoch=epoch,
            train_loss=progress.loss / progress.images,
            train_accuracy=progress.correct / progress.images,
            seconds=progress.seconds,
            images_per_s=progress.images / progress.seconds,
            **measured,
        )

    def to_json(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, found: Any, what: str = "a line of figures") -> "EpochFigures":
        bounds = {
            **dict.fromkeys(("epoch", "lr", "seconds", "images_per_s"), POSITIVE),
            "train_accuracy": FRACTION,
            **{f"{p}_{x}": FRACTION for p in ("test", "val") for x in ("accuracy", "iou")},
        }
        row = cls(**_numbers(cls, found, what, bounds))
        for part in ("test", "val"):
            if (f"{part}_loss" in found) != (f"{part}_accuracy" in found):
                raise ValueError(f"{what} has {part}_loss or {part}_accuracy without the other")
        if row.test_loss is None and row.val_loss is None:
            raise ValueError(f"{what} has no test_loss and no val_loss")
        return row


@dataclass(frozen=True)
class Progress:
    """Sums over the images of the epoch that is not done yet: losses in nats, seconds of training.

    correct may have a fraction: an image of which half the pixels are classified correctly.
    """

    loss: float = 0.0
    correct: float = 0.0
    images: int = 0
    seconds: float = 0.0

    def plus(
        self, *, loss: float = 0.0, correct: float = 0.0, images: int = 0, seconds: float = 0.0
    ) -> "Progress":
        return Progress(
            self.loss + loss, self.correct + correct, self.images + images, self.seconds + seconds
        )

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Any, what: str = "the progress") -> "Progress":
        bounds = dict.fromkeys(("correct", "images", "seconds"), POSITIVE)
        sums = cls(**_numbers(cls, found, what, bounds))
        images = _count(found["images"], f"{what}'s images")
        if sums.correct > images:
            raise ValueError(
                f"{what} has {counted(images, 'image')}, but {counted(sums.correct, 'correct one')}"
            )
        return replace(sums, images=images)


@dataclass(frozen=True)
class DatasetRecord:
    """What a run was trained on: its one record of that, which everything else asks.

    source: where the data set can be loaded from again, None if it was made in memory; image_size
    (height, width) in pixels; mean and std of each channel in pixel units, 0..255.
    """

    name: str
    source: data.Source | None
    fingerprint: str  # see Dataset.fingerprint
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: tuple[int, int]
    channels: int
    train_images: int  # how many
    test_images: int

    @classmethod
    def of(cls, dataset: data.Dataset) -> "DatasetRecord":
        _, height, width, channels = dataset.train_images.shape
        return cls(
            dataset.name,
            dataset.source,
            dataset.fingerprint,
            tuple(dataset.class_names),
            tuple(map(float, dataset.mean)),
            tuple(map(float, dataset.std)),
            (height, width),
            channels,
            len(dataset.train_images),
            len(dataset.test_images),
        )

    def difference(self, given: "DatasetRecord", names: Iterable[str]) -> str:
        """The first of these fields in which `given` differs, in words; "" if all are equal."""
        for name in names:
            mine, theirs = getattr(self, name), getattr(given, name)
            if mine != theirs:
                return (
                    f"{self.name} with {name} {brief(mine, 100)}, but {given.name} has "
                    f"{brief(theirs, 100)}"
                )
        return ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Any, what: str = "the data set") -> "DatasetRecord":
        entries = _entries(cls, found, what)
        for name in ("name", "fingerprint"):
            if not _is_line(entries[name]):
                raise _wrong(f"{what}'s {name}", entries[name], "a line of text")
        if not re.fullmatch("[0-9a-f]{64}", entries["fingerprint"]):
            raise _wrong(f"{what}'s fingerprint", entries["fingerprint"], "64 hexadecimal digits")
        names = entries["class_names"]
        if not isinstance(names, list) or not names or not all(map(_is_line, names)):
            raise _wrong(f"{what}'s class_names", names, "a list of printable names, at least one")
        channels = entries["channels"]
        if channels not in (1, 3) or type(channels) is not int:
            raise _wrong(f"{what}'s channels", channels, "1 or 3")
        colours = {}
        for name in ("mean", "std"):
            numbers = entries[name]
            if not isinstance(numbers, list) or len(numbers) != channels:
                raise _wrong(
                    f"{what}'s {name}", numbers, f"a list of {counted(channels, 'number')}"
                )
            colours[name] = tuple(_number(x, f"{what}'s {name}", *POSITIVE) for x in numbers)
        if not all(colours["std"]):
            raise _wrong(f"{what}'s std", entries["std"], "numbers above 0")
        sides = entries["image_size"]
        if not isinstance(sides, list) or len(sides) != 2:
            raise _wrong(f"{what}'s image_size", sides, "a height and a width")
        for name in ("image_size", "train_images", "test_images"):
            for count in sides if name == "image_size" else [entries[name]]:
                if not _count(count, f"{what}'s {name}"):
                    raise _wrong(f"{what}'s {name}", count, "1 or more")
        source = entries["source"]
        if source is not None:
            source = data.Source(**_entries(data.Source, source, f"{what}'s source"))
        changes = {"source": source, "class_names": tuple(names), "image_size": tuple(sides)}
        return cls(**{**entries, **colours, **changes})


@dataclass(frozen=True)
class Header:
    """What a checkpoint says beside its arrays: whose they are, and where the run stands.

    step is the next one to do within the epoch, from 0; progress sums up the steps before it.
    extended: each time that the run was given another end, the epochs done and those planned until
    then. Their learning rates followed the schedule of that plan.
    """

    config: Config
    dataset: DatasetRecord
    step: int = 0
    progress: Progress = Progress()
    history: tuple[EpochFigures, ...] = ()
    extended: tuple[tuple[float, float], ...] = ()
    machine: Machine | None = None  # that trained up to here; None if that is not known

    @property
    def epoch(self) -> int:
        """The epoch that the run is in, from 0: as many are done."""
        return len(self.history)

    def load_dataset(self, data_dir: str | None = None, **changes: Any) -> data.Dataset:
        """The run's data set from its source, or from what `changes` to the source say.

        Its mean and std are the run's, which may be those of the weights that it began from. Raises
        DataError if it was made in memory and no other is named, or if it is missing.
        """
        begun, named = self.dataset.source, changes.get("dataset")
        if named is not None and (begun is None or data.Source(named).kind != begun.kind):
            begun = data.Source(pixels=TASKS[self.config.task].pixels)
            if data.Source(named).kind == "folder":
                begun = replace(begun, image_size=self.dataset.image_size[0])
        if begun is None:
            raise DataError(
                f'the data set "{self.dataset.name}" of this run was made in memory and cannot be '
                "loaded again; name a data set of the same classes with --dataset SOURCE, such as "
                "folder:PATH or npz:FILE"
            )
        source = replace(begun, **changes)
        try:
            loaded = source.load(data_dir)
        except DataError as error:
            if source.path is None or Path(source.path).exists():
                raise
            raise DataError(
                f"{error}; if it has moved, name its place with --dataset {source.kind}:PATH"
            ) from error
        if len(loaded.mean) != len(self.dataset.mean):  # other colours: the caller says so
            return loaded
        seen = replace(loaded, mean=self.dataset.mean, std=self.dataset.std)
        return seen.loaded_from(loaded.source)

    def until(self, epochs: float) -> "Header":
        """The same run where it stands, with another end.

        An epoch of which a part was to be the last is open again, as if it were under way. Raises
        CheckpointError if these epochs are done already.
        """
        config, step, progress, history = self.config, self.step, self.progress, self.history
        if epochs == config.epochs:
            return self
        per_epoch = config.steps_per_epoch(self.dataset.train_images)
        if history and history[-1].epoch < len(history):
            *done, last = history
            history, step = tuple(done), round((last.epoch - len(done)) * per_epoch)
            images = min(step * config.batch_size, self.dataset.train_images - config.val_size)
            correct = min(last.train_accuracy * images, images)
            progress = Progress(last.train_loss * images, correct, images, last.seconds)
        done_steps = len(history) * per_epoch + step
        longer = replace(config, epochs=epochs)
        if longer.steps(per_epoch) <= done_steps:
            raise CheckpointError(
                f"--epochs {epochs:g}: the run has done "
                f"{counted(done_steps / per_epoch, 'epoch')} already; "
                "give more, or leave it out"
            )
        extended = (*self.extended, (done_steps / per_epoch, config.epochs))
        return Header(longer, self.dataset, step, progress, history, extended, self.machine)

    def to_json(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "dataset": self.dataset.to_json(),
            "step": self.step,
            "progress": self.progress.to_json(),
            "history": [figures.to_json() for figures in self.history],
            "extended": self.extended,
            "machine": self.machine and self.machine.to_json(),
        }

    @classmethod
    def from_json(cls, found: Any, what: str = "the header") -> "Header":
        entries = _entries(cls, found, what, optional=False)
        step = _count(entries["step"], f"{what}'s step")
        rows = entries["history"]
        if not isinstance(rows, list):
            raise _wrong(f"{what}'s history", rows, "a list, one entry for each epoch")
        history = [
            EpochFigures.from_json(row, f"{what}'s history of epoch {i}")
            for i, row in enumerate(rows, 1)
        ]
        for i, figures in enumerate(history, 1):
            if not (figures.epoch == i or (i == len(history) and i - 1 < figures.epoch < i)):
                raise ValueError(f"{what}'s history has epoch {figures.epoch:g} at place {i}")
        config = _config(entries["config"], f"{what}'s config")
        dataset = DatasetRecord.from_json(entries["dataset"], f"{what}'s dataset")
        progress = Progress.from_json(entries["progress"], f"{what}'s progress")
        images = min(step * config.batch_size, dataset.train_images - config.val_size)
        if progress.images != images:
            raise ValueError(
                f"{what} says {counted(step, 'step')} but {counted(progress.images, 'image')}, "
                f"expected {images}"
            )
        machine = entries["machine"]
        return cls(
            config,
            dataset,
            step,
            progress,
            tuple(history),
            _pairs(entries["extended"], f"{what}'s extended"),
            None if machine is None else Machine.from_json(machine, f"{what}'s machine"),
        )


def _is_line(found: Any) -> bool:
    return isinstance(found, str) and found.isprintable()


def _pairs(found: Any, what: str) -> tuple[tuple[float, float], ...]:
    if not isinstance(found, list) or not all(isinstance(x, list) and len(x) == 2 for x in found):
        raise _wrong(what, found, "a list of pairs")
    return tuple((_number(a, what, *POSITIVE), _number(b, what, *POSITIVE)) for a, b in found)


def _config(found: Any, what: str) -> Config:
    """Options that the file does not have are those of a tinymixer that had none of that name."""
    known = _entries(Config, found, what)
    _entries(data.Augment, known.get("augment", {}), f"{what}'s augment")
    return Config.from_dict({"augment": {}} | known)


def _entries(cls: Any, found: Any, what: str, *, optional: bool = True) -> dict[str, Any]:
    """The entries of a JSON object for the fields of cls; those with a default may be missing."""
    if not isinstance(found, dict):
        raise _wrong(what, found, "named entries")
    names = [field.name for field in fields(cls)]
    for field in fields(cls):
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if field.name not in found and not (optional and has_default):
            raise ValueError(f"{what} has no {field.name}")
    for name in found:
        if name not in names:
            raise ValueError(f"{what} has an entry {shown(name)}, unknown to this tinymixer")
    return found


def _numbers(
    cls: Any, found: Any, what: str, bounds: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """The entries for the fields of cls, each a number within its bounds, if it has some."""
    return {
        name: _number(value, f"{what}'s {name}", *bounds.get(name, (-math.inf, math.inf)))
        for name, value in _entries(cls, found, what, optional=cls is EpochFigures).items()
    }


def _number(found: Any, what: str, low: float, high: float) -> float:
    """A JSON number as a float: finite, from low to high."""
    if isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 2**1023:
        if low <= found <= high:
            return float(found)
        raise _wrong(what, found, f"a number from {low:g}" + f" to {high:g}" * math.isfinite(high))
    raise _wrong(what, found, "a finite number")


def _count(found: Any, what: str) -> int:
    if type(found) is int and 0 <= found < 2**63:
        return found
    raise _wrong(what, found, "a whole number of 0 or more")


def _wrong(what: str, found: Any, expected: str) -> ValueError:
    return ValueError(f"{what} is {shown(found)}, expected {expected}")


def shown(found: Any, most: int = 60) -> str:
    """A value of a JSON file, on one short line."""
    try:
        text = json.dumps(found)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints
        text = f"a {type(found).__name__}"
    return text if len(text) <= most else text[: most - 3] + "..."
