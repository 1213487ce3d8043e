"""Floor 2. The adjoint test: exact, without a step, wherever the forward is linear in an input."""

from collections.abc import Collection

import numpy as np

from tinymixer.backend import Array
from tinymixer.gradcheck.findings import Finding, worst_of
from tinymixer.gradcheck.subject import Subject

PAIRS = 20
PAIRS_OF_LARGE = 3  # inputs of more than 10,000 elements
LARGE = 10_000


def adjoints(
    subject: Subject, rng: np.random.Generator, skip: Collection[int] = ()
) -> list[Finding]:
    """<J v, w> = <v, Jᵀ w> for each input that y is linear in, with the other inputs fixed.

    No step is taken: a linear map is its own derivative, J v = y(v) - y(0). As any v will do, it is
    taken so large that the constant y(0), a bias, does not round J v. `skip` names inputs whose
    gradient is zero by a symmetry: rounding makes two different zeros of it.
    """
    findings = []
    for i, name in subject.variable.items():
        x = subject.arrays[i]
        if i in skip or not x.size or x.dtype != np.float64 or not _linear_in(subject, i, rng):
            continue
        pairs = []
        for _ in range(PAIRS_OF_LARGE if x.size > LARGE else PAIRS):
            v = FAR * subject.random_direction(rng, i)[i]
            constant = _at(subject, i, 0 * v)
            Jv = _at(subject, i, v) - constant
            w = rng.standard_normal(np.shape(Jv))
            JTw = subject.backward(w, subject.arrays)[i]
            forwards, backwards = float((Jv * w).sum()), float((v * JTw).sum())
            size = max(_norm(Jv) * _norm(w), _norm(v) * _norm(JTw))
            size = max(size, 1e-2 * _norm(constant) * _norm(w)) or 1.0
            pairs.append(
                Finding(name, "adjoint", abs(forwards - backwards) / size, forwards, backwards)
            )
        findings.append(worst_of(pairs))
    return findings


FAR = 1e6  # how much larger than x the v are


def _norm(x: Array) -> float:
    largest = float(np.abs(x).max(initial=0.0))
    return largest * float(np.sqrt(np.square(x / largest).sum())) if largest else 0.0


def _at(subject: Subject, i: int, x: Array) -> Array:
    return subject.forward(*[x if j == i else other for j, other in enumerate(subject.arrays)])


def _linear_in(subject: Subject, i: int, rng: np.random.Generator) -> bool:
    """Whether y(v) - y(0) is odd, homogeneous and additive at random v, small and large ones."""
    directions = [subject.random_direction(rng, i)[i] for _ in range(2)]
    try:
        return all(_is_linear(subject, i, *(s * v for v in directions)) for s in (1.0, FAR))
    except Exception:  # outside of its domain
        return False


def _is_linear(subject: Subject, i: int, u: Array, v: Array) -> bool:
    with np.errstate(all="ignore"):  # 0 and v may lie outside a nonlinear function's domain
        origin = _at(subject, i, 0 * v)
        once, twice, back = (_at(subject, i, s * v) - origin for s in (1.0, 2.0, -1.0))
        other, both = _at(subject, i, u) - origin, _at(subject, i, u + v) - origin
        gaps = twice - 2 * once, once + back, both - once - other
    gap, size = (sum(_largest(x) for x in of) for of in (gaps, (once, other, origin)))
    return bool(gap <= 1e-13 * size)


def _largest(x: Array) -> float:
    return float(np.abs(x).max(initial=0.0))
