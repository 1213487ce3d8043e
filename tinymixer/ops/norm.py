"""Normalisation: LayerNorm."""

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function


class LayerNorm(Function):
    """Give the channels of each token mean 0 and variance 1, then scale and shift.

    x̂ = (x - μ) / √(σ² + eps),  y = γ x̂ + β;  μ and σ² (biased) over the channels of one token.

    x (..., C), gamma (C,), beta (C,)  ->  y (..., C)

    With g = γ dy, and means over the channels:
        dx = (g - mean(g) - x̂ mean(g x̂)) / √(σ² + eps)
    The two means are what g loses by moving μ and σ: the output feels neither a shift nor a
    stretch of x, so dx is orthogonal to both.

    Source: Ba, Kiros, Hinton 2016, "Layer normalization", arXiv 1607.06450, equation 4.
    """

    def __init__(self, eps: float = 1e-6):
        self.eps = eps

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        scale = 1 / array_module(x).sqrt(variance + self.eps)  # (..., 1)
        x_hat = centred * scale
        self.save(x_hat, scale, gamma)
        return x_hat * gamma + beta

    def backward(self, dy: Array) -> tuple:
        x_hat, scale, gamma = self.saved
        tokens = tuple(range(dy.ndim - 1))
        dx = dgamma = dbeta = None
        if self.needs[0]:
            g = dy * gamma
            g_mean = g.mean(-1, keepdims=True)
            g_x_hat_mean = (g * x_hat).mean(-1, keepdims=True)
            dx = scale * (g - g_mean - x_hat * g_x_hat_mean)
        if self.needs[1]:
            dgamma = (dy * x_hat).sum(tokens)  # (C,)
        if self.needs[2]:
            dbeta = dy.sum(tokens)  # (C,)
        return dx, dgamma, dbeta
