"""Floor 2. A derivative from values alone, and how far it may be off.

Along a path t -> y(x + t v) the values at ±h, ±h/2, ±h/4 give two things:

    odd part    D(h) = (y(h) - y(-h)) / 2h = y' + a h² + b h⁴ + ...
    even part   A(h) = (y(h) - 2 y(0) + y(-h)) / h = c h + d h³ + ...

Three D, combined so that h² and h⁴ cancel, are the derivative; how far two such combinations are
apart is one half of its error. The other half is what the D cannot see: for a smooth y the three A
combine to zero up to h⁵, and what remains of them is a kink (a constant), a jump (~ 1/h) or noise.
A step that is good for one output may be bad for another, so each takes its own from a ladder.

At a kink the derivatives from the left and from the right exist and differ. `Slope.spread` is half
their distance: every value in between is a subgradient.

Source of the extrapolation: Richardson 1911; of picking by the error: Ridders 1982.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinymixer.backend import Array

# Powers of two: steps relative to the direction, which is as large as what it moves.
RUNGS = (-8, -15, -22, -3, -29, 4, -36, 11, 18, -43, -50)
RUNGS32 = (-4, -8, -1, -12, 3)  # in float32
CLOSE = 2.0**-22  # one-sided values that still differ this close are taken for a kink
ROUNDS_FLOAT32 = 2.0**-15  # at smaller steps float32 may stand still
BETWEEN = 0.7310585786300049  # of a step: a number that float32 does not have
SURE = 3.0  # of how many of its own errors a sum of outputs may be off


class Slope(NamedTuple):
    """d<w, y>/dt = value ± spread ± error; spread is 0 but at kinks. error is inf if unknown."""

    value: float
    error: float
    spread: float = 0.0
    why: str = ""  # what makes the error large
    eps: float = 2.0**-52  # of the precision that the forward computes in


def slope(
    path: Callable[[float], Array], w: Array, enough: float, rungs: tuple[int, ...] = RUNGS
) -> Slope:
    """The derivative of <w, path(t)> at t = 0, by steps tried until its error is at most `enough`.

    Points where path is not finite, or raises ArithmeticError or ValueError, are left out: steps
    that leave the domain of a function, which a smaller one, or one to the other side, does not.
    """
    y0 = np.asarray(path(0.0))
    outputs = _Outputs(y0, np.asarray(w))
    found = Slope(np.nan, np.inf, 0.0, "no step was possible")
    with np.errstate(all="ignore"):
        for exponent in RUNGS32 if y0.dtype == np.float32 else rungs:
            h = 2.0**exponent
            up = [_value(path, step, y0) - y0 for step in (h, h / 2, h / 4)]
            down = [y0 - _value(path, -step, y0) for step in (h, h / 2, h / 4)]
            if outputs.may_be_rounded(up, down):
                outputs.test_rounding(_value(path, BETWEEN * h, y0))
            outputs.take(h, up, down)
            found = outputs.sum()
            if found.error <= enough:
                break
    return found


def _value(path: Callable[[float], Array], t: float, y0: Array) -> Array:
    try:
        y = np.asarray(path(t))
    except (ArithmeticError, ValueError, IndexError):  # outside of the domain
        y = np.full(y0.shape, np.nan, y0.dtype)
    return y if y.shape == y0.shape else np.full(y0.shape, np.nan, y0.dtype)


class _Estimates:
    """Estimates of the same derivatives at several steps, and which of them to believe.

    The one with the smallest error, unless finer steps contradict it: a function that saturates
    has quotients that are small, agree well and say nothing.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[float, Array, Array]] = []  # h, estimate, error

    def add(self, h: float, estimate: Array, error: Array) -> None:
        error = np.where(np.isfinite(estimate + error), error, np.inf)
        self.steps.append((h, np.where(np.isfinite(error), estimate, 0.0), error))

    def best(self) -> tuple[Array, Array]:
        best = np.full(self.steps[0][1].shape, np.nan), np.full(self.steps[0][1].shape, np.inf)
        for h, estimate, error in self.steps:
            against, apart = np.zeros(error.shape, int), np.zeros(error.shape)
            for other_h, other, other_error in self.steps:
                if other_h < h:
                    gap = np.abs(other - estimate)
                    contradicts = gap > 2 * (error + other_error)
                    against += contradicts
                    apart = np.where(contradicts, np.maximum(gap, apart), apart)
            error = np.where(against > 1, np.inf, np.maximum(error, apart))
            better = error < best[1]
            best = np.where(better, estimate, best[0]), np.where(better, error, best[1])
        return best


