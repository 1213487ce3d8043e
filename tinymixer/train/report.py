"""What a run reports: a line for each epoch, and the files beside the checkpoints."""

from contextlib import suppress

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
    """Print a line if possible: a run goes on when the reader of its output (`head`) has left."""
    with suppress(OSError):
        print(text, flush=True)
