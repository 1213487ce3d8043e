"""Charts: how a training went, which classes are confused, where the time of a step goes."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tinymixer.errors import counted
from tinymixer.train.figures.style import BLUE, GREEN, GREY, INK, MANY, ORANGE, card, chart, label
from tinymixer.train.profile import OperationTime
from tinymixer.train.records import EpochFigures


def curves(history: Sequence[EpochFigures]) -> Figure:
    """Loss, accuracy and learning rate against epochs.

    A value that is not finite leaves no point. Where there is an IoU it is drawn too. The legends
    give the last values; a ring marks the best accuracy, or IoU, on validation images.

    Raises ValueError for an empty history.
    """
    if not history:
        raise ValueError("curves: the history has no epoch yet; train for one first")
    figure = card(10, 3.4, _pace(history))
    loss, accuracy, rate = figure.subplots(1, 3)
    validated = history[-1].val_loss is not None
    measured = [("val", ORANGE), ("test", INK)] if validated else [("test", ORANGE)]
    for part, colour in [("train", BLUE), *measured]:
        _curve(loss, history, f"{part}_loss", part + " {:.3f}", colour)
        _curve(accuracy, history, f"{part}_accuracy", part + " {:.1%}", colour)
    _curve(rate, history, "lr", "last {:.2g}", INK)
    rate.set_ylim(bottom=0)
    part = "val" if validated else "test"
    score, colour, scores = f"{part}_accuracy", ORANGE, "accuracy"
    if getattr(history[-1], f"{part}_iou") is not None:
        score, colour, scores = f"{part}_iou", GREEN, "accuracy and mean IoU"
        _curve(accuracy, history, score, part + " IoU {:.1%}", colour)
    epochs, reached = _series(history, score)
    if validated and len(reached):
        best = reached.argmax()
        label = f"best {reached[best]:.1%}, epoch {epochs[best]:g}"
        accuracy.plot(epochs[best], reached[best], "o", mec=colour, mfc="none", ms=9, label=label)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes, title in ((loss, "loss"), (accuracy, scores), (rate, "learning rate")):
        chart(axes, title)
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    return figure


def _pace(history: Sequence[EpochFigures]) -> str:
    """What the training cost, in one line, from the median epoch."""
    seconds, speed = (_series(history, key)[1] for key in ("seconds", "images_per_s"))
    epochs = history[-1].epoch
    words = [counted(epochs, "epoch")]
    if len(seconds):
        words.append(f"{np.median(seconds):,.1f} s per epoch")
    if len(speed):
        words.append(f"{np.median(speed):,.0f} images/s")
    return ", ".join(words)


def _series(history: Sequence[EpochFigures], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The epochs at which `key` has a finite value, and the values."""
    epochs = np.array([row.epoch for row in history], float)
    values = np.array([getattr(row, key) for row in history], float)  # None becomes NaN
    known = np.isfinite(values)
    return epochs[known], values[known]


def _curve(axes: Axes, history: Sequence[EpochFigures], key: str, label: str, colour: str) -> None:
    """One curve, its last value in its label; with dots while there are few epochs."""
    epochs, values = _series(history, key)
    if len(values):
        marker = "o" if len(values) < 20 else ""
        label = label.format(values[-1])
        axes.plot(epochs, values, marker=marker, ms=3, color=colour, label=label)


def race(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]], cost: str, title: str, score: str
) -> Figure:
    """A score, 0..1, against what it cost: name -> (cost, score), each line named at its end.

    The costs are on a logarithmic scale where the lines end at very different ones.
    """
    figure = card(8, 4.2, title)
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
            f"{label(name, 40)} {end[1]:.1%}",
            end,
            (1.03, heights[name]),
            textcoords=axes.get_yaxis_transform(),
            color=colours[name],
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colours[name], "lw": 0.6, "alpha": 0.5},
        )
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    chart(axes, score)
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


def profile(rows: Sequence[OperationTime], title: str) -> Figure:
    """A bar for each operation, as long as the milliseconds that a step spends in it.

    A black mark says how much of it the matrix products alone would take.
    """
    figure = card(9, 0.8 + 0.36 * len(rows), title)
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
    axes.set_yticks(y, [label(row.name, 40) for row in rows])
    chart(axes, "")
    axes.grid(False, axis="y")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * left.max())
    axes.set_xlabel("ms per step, in one thread", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


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
    figure = card(side, 0.92 * side)
    axes = figure.subplots()
    picture = axes.imshow(percent, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    bar.set_label("% of the true class")
    bar.outline.set_visible(False)
    size = 9 if few else 4.5
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if few else {"rotation": 90}
    named = range(0, K, max(1, math.ceil(K / 100)))  # of more than 100 classes, some
    names = [label(class_names[k], 24 if few else 16) for k in named]
    axes.set_xticks(named, names, fontsize=size, **slant)
    axes.set_yticks(named, names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{matrix.trace() / images.sum():.1%} of {images.sum():,} right", fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i, j in np.argwhere(matrix) if few else ():
        ink = "white" if percent[i, j] > 35 else INK
        axes.text(j, i, f"{matrix[i, j]:,}", ha="center", va="center", color=ink, fontsize=8)
    return figure
