"""Floor 5. Pictures of how a training went and of what a model learned.

Each function takes NumPy arrays and returns a matplotlib Figure; `save` writes it. Only the
object interface of matplotlib is used: no window, no global state, safe in any thread.

images are (N, height, width, 3) uint8; labels and predictions (N,) are class numbers; probabilities
are (N, K). Accuracies are fractions, 0..1.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tinymixer.files import write_atomically
from tinymixer.train.profile import Row

BLUE, ORANGE, GREEN = "#2166ac", "#d6604d", "#1b7837"
GREY, INK = "#8c8c8c", "#222222"
MANY = (BLUE, ORANGE, GREEN, "#762a83", "#b8860b", "#01808c", "#c51b7d", INK)  # tell apart


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write `figure` to `path` as PNG, whole or not at all: an older file stays until then."""
    write_atomically(Path(path), lambda file: figure.savefig(file, format="png", dpi=figure.dpi))


def curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss, accuracy and learning rate against epochs.

    history has one mapping per epoch: epoch (from 1; the last may be a fraction), train_loss,
    test_loss, train_accuracy, test_accuracy, lr, seconds, images_per_s. A value that is missing or
    None leaves no point. Where there is a test_iou it is drawn too. The legends give the last
    values; the best test accuracy, or IoU, wears a ring.

    Raises ValueError for an empty history.
    """
    if not history:
        raise ValueError("curves: the history has no epoch yet; train for one first")
    figure = _card(10, 3.4, _pace(history))
    loss, accuracy, rate = figure.subplots(1, 3)
    for part, colour in (("train", BLUE), ("test", ORANGE)):
        _curve(loss, history, f"{part}_loss", part + " {:.3f}", colour)
        _curve(accuracy, history, f"{part}_accuracy", part + " {:.1%}", colour)
    _curve(rate, history, "lr", "last {:.2g}", INK)
    rate.set_ylim(bottom=0)
    score, colour, scores = "test_accuracy", ORANGE, "accuracy"
    if "test_iou" in history[-1]:
        score, colour, scores = "test_iou", GREEN, "accuracy and mean IoU"
        _curve(accuracy, history, score, "test IoU {:.1%}", colour)
    epochs, reached = _series(history, score)
    if len(reached):
        best = reached.argmax()
        label = f"best {reached[best]:.1%}, epoch {epochs[best]:g}"
        accuracy.plot(epochs[best], reached[best], "o", mec=colour, mfc="none", ms=9, label=label)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes, title in ((loss, "loss"), (accuracy, scores), (rate, "learning rate")):
        _chart(axes, title)
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    return figure


def _pace(history: Sequence[Mapping[str, Any]]) -> str:
    """What the training cost, in one line: the median epoch speaks for all."""
    seconds, speed = (_series(history, key)[1] for key in ("seconds", "images_per_s"))
    epochs = history[-1]["epoch"]
    words = [f"{epochs:g} epoch{'s' * (epochs != 1)}"]
    if len(seconds):
        words.append(f"{np.median(seconds):,.1f} s per epoch")
    if len(speed):
        words.append(f"{np.median(speed):,.0f} images/s")
    return ", ".join(words)


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs at which `key` has a finite value, and the values."""
    epochs = np.array([row["epoch"] for row in history], float)
    values = np.array([row.get(key) for row in history], float)  # None becomes NaN
    known = np.isfinite(values)
    return epochs[known], values[known]


