"""The two MLPs of a Mixer block: the same three steps, across tokens and across channels.

Source: Tolstikhin et al. 2021, "MLP-Mixer", arXiv 2105.01601, equation 1.
"""

from dataclasses import dataclass

from tinymixer.backend import Array
from tinymixer.engine import Function
from tinymixer.ops.gelu import FORM, gelu, gelu_derivative
from tinymixer.ops.linear import TIED


@dataclass(eq=False)
class TokenMLP(Function):
    """Mix tokens: y = W2 g(W1 x + b1) + b2 for every channel of every image, g = GELU.

    x (S, B, C), W1 (D_S, S), b1 (D_S,), W2 (S, D_S), b2 (S,)  ->  y (S, B, C)

    Below, X is x as (S, B*C): one column for each channel of each image, and the same MLP for all.
    """

    shapes = "x (S, ...), W1 (D_S, S), b1 (D_S), W2 (S, D_S), b2 (S)"
    cures = (("S", TIED),)
    allowed = (FORM,)

    form: str = "tanh"  # of GELU

    def forward(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
        X = x.reshape(len(x), -1)  # (S, B*C)
        h = W1 @ X + b1[:, None]  # (D_S, B*C)
        a = gelu(h, self.form)
        y = W2 @ a + b2[:, None]  # (S, B*C)
        self.saved = X, W1, h, a, W2
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, W1, h, a, W2 = self.saved
        dY = dy.reshape(len(dy), -1)  # (S, B*C)
        dW2 = dY @ a.T if self.needs[3] else None  # (S, D_S)
        db2 = dY.sum(1) if self.needs[4] else None
        dh = W2.T @ dY * gelu_derivative(h, self.form)  # (D_S, B*C)
        dW1 = dh @ X.T if self.needs[1] else None  # (D_S, S)
        db1 = dh.sum(1) if self.needs[2] else None
        dx = (W1.T @ dh).reshape(dy.shape) if self.needs[0] else None
        return dx, dW1, db1, dW2, db2

    def multiply_accumulates(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> int:
        return x.size // len(x) * (W1.size + W2.size)


@dataclass(eq=False)
class ChannelMLP(Function):
    """Mix channels: y = g(x W1 + b1) W2 + b2 for every token of every image, g = GELU.

    x (..., C), W1 (C, D_C), b1 (D_C,), W2 (D_C, C), b2 (C,)  ->  y (..., C)

    Below, X is x as (S*B, C): one row for each token of each image, and the same MLP for all.
    """

    shapes = "x (..., C), W1 (C, D_C), b1 (D_C), W2 (D_C, C), b2 (C)"
    cures = (("C", "The channels are the last axis of x"),)
    allowed = (FORM,)

    form: str = "tanh"  # of GELU

    def forward(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
        X = x.reshape(-1, len(W1))  # (S*B, C)
        h = X @ W1 + b1  # (S*B, D_C)
        a = gelu(h, self.form)
        y = a @ W2 + b2  # (S*B, C)
        self.saved = X, W1, h, a, W2
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, W1, h, a, W2 = self.saved
        dY = dy.reshape(X.shape)  # (S*B, C)
        dW2 = a.T @ dY if self.needs[3] else None  # (D_C, C)
        db2 = dY.sum(0) if self.needs[4] else None
        dh = dY @ W2.T * gelu_derivative(h, self.form)  # (S*B, D_C)
        dW1 = X.T @ dh if self.needs[1] else None  # (C, D_C)
        db1 = dh.sum(0) if self.needs[2] else None
        dx = (dh @ W1.T).reshape(dy.shape) if self.needs[0] else None
        return dx, dW1, db1, dW2, db2

    def multiply_accumulates(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> int:
        return x.size // len(W1) * (W1.size + W2.size)
