"""Hire-MLP: places are mixed within small regions of the grid, and regions by shifting the grid.

Source: Guo et al. 2021, "Hire-MLP: vision MLP via hierarchical rearrangement", arXiv 2108.13341,
section 3. The first version of the paper and the released code differ; this is the code, whose
accuracies are the ones published last: BatchNorm where the paper has LayerNorm, ReLU within the
branches, branches weighed by split attention and not merely added, and a projection after them.
"""

from typing import Annotated, Any

from tinymixer import nn, ops
from tinymixer.engine import Tensor
from tinymixer.models.common import (
    CIFAR,
    IMAGENET,
    hidden_width,
    linear_rates,
    one_per_stage,
    outputs,
)
from tinymixer.models.options import (
    Channels,
    Depths,
    Dilations,
    Epsilon,
    Gelu,
    ImageSize,
    Momentum,
    Rate,
    Ratio,
    Size,
    Sizes,
    Std,
    Window,
    checked,
    one_of,
)
from tinymixer.ops.region import PADDINGS, SHIFTS


class RegionMLP(nn.Module):
    """Mix the p rows of each region: regions -> W1 -> BatchNorm -> ReLU -> W2 -> rows again.

    x (H, W, B, C)  ->  y (H, W, B, C), along axis 0 (rows) or 1 (columns)

    With a step, rows are shifted before and back after, so that regions overlap those of a block
    without. A shift that brought in zeros ("zero") is not undone, as in the released code.
    """

    def __init__(
        self,
        C: int,
        hidden_dim: int,
        *,
        p: int,
        axis: int,
        step: int,
        shift: str,
        padding: str,
        eps: float,
        momentum: float,
        init: nn.Init,
        rng: nn.Rng,
    ):
        self.p, self.axis, self.step, self.shift, self.padding = p, axis, step, shift, padding
        self.linear_1 = nn.ChannelLinear(p * C, hidden_dim, bias=False, init=init, rng=rng)
        self.norm = nn.BatchNorm(hidden_dim, eps, momentum)
        self.linear_2 = nn.ChannelLinear(hidden_dim, p * C, init=init, rng=rng)

    def forward(self, x: Tensor, rng: nn.Rng | None = None) -> Tensor:
        n = x.shape[self.axis]
        if self.step:
            x = ops.Shift(self.step, self.axis, self.shift)(x)
        x = ops.Regions(self.p, self.axis, self.padding)(x)  # (G, W, B, p*C), G = ceil(H/p)
        x = ops.ReLU()(self.norm(self.linear_1(x), rng))  # (G, W, B, hidden_dim)
        y = ops.Unregions(self.p, self.axis, n)(self.linear_2(x))  # (H, W, B, C)
        if self.step and self.shift == "circular":
            y = ops.Shift(-self.step, self.axis)(y)
        return y


class HireBlock(nn.Module):
    """u = x + Hire(BN(x)),  y = u + ChannelMLP(BN(u));  x, u, y (H, W, B, C).

    Hire mixes rows, columns and channels in three branches, weighs these by split attention, and
    ends with a linear map of the channels. `regions` are the options of a RegionMLP but its axis.
    """

    def __init__(
        self,
        C: int,
        *,
        region_dim: int,
        attention_dim: int,
        mlp_dim: int,
        gelu: str,
        drop_path_rate: float,
        eps: float,
        momentum: float,
        init: nn.Init,
        rng: nn.Rng,
        **regions: Any,
    ):
        regions |= {"eps": eps, "momentum": momentum, "init": init, "rng": rng}
        self.norm = nn.BatchNorm(C, eps, momentum)
        self.rows = RegionMLP(C, region_dim, axis=0, **regions)
        self.columns = RegionMLP(C, region_dim, axis=1, **regions)
        self.channels = nn.ChannelLinear(C, C, init=init, rng=rng)
        self.attention = nn.SplitAttention(C, 3, attention_dim, gelu=gelu, init=init, rng=rng)
        self.projection = nn.ChannelLinear(C, C, init=init, rng=rng)
        self.mlp_norm = nn.BatchNorm(C, eps, momentum)
        self.mlp = nn.ChannelMLP(C, mlp_dim, gelu=gelu, init=init, rng=rng)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor, rng: nn.Rng | None = None) -> Tensor:
        y = self.norm(x, rng)
        y = self.attention(self.rows(y, rng), self.columns(y, rng), self.channels(y))
        x = x + nn.drop_path(self.projection(y), self.drop_path_rate, rng)
        y = self.mlp(self.mlp_norm(x, rng))
        return x + nn.drop_path(y, self.drop_path_rate, rng)


class Reduction(nn.Module):
    """y = ReLU(BN(convolution of x)): x (H, W, B, C)  ->  y (H', W', B, D), see nn.UnfoldLinear."""

    def __init__(
        self,
        C: int,
        D: int,
        window: tuple[int, int, int],
        *,
        eps: float,
        momentum: float,
        init: nn.Init,
        rng: nn.Rng,
    ):
        self.convolution = nn.UnfoldLinear(C, D, *window, init=init, rng=rng)
        self.norm = nn.BatchNorm(D, eps, momentum)

    def forward(self, x: Any, rng: nn.Rng | None = None) -> Tensor:
        return ops.ReLU()(self.norm(self.convolution(x), rng))


