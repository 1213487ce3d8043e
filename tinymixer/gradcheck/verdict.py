"""Floor 2. The verdict on one number that backward claims.

| verdict               | when                                                                     |
|-----------------------|--------------------------------------------------------------------------|
| passed                | an exact method agrees to rounding, or differences that are sharp enough |
| failed                | an exact method disagrees beyond rounding, or differences beyond their   |
|                       | own error                                                                |
| subgradient           | the forward has a kink there, and the claim lies between its two sides   |
| not decidable here    | neither can be said at this input                                        |

Exact is the complex step, where it applies: it is believed only where the differences, within
their own error, do not refute it (after an abs or a cast it is not the derivative).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinymixer.gradcheck.slope import Slope

PASSED, FAILED, UNDECIDED = "passed", "failed", "not decidable here"
SUBGRADIENT = "subgradient"

# The largest relative error that still is rounding, by method.
TOLERANCES = {"differences": 1e-9, "complex step": 1e-12, "adjoint": 1e-13}
SHARP = 2e-7  # relative error up to which differences decide that a claim is right
SHARP32 = 1e-2  # in float32
SMALL = 1e-3  # of the largest in its input: below that, differences are compared with the largest


@dataclass(frozen=True)
class Claim:
    """What backward says of d<w, y>/dt along one move of the inputs, and how exactly it can.

    rounding is what the claim may be off by though the formula is right, from moving all inputs by
    one unit in the last place; coarser is what the values of y, rounded, can tell at best.
    persists: how far it is from the complex step is the same at inputs close by, where rounding
    would be another.
    """

    input: str
    value: float
    reference: float  # the largest of its kind
    rounding: float
    coarser: float
    unit: float = 1.0  # of t, in the units of the input
    index: tuple[int, ...] | None = None  # None: along a direction
    move: Any = None  # the direction itself, by input
    probe: str = ""  # which directions it belongs with
    persists: bool = False


@dataclass(frozen=True)
class Judged:
    """A claim, what was measured beside it, and the verdict."""

    claim: Claim
    exact: float  # by the complex step; NaN where it does not apply
    slope: Slope
    verdict: str
    method: str
    reason: str = ""

    @property
    def numeric(self) -> float:
        return self.exact if self.method == "complex step" else self.slope.value

    @property
    def gap(self) -> float:
        return _gap(self.numeric, self.claim.value)

    def by(self, method: str) -> "Compared | None":
        """What one method alone has to say; None where it cannot be compared."""
        claim, kinked = self.claim, self.slope.kinked
        if method == "complex step":
            if (
                not np.isfinite(self.exact)
                or kinked
                or is_refuted(self.claim, self.exact, self.slope)
            ):
                return None
            gap = _gap(claim.value, self.exact)
            wrong = self.verdict == FAILED and is_mistaken(claim, self.exact)
            return Compared(self.exact, gap, wrong)
        if (kinked and self.verdict != FAILED) or not np.isfinite(self.slope.error):
            return None
        gap = max(0.0, _gap(claim.value, self.slope.value) - self.slope.spread)
        wrong = gap > _bound(claim, self.slope) and self.verdict == FAILED
        size = max(abs(claim.value), abs(self.slope.value), claim.reference)
        decided = self.method == "complex step"
        sharp = TOLERANCES["differences"] / 2 if decided else SHARP
        if not wrong and self.slope.error > sharp * size:
            return None
        return Compared(self.slope.value, gap, wrong)

    @property
    def noticed(self) -> float:
        """The smallest error of this claim that would not have passed."""
        if self.method == "complex step":
            if not agree(self.claim.value, self.exact, self.claim):
                return SHARP * abs(self.exact)
            return self.claim.rounding + TOLERANCES[self.method] * abs(self.exact)
        return 2 * self.slope.error + self.slope.spread


class Compared(NamedTuple):
    numeric: float
    gap: float
    wrong: bool


def _gap(a: float, b: float) -> float:
    gap = abs(a - b)
    return float(gap) if np.isfinite(gap) else np.inf


def _bound(claim: Claim, slope: Slope) -> float:
    """How far a right claim may be from the differences."""
    size = max(abs(x) if np.isfinite(x) else 0.0 for x in (claim.value, slope.value))
    bound = 2 * slope.error + claim.rounding + TOLERANCES["differences"] * size
    return bound + 1e-5 * size if slope.eps > 1e-10 else bound  # backward is in float32, too


def exceeds(claim: Claim, slope: Slope) -> bool:
    """Whether a claim is further from the differences than both may be off."""
    return abs(claim.value - slope.value) - slope.spread > _bound(claim, slope)


def is_refuted(claim: Claim, exact: float, slope: Slope) -> bool:
    """Whether the differences show that the complex step is not the derivative."""
    if not np.isfinite(exact + slope.error) or slope.spread > slope.error:
        return False
    return abs(exact - slope.value) > 3 * slope.error + claim.rounding + 1e-9 * abs(exact)


def agree(a: float, b: float, claim: Claim) -> bool:
    """Whether two exact numbers are the same to rounding. False for NaN."""
    gap = TOLERANCES["complex step"] * max(abs(a), abs(b)) + claim.rounding
    return bool(np.isfinite(a + b) and abs(a - b) <= gap)


def is_mistaken(claim: Claim, exact: float) -> bool:
    """Whether a claim differs from an exact number by more than digits lost on the way."""
    beyond = abs(claim.value - exact) > claim.coarser
    return not agree(claim.value, exact, claim) and (beyond or claim.persists)


def judge(claim: Claim, exact: float, slope: Slope, analytic: bool = True) -> Judged:
    """The verdict on a claim. analytic: the complex step was refuted nowhere in this forward."""

    def judged(verdict: str, method: str, reason: str = "") -> Judged:
        return Judged(claim, exact, slope, verdict, method, reason)

    a, size = claim.value, max(abs(claim.value), abs(slope.value))
    unknown = not np.isfinite(slope.error)
    kinked = slope.kinked
    if not np.isfinite(a):
        known = slope.error <= SMALL * max(abs(slope.value), claim.reference)
        if np.isfinite(exact) or known:
            return judged(FAILED, "differences", f"backward gives {a}: 0/0, log 0 or overflow")
        return judged(UNDECIDED, "differences", f"backward gives {a}, and {slope.why}")
    if np.isfinite(exact) and not kinked and not is_refuted(claim, exact, slope):
        if agree(a, exact, claim) and (exact or analytic or slope.error <= SMALL * claim.reference):
            return judged(PASSED, "complex step")
        if analytic and is_mistaken(claim, exact):
            return judged(FAILED, "complex step")
        if analytic and abs(a - exact) <= SHARP * abs(exact):
            return judged(PASSED, "complex step")  # more digits than the outputs have
        if analytic and not agree(a, exact, claim):
            return judged(
                UNDECIDED,
                "complex step",
                "backward loses digits here: a difference of nearly equal numbers, as 1 - y² of a "
                "saturated tanh; what is left is below the rounding of the output",
            )
    if unknown:
        return judged(UNDECIDED, "differences", slope.why)
    if exceeds(claim, slope):
        return judged(FAILED, "differences")
    if kinked:
        return judged(SUBGRADIENT, "differences")
    sharp = SHARP32 if slope.eps > 1e-10 else SHARP
    reference = SMALL * claim.reference if claim.index is not None else claim.reference
    if slope.error <= sharp * max(size, reference):
        return judged(PASSED, "differences")
    return judged(UNDECIDED, "differences", slope.why)
