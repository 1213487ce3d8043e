"""Floor 2. The checks: every gradient, by every method that applies."""

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tinymixer.backend import Array
from tinymixer.engine import Function, Tensor
from tinymixer.gradcheck import numeric
from tinymixer.gradcheck.adjoint import adjoints
from tinymixer.gradcheck.claims import MOST_ELEMENTS, Claims
from tinymixer.gradcheck.contract import BrokenContract, NotATensor, NothingToCheck
from tinymixer.gradcheck.findings import findings_of
from tinymixer.gradcheck.measure import complex_step, located, measured
from tinymixer.gradcheck.report import Coverage, Report
from tinymixer.gradcheck.subject import Subject, of_composition, of_function, of_model
from tinymixer.gradcheck.verdict import FAILED, Claim, Judged, is_refuted, judge

LOOK_CLOSER = 60  # elements of a large input that are moved singly once it disagrees
MOST_LOOKED_AT = 3  # such inputs: of a model with a wrong backward nearly all disagree
DIRECTIONS = 2  # over all parameters of a model at once
LONGEST = 60.0  # s, for moving the elements of one input one at a time
SMALLEST = 1e-150  # of an input; its complex step is 1e-100 times that
METHODS = ("differences", "complex step", "adjoint")


def check_function(op: Function, *arrays: Array, constants: Collection[str] = ()) -> Report:
    """Prove op.backward: each element of each gradient, and the rules of a Function.

    `constants` names floating inputs that op gives no gradient; integers and booleans never get
    one. Up to 2000 elements of an input are moved one at a time, by 8 forwards each; of larger
    ones all are, together. The verdict is passed, failed or not decidable here.
    """
    name = op.__name__ if isinstance(op, type) else type(op).__name__
    return _proven(name, lambda dtype: of_function(op, *arrays, constants=constants, dtype=dtype))


def check(f: Callable[..., Any], *arrays: Array) -> Report:
    """Prove the gradients of f, composed of Tensors: by each floating array, as check_function.

    Raises TypeError if f returns something else than a Tensor, or several in a tuple.
    """
    name = getattr(f, "__name__", type(f).__name__)
    return _proven(name, lambda dtype: of_composition(f, *arrays, dtype=dtype))


def check_model(
    model: Any,
    batch: Array,
    call: Callable[[Any, Array], Tensor] = lambda model, x: model(x),
    twice: bool = False,
    thorough: bool = True,
) -> Report:
    """Prove the gradients of a model (anything with named_parameters) on a batch of images.

    One random direction per parameter, as in a direction over all of them a wrong bias drowns;
    and some over all. Where a parameter disagrees, its elements are looked at. The model itself
    is left as it is: a copy is checked, in float64 and moved off its initial values. `call` says
    how it is called, where a model trains in another way than it evaluates. With `twice`, what
    two backward calls add up to is checked. Not `thorough`, the parameters are moved together,
    each so far that it counts as much as the others, and one by one only if that disagrees.
    """
    subject = of_model(model, batch, np.random.default_rng(0), call, twice)
    with threadpool_limits(1):  # a busy machine makes the threads of a small product wait
        if not thorough:
            report = prove(subject, _together)
            if report or report.broken:
                return report
        return prove(subject, _by_parameter)


ALL, ALIKE = "all parameters", "all parameters alike"


def _by_parameter(claims: Claims) -> Iterator[Claim]:
    rng, subject = np.random.default_rng(0), claims.subject
    for i, name in subject.variable.items():
        yield claims.along(name, subject.random_direction(rng, i))
    for _ in range(DIRECTIONS):
        yield claims.along(ALL, subject.random_direction(rng))


def _together(claims: Claims) -> Iterator[Claim]:
    """Directions in which every parameter counts alike; one by one those whose gradient is zero."""
    rng, subject = np.random.default_rng(0), claims.subject
    for i in claims.zero:
        yield claims.along(subject.variable[i], subject.random_direction(rng, i))
    for _ in range(DIRECTIONS):
        moves = {i: subject.random_direction(rng, i)[i] for i in subject.variable}
        sizes = {i: claims.along("", {i: v}).reference for i, v in moves.items()}
        least = 1e-3 * max(sizes.values())
        yield claims.along(ALIKE, {i: v / max(sizes[i], least) for i, v in moves.items()})
    yield claims.along(ALL, subject.random_direction(rng))


def _proven(name: str, make: Callable[[Any], Subject]) -> Report:
    """The report on a subject in float64, or in float32 if its forward computes in no other."""
    try:
        subject = make(np.float64)
        try:
            with np.errstate(all="ignore"):
                only32 = subject.forward(*subject.arrays).dtype == np.float32
        except (BrokenContract, NothingToCheck, NotATensor):  # told by the proof, if at all
            only32 = False
        return prove(make(np.float32) if only32 else subject)
    except NothingToCheck as error:
        return Report(name, undecided=str(error))


def prove(
    subject: Subject,
    probes: Callable[[Claims], Iterator[Claim]] | None = None,
    methods: Collection[str] = METHODS,
) -> Report:
    """Check by every method that applies: along the directions of `probes`, or by element."""
    try:
        with np.errstate(all="ignore"):  # steps may leave the domain of the forward
            return _prove(subject, probes, methods)
    except BrokenContract as error:
        return Report(subject.name, broken=str(error))
    except NothingToCheck as error:
        return Report(subject.name, undecided=str(error))


