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
PARTS = np.array([1.0, 0.5, 0.25])  # of a step
CLOSE = 2.0**-22  # one-sided values that still differ this close are taken for a kink
ROUNDS_FLOAT32 = 2.0**-15  # at smaller steps float32 may stand still
FAR = 1e-2  # relative error up to which steps larger than the element itself are used
BETWEEN = 0.7310585786300049  # of a step: a number that float32 does not have
SURE = 3.0  # of how many of its own errors a sum of outputs may be off


class Slope(NamedTuple):
    """d<w, y>/dt = value ± spread ± error; spread is 0 but at kinks. error is inf if unknown.

    sides are the derivatives of one output, from the left and from the right, at a kink.
    """

    value: float
    error: float
    spread: float = 0.0
    why: str = ""  # what makes the error large
    eps: float = 2.0**-52  # of the precision that the forward computes in
    sides: tuple[float, float] = (np.nan, np.nan)

    @property
    def kinked(self) -> bool:
        return self.spread > 2 * self.error


def slope(
    path: Callable[[float], Array],
    w: Array,
    enough: float,
    rungs: tuple[int, ...] = RUNGS,
    y0: Array | None = None,
) -> Slope:
    """The derivative of <w, path(t)> at t = 0, by steps tried until its error is at most `enough`.

    y0 is path(0), where it is known.
    Points where path is not finite, or raises ArithmeticError or ValueError, are left out: steps
    that leave the domain of a function, which a smaller one, or one to the other side, does not.
    """
    y0 = np.asarray(path(0.0) if y0 is None else y0)
    outputs = _Outputs(y0.reshape(-1), np.asarray(w).reshape(-1))
    found = Slope(np.nan, np.inf)
    with np.errstate(all="ignore"):
        for exponent in RUNGS32 if y0.dtype == np.float32 else rungs:
            h = 2.0**exponent
            y = np.stack([_value(path, s * h * part, y0) for s in (1, -1) for part in PARTS])
            if outputs.may_be_rounded(y):
                outputs.test_rounding(_value(path, BETWEEN * h, y0))
            outputs.take(h, y)
            found = outputs.sum()
            if found.error <= enough:
                return found
        return found._replace(why=outputs.why())


def _value(path: Callable[[float], Array], t: float, y0: Array) -> Array:
    """path(t), flat; NaN outside of the domain."""
    try:
        y = np.asarray(path(t))
        if y.shape == y0.shape:
            return y.reshape(-1)
    except (ArithmeticError, ValueError, IndexError):
        pass
    return np.full(y0.size, np.nan, y0.dtype)


class _Estimates:
    """Estimates of the same derivatives at several steps, and which of them to believe.

    The one with the smallest error, which is at least how far it is from finer steps that
    contradict it: a function that saturates has quotients that are small, agree well and say
    nothing. A step so fine that `rounding`, of the largest output, may hide a change contradicts
    nothing: a part of a forward that stands still there, such as a sum with 1, makes quotients that
    agree as well.
    """

    def __init__(self, rounding: float) -> None:
        self.rounding = rounding
        self.steps: list[tuple[float, Array, Array]] = []  # h, estimate, error
        self.jump: Array | float = np.inf  # the smallest step that was seen to jump

    def add(self, h: float, estimate: Array, error: Array) -> None:
        known = np.isfinite(estimate + error)
        self.steps.append((h, np.where(known, estimate, 0.0), np.where(known, error, np.inf)))

    def best(self) -> tuple[Array, Array]:
        h, value, least = self.steps[0]
        if len(self.steps) == 1:
            return value, np.where(h >= self.jump, np.inf, least)
        least = np.full_like(least, np.inf)
        for h, estimate, error in self.steps:
            apart = np.zeros(error.shape)
            for other_h, other, other_error in self.steps:
                if other_h < h:
                    gap = np.abs(other - estimate)
                    contradicts = gap > 2 * (error + other_error + self.rounding / other_h)
                    apart = np.where(contradicts, np.maximum(gap, apart), apart)
            error = np.where(h >= self.jump, np.inf, np.maximum(error, apart))
            better = error < least
            value, least = np.where(better, estimate, value), np.where(better, error, least)
        return value, least


