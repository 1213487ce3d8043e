"""Floor 2. What is measured beside a claim; and, by halving a wrong group, the element at fault."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tinymixer.backend import Array
from tinymixer.gradcheck.claims import COARSER, ELSEWHERE, Claims
from tinymixer.gradcheck.numeric import TINY_STEP, Path
from tinymixer.gradcheck.slope import RUNGS, Slope, slope
from tinymixer.gradcheck.verdict import FAILED, SHARP, Claim, Judged, agree, exceeds, is_refuted

TINY_STEP32 = 1e-18
OTHER_STEPS = 0.7310585786300049, 0.5671432904097838  # no fractions of a power of two
ROUNDED = "rounding inside the forward: other steps give other quotients"
SAME = 0.2  # relative change of a gap, up to which it is taken for the same


def measured(
    claims: Claims, claim: Claim, complex_too: bool, differences: bool = True
) -> tuple[Claim, float, Slope]:
    """Beside a claim, the derivative by the complex step, NaN if there is none, and differences."""
    path, w = claims.subject.path(claim.move), claims.w
    exact = np.nan
    if complex_too:
        exact, y_size = complex_step(claims, path)
        size = y_size or claims.y_size  # nothing moved: the slope may have been rounded away
        claim = replace(claim, coarser=max(COARSER * claims.eps * size, 4 * claim.rounding))
        gap = abs(claim.value - exact)
        if not agree(claim.value, exact, claim) and gap <= min(claim.coarser, SHARP * abs(exact)):
            claim = replace(claim, persists=_persists(claims, claim, exact))
    if not differences:
        return claim, exact, Slope(np.nan, np.inf, 0.0, "only the complex step was taken")
    near, y0 = agree(claim.value, exact, claim), claims.at_rest(claim.move)
    size = max(abs(x) if np.isfinite(x) else 0.0 for x in (claim.value, exact))
    enough = 1e-10 * max(size, claim.reference)
    if near:
        found = slope(path, w, enough, RUNGS[:3], y0)
    else:
        enough = min(enough, max(1e-8 * size, 1e-13 * claim.reference))
        w = np.where(_stays(claims, claim, path), 0.0, w)
        found = slope(path, w, enough, y0=y0)
    if is_refuted(claim, exact, found) or exceeds(claim, found):
        found = _confirmed(path, w, enough, found, y0)
    return claim, exact, found


def _persists(claims: Claims, claim: Claim, exact: float) -> bool:
    """Whether backward is as far from the complex step at inputs close by: a mistake stays.

    Rounding does not. Of a saturated tanh, say, 1 - y² is off by another amount everywhere.
    """
    gap = claim.value - exact
    for near, gradients in claims.elsewhere:
        with np.errstate(all="ignore"):
            there = sum(np.sum(gradients[i] * v) for i, v in claim.move.items())
        other = float(there) - complex_step(claims, near.path(claim.move))[0]
        if not abs(other - gap) <= SAME * abs(gap):
            return False
    return len(claims.elsewhere) == ELSEWHERE


def _confirmed(path: Path, w: Array, enough: float, found: Slope, y0: Array) -> Slope:
    """A contradiction is measured again with other steps: rounding errors may agree with one
    another.

    The steps of a ladder are powers of two, and a forward that rounds on such a grid inside may
    give quotients that are wrong and equal. Other steps meet the grid elsewhere.
    """
    error = found.error
    for part in OTHER_STEPS:

        def other(t: float, part: float = part) -> Array:
            return path(part * t)

        again = slope(other, w, part * enough, y0=y0)
        gap = abs(again.value / part - found.value)
        error = max(error, 2 * gap) if np.isfinite(gap) else np.inf
    return found._replace(error=error, why=found.why or ROUNDED)


def _stays(claims: Claims, claim: Claim, path: Path) -> Array:
    """Which outputs do not depend on what a claim moves: their rounding does not matter."""
    try:
        with np.errstate(all="ignore"):
            y, step = claims.at_rest(claim.move), 2.0 ** RUNGS[0]
            still = (path(step) == y) & (path(-step) == y)
            return still & np.isfinite(claims.subject.at_nan(claim.move))
    except Exception:  # a forward that refuses NaN, or the step
        return np.zeros(claims.w.shape, bool)


def complex_step(claims: Claims, path: Path) -> tuple[float, float]:
    """The derivative, and how large the outputs are that moved. NaN where there is none."""
    h = TINY_STEP if claims.subject.dtype == np.float64 else TINY_STEP32
    try:
        with np.errstate(all="ignore"):
            y = path(1j * h)
            if not np.iscomplexobj(y):
                return np.nan, 0.0
            exact = float(np.sum(claims.w * y.imag, dtype=np.longdouble)) / h
            moved = np.where(y.imag != 0, claims.w * y.real, 0)
            return exact, float(np.sqrt(np.sum(np.square(moved))))
    except Exception:  # a forward that complex numbers cannot pass through
        return np.nan, 0.0


def located(claims: Claims, claim: Claim, judge_one: Callable[[Claim], Judged]) -> Judged | None:
    """A single element that is wrong, within a move of one input that is; None if none is found.

    By halving: of two halves of a wrong group at least one is wrong.
    """
    ((i, v),) = claim.move.items()
    members = np.flatnonzero(v)
    while len(members) > 1:
        for half in (members[: len(members) // 2], members[len(members) // 2 :]):
            part = np.zeros(v.size)
            part[half] = v.reshape(-1)[half]
            if judge_one(claims.along(claim.input, {i: part.reshape(v.shape)})).verdict == FAILED:
                members = half
                break
        else:
            return None
    found = judge_one(claims.single(i, int(members[0]))) if len(members) else None
    return found if found and found.verdict == FAILED else None