class HireStage(nn.Module):
    """A Reduction to the stage's grid and channels, and its HireBlocks."""

    def __init__(self, reduction: Reduction, blocks: list[HireBlock]):
        self.reduction, self.blocks = reduction, blocks

    def forward(self, x: Any, rng: nn.Rng | None = None) -> Tensor:
        x = self.reduction(x, rng)
        for block in self.blocks:
            x = block(x, rng)
        return x


class HireMLP(nn.Classifier):
    """images (B, height, width, channels), normalised floats  ->  logits (B, K).

    stages, each a Reduction and HireBlocks -> BatchNorm -> mean over the grid -> linear head.

    Stage i has depths[i] blocks of dims[i] channels, which mix regions of pixels[i] rows or
    columns; its block j shifts by (j mod strides[i]) * dilations[i]. `stem` and `reduction` are
    (kernel, stride, padding) of the first Reduction, in pixels, and of those after it, in tokens;
    the ratios are widths by dims[i]. Stochastic depth, when on, grows linearly from 0 at the first
    block to `drop_path_rate` at the last. eps and momentum are those of BatchNorm.

    No weight depends on the size of the images: image_size is the one the model is meant for, and
    others are taken too. Raises ValueError when options do not fit together, and, when called, for
    images that leave a stage fewer rows than circular padding repeats.
    """

    @checked
    def __init__(
        self,
        *,
        image_size: ImageSize,
        dims: Sizes,
        depths: Depths,
        pixels: Sizes,
        strides: Sizes,
        dilations: Dilations,
        num_classes: Size,
        stem: Window = (7, 4, 2),
        reduction: Window = (3, 2, 1),
        shift: Annotated[str, one_of(*SHIFTS)] = "circular",
        padding: Annotated[str, one_of(*PADDINGS)] = "circular",
        mlp_ratio: Ratio = 4.0,
        region_ratio: Ratio = 0.5,
        attention_ratio: Ratio = 0.25,
        gelu: Gelu = "erf",
        eps: Epsilon = 1e-5,
        momentum: Momentum = 0.1,
        drop_path_rate: Rate = 0.0,
        init_std: Std = 0.02,
        channels: Channels = 3,
        rng: nn.Rng,
    ):
        one_per_stage(
            "HireMLP", dims=dims, depths=depths, pixels=pixels, strides=strides, dilations=dilations
        )
        self.image_size, self.num_classes = nn.sides(image_size), num_classes
        self.channels = channels
        self.feature_dims = tuple(dims)
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        common: dict[str, Any] = {"eps": eps, "momentum": momentum, "rng": rng}
        common["init"] = nn.normal(init_std)
        self.stages = []
        for i, C in enumerate(dims):
            reduce = Reduction(
                *((dims[i - 1], C, reduction) if i else (channels, C, stem)), **common
            )
            blocks = [
                HireBlock(
                    C,
                    region_dim=hidden_width("HireMLP", "region_ratio", region_ratio, C),
                    attention_dim=hidden_width("HireMLP", "attention_ratio", attention_ratio, C),
                    mlp_dim=hidden_width("HireMLP", "mlp_ratio", mlp_ratio, C),
                    gelu=gelu,
                    drop_path_rate=next(rates),
                    p=pixels[i],
                    step=j % strides[i] * dilations[i],
                    shift=shift,
                    padding=padding,
                    **common,
                )
                for j in range(depths[i])
            ]
            self.stages.append(HireStage(reduce, blocks))
        self.norm = nn.BatchNorm(dims[-1], eps, momentum)
        self.head = nn.ChannelLinear(dims[-1], num_classes, init=common["init"], rng=rng)

    def features(self, images: Any, rng: nn.Rng | None = None) -> list[Tensor]:
        """What each stage ends with, (H_i, W_i, B, feature_dims[i]), from fine to coarse."""
        return outputs(self.stages, nn.grid(images, self.channels), rng)

    def forward(self, images: Any, rng: nn.Rng | None = None) -> Tensor:
        *_, x = self.features(images, rng)
        return self.classify(self.norm(x, rng))  # (B, K)


def _published(dims: tuple[int, ...], depths: tuple[int, ...]) -> dict[str, Any]:
    """A configuration of the released code, where only widths and depths differ."""
    return IMAGENET | {
        "dims": dims,
        "depths": depths,
        "pixels": (4, 3, 3, 2),
        "strides": (2, 2, 3, 2),
        "dilations": (2, 2, 1, 1),
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "hire_mlp_tiny": _published((64, 128, 320, 512), (2, 2, 4, 2)),
    "hire_mlp_small": _published((64, 128, 320, 512), (3, 4, 10, 3)),
    "hire_mlp_base": _published((64, 128, 320, 512), (4, 6, 24, 3)),
    "hire_mlp_large": _published((96, 192, 384, 768), (4, 6, 24, 3)),
    "hire_mlp_nano": CIFAR
    | {
        "dims": (32, 64, 128),
        "depths": (2, 2, 2),
        "pixels": (4, 4, 2),
        "strides": (2, 2, 2),
        "dilations": (2, 2, 1),
        "stem": (3, 2, 1),
        "init_std": 0.1,  # 0.02 is for ten times as many channels
    },
}
