"""Floor 5. What the lessons share: checks that never end in a traceback, and a curve that grows.

with checking("Exercise 1"):
    ...                         # any code that looks at a learner's answer
history = watch(trainer)        # trainer.run(), drawn while it trains
seen = remember(trainer, W1)    # and what W1 was at moments of that training
"""

import reprlib
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tinymixer.backend import to_numpy
from tinymixer.engine import Tensor
from tinymixer.errors import counted
from tinymixer.train.figures.style import BLUE, GREY, INK
from tinymixer.train.records import EpochFigures

REDRAW = 0.5  # seconds between two drawings of a curve
WINDOW = 20  # steps that its mean runs over


@contextmanager
def checking(exercise: str) -> Iterator[None]:
    """Print an error in its `with` block as a sentence: an answer may be None, a list, or raise.

    What the code within has called `answer` is shown beside the error.
    """
    try:
        yield
    except Exception as error:
        print(f"{exercise}: {_in_words(error)}")


def _in_words(error: Exception) -> str:
    said = f"the check stops with {type(error).__name__}: {error}."
    if isinstance(error, NameError):
        return f"{said} Is it a typo, or has the cell above not been run?"
    known = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    answers = [names["answer"] for names in known if "answer" in names]
    if not answers:
        return f"{said} Look at your answer again: does it work with the arguments above?"
    if answers[-1] is None:
        return f"{said} Your answer is None: is a `return` missing?"
    kind = type(answers[-1]).__name__
    return f"{said} Your answer is of type {kind}: {reprlib.repr(answers[-1])}."


def watch(trainer: Any) -> list[EpochFigures]:
    """Train to the end, as `trainer.run()` does, and draw the loss of every step meanwhile.

    In a notebook the figure is redrawn while it grows; elsewhere it is not shown.
    """
    step, losses, screen = trainer.training_step, [], _Screen()

    def watched(*batch: Any, **options: Any) -> Any:
        found = step(*batch, **options)
        losses.append(float(np.average(found.losses, weights=found.sizes)))
        screen.show(losses, trainer.steps)
        return found

    trainer.training_step = watched
    try:
        history: list[EpochFigures] = trainer.run()
    finally:
        trainer.training_step = step
    screen.show(losses, trainer.steps, last=True)
    return history


def remember(trainer: Any, parameter: Tensor, n: int = 15) -> dict[str, np.ndarray]:
    """What a parameter is before training, and at n moments of it, the end being the last.

    {"before training": array, "after 25 of 375 steps": array, ...}: the later ones are added while
    the trainer runs.
    """
    step = trainer.training_step
    seen = {"before training": to_numpy(parameter.data).copy()}

    def remembered(*batch: Any, number: int, **options: Any) -> Any:
        found = step(*batch, number=number, **options)
        done, steps = number + 1, trainer.steps
        if done * n // steps > number * n // steps:
            seen[f"after {done} of {counted(steps, 'step')}"] = to_numpy(parameter.data).copy()
        return found

    trainer.training_step = remembered
    return seen


class _Screen:
    """Where a notebook shows a figure, again and again in the same place."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.shown_at = -np.inf

    def show(self, losses: list[float], steps: int, last: bool = False) -> None:
        if not _in_notebook() or (time.monotonic() - self.shown_at < REDRAW and not last):
            return
        from IPython.display import display

        figure = growing_curve(losses, steps)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        self.shown_at = time.monotonic()


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return get_ipython() is not None  # type: ignore[no-untyped-call]


def growing_curve(losses: list[float], steps: int) -> Figure:
    """The loss of each step so far, of `steps` in all, and its running mean."""
    figure = Figure((7, 2.8), dpi=100, facecolor="white", layout="constrained")
    axes = figure.subplots()
    number = np.arange(1, len(losses) + 1)
    total = np.concatenate([[0.0], np.cumsum(losses)])
    first = np.maximum(number - WINDOW, 0)
    axes.plot(number, losses, color=GREY, lw=0.6)
    axes.plot(number, (total[number] - total[first]) / (number - first), color=BLUE, lw=2)
    axes.set(xlim=(0, steps), ylim=(0, 1.1 * max(losses)), xlabel="training step")
    axes.set_title("training loss: each batch (grey), mean of the last 20 (blue)", color=INK)
    axes.title.set_fontsize(10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
