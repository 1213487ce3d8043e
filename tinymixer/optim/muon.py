"""Muon: the update of a weight matrix is about as large in each direction.

A gradient is steep in a few directions of a matrix and nearly flat in the others: most of its
singular values are small. Muon keeps the directions and makes the singular values alike.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tinymixer import optim
from tinymixer.backend import Array, array_module, device_of
from tinymixer.options import Number, require

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # a, b, c of an odd polynomial that takes (0, 1] near 1
ITERATIONS = 5

Place = tuple[int, tuple[int, int]]  # where a matrix begins in the flat weights, and its shape


class Muon(optim.Optimizer):
    """A hidden matrix W (m, n) steps along its orthogonalised gradient, the rest as in AdamW:

    v <- momentum v + g,  U = g + momentum v
    W <- W - rate lr (0.2 √max(m, n) orthogonalised(U) + weight_decay decay W)

    The factor 0.2 √max(m, n) gives the numbers of an update a root mean square of about 0.2,
    whatever the shape: about that of AdamW's. `places` says where in the flat weights (N,) the
    matrices lie; `adamw` makes the optimizer of those that are left, from their part of decay (N,).
    What a GPU does in few launches is done for all matrices at once; `gather` is optim.gather, or
    does the same sooner.

    Sources: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the
    factor: Liu et al. 2025, "Muon is scalable for LLM training", arXiv 2502.16982, section 2.2.
    """

    def __init__(
        self,
        decay: Array,
        places: Sequence[Place],
        *,
        momentum: float = 0.95,
        rate: float = 2.0,
        weight_decay: float = 0.0,
        adamw: Callable[..., optim.Optimizer] = optim.AdamW,
        gather: Callable[..., None] = optim.gather,
    ):
        optim.require_alike("Muon", decay)
        self.momentum = require("Muon: momentum", momentum, Number(0, 1, below=True))
        self.rate = require("Muon: rate", rate, Number(0))
        self.weight_decay = require("Muon: weight_decay", weight_decay, Number(0))
        self.decay, places = decay, sorted(places)
        ends = [0, *(start + m * n for start, (m, n) in places)]
        starts = [*(start for start, _ in places), len(decay)]
        if any(end > start for end, start in zip(ends, starts, strict=True)):
            raise ValueError(
                f"Muon: expected places of matrices side by side within the {len(decay)} weights, "
                f"got {places}"
            )
        self.shapes = Counter(shape for _, shape in places)
        alike = [(i, i + m * n) for shape in self.shapes for i, (m, n) in places if (m, n) == shape]
        self.matrices = _Pieces(alike, gather)  # those of a shape one after the other
        self.gaps = _Pieces(
            [gap for gap in zip(ends, starts, strict=True) if gap[0] < gap[1]], gather
        )
        self.rest = adamw(self.gaps.of(decay), weight_decay=weight_decay)
        self.hidden_decay = self.matrices.of(decay)
        momenta = array_module(decay).zeros_like(self.hidden_decay)
        self.state = {**self.rest.state, "momentum": momenta}

    def _update(
        self, weights: Array, gradients: Array, lr: float, step: int, healthy: Array | bool
    ) -> None:
        if device_of(weights) == "cpu" and not healthy:
            return  # a gradient of NaN is not even looked at
        rest = self.gaps.of(weights)
        self.rest.step(rest, self.gaps.of(gradients), lr, step, healthy)
        self.gaps.put_back(rest, weights)
        v = self.state["momentum"]
        with optim.undone_unless(healthy, [weights, v]):
            w, g = self.matrices.of(weights), self.matrices.of(gradients)
            v *= self.momentum
            v += g
            update = g + self.momentum * v
            start = 0
            for (m, n), count in self.shapes.items():  # all matrices of a shape at once
                U = update[start : start + count * m * n].reshape(count, m, n)
                U[...] = orthogonalised(U) * (0.2 * max(m, n) ** 0.5)
                start += U.size
            w -= self.rate * lr * (update + self.weight_decay * self.hidden_decay * w)
            self.matrices.put_back(w, weights)


class _Pieces:
    """Pieces of flat arrays, as one array; from where to where they go, `spans` says."""

    def __init__(self, spans: Sequence[tuple[int, int]], gather: Callable[..., None]):
        self.spans, self.gather = spans, gather
        self.starts = np.cumsum([0, *(end - start for start, end in spans)])

    def of(self, flat: Array) -> Array:
        """A copy of them, one after the other."""
        out = array_module(flat).empty(int(self.starts[-1]), flat.dtype)
        self.gather(out, [flat[start:end] for start, end in self.spans], self.starts)
        return out

    def put_back(self, pieces: Array, flat: Array) -> None:
        for (start, end), at in zip(self.spans, self.starts, strict=False):
            flat[start:end] = pieces[at : at + end - start]


def orthogonalised(G: Array) -> Array:
    """U Vᵀ of each matrix G = U Σ Vᵀ (..., m, n), nearly: singular values between 0.7 and 1.2.

    X <- a X + (b A + c A²) X,  A = X Xᵀ,  from X = G / |G|: five steps of the iteration of Newton
    and Schulz. They are matrix products alone. A matrix of zeros stays what it is.
    """
    if G.shape[-2] > G.shape[-1]:
        return orthogonalised(G.swapaxes(-1, -2)).swapaxes(-1, -2)
    xp, (a, b, c) = array_module(G), NEWTON_SCHULZ
    largest = abs(G).max((-2, -1), keepdims=True)
    X = G / (largest + (largest == 0))  # first, so that no square underflows
    X = X / xp.sqrt((X * X).sum((-2, -1), keepdims=True) + (largest == 0))
    for _ in range(ITERATIONS):
        A = X @ X.swapaxes(-1, -2)
        X = a * X + (b * A + c * (A @ A)) @ X
    return X
