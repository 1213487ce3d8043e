"""Sparse-MLP: a Mixer whose last blocks hold many MLPs and compute few of them.

    x = re-represent (S, C) -> (S1, C1)       more tokens, fewer channels
    x = x + MoE_S(LN(x))                      every channel picks the expert that mixes its tokens
    x = x + MoE_C(LN(x))                      every token picks the experts that mix its channels
    x = re-represent (S1, C1) -> (S, C)

Source: Lou et al. 2021, "Sparse-MLP: a fully-MLP architecture with conditional computation", arXiv
2109.02008, version 1; routing and its losses as in Riquelme et al. 2021, arXiv 2106.05974. No code
of it was published, and its paper leaves widths open: see CONFIGS.
"""

from collections.abc import Sequence
from typing import Any

from tinymixer import nn, ops
from tinymixer.engine import Tensor
from tinymixer.errors import counted
from tinymixer.models.common import CIFAR, IMAGENET, linear_rates
from tinymixer.models.mixer import Isotropic, MixerBlock
from tinymixer.models.options import (
    Blocks,
    CapacityFactor,
    Channels,
    Depth,
    Epsilon,
    Experts,
    Flag,
    Gelu,
    ImageSize,
    LossWeight,
    Rate,
    Size,
    checked,
)


class ReRepresent(nn.Module):
    """x (S, B, C)  ->  y (S1, B, C1): tokens and channels mixed into other numbers of them.

    g(linear(LN(x))) twice, g = GELU: for the tokens, then for the channels, or the other way round
    with channels_first. LayerNorm is over channels both times. There are no skip connections.
    """

    def __init__(
        self,
        tokens: tuple[int, int],
        channels: tuple[int, int],
        *,
        channels_first: bool,
        gelu: str,
        eps: float,
        rng: nn.Rng,
    ):
        steps: list[nn.Module] = [
            nn.TokenLinear(*tokens, rng=rng),
            nn.ChannelLinear(*channels, rng=rng),
        ]
        C, C1 = channels
        self.norm1 = nn.LayerNorm(C, eps)
        self.linear1 = steps[channels_first]
        self.norm2 = nn.LayerNorm(C1 if channels_first else C, eps)
        self.linear2 = steps[not channels_first]
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        x = ops.GELU(self.gelu)(self.linear1(self.norm1(x)))
        return ops.GELU(self.gelu)(self.linear2(self.norm2(x)))


class SparseBlock(nn.Module):
    """Into S1 tokens and C1 channels, u = x + MoE_S(LN(x)), u + MoE_C(LN(u)), and back.

    x, y (S, B, C). The skip connections are around the two mixtures, none around the block.
    """

    def __init__(
        self,
        S: tuple[int, int],  # and S1
        C: tuple[int, int],  # and C1
        token_experts: tuple[int, int, int],
        channel_experts: tuple[int, int, int],
        routing: nn.Routing,
        *,
        gelu: str,
        eps: float,
        dropout: float,
        drop_path_rates: tuple[float, float],
        rng: nn.Rng,
    ):
        common: Any = {"gelu": gelu, "rng": rng}
        self.enter = ReRepresent(S, C, channels_first=False, eps=eps, **common)
        common["routing"] = routing
        self.token_norm = nn.LayerNorm(C[1], eps)
        self.token_moe = nn.MixtureOfExperts(S[1], token_experts, tokens=True, **common)
        self.channel_norm = nn.LayerNorm(C[1], eps)
        self.channel_moe = nn.MixtureOfExperts(C[1], channel_experts, tokens=False, **common)
        self.leave = ReRepresent(S[::-1], C[::-1], channels_first=True, gelu=gelu, eps=eps, rng=rng)
        self.dropout, self.drop_path_rates = dropout, drop_path_rates

    def forward(self, x: Tensor, rng: nn.Rng | None = None) -> Tensor:
        token_rate, channel_rate = self.drop_path_rates
        x = self.enter(x)  # (S1, B, C1)
        y = self.token_moe(self.token_norm(x), rng)
        x = x + nn.drop_branch(y, self.dropout, token_rate, rng)
        y = self.channel_moe(self.channel_norm(x), rng)
        x = x + nn.drop_branch(y, self.dropout, channel_rate, rng)
        return self.leave(x)  # (S, B, C)


