"""Sheets of images with their classes and a model's predictions."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tinymixer.train.figures.style import BLUE, INK, ORANGE, card, chart, drawable, tiles


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
        f"{class_names[label]} {p[label]:.0%}\nnot {class_names[guess]} {p[guess]:.0%}"
        for label, guess, p in zip(labels, predictions, probabilities, strict=True)
    ]
    return _sheet(images, captions, "Mistakes: what it is, not what the model says")


def sample_sheet(images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Images with the names of their classes, in the order given."""
    return _sheet(images, [class_names[label] for label in labels], "")


def _sheet(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
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
) -> Figure:
    """Images above the classes of their pixels: a column for each image, a row for each of `rows`.

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
    seen = np.unique(np.concatenate([classes.ravel() for classes in rows.values()]))
    handles = [
        Patch(facecolor=palette[k], edgecolor="#cccccc", label=class_names[k])
        for k in seen
        if k != ignored
    ]
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
) -> Figure:
    """A picture, the small image that the model sees of it, and the k most probable classes.

    original (any size, 3) and seen (height, width, 3 or 1) uint8; probabilities (K,).
    """
    figure = card(9, 3)
    whole, small, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    whole.imshow(original)
    small.imshow(drawable(seen), interpolation="nearest")
    for axes, image, title in ((whole, original, "picture"), (small, seen, "what the model sees")):
        height, width, _ = image.shape
        axes.set_title(f"{title}, {width} × {height}", fontsize=10, color=INK)
        axes.axis("off")
    top = probabilities.argsort()[::-1][:k]
    p = probabilities[top]
    colours = [ORANGE] + [BLUE] * (len(top) - 1)
    drawn = bars.barh([class_names[i] for i in top], p, color=colours)
    bars.bar_label(drawn, [f"{share:.1%}" for share in p], padding=4, fontsize=9, color=INK)
    chart(bars, "what it says")
    bars.grid(False)
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.25), xticks=[])
    bars.spines["bottom"].set_visible(False)
    bars.tick_params(length=0)
    return figure
