"""Floor 2. What a check found, and how it tells a reader where to look."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from tinymixer.backend import Array

# The largest relative error that still is rounding, by method.
TOLERANCES = {"differences": 1e-9, "complex step": 1e-12, "adjoint": 1e-13}


@dataclass(frozen=True)
class Finding:
    """One gradient by one method: the worst disagreement, and where.

    error is |numeric - backward| over the largest element of either, so that the many elements
    that are small by chance do not count as wrong.
    """

    input: str
    method: str
    error: float
    numeric: float
    backward: float
    index: tuple[int, ...] | None = None  # None: a derivative along a direction
    zero: bool = False  # both vanish: a symmetry of the forward
    cause: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= TOLERANCES[self.method]  # False for NaN

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        if self.method == "adjoint":
            numbers = f"<J v, w> = {self.numeric:.10g}, but <v, Jᵀ w> = {self.backward:.10g}"
        else:
            numbers = f"{self.method} {self.numeric:.10g}, backward {self.backward:.10g}"
        limit = TOLERANCES[self.method]
        return f"d{self.input}{where}: {numbers}; relative error {self.error:.1e} (at most {limit})"


def is_fourth(order: float | None) -> bool:
    """Whether an observed order of the differences is that of a smooth forward."""
    return order is None or abs(order - 4) < 0.3


def worst_of(findings: Iterable[Finding]) -> Any:
    """The finding that is furthest off, NaN before all; None if there is none."""
    return max(findings, key=lambda f: np.nan_to_num(f.error, nan=np.inf), default=None)


@dataclass(frozen=True)
class Report:
    """All that was found about one operation, function or model. True if it passed.

    order is the observed order of the differences, 4 for a smooth forward; None where they have no
    truncation error to measure, as for linear operations. steps holds (h, relative error) of the
    differences at the worst element, for failures.
    """

    name: str
    findings: Sequence[Finding] = ()
    order: float | None = None
    steps: Sequence[tuple[float, float]] = ()
    analytic: bool = True  # or else the complex step does not apply
    kinked: bool = False  # then differences do not, all or some: ReLUs, or decisions
    broken: str = ""  # the rule that forward or backward does not keep

    def __bool__(self) -> bool:
        return not self.broken and self.smooth and all(f.passed for f in self.findings)

    @property
    def smooth(self) -> bool:
        return is_fourth(self.order)

    @property
    def zeros(self) -> list[str]:
        """The inputs whose gradient vanishes by a symmetry of the forward."""
        live = {f.input for f in self.findings if not f.zero}
        return list(dict.fromkeys(f.input for f in self.findings if f.input not in live))

    @property
    def symmetry(self) -> str:
        """The zeros in words."""
        return f"zero by symmetry: {', '.join('d' + name for name in self.zeros)}"

    def worst(self, method: str) -> Finding | None:
        """The finding of this method that is furthest off."""
        return worst_of(f for f in self.findings if f.method == method)

    def raise_on_failure(self) -> None:
        """Raises AssertionError with this report as its message."""
        if not self:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        return "\n  ".join([f"{self.name}: {'passed' if self else 'FAILED'}", *self._lines()])

    def _lines(self) -> Iterator[str]:
        if self.broken:
            yield self.broken
        worst = [f for method in TOLERANCES if (f := self.worst(method))]
        for f in worst:
            yield f"{f.method}: relative error at most {f.error:.1e}" if f.passed else str(f)
        for cause in dict.fromkeys(f"d{f.input}: {f.cause}" for f in worst if f.cause):
            yield f"likeliest cause of {cause}"
        wrong = list(dict.fromkeys(f"d{f.input}" for f in self.findings if not f.passed))
        if len(wrong) > 1:
            yield f"wrong: {', '.join(wrong[:9])}{', ...' if len(wrong) > 9 else ''}"
        if self.steps:
            errors = [error for _, error in self.steps]
            yield "error against step: " + ", ".join(f"{h:.0e} {e:.0e}" for h, e in self.steps)
            if max(errors) < 2 * min(errors):
                yield "  no step closes the gap: it is backward that is off, not the step"
            else:
                yield "  it depends on the step: distrust the differences before backward"
        if not self.smooth:
            yield (
                f"observed order {self.order:.1f}, expected 4: the forward is not smooth near this "
                "input (a kink, a jump, or rounding inside); check at an input further away from it"
            )
        elif self.kinked:
            left = "some differences left out" if self.worst("differences") else "no differences"
            yield f"{left}: their steps cross kinks, or are too long; the complex step does not"
        elif self.order is not None:
            yield f"observed order of the differences: {self.order:.2f}"
        if self.zeros:
            yield self.symmetry
        if not self.analytic:
            yield "no complex step: the forward is not analytic (abs, a cast to real, ...)"


def likeliest_cause(
    numeric: Array, dx: Array, x: Array, sizes: Mapping[int, str], Jw: Array | None = None
) -> str:
    """What would turn `dx`, the gradient that backward claims, into `numeric`, in words.

    Each known mistake predicts what the right gradient would be; the first prediction that
    explains the error to a thousandth is named. sizes: what each number of elements is the size
    of. Jw: what a backward gives that forgot to transpose, if it has the shape of x.
    """
    if not np.isfinite(numeric).all():
        return "the forward itself is not finite near this input"
    if not np.isfinite(dx).all():
        return f"{np.count_nonzero(~np.isfinite(dx))} elements are not finite: 0/0, log 0, overflow"
    error = numeric - dx
    largest = np.abs(error).max()

    def explains(prediction: Array) -> bool:
        return bool(np.abs(numeric - prediction).max() < 1e-3 * largest)

    if not dx.any():
        return "all zero: this input's term is missing, or was cut off from the tape"
    if explains(np.zeros_like(dx)):
        return "this gradient should be zero: a term too many, or one that should cancel it"
    factor = float((dx * numeric).sum() / (numeric * numeric).sum())
    if factor and explains(dx / factor):
        return _explain_factor(factor, sizes)
    if dx.ndim == 2 and dx.shape[0] == dx.shape[1] and explains(dx.T):
        return "transposed: two indices of the product are swapped"
    if Jw is not None and np.abs(dx - Jw).max() < 1e-3 * largest:
        return "transposed: this is J dy, expected Jᵀ dy; a matrix in backward lacks its transpose"
    for axis, length in enumerate(dx.shape):
        if length == 1:
            continue
        if explains(np.flip(dx, axis)):
            return f"reversed along axis {axis}"
        for shift in (1, -1):
            if explains(np.roll(dx, shift, axis)):
                return f"shifted by one along axis {axis}: an index that starts one off"
        if length > 2 and explains(dx + error.mean(axis, keepdims=True)):
            return (
                f"the error is constant along axis {axis}: a term is missing (or too many) that is "
                f"a sum or mean over axis {axis}"
            )
        if length > 3 and explains(dx + _line_through(error, x, axis)):
            return (
                f"along axis {axis} the error is a straight line in the input: a term is missing "
                f"(or too many) that is the input times a sum or mean over axis {axis}"
            )
    wrong = np.argwhere(np.abs(error) > 1e-3 * largest)
    if 10 * len(wrong) <= dx.size:
        return f"{len(wrong)} of {dx.size} elements are wrong, the first at {wrong[0].tolist()}"
    return (
        "no simple pattern: a factor transposed, saved wrongly, or of another formula? Compare "
        "backward with the derivation term by term"
    )


def _explain_factor(factor: float, sizes: Mapping[int, str]) -> str:
    if abs(factor + 1) < 1e-3:
        return "the sign: every element is minus what it should be"
    sign = " and of the wrong sign" if factor < 0 else ""
    ratio = abs(factor)
    for n, what in sizes.items():
        if n > 1 and abs(ratio - n) < 1e-3 * n:
            return f"{n} times too large{sign}: a missing 1/N with N = {n}, {what}?"
        if n > 1 and abs(ratio * n - 1) < 1e-3:
            return f"{n} times too small{sign}: a 1/N too many, with N = {n}, {what}?"
    return f"off by the factor {ratio:.6g}{sign}, everywhere: a constant"


def size_names(arrays: Mapping[str, Array]) -> dict[int, str]:
    """What each number of elements is: an axis, or the product of two axes, of which array."""
    names: dict[int, str] = {}
    for name, x in arrays.items():
        for axis, n in enumerate(x.shape):
            names.setdefault(n, f"the length of axis {axis} of {name}")
        for i, j in combinations(range(x.ndim), 2):
            names.setdefault(x.shape[i] * x.shape[j], f"axes {i} and {j} of {name} together")
        names.setdefault(x.size, f"all elements of {name}")
    return names


def _line_through(error: Array, x: Array, axis: int) -> Array:
    """The least-squares a + b x along `axis` through the error."""
    centred = x - x.mean(axis, keepdims=True)
    mean = error.mean(axis, keepdims=True)
    squares = np.maximum((centred**2).sum(axis, keepdims=True), 1e-300)  # 0 for a constant x
    return mean + (centred * error).sum(axis, keepdims=True) / squares * centred
