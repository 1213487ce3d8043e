"""Floor 2. The claims of a backward, one by one or in groups, and how exactly it can make them.

Small inputs are moved one element at a time. Of large ones all elements are moved together, in
groups of gradients of about the same size, each element up or down at random: a single element
that is wrong shows in every such direction, with its own sign.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from tinymixer.backend import Array
from tinymixer.gradcheck.subject import Subject
from tinymixer.gradcheck.verdict import Claim

MOST_ELEMENTS = 2000  # of one input that are moved one at a time
DIRECTIONS = 2  # of a group
DECADES = 2.0  # of a group: from its largest gradient to its smallest
GROUPS = 8  # of an input; what is smaller than all shares the last
NUDGES = 3  # by the last place of every input, to see what rounding does to backward
SMALLEST = 4e-15  # of the largest gradient of an input: sums round what is smaller
COARSER = 256  # roundings of the outputs, that a cancellation inside may cost
ELSEWHERE = 4  # inputs close by, at which the gap to the complex step is looked at again
CLOSE_BY = 1e-5  # how far off they are: enough to round otherwise where 1 - y² has seven digits
ZERO = 1e-13  # of the whole output's size: a gradient that small is zero by symmetry


class Claims:
    """What backward claims about a subject for the cotangent w, and how exact the claims can be."""

    def __init__(self, subject: Subject, w: Array, y: Array, gradients: Mapping[int, Array]):
        self.subject, self.w, self.gradients = subject, w, gradients
        self.eps = float(np.finfo(subject.dtype).eps)
        self.y_size = float(np.sqrt(np.sum(np.square(w * np.where(np.isfinite(y), y, 0)))))
        self.nudged: list[Mapping[int, Array]] = []
        self._at_rest: dict[tuple[int, ...], Array] = {}
        self.output_is_noise = False
        self._nudge(y)
        self.units = {i: _units(subject, i) for i in subject.variable}
        terms = {i: np.abs(_finite(g) * self.units[i]) for i, g in gradients.items()}
        self.largest = {i: float(t.max(initial=0.0)) for i, t in terms.items()}
        self.plain = {i: float(np.abs(_finite(g)).max(initial=0.0)) for i, g in gradients.items()}
        self.zero = {i for i in subject.variable if self._is_noise(i)}
        # Of which no digit can be told from the rounding of the outputs.
        tiny = ZERO * max([self.y_size, *self.largest.values()])
        self.negligible = {i for i, size in self.largest.items() if size <= tiny}

    def _nudge(self, y: Array) -> None:
        """The gradients, and the output, at inputs that differ in the last place."""
        rng = np.random.default_rng(4)
        for _ in range(NUDGES):
            w = _near(self.w, self.eps, rng)
            arrays = self._near(self.eps, rng)
            try:
                self.nudged.append(self.subject.backward(w, arrays))
                change = np.abs(self.subject.forward(*arrays) - y).max(initial=0.0)
            except Exception:  # an input on the edge of a domain
                continue
            self.output_is_noise |= bool(change > 1e-3 * np.abs(y).max(initial=0.0))

    def _near(self, apart: float, rng: np.random.Generator) -> list[Array]:
        """The inputs, those that get a gradient moved by up to `apart` of themselves."""
        return [
            _near(x, apart, rng) if i in self.subject.variable else x
            for i, x in enumerate(self.subject.arrays)
        ]

    def _is_noise(self, i: int) -> bool:
        """Whether the gradient of input i is nothing but rounding: its true value is zero."""
        size = max([np.abs(self.w).max(initial=0.0), self.y_size, *self.largest.values()])
        if not self.largest[i]:
            return True
        if self.largest[i] > self.eps / 2.2e-16 * ZERO * size:
            return False
        g = self.gradients[i]
        changes = [np.abs(other[i] - g).max(initial=0.0) for other in self.nudged]
        return max(changes, default=0.0) > 1e-3 * self.plain[i]

    def _of_zero(self, *inputs: int) -> float:
        """What passes for zero in gradients that are zero by symmetry, all of these inputs'."""
        if not all(i in self.zero for i in inputs):
            return 0.0
        sizes = [self.y_size, *self.largest.values()]
        # Noise is what is left of larger terms that cancelled.
        if self.output_is_noise or any(self.largest[i] for i in inputs):
            sizes.append(float(np.abs(self.w).max(initial=0.0)))
        return ZERO * self.eps / 2.2e-16 * max(sizes)

    def rounding(self, move: Mapping[int, Array]) -> float:
        """How far the claim along a move may be off by rounding."""
        with np.errstate(all="ignore"):
            changes = [
                sum(float(np.sum((other[i] - self.gradients[i]) * v)) for i, v in move.items())
                for other in self.nudged
            ]
        return 10 * max((abs(c) for c in changes if np.isfinite(c)), default=0.0)

    @cached_property
    def elsewhere(self) -> list[tuple[Subject, Mapping[int, Array]]]:
        """The subject at inputs close by, and what backward says there."""
        rng, found = np.random.default_rng(6), []
        for _ in range(ELSEWHERE):
            near = replace(self.subject, arrays=self._near(CLOSE_BY, rng))
            try:
                found.append((near, near.backward(self.w, near.arrays)))
            except Exception:  # an input on the edge of a domain
                break
        return found

    def at_rest(self, move: Mapping[int, Array]) -> Array:
        """Where the paths of all moves of the same inputs begin: -0 is 0 there, so not quite y."""
        moved = tuple(move)
        if moved not in self._at_rest:
            self._at_rest[moved] = self.subject.path(move)(0.0)
        return self._at_rest[moved]

    def along(self, name: str, move: Mapping[int, Array], probe: str = "") -> Claim:
        """The claim for a move of many elements."""
        with np.errstate(all="ignore"):
            terms = [self.gradients[i] * v for i, v in move.items()]
        value = float(sum(np.sum(t, dtype=np.longdouble) for t in terms))
        # A sum of terms of random signs is about as large as their root sum of squares.
        typical = float(np.sqrt(sum(np.sum(np.square(_finite(t))) for t in terms)))
        rounding = self.rounding(move) + 1e-12 * self.eps / 2.2e-16 * typical
        rounding += self._of_zero(*move)
        return Claim(
            name,
            value,
            typical or max(self.largest[i] for i in move) or self.y_size,
            rounding,
            max(COARSER * self.eps * self.y_size, 4 * rounding),
            move=move,
            probe=probe,
        )

    def single(self, i: int, element: int) -> Claim:
        """The claim for one element, by its flat number."""
        x, unit = self.subject.arrays[i], float(self.units[i].flat[element])
        v = np.zeros(x.shape)
        v.flat[element] = unit
        value = float(self.gradients[i].flat[element]) * unit
        reference = min(self.plain[i] * unit, self.largest[i]) or self.y_size
        with np.errstate(all="ignore"):
            changes = [abs(float(other[i].flat[element]) * unit - value) for other in self.nudged]
        rounding = 10 * max((c for c in changes if np.isfinite(c)), default=0.0)
        rounding += self.eps / 2.2e-16 * SMALLEST * reference
        rounding += self._of_zero(i)
        return Claim(
            self.subject.variable[i],
            value,
            reference,
            rounding,
            max(COARSER * self.eps * self.y_size, 4 * rounding),
            unit,
            tuple(int(n) for n in np.unravel_index(element, x.shape)),
            {i: v},
        )

    def singles(self, i: int, elements: Array | None = None) -> Iterator[Claim]:
        for element in range(self.subject.arrays[i].size) if elements is None else elements:
            yield self.single(i, int(element))

    def groups(self, i: int) -> Iterator[Claim]:
        """Directions over all elements of input i, by the size of what backward says of them."""
        rng = np.random.default_rng(5)
        name, units = self.subject.variable[i], self.units[i]
        for k, members in enumerate(self.sorted_by_size(i)):
            for _ in range(DIRECTIONS):
                signs = np.where(rng.random(units.shape) < 0.5, -1.0, 1.0)
                yield self.along(name, {i: signs * units * members}, f"group {k}")

    def sorted_by_size(self, i: int) -> Iterator[Array]:
        """Masks: elements that are 0 themselves, and the others by the decades of their terms."""
        terms = np.abs(_finite(self.gradients[i]) * self.units[i])
        at_zero = self.subject.arrays[i] == 0
        with np.errstate(divide="ignore"):
            decade = np.log10(terms / (self.largest[i] or 1.0)) / -DECADES
        decade = np.minimum(np.where(np.isfinite(decade), decade, GROUPS), GROUPS).astype(int)
        decade = np.where(at_zero, -1, decade)
        for k in np.unique(decade):
            yield decade == k


def _near(x: Array, apart: float, rng: np.random.Generator) -> Array:
    x = np.asarray(x * (1 + apart * rng.uniform(-1, 1, x.shape)), x.dtype)
    x.flags.writeable = False
    return x


def _finite(x: Array) -> Array:
    return np.where(np.isfinite(x), x, 0.0)


def _units(subject: Subject, i: int) -> Array:
    """By element of input i, its own size, as a power of two; of zeros, a typical one.

    A step that is a power of two, times this, is added to x without rounding.
    """
    x = subject.arrays[i].astype(np.float64)
    size = np.where(x == 0, subject.typical(i), np.abs(x))
    size = np.where(np.isfinite(size), size, 1.0)
    return np.exp2(np.floor(np.log2(np.maximum(size, 1e-280))))
