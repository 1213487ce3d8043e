"""A layer of many MLPs, the experts, of which each row uses the few that a gate prefers for it.

The decisions and the smooth parts are in `ops.experts`, the measures of balance in `ops.balance`;
here they are put together, with the gate and the experts that are learned.
"""

import math
from dataclasses import dataclass

import numpy as np

from tinymixer import ops
from tinymixer.backend import Array, array_module, device_of
from tinymixer.engine import Tensor
from tinymixer.nn.auxiliary import add_loss
from tinymixer.nn.initialise import Rng, lecun_normal
from tinymixer.nn.layers import ChannelMLP, TokenMLP
from tinymixer.nn.module import Module, require_sizes
from tinymixer.ops.experts import by_expert, expert_capacity, goes_to, top_k, within_capacity
from tinymixer.options import Number

# Whether to read how many rows go to each expert. Without that number an expert computes as many as
# there could be: all rows, or its capacity. That is more to multiply, but reading it from a GPU
# means waiting for it.
ASKED = {"cpu": True, "gpu": False}


@dataclass(frozen=True)
class Routing:
    """How a mixture of experts chooses.

    noisy                  in training, noise of standard deviation 1/E on the logits
    loss_weight            of the loss against unequally busy experts
    capacity_factor, eval_capacity_factor
                           how many rows an expert takes, in equal shares, in training and in
                           evaluation (see ops.experts.expert_capacity); None: no limit
    prioritised            where there is no room for all rows, those with the largest p come first
    """

    noisy: bool
    loss_weight: float
    capacity_factor: float | None
    eval_capacity_factor: float | None
    prioritised: bool

    def __post_init__(self) -> None:
        for factor in (self.capacity_factor, self.eval_capacity_factor):
            if factor is not None and factor not in Number(0, above=True):
                raise ValueError(
                    f"Routing: expected a capacity factor above 0, got {factor}. 1 is an equal "
                    "share for every expert, None is no limit"
                )


class MixtureOfExperts(Module):
    """y = Σ_{e in T} p[e] MLP_e(x) for each row x, T the K experts with the largest p = softmax(z).

    x (S, B, C)  ->  y (S, B, C)

    Rows are the B*C channels, vectors of length S, if `tokens` are mixed, or else the S*B tokens,
    vectors of length C. z = W_g x, and noise. With one expert there is nothing to choose: it is the
    MLP itself, without a gate. A row for which no expert has room gets 0.

    In training it adds the loss  loss_weight (imbalance of importance + imbalance of load) / 2.
    That loss and the capacity are of the rows of one call: of a micro-batch.
    """

    def __init__(
        self,
        D: int,
        experts: tuple[int, int, int],  # E, K and the hidden width
        *,
        tokens: bool,
        gelu: str,
        routing: Routing,
        rng: Rng,
    ):
        E, self.K, hidden_dim = experts
        require_sizes(self, rng, D=D, E=E, K=self.K, hidden_dim=hidden_dim)
        if not 1 <= self.K <= E:
            raise ValueError(
                f"MixtureOfExperts: {self.K} of {E} experts for every "
                f"{'channel' if tokens else 'token'}; choose a top_k from 1 to {E}"
            )
        if E > 1:
            self.gate = lecun_normal(rng, (E, D) if tokens else (D, E), fan_in=D)
        MLP = TokenMLP if tokens else ChannelMLP
        self.experts = [MLP(D, hidden_dim, gelu=gelu, rng=rng) for _ in range(E)]
        self.tokens, self.routing = tokens, routing

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        E, axis = len(self.experts), int(self.tokens)
        if E == 1:
            return self.experts[0](x)
        X = self.rows(x)
        z = self.logits(X)
        noisy = z if rng is None or not self.routing.noisy else z + self._noise(z, rng)
        p = ops.Softmax()(noisy)  # (N, E)
        choice = top_k(p.data, self.K)  # (N, K)
        if rng is not None:
            add_loss(self._imbalance(z, noisy, choice) * self.routing.loss_weight)
        kept = self._kept(p.data, choice, rng)
        room = None if ASKED[device_of(choice)] else self._capacity(len(choice), rng)
        if room is not None:
            p = p * goes_to(choice, kept, E)  # the other rows are computed, with weight 0
        order, parts = by_expert(choice, kept, E, room)
        answers = [f(ops.Dispatch(axis)(X, n)) for f, n in zip(self.experts, parts, strict=True)]
        return ops.Combine(axis)(p, *answers, order).reshape(*x.shape)

    def rows(self, x: Tensor) -> Tensor:
        """x (S, B, C) as (S, B*C), whose columns are routed, or as (S*B, C), whose rows are."""
        return x.reshape(len(x), -1) if self.tokens else x.reshape(-1, x.shape[-1])

    def logits(self, X: Tensor) -> Tensor:
        """z (N, E), without noise, for the N columns or rows of X."""
        return (self.gate @ X).transpose() if self.tokens else X @ self.gate

    def _noise(self, z: Tensor, rng: Rng) -> Array:
        """Normal numbers of standard deviation 1/E, each from two uniform ones u, v in [0, 1).

        √(-2 ln(1 - u)) cos(2π v), of standard deviation 1. Unlike the methods of generators, it
        takes the same count of numbers on every device. Source: Box, Muller 1958, "A note on the
        generation of random normal deviates".
        """
        xp = array_module(z.data)
        u, v = (xp.asarray(rng.random(z.shape, dtype=np.float32)) for _ in range(2))
        draws = xp.sqrt(-2 * xp.log(1 - u)) * xp.cos(2 * math.pi * v)
        return draws.astype(z.dtype) / len(self.experts)

    def _capacity(self, N: int, rng: Rng | None) -> int:
        """How many of N rows an expert takes."""
        routing, E = self.routing, len(self.experts)
        factor = routing.eval_capacity_factor if rng is None else routing.capacity_factor
        return N if factor is None else min(N, expert_capacity(N, E, self.K, factor))

    def _kept(self, p: Array, choice: Array, rng: Rng | None) -> Array:
        """Which choices find room, (N, K)."""
        N, E = p.shape
        capacity = self._capacity(N, rng)
        if capacity == N:
            return choice >= 0
        best = p.real.max(1) if self.routing.prioritised else None
        return within_capacity(choice, E, capacity, best)

    def _imbalance(self, z: Tensor, noisy: Tensor, choice: Array) -> Tensor:
        importance = ops.Softmax()(z).sum(axis=0)  # (E,)
        load = ops.Load(sigma=1 / len(self.experts))(z, noisy, choice[:, -1])
        return (ops.Imbalance()(importance) + ops.Imbalance()(load)) * 0.5