def _curve(
    axes: Axes, history: Sequence[Mapping[str, Any]], key: str, label: str, colour: str
) -> None:
    """One curve, its last value in its label; with dots while there are few epochs."""
    epochs, values = _series(history, key)
    if len(values):
        marker = "o" if len(values) < 20 else ""
        label = label.format(values[-1])
        axes.plot(epochs, values, marker=marker, ms=3, color=colour, label=label)


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """A confusion matrix (K, K), rows true and columns predicted, as counts on a scale of percent.

    The colour is the share of the row's images; it grows with the square root, so that rare
    mistakes show beside the diagonal. Up to 20 classes the counts are written into the cells.
    """
    K = len(matrix)
    images = matrix.sum(1, keepdims=True)
    percent = 100 * matrix / np.maximum(images, 1)
    few = K <= 20
    side = 7 if few else 10  # inches
    figure = _card(side, 0.92 * side)
    axes = figure.subplots()
    picture = axes.imshow(percent, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)
    size = 9 if few else 4.5
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if few else {"rotation": 90}
    axes.set_xticks(range(K), class_names, fontsize=size, **slant)
    axes.set_yticks(range(K), class_names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{matrix.trace() / images.sum():.1%} of {images.sum():,} right", fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i, j in np.argwhere(matrix) if few else ():
        ink = "white" if percent[i, j] > 35 else INK
        axes.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", color=ink, fontsize=8)
    return figure


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> Figure:
    """Mistaken images, in the order given: "cat 3%, not dog 95%" is a cat taken for a dog.

    The percentages are the model's: how probable it held the right class, and its own answer.
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
    figure = _card(1.08 * columns * side + 0.2, rows * (1 + caption) * side + 0.4 * bool(title))
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, color=INK)
    for (x, y), text in zip(_tiles(axes, images, columns, below=caption), captions, strict=True):
        axes.text(x + 0.5, y + 0.03, text, ha="center", va="top", fontsize=7, color=INK)
    return figure


def segments(
    images: np.ndarray,
    rows: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    ignored: int,
) -> Figure:
    """Images over the classes of their pixels: one column an image, one row for each of `rows`.

    rows: title -> class numbers (N, height, width), such as the truth and a prediction; pixels of
    the number `ignored` are black. The last class, the background, is white. A legend names the
    classes that are to be seen.
    """
    palette = _class_colours(len(class_names))
    n, high = len(images), images.shape[1] / images.shape[2]
    side = min(1.1, 10 / n)  # of one image, in inches
    figure = _card(n * side * 1.05 + 2.4, (1 + len(rows)) * side * high * 1.05 + 0.3)
    axes = figure.subplots(1 + len(rows), n, squeeze=False)
    for row, (title, shown) in enumerate({"image": images, **rows}.items()):
        if shown.ndim == 3:
            known = shown != ignored
            shown = palette[np.where(known, shown, 0)] * known[..., None]
        for picture, image in zip(axes[row], shown, strict=True):
            picture.imshow(image, interpolation="nearest")
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
    """(K, 3): colours that tell apart, the last of them white."""
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

    original (any size, 3) and seen (height, width, 3) uint8; probabilities (K,).
    """
    figure = _card(9, 3)
    whole, small, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    whole.imshow(original)
    small.imshow(seen, interpolation="nearest")
    for axes, image, title in ((whole, original, "picture"), (small, seen, "what the model sees")):
        height, width, _ = image.shape
        axes.set_title(f"{title}, {width} × {height}", fontsize=10, color=INK)
        axes.axis("off")
    top = probabilities.argsort()[::-1][:k]
    p = probabilities[top]
    colours = [ORANGE] + [BLUE] * (len(top) - 1)
    drawn = bars.barh([class_names[i] for i in top], p, color=colours)
    bars.bar_label(drawn, [f"{share:.1%}" for share in p], padding=4, fontsize=9, color=INK)
    _chart(bars, "what it says")
    bars.grid(False)
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.25), xticks=[])
    bars.spines["bottom"].set_visible(False)
    bars.tick_params(length=0)
    return figure


