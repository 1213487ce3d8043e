"""Floor 2. The worst of each gradient by each method, and what its error looks like."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinymixer.backend import Array
from tinymixer.gradcheck import numeric
from tinymixer.gradcheck.causes import likeliest_cause, size_names
from tinymixer.gradcheck.claims import Claims
from tinymixer.gradcheck.verdict import TOLERANCES, Judged


@dataclass(frozen=True)
class Finding:
    """One gradient by one method: the worst disagreement, and where.

    error is |numeric - backward| over the largest element of either, so that the many elements
    that are small by chance do not count as wrong. What is wrong is decided element by element,
    by how far off each number may be: see `verdict`.
    """

    input: str
    method: str
    error: float
    numeric: float
    backward: float
    index: tuple[int, ...] | None = None  # None: a derivative along a direction
    zero: bool = False  # both vanish: a symmetry of the forward
    cause: str = ""
    wrong: bool | None = None  # None: decided by the error alone

    @property
    def passed(self) -> bool:
        return self.error <= TOLERANCES[self.method] if self.wrong is None else not self.wrong

    def __str__(self) -> str:
        if self.method == "adjoint":
            numbers = f"<J v, w> = {self.numeric:.10g}, but <v, Jᵀ w> = {self.backward:.10g}"
        else:
            numbers = f"{self.method} {self.numeric:.10g}, backward {self.backward:.10g}"
        limit = TOLERANCES[self.method]
        where = place(self.input, self.index)
        return f"{where}: {numbers}; relative error {self.error:.1e} (at most {limit})"


def place(name: str, index: tuple[int, ...] | None) -> str:
    return f"d{name}" + (f"[{', '.join(map(str, index))}]" if index else "")


def worst_of(findings: Iterable[Finding]) -> Any:
    """The finding that is furthest off, wrong ones before all; None if there is none."""
    return max(
        findings, key=lambda f: (not f.passed, np.nan_to_num(f.error, nan=np.inf)), default=None
    )


def findings_of(
    judged: Sequence[Judged], closer: Sequence[Judged], claims: Claims
) -> list[Finding]:
    """The worst of each input by method; of directions, each by each method."""
    elements: dict[str, list[Judged]] = {}
    for one in (*judged, *closer):
        if one.claim.index is not None:
            elements.setdefault(one.claim.input, []).append(one)
    found = []
    for method in ("differences", "complex step"):
        seen_closer = set()
        for name, those in elements.items():
            finding = _worst_element(those, method, name, claims)
            if finding and (those[0] in judged or not finding.passed):
                found.append(finding)
                seen_closer.add(name)
        for one in judged:
            if one.claim.index is None and one.claim.input not in seen_closer:
                compared = one.by(method)
                if compared:
                    size = max(abs(compared.numeric), abs(one.claim.value), one.claim.reference)
                    zero = _is_zero(one, claims, size)
                    size = max(claims.largest.values()) if zero else size
                    found.append(
                        Finding(
                            one.claim.input,
                            method,
                            compared.gap / (size or 1.0),
                            compared.numeric,
                            one.claim.value + 0.0,  # never -0
                            None,
                            zero,
                            wrong=compared.wrong,
                        )
                    )
    return found


def _is_zero(one: Judged, claims: Claims, size: float) -> bool:
    return all(i in claims.zero for i in one.claim.move) and size <= one.claim.rounding


def _worst_element(
    those: Sequence[Judged], method: str, name: str, claims: Claims
) -> Finding | None:
    """The finding on one input, all or some of its elements moved one at a time."""
    compared = [(one, c) for one in those if (c := one.by(method))]
    if not compared:
        return None
    numbers = np.array([c.numeric / one.claim.unit for one, c in compared])
    claimed = np.array([one.claim.value / one.claim.unit for one, _ in compared])
    wrong = np.array([c.wrong for _, c in compared])
    gap = np.abs(numbers - claimed)
    gap[~np.isfinite(gap)] = np.inf
    size = max(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in (numbers, claimed))
    zero = all(_is_zero(one, claims, abs(c.numeric)) for one, c in compared)
    k = int(np.argmax(np.where(wrong, gap, -1.0) if wrong.any() else gap))
    reference = max([*claims.plain.values(), float(np.abs(claims.w).max(initial=0.0))])
    one = compared[k][0]
    finding = Finding(
        name,
        method,
        float(gap[k] / ((reference if zero else size) or 1.0)),
        float(numbers[k]),
        float(claimed[k]) + 0.0,
        one.claim.index,
        zero,
        wrong=bool(wrong.any()),
    )
    return finding if finding.passed else _explained(finding, compared, numbers, claimed, claims)


def _explained(
    finding: Finding, compared: list, numbers: Array, claimed: Array, claims: Claims
) -> Finding:
    subject = claims.subject
    i = next(i for i, name in subject.variable.items() if name == finding.input)
    x = subject.arrays[i]
    shape = x.shape if len(compared) == x.size else numbers.shape
    values = np.array([x[one.claim.index] for one, _ in compared])
    named = {name: subject.arrays[j] for j, name in subject.variable.items()}
    with np.errstate(all="ignore"):
        y = subject.forward(*subject.arrays)
        Jw = None
        if claims.w.shape == shape == x.shape:
            Jw = numeric.derivative(subject.path({i: claims.w}))
    cause = likeliest_cause(
        numbers.reshape(shape),
        claimed.reshape(shape),
        values.reshape(shape),
        size_names(named | {"y": y}),
        Jw,
    )
    return replace(finding, cause=cause)
