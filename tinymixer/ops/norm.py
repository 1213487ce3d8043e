"""Normalisation: one formula, and three choices of what shares a mean and a variance."""

from dataclasses import dataclass

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function
from tinymixer.options import Number


class Norm(Function):
    """Give every group of elements mean 0 and variance 1, then scale and shift each channel.

    x̂ = (x - μ) / √(σ² + eps),  y = γ x̂ + β;  μ and σ² (biased) over `axes`, which name the group.

    x (..., C), gamma (C,), beta (C,)  ->  y (..., C)

    With g = γ dy, and means over the same axes:
        dx = (g - mean(g) - x̂ mean(g x̂)) / √(σ² + eps)
    The two means are the part of g that acts through μ and σ: the output does not change when a
    group is shifted or scaled, so dx is orthogonal to both directions.

    `statistics` is (μ, σ²) of the last forward, with the axes kept, for the running statistics of
    nn.BatchNorm. Twins of LayerNorm, which has none, leave it out.
    """

    axes: tuple[int, ...]
    eps: float
    allowed = (("eps", Number(0)),)

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        mean = x.mean(self.axes, keepdims=True)
        centred = x - mean
        variance = (centred * centred).mean(self.axes, keepdims=True)
        self.statistics = mean, variance
        scale = 1 / array_module(x).sqrt(variance + self.eps)
        x_hat = centred * scale
        self.saved = x_hat, scale, gamma
        return x_hat * gamma + beta

    def backward(self, dy: Array) -> tuple:
        x_hat, scale, gamma = self.saved
        all_but_channels = tuple(range(dy.ndim - 1))
        dx = dgamma = dbeta = None
        if self.needs[0]:
            g = dy * gamma
            g_mean = g.mean(self.axes, keepdims=True)
            g_x_hat_mean = (g * x_hat).mean(self.axes, keepdims=True)
            dx = scale * (g - g_mean - x_hat * g_x_hat_mean)
        if self.needs[1]:
            dgamma = (dy * x_hat).sum(all_but_channels)  # (C,)
        if self.needs[2]:
            dbeta = dy.sum(all_but_channels)  # (C,)
        return dx, dgamma, dbeta


@dataclass(eq=False)
class LayerNorm(Norm):
    """Norm over the channels of one token.

    x (..., C), gamma (C,), beta (C,)  ->  y (..., C)

    Source: Ba, Kiros, Hinton 2016, "Layer normalization", arXiv 1607.06450, equation 4.
    """

    shapes = "x (..., C), gamma (C), beta (C)"

    eps: float = 1e-6
    axes = (-1,)


@dataclass(eq=False)
class GroupNorm(Norm):
    """Norm over everything that belongs to one image: all its tokens and channels, one group.

    x (H, W, B, C), gamma (C,), beta (C,)  ->  y (H, W, B, C)

    Source: Wu, He 2018, "Group normalization", arXiv 1803.08494, with the number of groups 1.
    """

    shapes = "x (H, W, B, C), gamma (C), beta (C)"

    eps: float = 1e-5
    axes = (-4, -3, -1)


@dataclass(eq=False)
class BatchNorm(Norm):
    """Norm over one channel of all tokens of all images of the batch: the form used in training.

    x (H, W, B, C), gamma (C,), beta (C,)  ->  y (H, W, B, C)

    In evaluation an image must not depend on its neighbours: see nn.BatchNorm.

    Source: Ioffe, Szegedy 2015, "Batch normalization", arXiv 1502.03167, algorithm 1.
    """

    shapes = "x (H, W, B, C), gamma (C), beta (C)"

    eps: float = 1e-5
    axes = (-4, -3, -2)
