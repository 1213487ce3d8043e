"""Floor 2. A report as a picture and as a table."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from tinymixer.gradcheck.findings import place
from tinymixer.gradcheck.numeric import Curve, error_curve
from tinymixer.gradcheck.report import Report
from tinymixer.gradcheck.subject import Subject
from tinymixer.gradcheck.verdict import PASSED, UNDECIDED

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def error_against_step(subject: Subject) -> Curve:
    """The V-curve: how far each method is from backward at each step, along a random direction."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal(np.shape(subject.forward(*subject.arrays)))
    v = subject.random_direction(rng)
    gradients = subject.backward(w, subject.arrays)
    claimed = float(sum((gradients[i] * v[i]).sum() for i in v))
    with np.errstate(all="ignore"):  # a large step may leave the domain
        return error_curve(subject.path(v), subject.path(v, np.float32), w, claimed)


def curve_of(report: Report) -> Curve:
    """Raises ValueError for a report on a function that could not be differentiated at all."""
    if report.subject is None:
        raise ValueError(
            f"{report.name}: there is no curve to draw: {report.broken or report.undecided}"
        )
    return error_against_step(report.subject)


def curve_figure(name: str, curve: Curve) -> "Figure":
    """Error against step size, one line per method, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for (method, points), marker in zip(curve.items(), "ovsD^", strict=False):
        h, error = np.array(points).T
        axes.loglog(h, np.maximum(error, 1e-17), label=method, marker=marker, markersize=4)
    axes.set(
        title=f"{name}: how good is each derivative?",
        xlabel="step size h",
        ylabel="relative error against backward",
        ylim=(3e-18, 1e4),
    )
    axes.invert_xaxis()  # the step shrinks to the right
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside lower center", ncols=3)
    return figure


def table(report: Report) -> str:
    """The report as HTML: a row for each gradient and method, the other lines below."""
    colour = {PASSED: "#1a7f37", UNDECIDED: "#9a6700"}.get(report.verdict, "#cf222e")
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{escape(cell)}</td>"
            for cell in (
                place(f.input, f.index),
                f.method,
                f"{f.numeric:.10g}",
                f"{f.backward:.10g}",
                f"{f.error:.1e}",
                "right" if f.passed else "WRONG",
            )
        )
        + "</tr>"
        for f in report.findings[:MOST_ROWS]
    )
    heads = "".join(
        f"<th>{head}</th>"
        for head in ("worst element", "method", "numeric", "backward", "relative error", "")
    )
    lines = "<br>".join(escape(line) for line in str(report).split("\n")[1:])
    return (
        f"<b>{escape(report.name)}: <span style='color:{colour}'>{report.verdict}</span></b>"
        + (f"<table><tr>{heads}</tr>{rows}</table>" if rows else "")
        + f"<div>{lines}</div>"
    )


MOST_ROWS = 40
