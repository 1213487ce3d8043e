"""Sheets of images with their classes and a model's predictions."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tinymixer.train.figures.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    card,
    chart,
    drawable,
    label,
    tiles,
)

LEGEND = 20  # classes that a legend names, those of most pixels


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> Figure:
    """Misclassified images, in the order given: "cat 3%, not dog 95%" is a cat classified as a dog.

    The percentages are the model's probabilities of the true class and of its prediction.
    """
    captions = [
        f"{label(class_names[true], 14)} {p[true]:.0%}\n"
        f"not {label(class_names[guess], 14)} {p[guess]:.0%}"
        for true, guess, p in zip(labels, predictions, probabilities, strict=True)
    ]
    return sheet(images, captions, "Mistakes: what it is, not what the model says")


def sample_sheet(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Images with the names of their classes, in the order given."""
    return sheet(images, [label(class_names[k], 18) for k in labels], "")


def sheet(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Images in rows, each over its caption."""
    columns = min(len(images), max(4, math.ceil(math.sqrt(1.5 * len(images)))))
    rows = math.ceil(len(images) / columns)
    side = min(1.1, 9 / columns)  # of one image, in inches
    caption = (
        0.05 + 0.14 * (1 + max(text.count("\n") for text in captions)) / side
    )  # its height, in sides
    figure = card(1.08 * columns * side + 0.2, rows * (1 + caption) * side + 0.4 * bool(title))
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, color=INK)
    for (x, y), text in zip(tiles(axes, images, columns, below=caption), captions, strict=True):
        axes.text(x + 0.5, y + 0.03, text, ha="center", va="top", fontsize=7, color=INK)
    return figure


def segments(
    images: np.ndarray,
    rows: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    ignored: int,
    titles: Sequence[str] = (),
) -> Figure:
    """Images above the classes of their pixels: a column for each image, a row for each of `rows`.
    Titles stand above the images.

    rows: title -> class numbers (N, height, width), such as the truth and a prediction; pixels of
    the number `ignored` are black. The last class, the background, is white. A legend names the
    classes that occur.
    """
    palette = _class_colours(len(class_names))
    n, high = len(images), images.shape[1] / images.shape[2]
    side = min(1.1, 10 / n)  # of one image, in inches
    figure = card(n * side * 1.05 + 2.4, (1 + len(rows)) * side * high * 1.05 + 0.3)
    axes = figure.subplots(1 + len(rows), n, squeeze=False)
    for row, (title, shown) in enumerate({"image": images, **rows}.items()):
        if shown.ndim == 3:
            known = shown != ignored
            shown = palette[np.where(known, shown, 0)] * known[..., None]
        for picture, image in zip(axes[row], shown, strict=True):
            picture.imshow(drawable(image), interpolation="nearest")
            picture.set(xticks=[], yticks=[])
            picture.spines[:].set_color("#cccccc")
        axes[row, 0].set_ylabel(title, fontsize=9, color=INK)
    for picture, title in zip(axes[0], titles, strict=False):
        picture.set_title(label(title, 16), fontsize=6, color=GREY)
    numbers = np.concatenate([classes.ravel() for classes in rows.values()])
    seen, pixels = np.unique(numbers[numbers != ignored], return_counts=True)
    most = np.sort(seen[pixels.argsort(kind="stable")[::-1][:LEGEND]])
    handles = [
        Patch(facecolor=palette[k], edgecolor="#cccccc", label=label(class_names[k])) for k in most
    ]
    if len(seen) > len(most):
        handles.append(Patch(visible=False, label=f"and {len(seen) - len(most)} more"))
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
    return figure


def _class_colours(K: int) -> np.ndarray:
    """(K, 3): colours that are easy to tell apart, the last of them white."""
    if K <= 11:
        colours = colormaps["tab10"](np.arange(K - 1))
    else:
        colours = colormaps["turbo"](np.linspace(0, 1, K - 1))
    return np.concatenate([colours[:, :3], np.ones((1, 3))])


def prediction(
    original: np.ndarray,
    seen: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    k: int = 5,
    size: tuple[int, int] | None = None,
) -> Figure:
    """A picture, the small image that the model sees of it, and the k most probable classes.

    original (any size, 3) and seen (height, width, 3 or 1) uint8; probabilities (K,). size is
    (width, height) of the picture, where `original` has fewer pixels.
    """
    figure = card(9, 3)
    whole, small, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    whole.imshow(original)
    small.imshow(drawable(seen), interpolation="nearest")
    sizes = (size or original.shape[1::-1], seen.shape[1::-1])
    titles = ("picture", "what the model sees")
    for axes, title, (width, height) in zip((whole, small), titles, sizes, strict=True):
        axes.set_title(f"{title}, {width} × {height}", fontsize=10, color=INK)
        axes.axis("off")
    top = probabilities.argsort()[::-1][:k]
    p = probabilities[top]
    colours = [ORANGE] + [BLUE] * (len(top) - 1)
    drawn = bars.barh(range(len(top)), p, color=colours)
    bars.bar_label(drawn, [f"{share:.1%}" for share in p], padding=4, fontsize=9, color=INK)
    bars.set_yticks(range(len(top)), [label(class_names[i]) for i in top])
    chart(bars, "what it says")
    bars.grid(False)
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.25), xticks=[])
    bars.spines["bottom"].set_visible(False)
    bars.tick_params(length=0)
    return figure


def predictions(
    pictures: Sequence[np.ndarray],
    titles: Sequence[str],
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> Figure:
    """A sheet of pictures, each under its title and over its two most probable classes.

    pictures: any sizes (height, width, 3), uint8; probabilities (N, K). A bar under each picture is
    as long as the probability of the first class.
    """
    columns = min(len(pictures), max(4, math.ceil(math.sqrt(1.6 * len(pictures)))))
    rows = math.ceil(len(pictures) / columns)
    wide, high = 1.12, 1.56  # of a cell, in sides of a picture
    side = min(1.5, 11 / columns / wide)  # in inches
    figure = card(columns * wide * side, rows * high * side)
    axes = figure.subplots()
    for i, (picture, title, p) in enumerate(zip(pictures, titles, probabilities, strict=True)):
        x, y = wide * (i % columns), high * (i // columns)
        height, width = np.array(picture.shape[:2]) / max(picture.shape[:2])
        left, low = x + (1 - width) / 2, y + (1 + height) / 2
        axes.imshow(picture, extent=(left, left + width, low, low - height))
        best = p.argsort(kind="stable")[::-1][:2]
        for at, share, colour in ((y + 1.06, 1.0, "#e6e6e6"), (y + 1.06, p[best[0]], ORANGE)):
            axes.plot((x, x + share), (at, at), color=colour, lw=3, solid_capstyle="butt")
        axes.text(x, y - 0.03, label(title, 20), va="bottom", fontsize=6, color=GREY)
        for k, at, look in zip(best, (1.2, 1.34), ("bold", "normal"), strict=False):
            for word, where, side_of in (
                (label(class_names[k], 15), x, "left"),
                (f"{p[k]:.0%}", x + 1, "right"),
            ):
                axes.text(where, y + at, word, ha=side_of, fontsize=7.5, weight=look, color=INK)
    axes.set(xlim=(-0.06, columns * wide - 0.06), ylim=(rows * high - 0.17, -0.17), aspect="equal")
    axes.axis("off")
    return figure
