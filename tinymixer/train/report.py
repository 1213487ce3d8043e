"""What a run reports: a line for each epoch, and the files beside the checkpoints."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from tinymixer.files import write_atomically
from tinymixer.train.config import Config
from tinymixer.train.records import DatasetRecord, EpochFigures


def line(epoch: EpochFigures) -> str:
    """An epoch of the history in words."""
    iou = "" if epoch.test_iou is None else f"mean IoU {epoch.test_iou:6.2%}   "
    return (
        f"epoch {epoch.epoch:3g}   "
        f"train loss {epoch.train_loss:.3f}  accuracy {epoch.train_accuracy:6.2%}   "
        f"test loss {epoch.test_loss:.3f}  accuracy {epoch.test_accuracy:6.2%}   "
        f"{iou}{epoch.seconds:.0f} s, {epoch.images_per_s:.0f} images/s"
    )


def say(text: str) -> None:
    """Print a line if possible: a run goes on when the reader of its output (`head`) has left."""
    with suppress(OSError):
        print(text, flush=True)


def write(
    folder: Path, config: Config, dataset: DatasetRecord, history: Sequence[EpochFigures]
) -> None:
    """Write config.json, metrics.jsonl and curves.png to `folder`, for the history so far."""
    lines = "".join(json.dumps(epoch.to_json()) + "\n" for epoch in history)
    write_atomically(folder / "metrics.jsonl", lines.encode())
    said = {**asdict(config), "dataset": dataset.to_json()}
    write_atomically(folder / "config.json", (json.dumps(said, indent=2) + "\n").encode())
    if history:
        from tinymixer.train import figures  # only here: matplotlib takes up to a second to import

        figures.save(figures.curves(history), folder / "curves.png")