def token_maps(
    W1: np.ndarray | Mapping[str, np.ndarray], grid: tuple[int, int], n: int = 64
) -> Figure:
    """What hidden units of token MLPs look at: rows of W1 (D_S, S) as maps on the (H, W) grid.

    W1 is one block's, or several under their titles: {"block 0": ..., "block 7": ...}. Of each,
    the n units of largest norm are shown, each scaled by its largest weight: red adds a token,
    blue subtracts it. The most opposite units are paired, and pairs sorted by frequency.

    Raises ValueError if W1 has not one column per token. Source: the figure of hidden units in
    Tolstikhin et al. 2021, "MLP-Mixer", arXiv 2105.01601.
    """
    what = "Token mixing: what hidden units add (red) and subtract (blue)"
    blocks = W1 if isinstance(W1, Mapping) else {what: W1}
    columns = min(len(blocks), 4)
    rows = math.ceil(len(blocks) / columns)
    side = (5, 4.6, 3.2, 2.5)[columns - 1]  # of one block, in inches
    figure = _card(
        columns * side, rows * (side + 0.25) + 0.2, what if isinstance(W1, Mapping) else ""
    )
    for i, (title, W) in enumerate(blocks.items()):
        if W.shape[1] != math.prod(grid):
            raise ValueError(
                f"token_maps: W1 {W.shape} has weights for {W.shape[1]} tokens, but a grid of "
                f"{grid[0]}x{grid[1]} has {math.prod(grid)}. Give the token grid of the model"
            )
        maps = _strongest(W, n).reshape(-1, *grid)
        maps = maps[_opposite_pairs(maps)]
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(title, fontsize=10, color=INK)
        _tiles(axes, maps, _columns(len(maps)), cmap="RdBu_r", vmin=-1, vmax=1)
    return figure


def patch_filters(W: np.ndarray, patch_size: int, n: int = 128) -> Figure:
    """What the patch embedding looks for: columns of W (P*P*3, C) as P x P RGB images.

    The n filters with the largest weights, slow first, each scaled by its own maximum: grey is a
    weight of zero, white the largest, black the smallest in all three colours.

    Raises ValueError if W has not P*P*3 rows.
    """
    if len(W) != 3 * patch_size**2:
        raise ValueError(
            f"patch_filters: W {W.shape} has {len(W)} rows, but a patch of "
            f"{patch_size}x{patch_size} has {3 * patch_size**2} values. Give the model's patch_size"
        )
    filters = _strongest(W.T, n).reshape(-1, patch_size, patch_size, 3)
    filters = filters[_frequency(filters.mean(-1)).argsort(kind="stable")]
    figure = _card(5, 5.2)
    axes = figure.subplots()
    axes.set_title("Patch embedding: the patterns that filters look for", fontsize=10, color=INK)
    _tiles(axes, 0.5 + 0.5 * filters, _columns(len(filters)))
    return figure


def _strongest(units: np.ndarray, n: int) -> np.ndarray:
    """The n rows of largest norm, in their order, each divided by its largest absolute value."""
    strongest = np.sort(np.argsort(-np.linalg.norm(units, axis=1), kind="stable")[:n])
    units = units[strongest]
    return units / np.maximum(np.abs(units).max(1, keepdims=True), 1e-30)


def _frequency(maps: np.ndarray) -> np.ndarray:
    """maps (n, H, W) -> (n,): Σ f |F(f)|² / Σ |F(f)|², the centre of mass of the power spectrum.

    In cycles per token: 0 for a constant map, √½ for a chessboard.
    """
    power = np.abs(np.fft.fft2(maps)) ** 2
    f = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, maps.shape[1:]), indexing="ij"))
    return (power * f).sum((1, 2)) / np.maximum(power.sum((1, 2)), 1e-30)


def _opposite_pairs(maps: np.ndarray) -> list[int]:
    """An order of maps (n, H, W): most opposite pairs side by side, slow pairs first."""
    flat = maps.reshape(len(maps), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)
    likeness = flat @ flat.T
    np.fill_diagonal(likeness, np.inf)
    pairs, left = [], set(range(len(maps)))
    while len(left) > 1:
        pair = divmod(int(likeness.argmin()), len(maps))
        likeness[pair, :] = likeness[:, pair] = np.inf
        pairs.append(pair)
        left -= set(pair)
    f = _frequency(maps)
    pairs.sort(key=lambda pair: f[pair[0]] + f[pair[1]])
    return [i for pair in pairs for i in pair] + list(left)


