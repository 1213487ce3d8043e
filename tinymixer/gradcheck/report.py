"""Floor 2. What a check found, and where to look."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tinymixer.backend import Array
from tinymixer.errors import counted
from tinymixer.gradcheck import numeric
from tinymixer.gradcheck.claims import Claims
from tinymixer.gradcheck.findings import Finding, place, worst_of
from tinymixer.gradcheck.subject import Subject
from tinymixer.gradcheck.verdict import (
    FAILED,
    PASSED,
    SUBGRADIENT,
    TOLERANCES,
    UNDECIDED,
    Judged,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = 9  # names of inputs in one line


@dataclass(frozen=True)
class Coverage:
    """What was looked at: elements one at a time, elements together, and what would show.

    noticed is how large an error of one element must be to be seen, of the largest gradient of
    the same input.
    """

    singly: int = 0
    together: int = 0
    noticed: float = 0.0

    @classmethod
    def of(cls, claims: Claims, judged: Sequence[Judged], singly: set[int]) -> "Coverage":
        noticed = [0.0]
        for one in judged:
            largest = max((claims.largest[i] for i in one.claim.move), default=0.0)
            if one.verdict == PASSED and largest and len(one.claim.move) == 1:
                noticed.append(one.noticed / largest)
        sizes = {i: claims.subject.arrays[i].size for i in claims.subject.variable}
        alone = sum(n for i, n in sizes.items() if i in singly)
        return cls(alone, sum(sizes.values()) - alone, float(max(noticed)))

    def __str__(self) -> str:
        parts = [f"{counted(self.singly, 'element')} one at a time"] if self.singly else []
        parts += (
            [f"{counted(self.together, 'element')} together, in groups"] if self.together else []
        )
        words = f"covered: all {', '.join(parts)}"
        if not self.noticed:
            return words
        return f"{words}; an error of one element is noticed from {self.noticed:.0e} of the largest"


@dataclass(frozen=True, repr=False)
class Report:
    """All that was found about one operation, function or model. True if it passed.

    `verdict` is "passed", "failed" or "not decidable here". judged holds every number that was
    compared, findings the worst of each input by method. order is the observed order of the
    differences, 4 for a smooth forward: information about the measurement, never a fault.
    """

    name: str
    findings: Sequence[Finding] = ()
    judged: Sequence[Judged] = field(default=(), repr=False)
    coverage: Coverage = Coverage()
    order: float | None = None
    analytic: bool = True  # or else the complex step does not apply
    broken: str = ""  # the rule that forward or backward does not keep
    undecided: str = ""  # why there is nothing to compare at this input
    subject: Subject | None = field(default=None, repr=False)
    w: Array | None = field(default=None, repr=False)

    @property
    def verdict(self) -> str:
        wrong = any(one.verdict == FAILED for one in self.judged)
        if self.broken or wrong or any(not f.passed for f in self.findings):
            return FAILED
        if self.undecided or self.doubts or self.only_kinks:
            return UNDECIDED
        return PASSED

    def __bool__(self) -> bool:
        return self.verdict == PASSED

    def __repr__(self) -> str:
        return str(self)

    @property
    def kinks(self) -> list[Judged]:
        """Where the forward has a kink, and backward gives a value between its two sides."""
        return [one for one in self.judged if one.verdict == SUBGRADIENT]

    @property
    def doubts(self) -> list[Judged]:
        return [one for one in self.judged if one.verdict == UNDECIDED]

    @property
    def only_kinks(self) -> list[str]:
        """Inputs of which no element at all could be compared with a derivative."""
        by_input: dict[str, set[str]] = {}
        for one in self.judged:
            by_input.setdefault(one.claim.input, set()).add(one.verdict)
        return [name for name, verdicts in by_input.items() if verdicts == {SUBGRADIENT}]

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
        return worst_of(f for f in self.findings if f.method == method)

    def raise_on_failure(self) -> None:
        """AssertionError with the report, unless it passed: also where nothing was decided."""
        if not self:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        verdict = "FAILED" if self.verdict == FAILED else self.verdict
        return "\n  ".join([f"{self.name}: {verdict}", *self._lines()])

    def _lines(self) -> Iterator[str]:
        if self.broken or self.undecided:
            yield self.broken or self.undecided
            return
        worst = [f for method in TOLERANCES if (f := self.worst(method))]
        for f in worst:
            yield f"{f.method}: relative error at most {f.error:.1e}" if f.passed else str(f)
        causes = dict.fromkeys(f"d{f.input}: {f.cause}" for f in self.findings if f.cause)
        for cause in list(causes)[:3]:
            yield f"likeliest cause of {cause}"
        wrong = list(dict.fromkeys(f"d{f.input}" for f in self.findings if not f.passed))
        if len(wrong) > 1:
            yield f"wrong: {', '.join(wrong[:LONG])}{', ...' if len(wrong) > LONG else ''}"
        if wrong and (steps := self.steps):
            yield "error against step: " + ", ".join(f"{h:.0e} {e:.0e}" for h, e in steps)
            if min(e for _, e in steps) > 0.5 * steps[0][1]:
                yield "  no step closes the gap: it is backward that is off, not the step"
        yield from self._exceptions()
        yield str(self.coverage)
        if self.order is not None and abs(self.order - 4) < 0.3:
            yield f"observed order of the differences: {self.order:.2f}"
        elif self.order is not None:
            yield "smaller steps were taken: within the largest there are kinks or steep places"
        if self.zeros:
            yield self.symmetry
        if not self.analytic:
            yield "no complex step: the forward is not analytic (abs, a cast to real, ...)"

    def _exceptions(self) -> Iterator[str]:
        """Elements that are neither right nor wrong."""
        if kinks := self.kinks:
            one = kinks[0]
            left, right = one.slope.sides
            yield (
                f"at a kink: {_count(kinks)}, where backward may give any value between the sides, "
                f"and does; at {place(one.claim.input, one.claim.index)} an output has slope "
                f"{left:.6g} from the left and {right:.6g} from the right"
            )
        for name in self.only_kinks:
            yield f"all of d{name} is at kinks, where there is no derivative: move {name} off them"
        reasons = Counter(one.reason for one in self.doubts)
        for reason, _ in reasons.most_common(2):
            those = [one for one in self.doubts if one.reason == reason]
            one = those[0]
            yield (
                f"not decided: {_count(those)}; {place(one.claim.input, one.claim.index)}: "
                f"backward {one.claim.value / one.claim.unit + 0.0:.10g}, "
                f"by {one.method} {_number(one)}"
            )
            yield f"  {reason}. What would decide: {_advice(reason)}"

    @property
    def steps(self) -> list[tuple[float, float]]:
        """(relative step, relative error) of the differences at the worst wrong element."""
        wrong = [f for f in self.findings if not f.passed and f.index is not None]
        if not wrong or self.subject is None or self.w is None:
            return []
        one = next(
            (
                j
                for j in self.judged
                if (j.claim.input, j.claim.index) == (wrong[0].input, wrong[0].index)
            ),
            None,
        )
        if one is None or not np.isfinite(one.claim.value):
            return []
        path, size = self.subject.path(one.claim.move), abs(one.claim.value) + abs(one.numeric)
        with np.errstate(all="ignore"):
            errors = [
                (h, abs(numeric.richardson(path, self.w, h) - one.claim.value) / size)
                for h in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
            ]
        return [(h, float(e)) for h, e in errors if np.isfinite(e)]

    def as_dict(self) -> dict[str, Any]:
        """All of it but the single elements, for a file."""
        plain = "name", "order", "analytic", "broken", "undecided", "verdict", "zeros"
        found = [asdict(f) | {"passed": f.passed} for f in self.findings]
        return {key: getattr(self, key) for key in plain} | {
            "coverage": asdict(self.coverage),
            "findings": found,
            "lines": str(self).split("\n")[1:],
        }

    def plot(self) -> "Figure":
        """The error of each method against the step, along one random direction: the V-curve."""
        from tinymixer.gradcheck.show import curve_figure, curve_of

        return curve_figure(self.name, curve_of(self))

    def _repr_html_(self) -> str:
        from tinymixer.gradcheck.show import table

        return table(self)


def _number(one: Judged) -> str:
    error = one.slope.error / one.claim.unit
    if not np.isfinite(error):
        return "not settled"
    return f"{one.numeric / one.claim.unit:.10g} ± {error:.0e}"


def _count(some: Sequence[Judged]) -> str:
    groups = any(one.claim.index is None for one in some)
    return counted(len(some), "direction" if groups else "element")


def _advice(reason: str) -> str:
    if "jump" in reason and "choice" in reason:
        return "an input off that edge, or the function with the choice made outside, as a constant"
    if "edge" in reason or "near it" in reason:
        return "an input inside, away from the edge"
    if "loses digits" in reason:
        return "an input that saturates less, or 1 - y² computed from x"
    return (
        "an input of another size or place, or a forward that complex numbers pass through (no "
        "abs, no casts): its complex step is exact"
    )
