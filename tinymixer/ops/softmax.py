"""Softmax: from any numbers to shares that add up to 1."""

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function


class Softmax(Function):
    """p[e] = exp(z[e]) / Σ_j exp(z[j]), over the last axis.

    z (..., E)  ->  p (..., E)

    dz[e] = p[e] (dp[e] - Σ_j p[j] dp[j]):  a larger z lowers all other p, so z[e] has a gradient
    even where p[e] is not used. Over the last axis dz sums to 0.
    """

    shapes = "z (..., E)"

    def forward(self, z: Array) -> Array:
        e = array_module(z).exp(z - z.max(-1, keepdims=True))  # exp cannot overflow
        p = e / e.sum(-1, keepdims=True)
        self.saved = (p,)
        return p

    def backward(self, dp: Array) -> Array:
        (p,) = self.saved
        return p * (dp - (p * dp).sum(-1, keepdims=True))
