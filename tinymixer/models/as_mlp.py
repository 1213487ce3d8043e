"""AS-MLP: groups of channels are shifted, so that a linear map at one position sees its neighbours.

No parameter knows the size of the grid: a model takes images of any size that patches tile.

Source: Lian, Yu, Sun, Gao 2021, "AS-MLP: an axial shifted MLP architecture for vision", arXiv
2107.08391, sections 3.1 and 3.2; the order within a block, normalisation and initialisation as in
the code released with it; serial connection, paddings and dilation as in its ablation study.
"""

from typing import Annotated, Any

from tinymixer import nn, ops
from tinymixer.engine import Tensor
from tinymixer.models.common import CIFAR, IMAGENET, hidden_width, linear_rates, outputs, tiled
from tinymixer.models.options import (
    Channels,
    Depths,
    Epsilon,
    Flag,
    Gelu,
    ImageSize,
    OddSize,
    Rate,
    Ratio,
    Size,
    checked,
    one_of,
)
from tinymixer.ops.shift import OUTSIDE

# name -> how linear maps start
INITS: dict[str, dict[str, Any]] = {
    "published": {"init": nn.fan_in_uniform, "bias_init": nn.fan_in_uniform},
    "lecun": {"init": nn.lecun_normal, "bias_init": nn.zero},
}


class ASMLPBlock(nn.Module):
    """u = x + AxialMLP(GN(x)),  y = u + ChannelMLP(GN(u));  x, u, y (H, W, B, C).

    AxialMLP, with g = GELU and every W a linear map of the C channels of one place:
        a = g(GN(W_in x))
        h = g(W_h shift(a, along the rows)),  v = g(W_v shift(a, along the columns))
        y = W_out GN(h + v)
    If `serial`, the second shift takes h instead of a, and y = W_out GN(v).
    """

    def __init__(
        self,
        C: int,
        *,
        shift_size: int,
        dilation: int,
        padding: str,
        serial: bool,
        mlp_dim: int,
        gelu: str,
        eps: float,
        init: dict[str, Any],
        drop_path_rate: float,
        rng: nn.Rng,
    ):
        self.norm = nn.GroupNorm(C, eps)
        self.linear_in = nn.ChannelLinear(C, C, **init, rng=rng)
        self.norm_in = nn.GroupNorm(C, eps)
        self.horizontal = nn.ChannelLinear(C, C, **init, rng=rng)
        self.vertical = nn.ChannelLinear(C, C, **init, rng=rng)
        self.norm_out = nn.GroupNorm(C, eps)
        self.linear_out = nn.ChannelLinear(C, C, **init, rng=rng)
        self.mlp_norm = nn.GroupNorm(C, eps)
        self.mlp = nn.ChannelMLP(C, mlp_dim, gelu=gelu, **init, rng=rng)
        self.shift: dict[str, Any] = {
            "shift_size": shift_size,
            "dilation": dilation,
            "padding": padding,
        }
        self.serial, self.gelu = serial, gelu
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor, rng: nn.Rng | None = None) -> Tensor:
        x = x + nn.drop_path(self.axial_mlp(self.norm(x)), self.drop_path_rate, rng)
        return x + nn.drop_path(self.mlp(self.mlp_norm(x)), self.drop_path_rate, rng)

    def axial_mlp(self, x: Tensor) -> Tensor:
        """x (H, W, B, C)  ->  y (H, W, B, C)"""
        a = self._activated(self.norm_in(self.linear_in(x)))
        h = self._activated(self.horizontal(self._shifted(1)(a)))
        v = self._activated(self.vertical(self._shifted(0)(h if self.serial else a)))
        return self.linear_out(self.norm_out(v if self.serial else h + v))

    def _activated(self, x: Tensor) -> Tensor:
        return ops.GELU(self.gelu)(x)

    def _shifted(self, axis: int) -> ops.AxialShift:
        return ops.AxialShift(axis, **self.shift)


class PatchMerge(nn.Module):
    """Four neighbours become one: y = W GN(the channels of each 2 x 2 window).

    x (H, W, B, C)  ->  y (⌈H/2⌉, ⌈W/2⌉, B, 2C);  an odd grid gets a last row or column of zeros.
    """

    def __init__(self, C: int, *, eps: float, init: dict[str, Any], rng: nn.Rng):
        self.norm = nn.GroupNorm(4 * C, eps)
        self.linear = nn.ChannelLinear(4 * C, 2 * C, bias=False, **init, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(ops.Unfold(2, 2, padding=(0, 1))(x)))


class AsStage(nn.Module):
    """Merge patches, except in the first stage, then ASMLPBlocks."""

    def __init__(self, merge: PatchMerge | None, blocks: list[ASMLPBlock]):
        self.merge, self.blocks = merge, blocks

    def forward(self, x: Tensor, rng: nn.Rng | None = None) -> Tensor:
        if self.merge is not None:
            x = self.merge(x)
        for block in self.blocks:
            x = block(x, rng)
        return x


