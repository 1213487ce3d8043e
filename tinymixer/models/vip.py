"""Vision Permutator: rows, columns and channels are mixed in three branches, then weighted.

Each branch is one C x C matrix over channels. For rows and columns, positions and segments of the
channels are swapped before it, and swapped back after it.

Source: Hou et al. 2021, "Vision Permutator: a permutable MLP-like architecture for visual
recognition", arXiv 2106.12368, section 3, algorithm 1 and table 1; where paper and released code
differ, the code.
"""

from typing import Any

from tinymixer import nn, ops
from tinymixer.engine import Tensor
from tinymixer.errors import counted
from tinymixer.models.common import (
    CIFAR,
    IMAGENET,
    another_size,
    linear_rates,
    one_per_stage,
    tiled,
)
from tinymixer.models.options import (
    Channels,
    Depths,
    Epsilon,
    Flag,
    Gelu,
    ImageSize,
    Rate,
    Size,
    Sizes,
    StdOrNone,
    WholeRatio,
    checked,
)


class PermuteMLP(nn.Module):
    """y = Σ_b α_b x_b W + b over the branches x_b: columns, rows and channels of x, each mixed.

    x (H, W, B, C)  ->  y (H, W, B, C);  α by split attention, or, if not `weighted`, all 1
    """

    def __init__(
        self,
        C: int,
        *,
        weighted: bool,
        attention_ratio: int,
        gelu: str,
        init: nn.Init = nn.lecun_normal,
        rng: nn.Rng,
    ):
        self.channel = nn.ChannelLinear(C, C, bias=False, init=init, rng=rng)
        self.vertical = nn.ChannelLinear(C, C, bias=False, init=init, rng=rng)
        self.horizontal = nn.ChannelLinear(C, C, bias=False, init=init, rng=rng)
        self.attention = (
            nn.SplitAttention(C, 3, C // attention_ratio, gelu=gelu, init=init, rng=rng)
            if weighted
            else None
        )
        self.output = nn.ChannelLinear(C, C, init=init, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        columns = ops.SwapSegments(0)(self.vertical(ops.SwapSegments(0)(x)))
        rows = ops.SwapSegments(1)(self.horizontal(ops.SwapSegments(1)(x)))
        channels = self.channel(x)
        if self.attention is None:
            return self.output(columns + rows + channels)
        return self.output(self.attention(columns, rows, channels))


class PermutatorBlock(nn.Module):
    """u = x + PermuteMLP(LN(x)),  y = u + ChannelMLP(LN(u));  x, u, y (H, W, B, C)."""

    def __init__(
        self,
        C: int,
        *,
        weighted: bool,
        attention_ratio: int,
        mlp_ratio: int,
        gelu: str,
        eps: float,
        dropout: float,
        drop_path_rate: float,
        init: nn.Init = nn.lecun_normal,
        rng: nn.Rng,
    ):
        self.permute_norm = nn.LayerNorm(C, eps)
        self.permute_mlp = PermuteMLP(
            C, weighted=weighted, attention_ratio=attention_ratio, gelu=gelu, init=init, rng=rng
        )
        self.channel_norm = nn.LayerNorm(C, eps)
        self.channel_mlp = nn.ChannelMLP(C, mlp_ratio * C, gelu=gelu, init=init, rng=rng)
        self.dropout, self.drop_path_rate = dropout, drop_path_rate

    def forward(self, x: Tensor, rng: nn.Rng | None = None) -> Tensor:
        y = self.permute_mlp(self.permute_norm(x))
        x = x + nn.drop_branch(y, self.dropout, self.drop_path_rate, rng)
        y = self.channel_mlp(self.channel_norm(x))
        return x + nn.drop_branch(y, self.dropout, self.drop_path_rate, rng)


class PermutatorStage(nn.Module):
    """An embedding, None where grid and width stay as they are, and the blocks that follow it."""

    def __init__(self, embed: nn.UnfoldLinear | None, blocks: list[PermutatorBlock]):
        self.embed, self.blocks = embed, blocks

    def forward(self, x: Any, rng: nn.Rng | None = None) -> Tensor:
        if self.embed is not None:
            x = self.embed(x)
        for block in self.blocks:
            x = block(x, rng)
        return x


class VisionPermutator(nn.Classifier):
    """images (B, height, width, channels), normalised floats  ->  logits (B, K).

    Stages of patch embedding and PermutatorBlocks, each on a grid `patch_sizes[i]` times coarser
    than the one before -> LayerNorm -> mean over places -> linear head. `dims`, `depths` and
    `patch_sizes` have one entry a stage. Stochastic depth grows linearly from 0 in the first block
    to `drop_path_rate` in the last. Weights start with the standard deviation `init_std`, or, if it
    is None, 1/√fan_in, which suits narrow models better; convolutions as is usual for them.

    image_size is a side or (height, width) in pixels. A stage on a grid of H x W places cuts its C
    channels into H segments to mix columns and into W to mix rows: both sides must divide C. Raises
    ValueError where sizes do not fit, here or, for images of another size, when called.
    """

    @checked
    def __init__(
        self,
        *,
        image_size: ImageSize,
        dims: Sizes,
        depths: Depths,
        patch_sizes: Sizes,
        num_classes: Size,
        weighted: Flag = True,
        attention_ratio: WholeRatio = 4,
        mlp_ratio: WholeRatio = 3,
        gelu: Gelu = "erf",
        eps: Epsilon = 1e-5,
        dropout: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        init_std: StdOrNone = 0.02,
        channels: Channels = 3,
        rng: nn.Rng,
    ):
        init = nn.lecun_normal if init_std is None else nn.normal(init_std)
        one_per_stage("VisionPermutator", dims=dims, depths=depths, patch_sizes=patch_sizes)
        self.image_size, self.num_classes = nn.sides(image_size), num_classes
        self.channels = channels
        self.stages: list[PermutatorStage] = []
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        (H, W), C_in = self.image_size, channels
        for C, L, P in zip(dims, depths, patch_sizes, strict=True):
            if weighted and attention_ratio > C:
                raise ValueError(
                    f"VisionPermutator: attention_ratio={attention_ratio} leaves less than one of "
                    f"{counted(C, 'channel')}; choose one of at most {C}"
                )
            cure = "choose patch_sizes that divide both sides"
            H, W = tiled("VisionPermutator", (H, W), P, "a grid", cure)
            if C % H or C % W:
                raise ValueError(
                    f"VisionPermutator: {counted(C, 'channel')} cannot be cut "
                    f"into one segment for each place "
                    f"of a column and of a row of a {H}x{W} grid. Choose a width in dims that "
                    f"{H} and {W} divide, or other patch_sizes"
                )
            embed = None
            if P > 1 or C_in != C:
                uniform = nn.fan_in_uniform  # as published, where convolutions start so
                embed = nn.UnfoldLinear(C_in, C, P, P, init=uniform, bias_init=uniform, rng=rng)
            blocks = [
                PermutatorBlock(
                    C,
                    weighted=weighted,
                    attention_ratio=attention_ratio,
                    mlp_ratio=mlp_ratio,
                    gelu=gelu,
                    eps=eps,
                    dropout=dropout,
                    drop_path_rate=next(rates),
                    init=init,
                    rng=rng,
                )
                for _ in range(L)
            ]
            self.stages.append(PermutatorStage(embed, blocks))
            C_in = C
        self.norm = nn.LayerNorm(C_in, eps)
        self.head = nn.ChannelLinear(C_in, num_classes, init=init, rng=rng)

    def forward(self, images: Any, rng: nn.Rng | None = None) -> Tensor:
        if images.shape[1:-1] != self.image_size:
            raise another_size(self, images, "One segment of channels for each position")
        x = nn.grid(images, self.channels)
        for stage in self.stages:
            x = stage(x, rng)
        return self.classify(self.norm(x))  # (B, K)


def _published(dims: Any, depths: Any, patch_sizes: Any, drop_path_rate: float) -> dict[str, Any]:
    return IMAGENET | {
        "dims": dims,
        "depths": depths,
        "patch_sizes": patch_sizes,
        "drop_path_rate": drop_path_rate,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "vip_s14": _published((384, 384, 384, 384), (4, 3, 8, 3), (14, 1, 1, 1), 0.1),
    "vip_s7": _published((192, 384, 384, 384), (4, 3, 8, 3), (7, 2, 1, 1), 0.1),
    "vip_m7": _published((256, 256, 512, 512), (4, 3, 14, 3), (7, 1, 2, 1), 0.2),
    "vip_l7": _published((256, 512, 512, 512), (8, 8, 16, 4), (7, 2, 1, 1), 0.3),
    "vip_s16": _published((336,), (18,), (16,), 0.1),  # of the paper's tables; not in its code
    "vip_nano": CIFAR
    | {"dims": (64, 128), "depths": (4, 4), "patch_sizes": (4, 2), "init_std": None},
}
