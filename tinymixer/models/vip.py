"""Vision Permutator: rows, columns and channels mixed beside one another, and weighed.

Every mixing is one C x C matrix over channels. For rows and columns, places and segments of the
channels change roles before it, and back after it.

Source: Hou et al. 2021, "Vision Permutator: a permutable MLP-like architecture for visual
recognition", arXiv 2106.12368, section 3, algorithm 1 and table 1; where paper and released code
differ, the code.
"""

from collections.abc import Sequence
from typing import Any

from tinymixer import nn, ops
from tinymixer.engine import Tensor


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
        y = nn.dropout(self.permute_mlp(self.permute_norm(x)), self.dropout, rng)
        x = x + nn.drop_path(y, self.drop_path_rate, rng)
        y = nn.dropout(self.channel_mlp(self.channel_norm(x)), self.dropout, rng)
        return x + nn.drop_path(y, self.drop_path_rate, rng)


class Stage(nn.Module):
    """An embedding, None where grid and width stay as they are, and the blocks that follow it."""

    def __init__(self, embed: nn.UnfoldLinear | None, blocks: list[PermutatorBlock]):
        self.embed, self.blocks = embed, blocks


class VisionPermutator(nn.Module):
    """images (B, height, width, 3), normalised floats  ->  logits (B, K).

    Stages of patch embedding and PermutatorBlocks, each on a grid `patch_sizes[i]` times coarser
    than the one before -> LayerNorm -> mean over places -> linear head. `dims`, `depths` and
    `patch_sizes` have one entry a stage. Stochastic depth grows linearly from 0 in the first block
    to `drop_path_rate` in the last. Weights start with the standard deviation `init_std`, or, if it
    is None, 1/√fan_in, which suits narrow models better; convolutions as is usual for them.

    image_size is a side or (height, width) in pixels. A stage on a grid of H x W places cuts its C
    channels into H segments to mix columns and into W to mix rows: both sides must divide C. Raises
    ValueError where sizes do not fit, here or, for images of another size, when called.
    """

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int],
        dims: Sequence[int],
        depths: Sequence[int],
        patch_sizes: Sequence[int],
        num_classes: int,
        weighted: bool = True,
        attention_ratio: int = 4,
        mlp_ratio: int = 3,
        gelu: str = "erf",
        eps: float = 1e-5,
        dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        init_std: float | None = 0.02,
        rng: nn.Rng,
    ):
        init = nn.lecun_normal if init_std is None else nn.normal(init_std)
        height, width = nn.sides(image_size)
        if len({len(x) for x in (dims, depths, patch_sizes)}) != 1:
            raise ValueError(
                "VisionPermutator: expected one entry a stage in each of dims, depths and "
                f"patch_sizes, got {dims}, {depths} and {patch_sizes}"
            )
        self.image_size, self.num_classes = (height, width), num_classes
        self.stages: list[Stage] = []
        H, W, C_in, before = height, width, 3, 0
        for C, L, P in zip(dims, depths, patch_sizes, strict=True):
            if H % P or W % P:
                raise ValueError(
                    f"VisionPermutator: patches of {P}x{P} do not tile a grid of {H}x{W}; choose "
                    "patch_sizes that divide both sides"
                )
            H, W = H // P, W // P
            if L and (C % H or C % W):
                raise ValueError(
                    f"VisionPermutator: {C} channels cannot be cut into one segment for each place "
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
                    drop_path_rate=drop_path_rate * i / max(1, sum(depths) - 1),
                    init=init,
                    rng=rng,
                )
                for i in range(before, before + L)
            ]
            self.stages.append(Stage(embed, blocks))
            C_in, before = C, before + L
        self.norm = nn.LayerNorm(C_in, eps)
        self.head = nn.ChannelLinear(C_in, num_classes, init=init, rng=rng)

    def forward(self, images: Any, rng: nn.Rng | None = None) -> Tensor:
        if images.shape[1:-1] != self.image_size:
            height, width = self.image_size
            raise ValueError(
                f"VisionPermutator: expected images (B, {height}, {width}, 3), got {images.shape}. "
                "One segment for each place ties a model to one image size: resize the images, or "
                "build the model with their image_size"
            )
        x = nn.grid(images)
        for stage in self.stages:
            if stage.embed is not None:
                x = stage.embed(x)
            for block in stage.blocks:
                x = block(x, rng)
        return self.head(self.norm(x).mean(axis=(0, 1)))  # (B, C) -> (B, K)


def _published(dims: Any, depths: Any, patch_sizes: Any, drop_path_rate: float) -> dict[str, Any]:
    return {
        "image_size": 224,
        "dims": dims,
        "depths": depths,
        "patch_sizes": patch_sizes,
        "num_classes": 1000,
        "drop_path_rate": drop_path_rate,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "vip_s14": _published((384, 384, 384, 384), (4, 3, 8, 3), (14, 1, 1, 1), 0.1),
    "vip_s7": _published((192, 384, 384, 384), (4, 3, 8, 3), (7, 2, 1, 1), 0.1),
    "vip_m7": _published((256, 256, 512, 512), (4, 3, 14, 3), (7, 1, 2, 1), 0.2),
    "vip_l7": _published((256, 512, 512, 512), (8, 8, 16, 4), (7, 2, 1, 1), 0.3),
    "vip_s16": _published((336,), (18,), (16,), 0.1),  # of the paper's tables; not in its code
    "vip_nano": {
        "image_size": 32,
        "dims": (64, 128),
        "depths": (4, 4),
        "patch_sizes": (4, 2),
        "num_classes": 10,
        "init_std": None,
    },
}
