"""Floor 2. The checks: every gradient, by every method that applies."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tinymixer.backend import Array
from tinymixer.engine import Function, Tensor
from tinymixer.gradcheck import numeric
from tinymixer.gradcheck.numeric import METHODS, Curve, Path
from tinymixer.gradcheck.report import (
    Finding,
    Report,
    is_fourth,
    likeliest_cause,
    size_names,
    worst_of,
)
from tinymixer.gradcheck.subject import (
    BrokenContract,
    Subject,
    of_composition,
    of_function,
    of_model,
    writing_is_a_breach,
)

MOST_ELEMENTS = 2000  # of one input that are moved singly; of a larger one, as many at random
LOOK_CLOSER = 60  # elements of a parameter that are moved singly once its direction disagrees
DIRECTIONS = 30  # over all parameters of a model at once
ADJOINT_PAIRS = 20
SHORT_STEP = 1e-6  # crosses hardly any kink; good to ten digits at best
# Of the largest gradient: what is smaller cannot be told from zero by this method.
INVISIBLE = {"differences": 1e-10, "complex step": 1e-13}


def check_function(op: Function, *arrays: Array, constants: Collection[str] = ()) -> Report:
    """Prove op.backward: each element of each gradient, and the rules of a Function.

    `constants` names floating inputs that op gives no gradient; integers and booleans never get
    one. It takes five forwards for each element (at most 2000 of each input): give small arrays.
    """
    return prove(of_function(op, *arrays, constants=constants))


def check(f: Callable[..., Tensor], *arrays: Array) -> Report:
    """Prove the gradients of f, composed of Tensors: each element by each floating array.

    Raises TypeError if f returns something else than a Tensor.
    """
    return prove(of_composition(f, *arrays))


def check_model(
    model: Any, batch: Array, call: Callable[[Any, Array], Tensor] = lambda model, x: model(x)
) -> Report:
    """Prove the gradients of a model (anything with named_parameters) on a batch of images.

    One random direction per parameter, as in a direction over all of them a wrong bias drowns;
    and 30 over all. Where a parameter disagrees, its elements are looked at. The model itself is
    left as it is: a copy is checked, in float64 and moved off its initial values. `call` says how
    it is called, where a model trains in another way than it evaluates.
    """
    rng = np.random.default_rng(0)
    subject = of_model(model, batch, rng, call)
    probes = [(name, subject.random_direction(rng, i)) for i, name in subject.variable.items()]
    probes += [("all parameters", subject.random_direction(rng)) for _ in range(DIRECTIONS)]
    with threadpool_limits(1):  # a busy machine makes the threads of a small product wait
        return prove(subject, probes)


def prove(subject: Subject, probes: list[tuple[str, dict]] | None = None) -> Report:
    """By every method that applies: along the directions `probes`, or else by each element."""
    rng = np.random.default_rng(1)
    try:
        with writing_is_a_breach():
            y, again = (subject.forward(*subject.arrays) for _ in range(2))
            if not np.array_equal(y, again, equal_nan=True):
                raise BrokenContract(
                    "a second forward gives another result: draw random numbers outside, pass them"
                )
            w = rng.standard_normal(np.shape(y))
            gradients = subject.backward(w)
    except BrokenContract as error:
        return Report(subject.name, broken=str(error))
    paths = [subject.path(subject.random_direction(rng)) for _ in range(3)]
    orders = [p for path in paths if (p := numeric.observed_order(path, w)) is not None]
    order = float(np.median(orders)) if orders else None
    analytic = _is_analytic(paths[0], w)
    # Of many gates a difference always crosses the kink of some; a complex step crosses none.
    kinked = probes is not None and analytic and not is_fourth(order)
    methods = ["complex step"] if kinked else METHODS if analytic else ["differences"]
    findings: list[Finding] = []
    for method in methods:
        if probes is None:
            findings += by_element(subject, w, gradients, method)
        else:
            # The complex step takes the same probes, crosses no jump and bends nowhere: it decides.
            skip_unsettled = analytic and method == "differences"
            findings += by_direction(subject, w, gradients, method, probes, skip_unsettled)
            kinked = kinked or len(findings) < len(probes)
    if probes is None:
        findings += adjoints(subject, rng)
    wrong = [f for f in findings if not f.passed and f.method == "differences"]
    return Report(
        subject.name,
        findings,
        order=None if kinked else order,
        steps=_error_by_step(subject, w, wrong[0]) if wrong else (),
        analytic=analytic,
        kinked=kinked,
    )


def _is_analytic(path: Path, w: Array) -> bool:
    """Whether the complex step may be believed: not after an abs, |z|² or a cast to real."""
    by_differences = numeric.central(path, w, SHORT_STEP)
    size = max(1.0, np.abs(w).sum(), abs(by_differences))
    return bool(abs(numeric.complex_step(path, w) - by_differences) <= 1e-6 * size)


def by_element(subject: Subject, w: Array, gradients: Mapping, method: str) -> list[Finding]:
    """One finding per input, all (at most MOST_ELEMENTS) of its elements moved one at a time."""
    rng = np.random.default_rng(2)
    numbers = {}
    for i, x in ((i, subject.arrays[i]) for i in subject.variable):
        picked = np.sort(rng.permutation(x.size)[:MOST_ELEMENTS])
        numbers[i] = picked, moved_singly(subject, i, picked, w, METHODS[method])
    reference = max((np.abs(n).max() for _, n in numbers.values()), default=0.0)
    reference = max(reference, np.abs(w).max())
    return [_compare(subject, w, i, *numbers[i], gradients[i], method, reference) for i in numbers]


def moved_singly(
    subject: Subject, i: int, picked: Array, w: Array, derivative: Callable[[Path, Array], float]
) -> Array:
    """d<w, y>/d(input i) at the elements `picked` (flat numbers)."""
    values = np.empty(len(picked))
    for k, element in enumerate(picked):
        v = np.zeros(subject.arrays[i].shape)
        v.flat[element] = 1
        values[k] = derivative(subject.path({i: v}), w)
    return values


def _compare(
    subject: Subject,
    w: Array,
    i: int,
    picked: Array,
    by_numbers: Array,
    dx: Array,
    method: str,
    reference: float,
) -> Finding:
    x, claimed = subject.arrays[i], dx.reshape(-1)[picked]
    gap = np.abs(by_numbers - claimed)
    gap[~np.isfinite(gap)] = np.inf
    k = int(np.argmax(gap))
    size = max(np.abs(array[np.isfinite(array)]).max(initial=0) for array in (by_numbers, claimed))
    zero = bool(size <= INVISIBLE[method] * reference)
    index = tuple(int(n) for n in np.unravel_index(picked[k], x.shape))
    finding = Finding(
        subject.variable[i],
        method,
        float(gap[k] / (reference if zero else size)),
        float(by_numbers[k]),
        float(claimed[k]) + 0.0,  # never -0
        index,
        zero,
    )
    if finding.passed:
        return finding
    shape = x.shape if len(picked) == x.size else picked.shape
    named = {name: subject.arrays[j] for j, name in subject.variable.items()}
    cause = likeliest_cause(
        by_numbers.reshape(shape),
        claimed.reshape(shape),
        x.reshape(-1)[picked].reshape(shape),
        size_names(named | {"y": subject.forward(*subject.arrays)}),
        numeric.derivative(subject.path({i: w})) if w.shape == shape else None,
    )
    return Finding(**vars(finding) | {"cause": cause})


def by_direction(
    subject: Subject,
    w: Array,
    gradients: Mapping,
    method: str,
    probes: list[tuple[str, dict]],
    skip_unsettled: bool,
) -> list[Finding]:
    """One finding per probe; where one disagrees, the elements of its parameter are looked at.

    With skip_unsettled a probe that disagrees is left out if half the step would change its number.
    """
    numbers = []
    for _, v in probes:
        terms = [gradients[i] * v[i] for i in v]
        # A sum of terms of random signs is about as large as their root sum of squares.
        typical = np.sqrt(sum(float((t * t).sum()) for t in terms))
        by_numbers = METHODS[method](subject.path(v), w)
        claimed = float(sum(t.sum() for t in terms))
        numbers.append((by_numbers, claimed, max(abs(by_numbers), abs(claimed), typical)))
    reference = max(size for _, _, size in numbers)
    findings = []
    for (name, v), (by_numbers, claimed, size) in zip(probes, numbers, strict=True):
        zero = bool(size <= INVISIBLE[method] * reference)
        error = abs(by_numbers - claimed) / (reference if zero else size)
        finding = Finding(name, method, error, by_numbers, claimed, None, zero)
        if not finding.passed and skip_unsettled and numeric.unsettled(subject.path(v), w):
            continue
        if not finding.passed and len(v) == 1:
            (i,) = v
            picked = np.random.default_rng(3).permutation(v[i].size)[:LOOK_CLOSER]
            singly = moved_singly(subject, i, picked, w, METHODS[method])
            closer = _compare(subject, w, i, picked, singly, gradients[i], method, reference)
            if not closer.passed:
                finding = closer
        findings.append(finding)
    return findings


def adjoints(subject: Subject, rng: np.random.Generator) -> list[Finding]:
    """<J v, w> = <v, Jᵀ w> for each input that y is linear in, with the other inputs fixed.

    No step is taken: a linear map is its own derivative, J v = y(v) - y(0). As any v will do, it is
    taken so large that the constant y(0), a bias, does not round J v.
    """
    findings = []
    for i, name in subject.variable.items():
        if not _linear_in(subject, i, rng):
            continue
        pairs = []
        for _ in range(ADJOINT_PAIRS):
            v = 1e6 * subject.random_direction(rng, i)[i]
            Jv = _at(subject, i, v) - _at(subject, i, 0 * v)
            w = rng.standard_normal(np.shape(Jv))
            JTw = subject.backward(w)[i]
            forwards, backwards = float((Jv * w).sum()), float((v * JTw).sum())
            size = max(_norm(Jv) * _norm(w), _norm(v) * _norm(JTw)) or 1.0
            pairs.append(
                Finding(name, "adjoint", abs(forwards - backwards) / size, forwards, backwards)
            )
        findings.append(worst_of(pairs))
    return findings


def _norm(x: Array) -> float:
    return float(np.sqrt((x * x).sum()))


def _at(subject: Subject, i: int, x: Array) -> Array:
    return subject.forward(*[x if j == i else other for j, other in enumerate(subject.arrays)])


def _linear_in(subject: Subject, i: int, rng: np.random.Generator) -> bool:
    """Whether y(v) - y(0) is odd and homogeneous at a random v, to rounding."""
    v = subject.random_direction(rng, i)[i]
    with np.errstate(all="ignore"):  # 0 and v may lie outside a nonlinear function's domain
        origin = _at(subject, i, 0 * v)
        once, twice, back = (_at(subject, i, s * v) - origin for s in (1.0, 2.0, -1.0))
        gap = np.abs(twice - 2 * once).max() + np.abs(once + back).max()
    return bool(gap <= 1e-13 * (np.abs(once).max() + np.abs(origin).max()))


def error_against_step(subject: Subject) -> Curve:
    """The V-curve: how far each method is from backward at each step, along a random direction."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal(np.shape(subject.forward(*subject.arrays)))
    v = subject.random_direction(rng)
    gradients = subject.backward(w)
    claimed = float(sum((gradients[i] * v[i]).sum() for i in v))
    return numeric.error_curve(subject.path(v), subject.path(v, np.float32), w, claimed)


def _error_by_step(subject: Subject, w: Array, wrong: Finding) -> list[tuple[float, float]]:
    """How the disagreement at one element depends on h."""
    if wrong.index is None or not np.isfinite(wrong.error):
        return []
    i = next(i for i, name in subject.variable.items() if name == wrong.input)
    v = np.zeros(subject.arrays[i].shape)
    v[wrong.index] = 1
    path, size = subject.path({i: v}), abs(wrong.numeric - wrong.backward) / wrong.error
    return [
        (h, abs(numeric.richardson(path, w, h) - wrong.backward) / size)
        for h in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    ]
