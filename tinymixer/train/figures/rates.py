"""A chart of a range test: the loss against the learning rate."""

import numpy as np
from matplotlib.figure import Figure

from tinymixer.train.figures.style import BLUE, GREY, INK, ORANGE, card, chart


def range_test(
    rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, suggested: float | None
) -> Figure:
    """Losses, as dots, and their smoothed curve against the rates (n,), on a logarithmic scale.

    A ring marks the lowest smoothed loss, a line the suggested rate. What rises far above where the
    losses began is cut off.
    """
    figure = card(7, 4)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.plot(rates, losses, ".", color=GREY, ms=3, label="loss of each batch")
    axes.plot(rates, smoothed, color=BLUE, label="smoothed")
    lowest = int(np.nanargmin(smoothed))
    label = f"lowest, {smoothed[lowest]:.3f} at {rates[lowest]:.2g}"
    axes.plot(rates[lowest], smoothed[lowest], "o", mec=BLUE, mfc="none", ms=9, label=label)
    if suggested is not None:
        axes.axvline(suggested, color=ORANGE, lw=1.2, label=f"suggested {suggested:.2g}")
    span = max(losses[0] - smoothed[lowest], 0.05 * losses[0])
    axes.set_ylim(smoothed[lowest] - 0.3 * span, losses[0] + span)
    chart(axes, "loss of a batch before its step")
    axes.set_xlabel("learning rate of the step", fontsize=9, color=INK)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return figure
