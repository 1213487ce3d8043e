"""Muon: a matrix of weights steps as far in each of its directions.

A gradient is steep in a few directions of a matrix and nearly flat in the others: most of its
singular values are small. Muon keeps the directions and makes the singular values alike.
"""

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
    ):
        optim.require_alike("Muon", decay)
        self.momentum = require("Muon: momentum", momentum, Number(0, 1, below=True))
        self.rate = require("Muon: rate", rate, Number(0))
        self.weight_decay = require("Muon: weight_decay", weight_decay, Number(0))
        self.decay, self.places = decay, sorted(places)
        self.shapes = list(dict.fromkeys(shape for _, shape in self.places))
        ends = [0, *(start + m * n for start, (m, n) in self.places)]
        starts = [*(start for start, _ in self.places), len(decay)]
        if any(end > start for end, start in zip(ends, starts, strict=True)):
            raise ValueError(
                f"Muon: expected places of matrices side by side within the {len(decay)} weights, "
                f"got {self.places}"
            )
        self.gaps = [slice(*ends) for ends in zip(ends, starts, strict=True) if ends[0] < ends[1]]
        self.rest = adamw(self._rest_of(decay), weight_decay=weight_decay)
        moving = sum(m * n for _, (m, n) in self.places)
        self.state = {**self.rest.state, "momentum": array_module(decay).zeros_like(decay[:moving])}

    def _update(
        self, weights: Array, gradients: Array, lr: float, step: int, healthy: Array | bool
    ) -> None:
        if device_of(weights) == "cpu" and not healthy:
            return  # a gradient of NaN is not even looked at
        rest = self._rest_of(weights)
        self.rest.step(rest, self._rest_of(gradients), lr, step, healthy)
        for gap in self.gaps:
            weights[gap], rest = rest[: gap.stop - gap.start], rest[gap.stop - gap.start :]
        with optim.undone_unless(healthy, [weights, self.state["momentum"]]):
            done = 0
            for shape in self.shapes:  # all matrices of a shape at once
                g = _joined(gradients, self._matrices(gradients, shape)).reshape(-1, *shape)
                v = self.state["momentum"][done : done + g.size].reshape(g.shape)
                v *= self.momentum
                v += g
                updates = orthogonalised(g + self.momentum * v) * (0.2 * max(shape) ** 0.5)
                matrices = self._matrices(weights, shape), self._matrices(self.decay, shape)
                for W, decay, update in zip(*matrices, updates, strict=True):
                    W -= self.rate * lr * (update + self.weight_decay * decay * W)
                done += g.size

    def _rest_of(self, flat: Array) -> Array:
        """A copy of what in `flat` (N,) lies between the matrices."""
        return _joined(flat, [flat[gap] for gap in self.gaps])

    def _matrices(self, flat: Array, shape: tuple[int, int]) -> list[Array]:
        """The matrices of a shape in `flat` (N,): views, in order."""
        m, n = shape
        return [flat[i : i + m * n].reshape(m, n) for i, s in self.places if s == shape]


def _joined(flat: Array, pieces: Sequence[Array]) -> Array:
    """The numbers of `pieces` of `flat`, one after the other; on a GPU, nothing is uploaded."""
    starts = np.cumsum([0, *(piece.size for piece in pieces)])
    out = array_module(flat).empty(int(starts[-1]), flat.dtype)
    optim.gather(out, pieces, starts)
    return out


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
