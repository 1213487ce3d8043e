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
    words = [f"epoch {epoch.epoch:3g}"]
    for part in ("train", "val", "test"):
        loss, accuracy, iou = (
            getattr(epoch, f"{part}_{what}", None) for what in ("loss", "accuracy", "iou")
        )
        if loss is not None:
            words.append(f"{part} loss {loss:.3f}  accuracy {accuracy:6.2%}")
        if iou is not None:
            words.append(f"mean IoU {iou:6.2%}")
    return "   ".join([*words, f"{epoch.seconds:.0f} s, {epoch.images_per_s:.0f} images/s"])


def say(text: str) -> None:
    """Print a line if possible: a run goes on when the reader of its output (`head`) has left."""
    with suppress(OSError):
        print(text, flush=True)


def write(
    folder: Path, config: Config, dataset: DatasetRecord, history: Sequence[EpochFigures]
) -> None:
    """Write config.json and metrics.jsonl to `folder`, for the history so far."""
    lines = "".join(json.dumps(epoch.to_json()) + "\n" for epoch in history)
    write_atomically(folder / "metrics.jsonl", lines.encode())
    said = {**asdict(config), "dataset": dataset.to_json()}
    write_atomically(folder / "config.json", (json.dumps(said, indent=2) + "\n").encode())


def draw(folder: Path, history: Sequence[EpochFigures]) -> None:
    """Draw curves.png in `folder`."""
    from tinymixer.train import figures  # only here: matplotlib takes up to a second to import

    figures.save(figures.curves(history), folder / "curves.png")