class SparseMLP(Isotropic):
    """A Mixer of L blocks, of which some are sparse; the dense ones are MixerBlocks.

    images (B, height, width, channels), normalised floats  ->  logits (B, K)

    image_size, patch_size     pixels; image_size is a side or (height, width)
    sparse_blocks              how many blocks at the end are sparse; or which ones, as a list:
                               from 0, or from -1 for the last one
    sparse_tokens, sparse_dim  S1 and C1, the tokens and channels inside a sparse block
    token_experts, token_top_k, token_expert_dim
                               how many experts mix tokens, how many of them a channel gets, and
                               their hidden width; likewise channel_experts, ... for tokens
    noisy_gates                and what follows it: see nn.Routing

    Raises ValueError where these do not fit, and for images of another size when called.
    """

    @checked
    def __init__(
        self,
        *,
        image_size: ImageSize,
        patch_size: Size,
        hidden_dim: Size,
        num_blocks: Depth,
        tokens_mlp_dim: Size,
        channels_mlp_dim: Size,
        sparse_blocks: Blocks,
        sparse_tokens: Size,
        sparse_dim: Size,
        token_experts: Experts,
        token_expert_dim: Size,
        channel_experts: Experts,
        channel_expert_dim: Size,
        num_classes: Size,
        token_top_k: Experts = 1,
        channel_top_k: Experts = 2,
        noisy_gates: Flag = True,
        loss_weight: LossWeight = 0.01,
        capacity_factor: CapacityFactor = None,
        eval_capacity_factor: CapacityFactor = None,
        prioritised: Flag = False,
        gelu: Gelu = "tanh",
        eps: Epsilon = 1e-6,
        dropout: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        channels: Channels = 3,
        rng: nn.Rng,
    ):
        C, L = hidden_dim, num_blocks
        S = self.start(image_size, channels, patch_size, C, rng)
        rates = linear_rates(drop_path_rate, 2 * L)
        sparse = _positions(sparse_blocks, L)
        mixtures = (
            (token_experts, token_top_k, token_expert_dim),
            (channel_experts, channel_top_k, channel_expert_dim),
            nn.Routing(
                noisy_gates, loss_weight, capacity_factor, eval_capacity_factor, prioritised
            ),
        )
        common: Any = {"gelu": gelu, "eps": eps, "dropout": dropout, "rng": rng}
        blocks: list[nn.Module] = []
        for i in range(L):
            common["drop_path_rates"] = (rates[2 * i], rates[2 * i + 1])
            if i in sparse:
                block = SparseBlock((S, sparse_tokens), (C, sparse_dim), *mixtures, **common)
                blocks.append(block)
            else:
                blocks.append(MixerBlock(S, C, tokens_mlp_dim, channels_mlp_dim, **common))
        self.blocks = blocks
        self.finish(C, num_classes, eps, rng)


def _positions(blocks: int | Sequence[int], L: int) -> set[int]:
    """Which of L blocks are sparse: the last `blocks` of them, or those listed."""
    listed = blocks if isinstance(blocks, Sequence) else range(-blocks, 0)
    negative = not isinstance(blocks, Sequence) and blocks < 0
    if negative or any(not -L <= i < L for i in listed):
        raise ValueError(
            f"SparseMLP: sparse_blocks={blocks!r}, but it has "
            f"{counted(L, 'block')}. Give the number of "
            f"sparse ones at the end, or a list of positions from {-L} to {L - 1}"
        )
    return {i % L for i in listed}


def _sizes(
    C: int, D_S: int, S1: int, C1: int, token_experts: tuple[int, int], channel_experts: tuple
) -> dict[str, Any]:
    """Widths; of the experts, how many there are and how wide. D_C is 4C throughout."""
    return {
        "hidden_dim": C,
        "tokens_mlp_dim": D_S,
        "channels_mlp_dim": 4 * C,
        "sparse_tokens": S1,
        "sparse_dim": C1,
        "token_experts": token_experts[0],
        "token_expert_dim": token_experts[1],
        "channel_experts": channel_experts[0],
        "channel_expert_dim": channel_experts[1],
    }


def _published(L: int, sparse: int, **sizes: Any) -> dict[str, Any]:
    """L blocks for 224x224 images, of which the last `sparse` are sparse."""
    frame = IMAGENET | {"patch_size": 16, "num_blocks": L, "sparse_blocks": sparse}
    return frame | _sizes(S1=392, **sizes)


# RECONSTRUCTIONS. The paper gives S1 = 2S, C1 = C/2, K, the numbers of experts of B and a range of
# them for S and L, that sparse blocks come last, and totals in whole millions. The widths of the
# experts and the numbers of blocks here are chosen to come near these totals:
#
#     millions of parameters         S      B     B with four sparse    L
#     in the paper                   21     69            79           130
#     here, without the head        21.9   70.0          80.8         130.4
#
# So at least one size of B is not what it was. Of S there is another reading, with 20.8: MoE_C an
# ordinary MLP, and as many channels inside the block as outside.
CONFIGS: dict[str, dict[str, Any]] = {
    "sparse_mlp_s": _published(
        8, 2, C=512, D_S=256, C1=256, token_experts=(4, 512), channel_experts=(4, 1024)
    ),
    "sparse_mlp_s_dense": _published(
        8, 2, C=512, D_S=256, C1=512, token_experts=(4, 256), channel_experts=(1, 2048)
    )
    | {"channel_top_k": 1},
    "sparse_mlp_b": _published(
        12, 2, C=768, D_S=384, C1=384, token_experts=(8, 768), channel_experts=(4, 1536)
    ),
    "sparse_mlp_b4": _published(
        12, 4, C=768, D_S=384, C1=384, token_experts=(8, 768), channel_experts=(4, 1536)
    ),
    "sparse_mlp_l": _published(
        14, 6, C=768, D_S=384, C1=384, token_experts=(16, 768), channel_experts=(4, 1536)
    ),
    "sparse_mlp_nano": CIFAR  # ours
    | {
        "patch_size": 4,
        "num_blocks": 6,
        "sparse_blocks": 2,
        **_sizes(C=64, D_S=64, S1=128, C1=32, token_experts=(4, 256), channel_experts=(4, 128)),
    },
}
