"""Floor 3. A layer of many MLPs, the experts, of which every row uses the few that suit it best.

The decisions and the smooth parts are in `ops.experts`, the measures of balance in `ops.balance`;
here they are put together, with the gate and the experts that are learned.
"""

from dataclasses import dataclass

import numpy as np

from tinymixer import nn, ops
from tinymixer.backend import Array, array_module
from tinymixer.engine import Tensor
from tinymixer.ops.experts import by_expert, expert_capacity, top_k, within_capacity


@dataclass(frozen=True)
class Routing:
    """How a mixture of experts chooses.

    noisy                  in training, noise of standard deviation 1/E on the logits
    loss_weight            of the loss that asks for equally busy experts
    capacity_factor, eval_capacity_factor
                           in training, and else: how many rows an expert takes, in equal shares
                           (see ops.experts.expert_capacity); None: all that come
    prioritised            where there is no room for all, the largest p first, not the first row
    """

    noisy: bool
    loss_weight: float
    capacity_factor: float | None
    eval_capacity_factor: float | None
    prioritised: bool

    def __post_init__(self) -> None:
        for factor in (self.capacity_factor, self.eval_capacity_factor):
            if factor is not None and not factor > 0:
                raise ValueError(
                    f"Routing: expected a capacity factor above 0, got {factor}. 1 is an equal "
                    "share for every expert, None is no limit"
                )


class MixtureOfExperts(nn.Module):
    """y = Σ_{e in T} p[e] MLP_e(x) for each row x, T the K experts with the largest p = softmax(z).

    x (S, B, C)  ->  y (S, B, C)

    Rows are the B*C channels, vectors of length S, if `tokens` are mixed, or else the S*B tokens,
    vectors of length C. z = W_g x, and noise. One expert is no choice: then there is no gate, and
    this is the MLP itself. A row for which no expert has room gets 0.

    In training it yields the loss  loss_weight (imbalance of importance + imbalance of load) / 2.
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
        rng: nn.Rng,
    ):
        E, self.K, hidden_dim = experts
        if not 1 <= self.K <= E:
            raise ValueError(
                f"MixtureOfExperts: {self.K} of {E} experts for every "
                f"{'channel' if tokens else 'token'}; choose a top_k from 1 to {E}"
            )
        if E > 1:
            self.gate = nn.lecun_normal(rng, (E, D) if tokens else (D, E), fan_in=D)
        MLP = nn.TokenMLP if tokens else nn.ChannelMLP
        self.experts = [MLP(D, hidden_dim, gelu=gelu, rng=rng) for _ in range(E)]
        self.tokens, self.routing = tokens, routing

    def forward(self, x: Tensor, rng: nn.Rng | None = None) -> Tensor:
        E, axis = len(self.experts), int(self.tokens)
        if E == 1:
            return self.experts[0](x)
        X = self.rows(x)
        z = self.logits(X)
        noisy = z if rng is None or not self.routing.noisy else z + self._noise(z, rng)
        p = ops.Softmax()(noisy)  # (N, E)
        choice = top_k(p.data, self.K)  # (N, K)
        if rng is not None:
            nn.add_loss(self._imbalance(z, noisy, choice) * self.routing.loss_weight)
        order, parts = by_expert(choice, self._kept(p.data, choice, rng), E)
        answers = [f(ops.Dispatch(axis)(X, n)) for f, n in zip(self.experts, parts, strict=True)]
        return ops.Combine(axis)(p, *answers, order).reshape(*x.shape)

    def rows(self, x: Tensor) -> Tensor:
        """x (S, B, C) as (S, B*C), whose columns are routed, or as (S*B, C), whose rows are."""
        return x.reshape(len(x), -1) if self.tokens else x.reshape(-1, x.shape[-1])

    def logits(self, X: Tensor) -> Tensor:
        """z (N, E), without noise, for the N columns or rows of X."""
        return (self.gate @ X).transpose() if self.tokens else X @ self.gate

    def _noise(self, z: Tensor, rng: nn.Rng) -> Array:
        draws = rng.standard_normal(z.shape, dtype=np.float32) / len(self.experts)
        return array_module(z.data).asarray(draws.astype(z.dtype))

    def _kept(self, p: Array, choice: Array, rng: nn.Rng | None) -> Array:
        """Which choices find room, (N, K)."""
        how, (N, E) = self.routing, p.shape
        factor = how.eval_capacity_factor if rng is None else how.capacity_factor
        if factor is None:
            return choice >= 0
        best = p.real.max(1) if how.prioritised else None
        return within_capacity(choice, E, expert_capacity(N, E, self.K, factor), best)

    def _imbalance(self, z: Tensor, noisy: Tensor, choice: Array) -> Tensor:
        importance = ops.Softmax()(z).sum(axis=0)  # (E,)
        load = ops.Load(sigma=1 / len(self.experts))(z, noisy, choice[:, -1])
        return (ops.Imbalance()(importance) + ops.Imbalance()(load)) * 0.5
