"""Linear maps on channels and on tokens.

Activations are (S, B, C), tokens first. Their memory read as (S*B, C) has a token's channels in
each row, so channels are mixed by a product from the right; read as (S, B*C) it has one channel of
one image in each column, so tokens are mixed by a product from the left. Neither copies anything.
"""

from tinymixer.backend import Array
from tinymixer.engine import Function

TIED = (
    "Mixing tokens ties a model to one image size: resize the images, or build the model with "
    "their image_size"
)


class ChannelLinear(Function):
    """Mix channels: y[d] = Σ_c x[c] W[c, d] + b[d], for every token of every image.

    x (..., C), W (C, D), b (D,)  ->  y (..., D);  b may be left out

    Raises ValueError where x and W disagree on C.
    """

    shapes = "x (..., C), W (C, D), b (D) optional"
    cures = (("C", "Channels are the last axis of x and the first of W"),)

    def forward(self, x: Array, W: Array, b: Array | None = None) -> Array:
        self.saved = x, W, b is not None
        y = x.reshape(-1, len(W)) @ W  # (S*B, D)
        if b is not None:
            y = y + b
        return y.reshape(*x.shape[:-1], W.shape[1])

    def backward(self, dy: Array) -> tuple:
        x, W, biased = self.saved
        X, dY = x.reshape(-1, len(W)), dy.reshape(-1, W.shape[1])
        dx = (dY @ W.T).reshape(x.shape) if self.needs[0] else None
        dW = X.T @ dY if self.needs[1] else None  # (C, D)
        db = dY.sum(0) if biased and self.needs[2] else None  # (D,)
        return (dx, dW, db) if biased else (dx, dW)

    def multiply_accumulates(self, x: Array, W: Array, b: Array | None = None) -> int:
        return x.size // len(W) * W.size


class TokenLinear(Function):
    """Mix tokens: y[d] = Σ_s W[d, s] x[s] + b[d], for every channel of every image.

    x (S, B, C), W (D, S), b (D,)  ->  y (D, B, C)

    Raises ValueError where x and W disagree on S.
    """

    shapes = "x (S, ...), W (D, S), b (D)"
    cures = (("S", TIED),)

    def forward(self, x: Array, W: Array, b: Array) -> Array:
        self.saved = x, W
        y = W @ x.reshape(len(x), -1) + b[:, None]  # (D, B*C)
        return y.reshape(len(W), *x.shape[1:])

    def backward(self, dy: Array) -> tuple:
        x, W = self.saved
        X, dY = x.reshape(len(x), -1), dy.reshape(len(dy), -1)
        dx = (W.T @ dY).reshape(x.shape) if self.needs[0] else None
        dW = dY @ X.T if self.needs[1] else None  # (D, S)
        db = dY.sum(1) if self.needs[2] else None  # (D,)
        return dx, dW, db

    def multiply_accumulates(self, x: Array, W: Array, b: Array) -> int:
        return x.size // len(x) * W.size
