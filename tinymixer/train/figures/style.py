"""The look that all pictures share."""

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from tinymixer.files import write_atomically

BLUE, ORANGE, GREEN = "#2166ac", "#d6604d", "#1b7837"
GREY, INK = "#8c8c8c", "#222222"
MANY = (BLUE, ORANGE, GREEN, "#762a83", "#b8860b", "#01808c", "#c51b7d", INK)  # easy to tell apart


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write `figure` to `path` as PNG, whole or not at all: an older file stays until then."""
    write_atomically(Path(path), lambda file: figure.savefig(file, format="png", dpi=figure.dpi))


def card(width: float, height: float, title: str = "") -> Figure:
    """An empty white figure, which reads on light and on dark pages; sides in inches."""
    figure = Figure((width, height), dpi=120, facecolor="white", layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def chart(axes: Axes, title: str) -> None:
    """The look of everything with axes to read: title, light grid, two spines."""
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def label(name: str, most: int = 24) -> str:
    """A name of the user's for matplotlib: no mathematics, at most `most` characters.

    Characters that its font does not have are drawn as boxes.
    """
    text = " ".join(name.split())
    if len(text) > most:
        tail = most // 3
        text = f"{text[: most - 1 - tail]}…{text[-tail:]}"
    text = "".join(x if ord(x) in _characters() else "□" for x in text)
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # a legend leaves out what begins with _


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def drawable(image: np.ndarray) -> np.ndarray:
    """The image as matplotlib takes it: a grey one (height, width, 1) with three colours."""
    return image.repeat(3, -1) if image.shape[2:] == (1,) else image


def tiles(
    axes: Axes, images: Iterable[np.ndarray], columns: int, below: float = 0, **look: Any
) -> list[tuple[float, float]]:
    """Draw images in rows, each one unit wide; their lower left corners, y pointing down.

    `below` leaves room under each.
    """
    corners = []
    for i, image in enumerate(images):
        high = image.shape[0] / image.shape[1]
        x, y = 1.08 * (i % columns), (high + max(below, 0.08)) * (i // columns) + high
        axes.imshow(
            drawable(image), extent=(x, x + 1, y, y - high), interpolation="nearest", **look
        )
        corners.append((x, y))
    axes.set(
        xlim=(-0.04, 1.08 * columns - 0.04), ylim=(y + max(below, 0.04), -0.04), aspect="equal"
    )
    axes.axis("off")
    return corners
