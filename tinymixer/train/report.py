"""What a run reports: a line for each epoch, and the files beside the checkpoints."""

from contextlib import suppress
from typing import Any

from tqdm import tqdm

from tinymixer.errors import counted
from tinymixer.train.config import Config
from tinymixer.train.records import EpochFigures


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
    """Print a line, above a bar, if possible: a run goes on when the reader of its output (`head`)
    has left.
    """
    with suppress(OSError), tqdm.external_write_mode():
        print(text, flush=True)


def bar(config: Config, epoch: int, images: int, done: int, *, quiet: bool) -> Any:
    """A progress bar over the images of an epoch, counted from 0, where there is a terminal."""
    return tqdm(
        desc=f"epoch {epoch + 1}" + (f"/{config.epochs:g}" if config.epochs else ""),
        total=images,
        initial=done,
        unit=" images",
        leave=False,
        disable=quiet or None,  # None: only where there is a terminal
    )


def decided(config: Config, seconds: float) -> str:
    """How many epochs the minutes hold, in words."""
    minutes = counted(config.minutes, "minute")
    epochs = counted(float(f"{config.epochs:.4g}"), "epoch")
    return f"{minutes}: {epochs}, {seconds:.0f} s of them done"
