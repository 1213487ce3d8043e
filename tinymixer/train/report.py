"""What people read of a run: a line for each epoch, and the files beside the checkpoints."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinymixer.files import write_atomically
from tinymixer.train.config import Config


def line(figures_of_epoch: Mapping[str, Any]) -> str:
    """An epoch of the history in words."""
    text = (
        "epoch {epoch:3g}   train loss {train_loss:.3f}  accuracy {train_accuracy:6.2%}   "
        "test loss {test_loss:.3f}  accuracy {test_accuracy:6.2%}   "
    )
    if "test_iou" in figures_of_epoch:
        text += "mean IoU {test_iou:6.2%}   "
    return (text + "{seconds:.0f} s, {images_per_s:.0f} images/s").format(**figures_of_epoch)


def say(text: str) -> None:
    """Print a line, if it can be: a run does not end because `head` has read enough of it."""
    with suppress(OSError):
        print(text, flush=True)


def write(folder: Path, config: Config, history: Sequence[dict[str, Any]]) -> None:
    """Bring config.json, metrics.jsonl and curves.png in `folder` up to the history."""
    lines = "".join(json.dumps(figures_of_epoch) + "\n" for figures_of_epoch in history)
    write_atomically(folder / "metrics.jsonl", lines.encode())
    write_atomically(folder / "config.json", (json.dumps(asdict(config), indent=2) + "\n").encode())
    if history:
        from tinymixer.train import figures  # only here: matplotlib takes up to a second to import

        figures.save(figures.curves(history), folder / "curves.png")