def race(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]], cost: str, title: str, score: str
) -> Figure:
    """A score, 0..1, against what it cost: name -> (cost, score), each line named at its end.

    The costs are on a logarithmic scale where the lines end at very different ones.
    """
    figure = _card(8, 4.2, title)
    axes = figure.subplots()
    ends = {name: (x[-1], y[-1]) for name, (x, y) in lines.items()}
    paid = [x for x, _ in ends.values()]
    if max(paid) > 5 * min(paid):
        axes.set_xscale("log")
    colours = dict(zip(lines, cycle(MANY), strict=False))
    for name, (x, y) in lines.items():
        axes.plot(x, y, color=colours[name], marker="o" if len(x) < 20 else "", ms=3)
    low, high = axes.get_ylim()
    heights = _apart({name: y for name, (_, y) in ends.items()}, 0.055 * (high - low))
    for name, end in ends.items():
        axes.annotate(
            f"{name} {end[1]:.1%}",
            end,
            (1.03, heights[name]),
            textcoords=axes.get_yaxis_transform(),
            color=colours[name],
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colours[name], "lw": 0.6, "alpha": 0.5},
        )
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _chart(axes, score)
    axes.set_xlabel(cost, fontsize=9)
    return figure


def _apart(wanted: Mapping[str, float], gap: float) -> dict[str, float]:
    """Heights in order of those wanted, at least a gap apart, with the least squared error.

    Neighbours that would be too close form a group about their mean, again and again (pool
    adjacent violators).
    """
    names = sorted(wanted, key=lambda name: wanted[name])
    groups: list[list[float]] = []  # of heights, less a gap for each name below
    for i, name in enumerate(names):
        groups.append([wanted[name] - i * gap])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    heights = [np.mean(group) for group in groups for _ in group]
    return {name: float(heights[i] + i * gap) for i, name in enumerate(names)}


def profile(rows: Sequence[Row], title: str) -> Figure:
    """A bar for each operation, as long as the milliseconds that a step spends in it.

    A black mark says how much of it the matrix products alone would take.
    """
    figure = _card(9, 0.8 + 0.36 * len(rows), title)
    axes = figure.subplots()
    y, left = np.arange(len(rows)), np.zeros(len(rows))
    for kind, colour in (("forward", BLUE), ("backward", ORANGE), ("other", GREY)):
        ms = np.array([getattr(row, kind) for row in rows])
        axes.barh(y, ms, left=left, color=colour, label=kind)
        left += ms
    products = [row.products or np.nan for row in rows]
    axes.plot(products, y, "|", color=INK, ms=14, mew=2, label="matrix products alone")
    for i, row in enumerate(rows):
        text = f" {row.total:.1f} ms, {row.total / left.sum():.1%}"
        axes.text(max(row.total, row.products), i, text, va="center", fontsize=8, color=INK)
    axes.set_yticks(y, [row.name for row in rows])
    _chart(axes, "")
    axes.grid(False, axis="y")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * left.max())
    axes.set_xlabel("ms per step, in one thread", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def _columns(n: int) -> int:
    """How many columns make n tiles a square; even, so that pairs stay together."""
    return 2 * math.ceil(math.sqrt(n) / 2)


def _tiles(
    axes: Axes, images: Iterable[np.ndarray], columns: int, below: float = 0, **look: Any
) -> list[tuple[float, float]]:
    """Draw images in rows, each one unit wide; their lower left corners, y pointing down.

    `below` leaves room under each.
    """
    corners = []
    for i, image in enumerate(images):
        high = image.shape[0] / image.shape[1]
        x, y = 1.08 * (i % columns), (high + max(below, 0.08)) * (i // columns) + high
        axes.imshow(image, extent=(x, x + 1, y, y - high), interpolation="nearest", **look)
        corners.append((x, y))
    axes.set(
        xlim=(-0.04, 1.08 * columns - 0.04), ylim=(y + max(below, 0.04), -0.04), aspect="equal"
    )
    axes.axis("off")
    return corners


def _card(width: float, height: float, title: str = "") -> Figure:
    """An empty white figure, which reads on light and on dark pages; sides in inches."""
    figure = Figure((width, height), dpi=120, facecolor="white", layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _chart(axes: Axes, title: str) -> None:
    """The look of everything with axes to read: title, light grid, two spines."""
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
