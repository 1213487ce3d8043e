"""Floor 2. Derivatives along a line, from values alone.

A path is t -> y(x + t v), the output as x moves along v. Each method here estimates

    d<w, y>/dt at t = 0 = <w, J v>

for a fixed random w, the cotangent. w is never all ones: the outputs of a softmax or of a
LayerNorm have a constant sum, and then a backward that returns zero would agree.

| method      | formula, D(h) the central difference                        | error        |
|-------------|-------------------------------------------------------------|--------------|
| forward     | <w, y(h) - y(0)> / h                                        | h + ε/h      |
| central     | D(h) = <w, y(h) - y(-h)> / 2h                               | h² + ε/h     |
| differences | R(h) = (4 D(h/2) - D(h)) / 3                                | h⁴ + ε/h     |
| complex     | <w, Im y(ih)> / h, where y is analytic                      | h², no ε/h   |

Differences trade truncation error against rounding error ε, so each has a best step: the V-curve.
The complex step subtracts nothing, so its h can be so small that no truncation is left.

Sources: Richardson 1911, Phil. Trans. A 210; Squire, Trapp 1998, SIAM Review 40(1), 110-112.
"""

from collections.abc import Callable

import numpy as np

from tinymixer.backend import Array

STEP = 2e-3  # a little above ε^(1/5), where h⁴ and ε/h meet for float64
TINY_STEP = 1e-100  # its square still is a float64
NOISE = 1e3  # roundings, above which a difference of two estimates counts as truncation

Path = Callable[[complex], Array]
Curve = dict[str, list[tuple[float, float]]]


def derivative(path: Path, h: float = STEP) -> Array:
    """J v itself, for every element of the output, by a central difference."""
    return (path(h) - path(-h)) / (2 * h)


def forward_difference(path: Path, w: Array, h: float = STEP) -> float:
    return float((w * (path(h) - path(0.0))).sum()) / h


def central(path: Path, w: Array, h: float = STEP) -> float:
    # Subtracted element by element: what does not depend on t cancels without rounding.
    return float((w * (path(h) - path(-h))).sum()) / (2 * h)


def richardson(path: Path, w: Array, h: float = STEP) -> float:
    """Two central differences, combined so that their h² terms cancel."""
    return (4 * central(path, w, h / 2) - central(path, w, h)) / 3


def complex_step(path: Path, w: Array, h: float = TINY_STEP) -> float:
    """NaN where the output stays real: that forward is not analytic."""
    y = path(1j * h)
    return float((w * y.imag).sum()) / h if np.iscomplexobj(y) else np.nan


def observed_order(path: Path, w: Array) -> float | None:
    """The power p of R(h) = derivative + O(hᵖ): 4, unless y is not smooth. None: no error to see.

    From R(h) - R(h/2), which halving h divides by 2ᵖ, and so from the forward alone: whatever
    backward says, this tells whether the differences can be trusted. Taken at the smallest step
    whose truncation still is above rounding.
    """
    size = float((np.abs(w) * np.maximum(1, np.abs(path(0.0)))).sum())
    steps = 0.125 * 0.5 ** np.arange(9)
    D, R = central(path, w, steps[0]), np.nan
    changes: list[float] = []
    for h in steps[1:]:
        coarse_D, D = D, central(path, w, h)
        coarse_R, R = R, (4 * D - coarse_D) / 3
        if h == steps[1]:  # one R alone
            continue
        if not abs(R - coarse_R) > NOISE * np.finfo(float).eps * size / h:
            break
        changes.append(abs(R - coarse_R))
    return float(np.log2(changes[-2] / changes[-1])) if len(changes) > 1 else None


def error_curve(path: Path, path32: Path, w: Array, exact: float) -> Curve:
    """By method, (h, relative error against `exact`) at steps from 0.1 down to 1e-13.

    path32 is the same path in float32, whose central difference proves nothing at any step.
    """
    estimates = {
        "forward difference": (forward_difference, path),
        "central difference": (central, path),
        "central + Richardson": (richardson, path),
        "complex step": (complex_step, path),
        "central difference, float32": (central, path32),
    }
    steps = [10.0**-k for k in range(1, 14)]
    return {
        name: [(h, abs(estimate(along, w, h) - exact) / abs(exact)) for h in steps]
        for name, (estimate, along) in estimates.items()
    }