class ASMLP(nn.Classifier):
    """images (B, height, width, channels), normalised floats  ->  logits (B, K).

    patch embedding -> GN -> stages of `depths` ASMLPBlocks -> GN -> mean over the grid -> linear
    head. From stage to stage the grid is halved and the channels, `hidden_dim` at first, doubled.
    Stochastic depth, when on, grows linearly from 0 in the first block to `drop_path_rate` in the
    last. init="published" initialises as the released code does; "lecun" as a Mixer, which suits a
    short training better.

    image_size and patch_size are in pixels; image_size is a side or (height, width), the size that
    the model is meant for: it takes others too. Raises ValueError for options out of range, and
    here and when called for images that patches do not tile.
    """

    @checked
    def __init__(
        self,
        *,
        image_size: ImageSize,
        patch_size: Size,
        hidden_dim: Size,
        depths: Depths,
        num_classes: Size,
        shift_size: OddSize = 5,
        dilation: Size = 1,
        padding: Annotated[str, one_of(*OUTSIDE)] = "zero",
        connection: Annotated[str, one_of("parallel", "serial")] = "parallel",
        mlp_ratio: Ratio = 4.0,
        gelu: Gelu = "erf",
        eps: Epsilon = 1e-5,
        patch_norm: Flag = True,
        init: Annotated[str, one_of(*INITS)] = "published",
        drop_path_rate: Rate = 0.0,
        channels: Channels = 3,
        rng: nn.Rng,
    ):
        self.image_size, self.num_classes = nn.sides(image_size), num_classes
        self.channels = channels
        self.patch_size = patch_size
        self._check_tiling(self.image_size)
        self.feature_dims = [hidden_dim * 2**i for i in range(len(depths))]
        options: dict[str, Any] = {
            "shift_size": shift_size,
            "dilation": dilation,
            "padding": padding,
            "serial": connection == "serial",
            "gelu": gelu,
            "eps": eps,
            "init": INITS[init],
            "rng": rng,
        }
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        self.patch_embed = nn.UnfoldLinear(
            channels, hidden_dim, kernel=patch_size, stride=patch_size, **INITS[init], rng=rng
        )
        self.patch_norm = nn.GroupNorm(hidden_dim, eps) if patch_norm else None
        self.stages = []
        for i, (C, depth) in enumerate(zip(self.feature_dims, depths, strict=True)):
            merge = PatchMerge(C // 2, eps=eps, init=INITS[init], rng=rng) if i else None
            D_C = hidden_width("ASMLP", "mlp_ratio", mlp_ratio, C)
            blocks = [
                ASMLPBlock(C, mlp_dim=D_C, drop_path_rate=next(rates), **options)
                for _ in range(depth)
            ]
            self.stages.append(AsStage(merge, blocks))
        self.norm = nn.GroupNorm(C, eps)
        self.head = nn.ChannelLinear(C, num_classes, init=nn.normal(0.02), rng=rng)

    def features(self, images: Any, rng: nn.Rng | None = None) -> list[Tensor]:
        """What each stage i sees: (H_i, W_i, B, feature_dims[i]), of images as `forward` takes.

        For dense prediction; the first grid has a place for each patch, each further one half as
        many rows and columns.
        """
        grid = nn.grid(images, self.channels)
        self._check_tiling(grid.shape[:2])
        x = self.patch_embed(grid)  # (H, W, B, C)
        if self.patch_norm is not None:
            x = self.patch_norm(x)
        return outputs(self.stages, x, rng)

    def forward(self, images: Any, rng: nn.Rng | None = None) -> Tensor:
        *_, x = self.features(images, rng)
        return self.classify(self.norm(x))  # (B, K)

    def _check_tiling(self, size: tuple[int, int]) -> None:
        cure = "resize the images, or choose a patch_size that divides both sides"
        tiled("ASMLP", size, self.patch_size, cure=cure)


def _published(hidden_dim: int, depths: tuple[int, ...], drop_path_rate: float) -> dict[str, Any]:
    """A configuration of the released code, with shift_size 5 and mlp_ratio 4 throughout."""
    return IMAGENET | {
        "patch_size": 4,
        "hidden_dim": hidden_dim,
        "depths": depths,
        "drop_path_rate": drop_path_rate,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "as_mlp_t": _published(96, (2, 2, 6, 2), 0.2),
    "as_mlp_s": _published(96, (2, 2, 18, 2), 0.3),
    "as_mlp_b": _published(128, (2, 2, 18, 2), 0.5),
    "as_mlp_nano": CIFAR | {"patch_size": 4, "hidden_dim": 64, "depths": (3, 4), "init": "lecun"},
}