class _Outputs:
    """What is known of the derivative of every output (n,)."""

    def __init__(self, y0: Array, w: Array):
        self.y0, self.w = y0.astype(np.float64), w
        self.float64 = y0.dtype == np.float64
        self.eps = np.full(y0.shape, np.finfo(y0.dtype).eps)
        sizes = np.abs(self.y0[np.isfinite(self.y0)])
        self.rounding = float(np.finfo(y0.dtype).eps * sizes.max(initial=0.0))
        self.estimates = _Estimates(self.rounding)
        self.quotients: list[tuple[float, Array, Array, Array]] = []  # h, left, right, floor
        self.moved = np.zeros(y0.shape, bool)  # at a step large enough to show in float32
        self.error = np.full(y0.shape, np.inf)

    def may_be_rounded(self, y: Array) -> bool:
        """Whether some output took only values that float32 has, as if computed in it."""
        if not self.float64:
            return False
        rounded = (y == y.astype(np.float32)).all(0)
        self.suspects = rounded & (self.y0 == self.y0.astype(np.float32))
        self.suspects &= (y[0] != y[1]) & (y[1] != y[2])
        return bool(self.suspects.any())

    def test_rounding(self, y: Array) -> None:
        """y, at a step that float32 does not have: of what computes in float64, no suspect."""
        rounded = self.suspects & (y == y.astype(np.float32))
        self.eps = np.where(rounded, np.finfo(np.float32).eps, self.eps)

    def take(self, h: float, y: Array) -> None:
        """y (6, n) at h, h/2, h/4 and at -h, -h/2, -h/4."""
        change = y.astype(np.float64) - self.y0
        steps = (h * PARTS)[:, None]
        right, left = change[:3] / steps, -change[3:] / steps
        D, A = (right + left) / 2, right - left
        size = np.abs(change)
        floor = (8 / h) * self.eps * (np.abs(self.y0) + np.fmax(size[0], 0) + np.fmax(size[3], 0))
        still = size.max(0) == 0
        if h >= ROUNDS_FLOAT32:
            self.moved |= ~still
        else:  # what moved before and rests now is rounded, to float32 say: this step says nothing
            floor = np.where(still & self.moved, np.inf, floor)
        coarse, fine = (4 * D[1] - D[0]) / 3, (4 * D[2] - D[1]) / 3
        uneven = np.abs(A[2] - 0.625 * A[1] + 0.0625 * A[0])
        error = np.abs(fine - coarse) + 3 * uneven + floor
        # Quotients that double as h halves: y jumps closer by, and larger steps jump, too.
        jumps = (np.abs(D[2] - 4 * D[0]) < 0.05 * np.abs(D[2])) & (np.abs(D[2]) > 100 * floor)
        self.estimates.jump = np.where(
            jumps, np.minimum(h, self.estimates.jump), self.estimates.jump
        )
        estimate = (16 * fine - coarse) / 15
        if h > 1:  # far away: only what is nearly linear as far as that says anything of here
            error = np.where(error <= FAR * np.abs(estimate), error, np.inf)
        self.estimates.add(h, estimate, error)
        self.quotients.append((h, left, right, floor))

    def sum(self) -> Slope:
        """Over the outputs, each by its best estimate, with how far they may be off together."""
        value, error = self.estimates.best()
        spread: Array | float = 0.0
        sides = np.nan, np.nan
        if self.w.size and not error.max() < np.inf:
            value, error = self._at_an_edge(value, error)
        if self.quotients[-1][0] <= CLOSE or not self.float64:
            value, error, spread, sides = self._at_kinks(value, error)
        self.error = np.abs(self.w) * error
        self.error[self.w == 0] = 0.0
        total = float(np.sum(self.w * value, dtype=np.longdouble))
        off = SURE * float(np.sqrt(np.sum(np.square(self.error))))
        return Slope(
            total,
            off if np.isfinite(total + off) else np.inf,
            float(np.sum(np.abs(self.w) * spread)),
            eps=float(np.max(self.eps, initial=0.0)),
            sides=sides,
        )

    def _sides(self, k: int) -> tuple[float, list[tuple[Array, Array]]]:
        """Step k, and the estimate and error from the left and from the right."""
        h, *quotients, floor = self.quotients[k]
        sides = []
        for q in quotients:
            one, two = 2 * q[1] - q[0], 2 * q[2] - q[1]
            sides.append(((4 * two - one) / 3, np.abs(two - one) + 4 * floor))
        return h, sides

    def _finite(self) -> tuple[Array, Array]:
        """Whether there are finite outputs to the left, to the right, at any step."""
        left = np.isfinite([step[1][2] for step in self.quotients]).any(0)
        right = np.isfinite([step[2][2] for step in self.quotients]).any(0)
        return left, right

    def _at_an_edge(self, value: Array, error: Array) -> tuple[Array, Array]:
        """At the edge of the domain, the derivative to the side that is inside."""
        finite = self._finite()
        if (finite[0] == finite[1]).all():
            return value, error
        for here, there in ((0, 1), (1, 0)):
            estimates = _Estimates(self.rounding)
            for k in range(len(self.quotients)):
                h, sides = self._sides(k)
                estimates.add(h, *sides[here])
            side, only = estimates.best(), finite[here] & ~finite[there]
            value, error = np.where(only, side[0], value), np.where(only, side[1], error)
        return value, error

    def _at_kinks(self, value: Array, error: Array) -> tuple:
        """Where both sides hold still and are apart close by: the middle, and half the distance."""
        spread, sides = np.zeros(value.shape), (np.nan, np.nan)
        for k in range(len(self.quotients)):
            h, ((a, error_a), (b, error_b)) = self._sides(k)
            if h <= CLOSE or not self.float64:
                apart = np.abs(a - b) > 4 * (error_a + error_b)
                better = apart & (error_a + error_b < error)
                if better.any():
                    value = np.where(better, (a + b) / 2, value)
                    error = np.where(better, error_a + error_b, error)
                    spread = np.where(better, np.abs(a - b) / 2, spread)
                    j = int(np.argmax(np.where(better, np.abs(self.w) * spread, 0)))
                    sides = float(a[j]), float(b[j])
        return value, error, spread, sides

    def why(self) -> str:
        """What keeps the output with the largest error from a better derivative."""
        if not self.error.size:
            return "there is no output"
        j = int(np.argmax(np.where(np.isnan(self.error), np.inf, self.error)))
        if not np.isfinite(self.y0[j]):
            return "the forward itself is not finite at this input"
        left, right = (side[j] for side in self._finite())
        if not left and not right:
            return "the forward is finite at this input, and not near it"
        if not left or not right:
            return "the input lies on the edge of what the forward is defined for"
        changes = [h / 4 * max(abs(a[2][j]), abs(b[2][j])) for h, a, b, _ in self.quotients]
        if changes[-1] > 1e-2 * changes[0] > 0 and self.quotients[-1][0] < 1e-10:
            return "the forward jumps here: a choice (argmax, rounding, routing) is on the edge"
        return "rounding inside the forward, or a jump or a very steep place, close to this input"
