"""A mixture of experts: each row is processed by the few experts that a gate prefers for it.

    y[n] = Σ_{e in T(n)} p[n, e] f_e(x[n])       p = softmax(z), z (N, E) the logits of a gate

T(n) are the K experts with the largest p; the others are not computed. The p of the chosen are not
normalised again: so even with K = 1 the weight of an expert depends on z, and the gate learns.

The choice is discrete and has no derivative, so the functions that make it work on plain arrays:
`top_k`, `within_capacity`, `by_expert`. The outputs of the experts and their weights are smooth as
long as no choice changes: `Dispatch` gives an expert its rows, `Combine` puts the outputs back in
place. Rows are the rows of a matrix (axis 0), as tokens are in (S*B, C), or its columns (axis 1),
as channels are in (S, B*C): neither is transposed.

Sources: Shazeer et al. 2017, arXiv 1701.06538, section 2; Riquelme et al. 2021, "Scaling vision
with sparse mixture of experts", arXiv 2106.05974, section 2 and appendix C (capacity).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tinymixer.backend import Array, array_module, as_index, device_of, to_numpy
from tinymixer.engine import Function
from tinymixer.options import Whole, require


def top_k(p: Array, K: int) -> Array:
    """The K experts with the largest p, best first: p (N, E) -> (N, K). Ties: the lower number."""
    xp, (N, E) = array_module(p), p.shape
    require("top_k: K", K, Whole(1, E))
    choice, rest = xp.empty((N, K), np.intp), p.real
    for k in range(K):
        choice[:, k] = rest.argmax(1)
        rest = xp.where(choice[:, k : k + 1] == xp.arange(E), -math.inf, rest)
    return choice


def expert_capacity(N: int, E: int, K: int, factor: float) -> int:
    """How many rows an expert takes: `factor` times an equal share K N / E, to a multiple of 4."""
    return 4 * math.ceil(math.ceil(factor * K * N / E) / 4)


def within_capacity(choice: Array, E: int, capacity: int, priority: Array | None = None) -> Array:
    """Which choices find room where an expert takes `capacity` rows: (N, K) -> booleans (N, K).

    All first choices are served before all second ones; among equals the rows come in their order,
    or, given priority (N,), in order of falling priority.
    """
    xp = array_module(choice)
    N, K = choice.shape
    order = xp.arange(N) if priority is None else xp.argsort(-priority, kind="stable")
    queue = choice[order].T.reshape(-1)  # (K*N,)
    wanted = queue[:, None] == xp.arange(E)  # (K*N, E)
    place = (wanted.cumsum(0) * wanted).sum(1)  # from 1, in the queue of the expert
    kept = (place <= capacity).reshape(K, N).T
    return kept[xp.argsort(order)]  # back in the order of the rows


def goes_to(choice: Array, kept: Array, E: int) -> Array:
    """Whether row n goes to expert e: (N, E) booleans.

    choice (N, K) experts, kept (N, K) booleans: which of the choices count
    """
    xp = array_module(choice)
    return ((choice[:, :, None] == xp.arange(E)) & kept[:, :, None]).any(1)


def by_expert(
    choice: Array, kept: Array, E: int, room: int | None = None
) -> tuple[Array, list[Array]]:
    """The rows of expert 0, then those of expert 1, ..., in one array; and the E parts of it.

    choice (N, K) experts, kept (N, K) booleans: which of the choices count

    Parts are as long as there are rows for them, and reading these lengths from a GPU means waiting
    for it. Given `room`, at least the longest of them, all parts have that length: the rows of an
    expert are followed by others, whose p has to be 0.
    """
    xp = array_module(choice)
    goes = goes_to(choice, kept, E).T  # (E, N)
    if room is not None:
        N, stays = len(choice), ~goes
        place = xp.where(goes, goes.cumsum(1), goes.sum(1)[:, None] + stays.cumsum(1)) - 1
        order = xp.empty((E, N), np.intp)
        order[xp.arange(E)[:, None], place] = xp.arange(N)
        order = order[:, :room]
        return order.reshape(-1), [order[e] for e in range(E)]
    _, order = xp.nonzero(goes)
    stops = [int(n) for n in to_numpy(goes.sum(1).cumsum())]
    return order, [order[a:b] for a, b in pairwise([0, *stops])]


@dataclass(eq=False)
class Dispatch(Function):
    """Give an expert its rows: y[i] = x[rows[i]].

    x (N, D), rows (n,), none of them twice  ->  y (n, D);  with axis=1 x (D, N)  ->  y (D, n)

    dx is dy in these rows and 0 elsewhere: as no row comes twice, there is nothing to add up.
    """

    @property
    def shapes(self) -> str:
        return f"x {'(D, N)' if self.axis else '(N, D)'}, rows (n) integers"

    allowed = (("axis", Whole(0, 1)),)
    axis: int = 0

    def forward(self, x: Array, rows: Array) -> Array:
        require_numbers_below("Dispatch: rows", rows, x.shape[self.axis], once=True)
        self.saved = x.shape, rows
        return array_module(x).take(x, as_index(rows), self.axis)

    def backward(self, dy: Array) -> tuple:
        shape, rows = self.saved
        dx = array_module(dy).zeros(shape, dy.dtype)
        dx[_along(self.axis, rows)] = dy
        return dx, None


@dataclass(eq=False)
class Combine(Function):
    """Put the experts' answers back, weighed: y[n] = Σ_e p[n, e] a_e[i], row n being the i-th of e.

    p (N, E), answers a_0 (n_0, D), a_1 (n_1, D), ..., order (n_0 + n_1 + ...,): the rows of expert
    0, then those of expert 1, ...  ->  y (N, D);  with axis=1 answers (D, n_e)  ->  y (D, N)

    A row that no expert has taken gets 0. For expert e and its rows,
        da_e[i] = p[n, e] dy[n],  dp[n, e] = <a_e[i], dy[n]>:
    a step against the gradient lowers the weight of an answer that points along dy.
    """

    @property
    def shapes(self) -> str:
        return f"p (N, E), *answers {'(D, _)' if self.axis else '(_, D)'}, order (n) integers"

    allowed = (("axis", Whole(0, 1)),)
    axis: int = 0

    def forward(self, p: Array, *answers_and_order: Array) -> Array:
        self.saved = p, *answers_and_order
        *answers, order = answers_and_order
        counts = [a.shape[self.axis] for a in answers]
        if len(answers) != p.shape[1] or sum(counts) != len(order):
            raise ValueError(
                f"Combine: expected the answers of {p.shape[1]} experts, as p {p.shape} has, to "
                f"{len(order)} rows, as order has; got those of {len(answers)}, to {counts}"
            )
        for rows, _ in self._parts(order, answers):
            require_numbers_below("Combine: order", rows, len(p), once=True)
        shape = [len(p), len(p)]
        shape[1 - self.axis] = answers[0].shape[1 - self.axis]
        dtype = np.result_type(p.dtype, *(a.dtype for a in answers))
        y = array_module(p).zeros(tuple(shape), dtype)
        for e, (rows, a) in enumerate(self._parts(order, answers)):
            y[_along(self.axis, rows)] += self._weights(p, rows, e) * a
        return y

    def backward(self, dy: Array) -> tuple:
        p, *answers, order = self.saved
        dp = array_module(p).zeros(p.shape, p.dtype) if self.needs[0] else None
        danswers: list[Array | None] = [None] * len(answers)
        for e, (rows, a) in enumerate(self._parts(order, answers)):
            dy_e = array_module(dy).take(dy, as_index(rows), self.axis)
            if dp is not None:
                dp[rows, e] = (a * dy_e).sum(1 - self.axis)
            if self.needs[1 + e]:
                danswers[e] = self._weights(p, rows, e) * dy_e
        return dp, *danswers, None

    def _parts(self, order: Array, answers: Iterable[Array]) -> Iterator[tuple[Array, Array]]:
        """(its rows, its answers) of each expert."""
        start = 0
        for a in answers:
            n = a.shape[self.axis]
            yield order[start : start + n], a
            start += n

    def _weights(self, p: Array, rows: Array, e: int) -> Array:
        """p[rows, e] as a column (n, 1), or, with axis=1, as a row (1, n)."""
        return p[rows, e].reshape((1, -1) if self.axis else (-1, 1))


def require_numbers_below(name: str, numbers: Array, n: int, once: bool = False) -> None:
    """Raise ValueError unless all of them are 0 to n - 1, and none comes twice if `once`.

    Not looked at on a GPU, for which one would have to wait.
    """
    if device_of(numbers) != "cpu" or not numbers.size:
        return
    lowest, highest = int(numbers.min()), int(numbers.max())
    if lowest < 0 or highest >= n:
        raise ValueError(f"{name}: expected numbers from 0 to {n - 1}, got {lowest} to {highest}")
    if once and len(np.unique(numbers)) < numbers.size:
        raise ValueError(f"{name}: a number comes twice; expected each once at most")


def _along(axis: int, rows: Array) -> tuple:
    """The index of `rows` of a matrix: x[rows], or x[:, rows] with axis=1."""
    return (slice(None),) * axis + (rows,)