class _Outputs:
    """What is known of the derivative of every output."""

    def __init__(self, y0: Array, w: Array):
        self.y0, self.w = y0.astype(np.float64), w
        self.float64 = y0.dtype == np.float64
        self.eps = np.full(y0.shape, np.finfo(y0.dtype).eps if y0.dtype.kind == "f" else 0.0)
        self.both, self.left, self.right = _Estimates(), _Estimates(), _Estimates()
        self.kink = np.full(y0.shape, np.nan), np.full(y0.shape, np.inf)  # the middle of the sides
        self.spread = np.zeros(y0.shape)  # half of how far they are apart
        self.change = np.zeros((2, *y0.shape))  # at the first step, and at the smallest
        self.moved = np.zeros(y0.shape, bool)  # at a step large enough to show in float32
        self.finite = np.zeros((2, *y0.shape), bool)  # to the left, to the right, at any step

    def may_be_rounded(self, up: list[Array], down: list[Array]) -> bool:
        """Whether some output took only values that float32 has, as if computed in it."""
        if not self.float64:
            return False
        self.suspects = (up[0] != up[1]) & (up[1] != up[2])
        for change in (0, *up, *(-d for d in down)):
            y = self.y0 + change
            self.suspects &= y == y.astype(np.float32)
        return bool(self.suspects.any())

    def test_rounding(self, y: Array) -> None:
        """y, at a step that float32 does not have: of what computes in float64, no suspect."""
        rounded = self.suspects & (y == y.astype(np.float32))
        self.eps = np.where(rounded, np.finfo(np.float32).eps, self.eps)

    def take(self, h: float, up: list[Array], down: list[Array]) -> None:
        """The changes of the outputs from -h, -h/2, -h/4 to 0 and from there to h/4, h/2, h."""
        up, down = [u.astype(np.float64) for u in up], [d.astype(np.float64) for d in down]
        steps = h, h / 2, h / 4
        size = np.abs(self.y0) + np.nan_to_num(np.abs(up[0])) + np.nan_to_num(np.abs(down[0]))
        floor = 8 * self.eps * size / h
        right = [u / s for u, s in zip(up, steps, strict=True)]
        left = [d / s for d, s in zip(down, steps, strict=True)]
        D = [(r + m) / 2 for r, m in zip(right, left, strict=True)]
        A = [r - m for r, m in zip(right, left, strict=True)]
        coarse, fine = (4 * D[1] - D[0]) / 3, (4 * D[2] - D[1]) / 3
        uneven = np.abs(A[2] - 0.625 * A[1] + 0.0625 * A[0])
        still = (up[0] == 0) & (down[0] == 0) & (up[2] == 0) & (down[2] == 0)
        if h >= ROUNDS_FLOAT32:
            self.moved |= ~still
        # What moved before and rests now is rounded, to float32 say: this step says nothing.
        floor = np.where(still & self.moved & (h < ROUNDS_FLOAT32), np.inf, floor)
        self.both.add(h, (16 * fine - coarse) / 15, np.abs(fine - coarse) + 3 * uneven + floor)
        sides = []
        for estimates, quotients in ((self.left, left), (self.right, right)):
            one, two = 2 * quotients[1] - quotients[0], 2 * quotients[2] - quotients[1]
            estimates.add(h, (4 * two - one) / 3, np.abs(two - one) + 4 * floor)
            sides.append(estimates.steps[-1][1:])
        self.finite |= np.isfinite([left[2], right[2]])
        change = np.fmax(np.abs(up[2]), np.abs(down[2]))
        if not self.change[0].any():
            self.change[0] = np.nan_to_num(change)
        self.change[1] = np.where(h < 1e-10, np.nan_to_num(change), self.change[1])
        if h <= CLOSE or not self.float64:  # sides that hold still and are apart: a kink
            (a, error_a), (b, error_b) = sides
            apart = np.abs(a - b) > 4 * (error_a + error_b)
            better = apart & (error_a + error_b < self.kink[1])
            self.spread = np.where(better, np.abs(a - b) / 2, self.spread)
            self.kink = (
                np.where(better, (a + b) / 2, self.kink[0]),
                np.where(better, error_a + error_b, self.kink[1]),
            )

    def sum(self) -> Slope:
        """Over the outputs, each by its best estimate, with how far they may be off together."""
        value, error = self.both.best()
        if (self.finite[0] != self.finite[1]).any():  # the edge of the domain: take its side
            left, right = self.left.best(), self.right.best()
            for here, there, side in ((0, 1, left), (1, 0, right)):
                only = self.finite[here] & ~self.finite[there]
                value, error = np.where(only, side[0], value), np.where(only, side[1], error)
        kinked = self.kink[1] < error
        spread = np.where(kinked, self.spread, 0.0)
        value = np.where(kinked, self.kink[0], value)
        error = np.where(kinked, self.kink[1], error)
        w, used = np.abs(self.w), self.w != 0
        total = float(np.sum(np.where(used, self.w * value, 0.0), dtype=np.longdouble))
        off = SURE * float(np.sqrt(np.sum(np.where(used, w * error, 0.0) ** 2)))
        return Slope(
            total,
            off if np.isfinite(total + off) else np.inf,
            float(np.sum(np.where(used, w * spread, 0.0))),
            self._why(w * error),
            float(np.max(self.eps, initial=0.0)),
        )

    def _why(self, error: Array) -> str:
        """What keeps the output with the largest error from a better derivative."""
        if not error.size:
            return "there is no output"
        j = np.unravel_index(int(np.argmax(np.nan_to_num(error, nan=np.inf))), error.shape)
        if not np.isfinite(self.y0[j]):
            return "the forward itself is not finite at this input"
        sides = self.finite[0][j], self.finite[1][j]
        if not any(sides):
            return "the forward is finite at this input, and not near it"
        if not all(sides):
            return "the input lies on the edge of what the forward is defined for"
        if self.change[1][j] > 1e-2 * self.change[0][j] > 0:
            return "the forward jumps here: a choice (argmax, rounding, routing) is on the edge"
        return "rounding inside the forward, or a jump or a very steep place, close to this input"
