"""The layers. Each owns arrays and calls one Function on them; the mathematics is in `ops`."""

from typing import Any

import numpy as np

from tinymixer import ops
from tinymixer.backend import Array, array_module
from tinymixer.engine import Tensor
from tinymixer.nn.auxiliary import after_step
from tinymixer.nn.initialise import Init, Rng, lecun_normal, ones, zero, zeros
from tinymixer.nn.module import Buffer, Module, Parameter, require_sizes
from tinymixer.ops.gelu import check_form
from tinymixer.options import Number, Whole, require


class ChannelLinear(Module):
    """x (..., C)  ->  x W + b (..., D).  See ops.ChannelLinear. Without a bias: x W."""

    def __init__(
        self,
        C: int,
        D: int,
        *,
        bias: bool = True,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        require_sizes(self, rng, C=C, D=D)
        self.W = init(rng, (C, D), C)
        self.b = bias_init(rng, (D,), C) if bias else None

    def forward(self, x: Any) -> Tensor:
        return ops.ChannelLinear()(x, self.W, *([] if self.b is None else [self.b]))


class TokenLinear(Module):
    """x (S, B, C)  ->  W x + b (D, B, C).  See ops.TokenLinear."""

    def __init__(self, S: int, D: int, *, rng: Rng):
        require_sizes(self, rng, S=S, D=D)
        self.W, self.b = lecun_normal(rng, (D, S), fan_in=S), zeros(D)

    def forward(self, x: Any) -> Tensor:
        return ops.TokenLinear()(x, self.W, self.b)


class LayerNorm(Module):
    """x (..., C)  ->  y (..., C).  See ops.LayerNorm."""

    def __init__(self, C: int, eps: float = 1e-6):
        require_sizes(self, C=C)
        self.gamma, self.beta = ones(C), zeros(C)
        self.eps = require("LayerNorm: eps", eps, Number(0))

    def forward(self, x: Any) -> Tensor:
        return ops.LayerNorm(self.eps)(x, self.gamma, self.beta)


class GroupNorm(Module):
    """x (H, W, B, C)  ->  y (H, W, B, C), with statistics of each image.  See ops.GroupNorm."""

    def __init__(self, C: int, eps: float = 1e-5):
        require_sizes(self, C=C)
        self.gamma, self.beta = ones(C), zeros(C)
        self.eps = require("GroupNorm: eps", eps, Number(0))

    def forward(self, x: Any) -> Tensor:
        return ops.GroupNorm(self.eps)(x, self.gamma, self.beta)


class BatchNorm(Module):
    """x (H, W, B, C)  ->  y (H, W, B, C), each channel normalised over images and positions.

    In training, with an rng, by the batch's own statistics (ops.BatchNorm), which also move the
    running ones: running <- (1 - momentum) running + momentum batch, the variance as the unbiased
    estimate n/(n - 1) σ². In evaluation by the running ones: y = γ (x - μ) / √(σ² + eps) + β.

    The batch is what one call sees: in training, a micro-batch.
    """

    def __init__(self, C: int, eps: float = 1e-5, momentum: float = 0.1):
        require_sizes(self, C=C)
        self.gamma, self.beta = ones(C), zeros(C)
        self.running_mean = Buffer(np.zeros(C, np.float32))
        self.running_var = Buffer(np.ones(C, np.float32))
        self.eps = require("BatchNorm: eps", eps, Number(0))
        self.momentum = require("BatchNorm: momentum", momentum, Number(0, 1))

    def forward(self, x: Any, rng: Rng | None = None) -> Tensor:
        if rng is None:
            shape = getattr(x, "shape", ())
            if len(shape) != 4 or shape[3:] != self.gamma.shape:
                raise ValueError(
                    f"BatchNorm: expected x (H, W, B, C) with C = {self.gamma.size}, got {shape}"
                )
            mean, variance = self.running_mean.data, self.running_var.data
            scale = self.gamma * (1 / array_module(variance).sqrt(variance + self.eps))
            return x * scale + (self.beta - scale * mean)
        op = ops.BatchNorm(self.eps)
        y = op(x, self.gamma, self.beta)
        mean, variance = (statistic.ravel() for statistic in op.statistics)
        n = y.size // len(mean)
        after_step(self._follow, mean, variance * (n / max(1, n - 1)))
        return y

    def _follow(self, mean: Array, variance: Array) -> None:
        for running, batch in ((self.running_mean, mean), (self.running_var, variance)):
            running.data[...] = (1 - self.momentum) * running.data + self.momentum * batch


class UnfoldLinear(Module):
    """x (H, W, B, C)  ->  y (H', W', B, D): every window of the grid through one linear map.

    A convolution. With kernel = stride the windows tile the grid, as patches do. Raises ValueError
    for a kernel or a stride below 1 and for a negative padding.
    """

    embeds = True

    def __init__(
        self,
        C: int,
        D: int,
        kernel: int,
        stride: int,
        padding: int = 0,
        *,
        bias: bool = True,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        if not (kernel in Whole(1) and stride in Whole(1) and padding in Whole(0)):
            raise ValueError(
                f"UnfoldLinear: expected a kernel and a stride of 1 or more and a padding of 0 or "
                f"more, got {kernel}, {stride} and {padding}"
            )
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.linear = ChannelLinear(
            kernel**2 * C, D, bias=bias, init=init, bias_init=bias_init, rng=rng
        )

    def windows(self, x: Any) -> Tensor:
        """(H', W', B, C*kernel²): what the linear map reads."""
        return ops.Unfold(self.kernel, self.stride, self.padding)(x)

    def forward(self, x: Any) -> Tensor:
        windows = self.windows(x)
        return self.linear(windows if isinstance(x, Tensor) else windows.data)


class PatchEmbed(Module):
    """images (B, H*P, W*P, channels)  ->  x (S, B, C): each patch's pixels through one linear map.

    The same as a convolution whose kernel and stride are both P.
    """

    embeds = True

    def __init__(self, patch_size: int, C: int, channels: int = 3, *, rng: Rng):
        require_sizes(self, rng, patch_size=patch_size, C=C, channels=channels)
        self.patch_size = patch_size
        self.linear = ChannelLinear(channels * patch_size**2, C, rng=rng)

    def windows(self, images: Any) -> Tensor:
        """(S, B, channels*P²): what the linear map reads."""
        return ops.Patchify(self.patch_size)(images)

    def forward(self, images: Any) -> Tensor:
        patches = self.windows(images)
        # Plain images need no gradient, so neither do their patches: one product less in backward.
        return self.linear(patches if isinstance(images, Tensor) else patches.data)


class TokenMLP(Module):
    """x (S, B, C)  ->  y (S, B, C).  See ops.TokenMLP."""

    def __init__(
        self,
        S: int,
        D_S: int,
        *,
        gelu: str,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        require_sizes(self, rng, S=S, D_S=D_S)
        self.W1, self.b1 = init(rng, (D_S, S), S), bias_init(rng, (D_S,), S)
        self.W2, self.b2 = init(rng, (S, D_S), D_S), bias_init(rng, (S,), D_S)
        self.gelu = check_form(gelu)

    def forward(self, x: Any) -> Tensor:
        return ops.TokenMLP(self.gelu)(x, self.W1, self.b1, self.W2, self.b2)


class ChannelMLP(Module):
    """x (..., C)  ->  y (..., C).  See ops.ChannelMLP."""

    def __init__(
        self,
        C: int,
        D_C: int,
        *,
        gelu: str,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        require_sizes(self, rng, C=C, D_C=D_C)
        self.W1, self.b1 = init(rng, (C, D_C), C), bias_init(rng, (D_C,), C)
        self.W2, self.b2 = init(rng, (D_C, C), D_C), bias_init(rng, (C,), D_C)
        self.gelu = check_form(gelu)

    def forward(self, x: Any) -> Tensor:
        return ops.ChannelMLP(self.gelu)(x, self.W1, self.b1, self.W2, self.b2)


class SplitAttention(Module):
    """n branches, each (..., B, C)  ->  y (..., B, C), weighed for each image and channel.

    z = GELU(q W1 + b1) W2 + b2, where q (B, C) is the mean of the branches' sum over all positions;
    the two maps go C -> hidden_dim -> n*C.  See ops.SplitAttention.
    """

    def __init__(
        self,
        C: int,
        n: int,
        hidden_dim: int,
        *,
        gelu: str,
        init: Init = lecun_normal,
        bias_init: Init = zero,
        rng: Rng,
    ):
        require_sizes(self, rng, C=C, hidden_dim=hidden_dim, n=n)
        self.linear_1 = ChannelLinear(C, hidden_dim, init=init, bias_init=bias_init, rng=rng)
        self.linear_2 = ChannelLinear(hidden_dim, n * C, init=init, bias_init=bias_init, rng=rng)
        self.gelu = check_form(gelu)

    def forward(self, *branches: Any) -> Tensor:
        positions = tuple(range(branches[0].ndim - 2))
        q = sum(x.mean(axis=positions) for x in branches)  # (B, C)
        z = self.linear_2(ops.GELU(self.gelu)(self.linear_1(q)))  # (B, n*C)
        return ops.SplitAttention()(z, *branches)


class Classifier(Module):
    """A model whose last steps are logits = head(mean over all positions of norm(x)).

    images (B, height, width, channels), normalised floats  ->  logits (B, K)

    Its last attributes are `norm`, a normalisation, and `head`, a ChannelLinear (C, K). The
    rest is the backbone. While that is `frozen` only the head learns: it gets a plain array, so the
    tape ends there, and nothing below is differentiated.
    """

    image_size: tuple[int, int]  # (height, width)
    channels: int  # of the images: 3 colours, or 1 if they are grey
    num_classes: int  # K
    norm: Module
    head: ChannelLinear
    frozen = False

    def classify(self, x: Tensor) -> Tensor:
        """x (..., B, C), normalised, at all positions  ->  logits (B, K)"""
        x = x.mean(axis=tuple(range(x.data.ndim - 2)))
        return self.head(x.data if self.frozen else x)

    def learned_parameters(self) -> dict[str, Parameter]:
        parameters = super().learned_parameters()
        if self.frozen:
            return {name: x for name, x in parameters.items() if name.startswith("head.")}
        return parameters


def dropout(x: Tensor, rate: float, rng: Rng | None) -> Tensor:
    """x with single activations dropped at `rate`; x itself in evaluation, without an rng."""
    return x if rng is None or rate == 0 else _dropped(x, rate, rng, x.shape)


def drop_path(x: Tensor, rate: float, rng: Rng | None) -> Tensor:
    """x (..., B, C), a residual branch, dropped for whole images at `rate`; x in evaluation."""
    return x if rng is None or rate == 0 else _dropped(x, rate, rng, (x.shape[-2], 1))


def drop_branch(x: Tensor, rate: float, path_rate: float, rng: Rng | None) -> Tensor:
    """x, a residual branch: activations dropped at `rate`, then whole images at `path_rate`."""
    return drop_path(dropout(x, rate, rng), path_rate, rng)


def _dropped(x: Tensor, rate: float, rng: Rng, mask_shape: tuple[int, ...]) -> Tensor:
    keep = rng.random(mask_shape, dtype=np.float32) >= rate
    return ops.Dropout(rate)(x, array_module(x.data).asarray(keep))
