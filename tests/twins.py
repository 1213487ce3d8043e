"""Each hand-written Function once more, composed from primitives on Tensors.

Nothing here knows a derivative: the tape works it out. Where there is a choice, a twin takes
another way to the same numbers than the Function does: batch first instead of tokens first, a
power series instead of Chebyshev polynomials, an index instead of a transpose.
"""

import math

import numpy as np

from tinymixer.backend import array_module


def token_linear(x, W, b):
    """As the papers write it: tokens to the last axis, a product from the right, and back."""
    batch_first = x.transpose(1, 2, 0)  # (B, C, S)
    return (batch_first @ W.transpose() + b).transpose(2, 0, 1)  # (D, B, C)


def channel_linear(x, W, b):
    """y[d] = Σ_c x[c] W[c, d] + b[d], the sum written out by broadcasting."""
    C, D = W.shape
    products = x.reshape(*x.shape, 1) * W.reshape(*[1] * (x.ndim - 1), C, D)
    return products.sum(axis=-2) + b


def erf(z):
    """2z/√π exp(-z²) Σ (2z²)ⁿ / (1·3·5···(2n+1)): all terms positive, so nothing cancels."""
    series, square = z * 0.0 + 1.0, 2.0 * z * z
    for n in range(120, 0, -1):  # for |z| < 4.5 the terms have long shrunk below rounding
        series = series * square / (2 * n + 1.0) + 1.0
    return 2 / math.sqrt(math.pi) * z * (-z * z).exp() * series


def gelu(x, form):
    if form == "erf":
        return 0.5 * x * (1.0 + erf(x / math.sqrt(2)))
    return 0.5 * x * (1.0 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)).tanh())


def token_mlp(x, W1, b1, W2, b2, form):
    return token_linear(gelu(token_linear(x, W1, b1), form), W2, b2)


def channel_mlp(x, W1, b1, W2, b2, form):
    return channel_linear(gelu(channel_linear(x, W1, b1), form), W2, b2)


def norm(x, gamma, beta, eps, axes):
    mean = x.mean(axis=axes, keepdims=True)
    variance = (x * x).mean(axis=axes, keepdims=True) - mean * mean
    return (x - mean) / (variance + eps).sqrt() * gamma + beta


def patchify(images, P):
    """Every pixel of every token looked up: row and column of its patch, and within it."""
    B, height, width, colours = images.shape
    H, W = height // P, width // P
    token, image, channel = np.ogrid[: H * W, :B, : P * P * colours]
    row = token // W * P + channel // (P * colours)
    column = token % W * P + channel // colours % P
    key = (image, row, column, channel % colours)
    xp = array_module(images.data)
    return images[tuple(xp.asarray(index) for index in key)]


def unfold(x, kernel, stride, padding):
    """Every element of every window looked up; what lies outside the grid is masked."""
    H, W, B, C = x.shape
    before, after = (padding, padding) if isinstance(padding, int) else padding
    rows, columns = [(side + before + after - kernel) // stride + 1 for side in (H, W)]
    at_row, at_column, image, channel = np.ogrid[:rows, :columns, :B, : kernel**2 * C]
    row = at_row * stride + channel // (kernel * C) - before
    column = at_column * stride + channel // C % kernel - before
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
    key = (row.clip(0, H - 1), column.clip(0, W - 1), image, channel % C)
    xp = array_module(x.data)
    return x[tuple(xp.asarray(index) for index in key)] * xp.asarray(inside.astype(float))


def dropout(x, keep, rate):
    return x * keep.astype(x.dtype) / (1 - rate)


def cross_entropy(logits, q):
    """-(1/B) Σ q log p, for a target distribution q (B, K)."""
    log_p = logits - logits.exp().sum(axis=1, keepdims=True).log()
    return -(log_p * q).sum() / len(logits)


def axial_shift(x, axis, source):
    """A matrix of zeros and ones per channel: M[c, i, j] = 1 where line i is a copy of line j.

    source[c][i] names that j, or None for a line of zeros.
    """
    n, C = x.shape[axis], x.shape[3]
    M = np.zeros((C, n, n))
    for c, lines in enumerate(source):
        for i, j in enumerate(lines):
            M[c, i, j] = j is not None
    order = (3, axis, 1 - axis, 2)  # channels, the lines that move, all others
    moved = x.transpose(order)
    y = array_module(x.data).asarray(M) @ moved.reshape(C, n, -1)
    return y.reshape(*moved.shape).transpose(tuple(order.index(i) for i in range(4)))
