"""Dropout and stochastic depth: the same product with a random mask, of different shape."""

from tinymixer.backend import Array
from tinymixer.engine import Function
from tinymixer.options import Number


class Dropout(Function):
    """y = x keep / (1 - rate): drop at random, and scale so that the expectation stays the same.

    x (S, B, C), keep, booleans that broadcast to x  ->  y (S, B, C)

    keep (S, B, C) drops single activations; keep (B, 1) drops whole images, which on a residual
    branch is stochastic depth: the images dropped take only the skip connection. The mask is an
    input and not drawn here, so that a forward can be repeated and its gradient checked.

    Sources: Srivastava et al. 2014, "Dropout", JMLR 15, section 4; Huang et al. 2016, "Deep
    networks with stochastic depth", arXiv 1603.09382, equation 2 (scaled here, not at test time).
    """

    shapes = "x (*), keep (*) reals"

    def __init__(self, rate: float):
        if rate not in Number(0, 1, below=True):
            raise ValueError(f"Dropout: expected a rate in [0, 1), got {rate!r}")
        self.rate = rate

    def forward(self, x: Array, keep: Array) -> Array:
        factor = keep.astype(x.dtype) / (1 - self.rate)
        y = x * factor
        if y.shape != x.shape:
            raise ValueError(f"Dropout: keep {keep.shape} does not broadcast to x {x.shape}")
        self.saved = (factor,)
        return y

    def backward(self, dy: Array) -> tuple:
        (factor,) = self.saved
        return dy * factor, None
