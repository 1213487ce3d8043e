"""RaftMLP: columns, then rows, then channels, with a few channels on each raft.

Where a Mixer mixes all S = H*W tokens by one matrix, a raft of r channels mixes the r*H numbers of
a column, and another the r*W numbers of a row: far smaller matrices, one for each direction.

Source: Tatsunami, Taki 2022, "RaftMLP: how much can be done without attention and with less
spatial locality?", arXiv 2108.04384, section 3 and table 1; initialisation, and what happens at
other image sizes, as in the code released with it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from tinymixer import nn, ops
from tinymixer.engine import Tensor
from tinymixer.errors import counted
from tinymixer.models.common import CIFAR, IMAGENET, one_per_stage
from tinymixer.models.options import (
    Channels,
    Depths,
    Epsilon,
    Gelu,
    ImageSize,
    Kernels,
    Rate,
    Size,
    Sizes,
    WholeRatio,
    checked,
)
from tinymixer.ops.resample import bicubic_matrix

INIT: dict[str, Any] = {"init": nn.fan_in_uniform, "bias_init": nn.fan_in_uniform}


class MultiScaleEmbed(nn.Module):
    """y = Σ_k unfold_k(x) W_k + b: each patch, and larger windows around it, through linear maps.

    x (H, W, B, C_in)  ->  y (⌈H/P⌉, ⌈W/P⌉, B, C);  windows of k x k every P places, 0 outside

    With the one kernel P these are patches. Sides that P does not divide are resized to the next
    that it does. Raises ValueError unless windows can be centred on patches: k >= P, k - P even.
    """

    embeds = True

    def __init__(self, C_in: int, C: int, patch_size: int, kernels: Sequence[int], *, rng: nn.Rng):
        if not kernels or any(k < patch_size or (k - patch_size) % 2 for k in kernels):
            raise ValueError(
                f"RaftMLP: windows of {kernels} cannot be centred on patches of {patch_size}; "
                "expected kernels of at least the patch_size, larger by even numbers"
            )
        self.patch_size = patch_size
        # One map of all the windows' vectors, end to end, is published: so is its start.
        fan_in = C_in * sum(k * k for k in kernels)

        def init(rng: nn.Rng, shape: tuple[int, ...], _: int) -> nn.Parameter:
            return nn.fan_in_uniform(rng, shape, fan_in)

        self.scales = [
            nn.UnfoldLinear(
                C_in,
                C,
                k,
                patch_size,
                (k - patch_size) // 2,
                bias=i == 0,
                init=init,
                bias_init=init,
                rng=rng,
            )
            for i, k in enumerate(kernels)
        ]

    def forward(self, x: Any) -> Tensor:
        P = self.patch_size
        x = nn.resize(x, tuple(-(-side // P) * P for side in x.shape[:2]), bicubic_matrix)
        first, *others = (scale(x) for scale in self.scales)
        return sum(others, first)


class RaftBlock(nn.Module):
    """x = x + vertical MLP,  x = x + horizontal MLP,  x = x + channel MLP, each of a LayerNorm.

    x (H, W, B, C)  ->  (H, W, B, C). The two MLPs of places are made for `grid`: another one is
    resampled to it before them and back after them, skip connections included.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        C: int,
        raft_size: int,
        *,
        tokens_mlp_ratio: int,
        channels_mlp_ratio: int,
        gelu: str,
        eps: float,
        dropout: float,
        drop_path_rate: float,
        rng: nn.Rng,
    ):
        options = {"gelu": gelu, "rng": rng, **INIT}
        S_v, S_h = (raft_size * side for side in grid)
        self.vertical_norm = nn.LayerNorm(C, eps)
        self.vertical_mlp = nn.TokenMLP(S_v, tokens_mlp_ratio * S_v, **options)
        self.horizontal_norm = nn.LayerNorm(C, eps)
        self.horizontal_mlp = nn.TokenMLP(S_h, tokens_mlp_ratio * S_h, **options)
        self.channel_norm = nn.LayerNorm(C, eps)
        self.channel_mlp = nn.ChannelMLP(C, channels_mlp_ratio * C, **options)
        self.grid, self.raft_size = grid, raft_size
        self.dropout, self.drop_path_rate = dropout, drop_path_rate

    def forward(self, x: Tensor, rng: nn.Rng | None = None) -> Tensor:
        def branch(y: Tensor) -> Tensor:
            return nn.drop_branch(y, self.dropout, self.drop_path_rate, rng)

        r, size = self.raft_size, x.shape[:2]
        x = nn.resize(x, self.grid, bicubic_matrix)
        y = self.vertical_mlp(ops.Raft(r, 0)(self.vertical_norm(x)))  # (r*H, W, B, C/r)
        x = x + branch(ops.Unraft(r, 0)(y))
        y = self.horizontal_mlp(ops.Raft(r, 1)(self.horizontal_norm(x)))  # (r*W, H, B, C/r)
        x = x + branch(ops.Unraft(r, 1)(y))
        x = nn.resize(x, size, bicubic_matrix)
        return x + branch(self.channel_mlp(self.channel_norm(x)))


class RaftLevel(nn.Module):
    """An embedding and the blocks that follow it."""

    def __init__(self, embed: MultiScaleEmbed, blocks: list[RaftBlock]):
        self.embed, self.blocks = embed, blocks