def _prove(
    subject: Subject,
    probes: Callable[[Claims], Iterator[Claim]] | None,
    methods: Collection[str],
) -> Report:
    rng = np.random.default_rng(1)
    start = time.perf_counter()
    y = _repeatable_output(subject)
    seconds = (time.perf_counter() - start) / 2
    w = rng.standard_normal(y.shape)
    gradients = subject.backward(w, subject.arrays)
    claims = Claims(subject, w, y, gradients)
    takes_complex = _takes_complex(claims, subject.random_direction(rng))
    by_complex = takes_complex and "complex step" in methods
    by_differences = "differences" in methods
    singly = {i for i in subject.variable if _is_small(subject.arrays[i].size, seconds)}
    found = []
    for claim in probes(claims) if probes else _claims_of(claims, singly):
        # Of one parameter of a model the complex step is proof enough, and half the work.
        enough = by_complex and probes is not None and claim.input != ALL
        found.append(measured(claims, claim, by_complex, by_differences and not enough))
    analytic = takes_complex and not any(is_refuted(*one) for one in found)

    def judge_one(claim: Claim) -> Judged:
        # Where the complex step holds it is enough to find what is wrong, for an eighth of the work
        enough = by_complex and (analytic or probes is not None)
        differences = by_differences and not enough
        return judge(*measured(claims, claim, by_complex, differences), analytic)

    judged = [judge(*one, analytic) for one in found]
    closer = list(_look_closer(claims, judged, judge_one))
    findings = findings_of(judged, closer, claims)
    if "adjoint" in methods and probes is None:
        findings += adjoints(subject, rng, skip=claims.zero | claims.negligible)
    paths = [subject.path(subject.random_direction(rng)) for _ in range(1 if probes else 3)]
    orders = [p for path in paths if (p := numeric.observed_order(path, w)) is not None]
    return Report(
        subject.name,
        findings,
        judged=[*judged, *closer],
        coverage=Coverage.of(claims, judged, singly if probes is None else set()),
        order=float(np.median(orders)) if orders else None,
        analytic=analytic,
        subject=subject,
        w=w,
    )


def _repeatable_output(subject: Subject) -> Array:
    """y, if there is anything to differentiate and a second forward gives the same."""
    if not subject.variable:
        raise NothingToCheck(
            "no input holds floating numbers; whole numbers count as labels and get no gradient. "
            "Write 3.0 for 3, or x.astype(float)"
        )
    if not any(subject.arrays[i].size for i in subject.variable):
        raise NothingToCheck("the inputs have no elements; give at least one")
    for i, name in subject.variable.items():
        size = np.abs(subject.arrays[i])
        if not np.isfinite(size).all():
            raise NothingToCheck(f"{name} holds values that are not finite; give finite ones")
        if ((size > 0) & (size < SMALLEST)).any() or (size > 1 / SMALLEST).any():
            raise NothingToCheck(
                f"{name} holds values below {SMALLEST:.0e} or above {1 / SMALLEST:.0e}, which "
                "leave no room for a step; scale them"
            )
    y, again = (subject.forward(*subject.arrays) for _ in range(2))
    if y.shape != again.shape:
        raise BrokenContract(
            f"a second forward gives another result: {again.shape} after {y.shape}. The function "
            "keeps a state: make it depend on its inputs alone"
        )
    if not np.array_equal(y, again, equal_nan=True):
        raise BrokenContract(
            "a second forward gives another result: draw random numbers outside, pass them, and "
            "keep no state between calls"
        )
    if np.iscomplexobj(y):
        raise NothingToCheck(f"forward returns {y.dtype}; expected real numbers")
    if not y.size:
        raise NothingToCheck(f"the output has no elements: its shape is {y.shape}")
    if not np.isfinite(y).all():
        at = tuple(int(n) for n in np.argwhere(~np.isfinite(y))[0])
        raise NothingToCheck(
            f"the forward itself is not finite at this input: y{list(at) if at else ''} is {y[at]}"
        )
    return y


def _takes_complex(claims: Claims, direction: Mapping[int, Array]) -> bool:
    """Whether complex numbers come through the forward, and nothing in it casts them to real."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        return bool(np.isfinite(complex_step(claims, claims.subject.path(direction))[0]))


def _is_small(size: int, seconds: float) -> bool:
    return size <= MOST_ELEMENTS and 8 * size * seconds <= LONGEST


def _claims_of(claims: Claims, singly: Collection[int]) -> Iterator[Claim]:
    for i in claims.subject.variable:
        if claims.subject.arrays[i].size:
            yield from claims.singles(i) if i in singly else claims.groups(i)


def _look_closer(
    claims: Claims, judged: list[Judged], judge_one: Callable[[Claim], Judged]
) -> Iterator[Judged]:
    """Elements of the inputs that a direction showed to be wrong: one that is, and some others."""
    looked_at: dict[int, Claim] = {}
    for one in judged:
        if one.verdict == FAILED and one.claim.index is None and len(one.claim.move) == 1:
            (i,) = one.claim.move
            looked_at.setdefault(i, one.claim)
    for i, claim in list(looked_at.items())[:MOST_LOOKED_AT]:
        size = claims.subject.arrays[i].size
        picked = np.sort(np.random.default_rng(3).permutation(size)[:LOOK_CLOSER])
        some = [judge_one(single) for single in claims.singles(i, picked)]
        yield from some
        if not any(one.verdict == FAILED for one in some):
            found = located(claims, claim, judge_one)
            if found:
                yield found
