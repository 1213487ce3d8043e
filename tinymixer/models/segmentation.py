"""Semantic segmentation: a class for every pixel, from the coarse and the fine maps of a pyramid.

The backbone is any model with `features(images, rng) -> maps (H_i, W_i, B, C_i)`, finest first, and
their `feature_dims`; AS-MLP, Hire-MLP and RaftMLP are such models.

Source: the top-down path is that of Lin et al. 2017, "Feature pyramid networks for object
detection", arXiv 1612.03144, figure 3; one map from all levels as in Xiao et al. 2018, "Unified
perceptual parsing", arXiv 1807.10221, figure 4, without its pyramid pooling.
"""

from typing import Any

from tinymixer import nn, ops
from tinymixer.engine import Tensor
from tinymixer.models.options import Gelu, Size, checked
from tinymixer.ops.resample import bilinear_matrix


class SegmentationLevel(nn.Module):
    """What the head has for each map of the pyramid: C channels come in, D go through and out."""

    def __init__(self, C: int, D: int, *, rng: nn.Rng):
        self.norm = nn.GroupNorm(C)
        self.enter = nn.ChannelLinear(C, D, rng=rng)
        self.mix = nn.ChannelLinear(D, D, rng=rng)
        self.leave = nn.ChannelLinear(D, D, bias=False, rng=rng)


class Segmenter(nn.Module):
    """images (B, height, width, channels), normalised floats  ->  logits (height, width, B, K).

    With the maps x_1 ... x_n of the backbone, finest first, and `up` bilinear resizing:

        u_i = enter_i(GN(x_i))                         (H_i, W_i, B, D)
        v_n = u_n,  v_i = u_i + up(v_(i+1))            context from the coarser maps
        z_i = GELU(mix_i(v_i))
        y   = GELU(b + Σ_i up(leave_i(z_i)))           (H_1, W_1, B, D)
        logits = up(head(y))

    The sum is one linear map of all the z_i, upsampled and laid end to end: a product with a matrix
    cut into blocks is the sum of the blocks' products. As resizing mixes places and a linear map
    channels, either may be first, and here fewer places are the cheaper ones. The head starts at
    zero. The backbone's own norm and head, which classify whole images, are removed.

    width is D. While the backbone is `frozen`, the rest gets plain arrays from it: the tape ends
    there. Raises ValueError for a backbone without `features`.
    """

    frozen = False

    @checked
    def __init__(
        self,
        backbone: Any,
        num_classes: Size,
        *,
        width: Size = 64,
        gelu: Gelu = "tanh",
        rng: nn.Rng,
    ):
        if not hasattr(backbone, "features"):
            raise ValueError(
                f"{type(backbone).__name__} has no maps of several sizes to draw segments on; "
                "expected a model with `features`, such as AS-MLP, Hire-MLP or RaftMLP"
            )
        self.image_size, self.num_classes = backbone.image_size, num_classes
        self.backbone, self.channels = backbone, getattr(backbone, "channels", 3)
        for name in ("norm", "head"):
            vars(backbone).pop(name, None)
        self.levels = [SegmentationLevel(C, width, rng=rng) for C in backbone.feature_dims]
        self.bias = nn.zeros(width)
        self.head = nn.ChannelLinear(width, num_classes, init=nn.zero, rng=rng)
        self.gelu = gelu

    def forward(self, images: Any, rng: nn.Rng | None = None) -> Tensor:
        maps = self.backbone.features(images, rng)
        if self.frozen:
            maps = [x.data for x in maps]
        finest, places = maps[0].shape[:2], images.shape[1:3]
        v: Tensor | None = None
        y: Tensor = self.bias
        for level, x in reversed(list(zip(self.levels, maps, strict=True))):
            u = level.enter(level.norm(x))  # (H_i, W_i, B, D)
            v = u if v is None else u + _up(v, u.shape[:2])
            y = y + _up(level.leave(ops.GELU(self.gelu)(level.mix(v))), finest)
        return _up(self.head(ops.GELU(self.gelu)(y)), places)  # (height, width, B, K)

    def learned_parameters(self) -> dict[str, nn.Parameter]:
        parameters = super().learned_parameters()
        if self.frozen:
            return {name: x for name, x in parameters.items() if not name.startswith("backbone.")}
        return parameters


def _up(x: Tensor, places: tuple[int, int]) -> Tensor:
    return nn.resize(x, places, bilinear_matrix)