class RaftMLP(nn.Classifier):
    """images (B, height, width, channels), normalised floats  ->  logits (B, K).

    Levels of embedding and RaftBlocks, each on a grid `patch_sizes[i]` times coarser than the one
    before -> LayerNorm -> mean over places -> linear head. `dims`, `depths`, `patch_sizes`,
    `raft_sizes` and `kernels` have one entry a level; without kernels the embeddings see patches.
    Stochastic depth drops every branch at the same `drop_path_rate`.

    image_size, a side or (height, width) in pixels, is what the MLPs are made for. Images of any
    size are taken. Raises ValueError for levels that do not fit together.
    """

    @checked
    def __init__(
        self,
        *,
        image_size: ImageSize,
        dims: Sizes,
        depths: Depths,
        patch_sizes: Sizes,
        raft_sizes: Sizes,
        kernels: Kernels = None,
        num_classes: Size,
        tokens_mlp_ratio: WholeRatio = 2,
        channels_mlp_ratio: WholeRatio = 4,
        gelu: Gelu = "erf",
        eps: Epsilon = 1e-5,
        dropout: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        channels: Channels = 3,
        rng: nn.Rng,
    ):
        if kernels is None:
            kernels = [(P,) for P in patch_sizes]
        one_per_stage(
            "RaftMLP",
            dims=dims,
            depths=depths,
            patch_sizes=patch_sizes,
            raft_sizes=raft_sizes,
            kernels=kernels,
        )
        for C, r in zip(dims, raft_sizes, strict=True):
            if C % r:
                raise ValueError(
                    f"RaftMLP: rafts of {r} do not divide "
                    f"{counted(C, 'channel')}; choose raft_sizes that "
                    "divide the dims"
                )
        self.image_size, self.num_classes = nn.sides(image_size), num_classes
        self.channels = channels
        self.feature_dims = tuple(dims)
        self.levels: list[RaftLevel] = []
        grid, C_in = self.image_size, channels
        for C, L, P, r, windows in zip(dims, depths, patch_sizes, raft_sizes, kernels, strict=True):
            embed = MultiScaleEmbed(C_in, C, P, windows, rng=rng)
            grid = -(-grid[0] // P), -(-grid[1] // P)
            blocks = [
                RaftBlock(
                    grid,
                    C,
                    r,
                    tokens_mlp_ratio=tokens_mlp_ratio,
                    channels_mlp_ratio=channels_mlp_ratio,
                    gelu=gelu,
                    eps=eps,
                    dropout=dropout,
                    drop_path_rate=drop_path_rate,
                    rng=rng,
                )
                for _ in range(L)
            ]
            self.levels.append(RaftLevel(embed, blocks))
            C_in = C
        self.norm = nn.LayerNorm(C_in, eps)
        self.head = nn.ChannelLinear(C_in, num_classes, rng=rng, **INIT)

    def forward(self, images: Any, rng: nn.Rng | None = None) -> Tensor:
        *_, (_, x) = self._levels(images, rng)
        return self.classify(self.norm(x))  # (B, K)

    def features(self, images: Any, rng: nn.Rng | None = None) -> list[Tensor]:
        """What a detector or a segmenter builds on: one map (H, W, B, C) a level, finest first.

        Of the first level it is the embedding, before the blocks, as published; of the others the
        output.
        """
        (first, _), *others = self._levels(images, rng)
        return [first, *(x for _, x in others)]

    def _levels(self, images: Any, rng: nn.Rng | None) -> Iterator[tuple[Tensor, Tensor]]:
        """The embedding and the output of each level."""
        x = nn.grid(images, self.channels)
        for level in self.levels:
            embedded = x = level.embed(x)
            for block in level.blocks:
                x = block(x, rng)
            yield embedded, x


PYRAMID: dict[str, Any] = IMAGENET | {
    "depths": (2, 2, 6, 2),
    "patch_sizes": (4, 2, 2, 2),
    "raft_sizes": (2, 2, 2, 2),
    "kernels": ((4, 8), (2, 4), (2, 4), (2,)),
    "drop_path_rate": 0.1,
}


def _single_level(C: int, L: int, r: int, kernels: tuple[int, ...] = (16,)) -> dict[str, Any]:
    """A configuration of the paper's ablations: no pyramid, patches of 16."""
    levels = {"dims": (C,), "depths": (L,), "patch_sizes": (16,), "raft_sizes": (r,)}
    return PYRAMID | levels | {"kernels": (kernels,)}


CONFIGS: dict[str, dict[str, Any]] = {
    "raft_mlp_s": PYRAMID | {"dims": (64, 128, 256, 512)},
    "raft_mlp_m": PYRAMID | {"dims": (96, 192, 384, 768)},
    "raft_mlp_l": PYRAMID | {"dims": (128, 192, 512, 1024)},
    "raft_mlp_m_plain": PYRAMID | {"dims": (96, 192, 384, 768), "kernels": None},
    "raft_mlp_12_r1": _single_level(768, 12, 1),
    "raft_mlp_12_r2": _single_level(768, 12, 2),
    "raft_mlp_12_r4": _single_level(768, 12, 4),
    "raft_mlp_12_r2_k32": _single_level(768, 12, 2, (16, 32)),
    "raft_mlp_36_r2": _single_level(384, 36, 2),
    # The released CIFAR-10 model, with its grids made for 32x32 and not, as there, for 224x224.
    "raft_mlp_cifar": CIFAR
    | {
        "dims": (128, 256),
        "depths": (2, 2),
        "patch_sizes": (2, 2),
        "raft_sizes": (4, 4),
        "kernels": ((2, 4, 8), (2, 4)),
        "drop_path_rate": 0.1,
    },
    "raft_mlp_nano": CIFAR
    | {
        "dims": (32, 64, 128, 192),
        "depths": (1, 2, 2, 1),
        "patch_sizes": (2, 2, 2, 2),
        "raft_sizes": (2, 2, 2, 2),
        "kernels": ((2, 4), (2, 4), (2, 4), (2,)),
    },
}
