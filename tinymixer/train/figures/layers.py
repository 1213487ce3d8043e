"""A chart of the statistics of a model, layer by layer."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tinymixer.train.figures.style import BLUE, GREY, INK, ORANGE, card, chart
from tinymixer.train.layers import QUANTILES, LayerFigures


def layers(rows: Sequence[LayerFigures]) -> Figure:
    """Outputs, weights and gradients of layers, the first one on the left.

    Above the quantiles of each output; below, on a logarithmic scale, the root mean squares of the
    weights and of the gradient of the loss by them. A gradient of 0 leaves no point.
    """
    figure = card(max(6, 2.5 + 0.3 * len(rows)), 6.2)
    outputs, scales = figure.subplots(2, 1, sharex=True)
    x = np.arange(len(rows))
    low, first, middle, third, high = np.array([row.output for row in rows]).T
    percent = [f"{q:.0%}" for q in QUANTILES]
    outputs.fill_between(
        x, low, high, color=BLUE, alpha=0.15, label=f"{percent[0]} to {percent[-1]}"
    )
    outputs.fill_between(x, first, third, color=BLUE, alpha=0.4, label="the middle half")
    outputs.plot(x, middle, "o-", color=BLUE, ms=3, label="median")
    for name, colour in (("weights", GREY), ("gradient", ORANGE)):
        values = np.array([getattr(row, name) for row in rows])
        scales.plot(x, np.where(values > 0, values, np.nan), "o-", color=colour, ms=3, label=name)
    if any(row.weights > 0 or row.gradient > 0 for row in rows):
        scales.set_yscale("log")
    chart(outputs, "numbers in the output of each layer")
    chart(scales, "root mean square of the weights, and of the gradient of the loss by them")
    for axes in (outputs, scales):
        axes.legend(frameon=False, fontsize=8, ncols=3)
    scales.set_xticks(x, [row.name for row in rows], rotation=90, fontsize=7, color=INK)
    return figure
