"""Each hand-written Function once more, composed from primitives on Tensors.

Nothing here knows a derivative: the tape works it out. Where there is a choice, a composition takes
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
    return _looked_up(images, *key)


def raft(x, r, axis):
    """Every number looked up by the indices that the formula gives."""
    H, W, B, C = x.shape
    m, sides = C // r, (H, W)
    along, across, image, u = np.ogrid[: r * sides[axis], : sides[1 - axis], :B, :m]
    member, place = along // sides[axis], along % sides[axis]
    h, w = (place, across) if axis == 0 else (across, place)
    return _looked_up(x, h, w, image, member * m + u)


def unraft(y, r, axis):
    """Every number looked up by the indices that the formula gives."""
    n, across, B, m = y.shape
    H, W = (n // r, across) if axis == 0 else (across, n // r)
    h, w, image, c = np.ogrid[:H, :W, :B, : r * m]
    along, across = (h, w) if axis == 0 else (w, h)
    return _looked_up(y, c // m * (n // r) + along, across, image, c % m)


def swap_segments(x, axis):
    """Every number looked up by the indices that the formula gives."""
    H, W, B, C = x.shape
    h, w, image, c = np.ogrid[:H, :W, :B, :C]
    s = C // x.shape[axis]
    k, j = c // s, c % s
    key = (k, w, image, h * s + j) if axis == 0 else (h, k, image, w * s + j)
    return _looked_up(x, *key)


def _looked_up(x, *key):
    xp = array_module(x.data)
    return x[tuple(xp.asarray(index) for index in key)]


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


def split_attention(z, *branches):
    """exp(z[b]) x_b, added up and divided by what the exponentials add up to."""
    C = z.shape[1] // len(branches)
    weights = [z[:, b * C : (b + 1) * C].exp() for b in range(len(branches))]  # n of (B, C)
    return sum(e * x for e, x in zip(weights, branches, strict=True)) / sum(weights)


def shift(x, step, axis, mode):
    """Every row looked up where it came from."""
    n = x.shape[axis]
    if mode == "circular":
        return x[(slice(None),) * axis + ([(i - step) % n for i in range(n)],)]
    mask = array_module(x.data).asarray(np.eye(n, k=-step))
    return _rows_mixed(x, mask, axis)


def regions(x, p, axis, padding):
    """Every place of every region looked up, place by place, and the places put side by side."""
    n = x.shape[axis]
    G = -(-n // p)
    source = {"circular": lambda i: i % n, "replicate": lambda i: min(i, n - 1)}
    matrix = np.eye(p * G, n)  # zeros below: rows that no x reaches
    for i in range(n, p * G):
        if padding in source:
            matrix[i, source[padding](i)] = 1
    places = [array_module(x.data).asarray(matrix[r::p]) for r in range(p)]  # p of (G, n)
    C = x.shape[-1]
    spread = [array_module(x.data).asarray(np.eye(C, p * C, r * C)) for r in range(p)]
    return sum(_rows_mixed(x, m, axis) @ e for m, e in zip(places, spread, strict=True))


def _rows_mixed(x, matrix, axis):
    """matrix (n', n) times the rows of x (H, W, B, C), whatever they hold."""
    to_front = (axis, *(i for i in range(4) if i != axis))
    turned = x.transpose(*to_front)
    mixed = matrix @ turned.reshape(len(turned), -1)
    return mixed.reshape(-1, *turned.shape[1:]).transpose(*np.argsort(to_front).tolist())


def resample(x, A_h, A_w):
    """As it is written: A_h X A_wᵀ, for a matrix X of every channel of every image."""
    return (A_h @ x.transpose(2, 3, 0, 1) @ A_w.T).transpose(2, 3, 0, 1)


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


def softmax(z):
    """Without the shift by the largest: the numbers of a test do not overflow."""
    e = z.exp()
    return e / e.sum(axis=-1, keepdims=True)


def where_rows(rows, N, xp):
    """Row selection as a matrix (n, N): a 1 where row i of the answer is row n of x."""
    return (rows[:, None] == xp.arange(N)).astype(np.float64)


def dispatch(x, rows):
    return where_rows(rows, len(x), array_module(x.data)) @ x


def combine(p, *answers_and_order):
    """Every answer spread over all rows by a matrix of ones and zeros, and added up."""
    *answers, order = answers_and_order
    y, start = 0.0, 0
    for e, a in enumerate(answers):
        rows = order[start : start + len(a)]
        spread = where_rows(rows, len(p), array_module(p.data)).T @ a  # (N, D)
        y, start = y + p[:, e : e + 1] * spread, start + len(a)
    return y


def load(z, noisy, last, sigma):
    """Row by row the threshold is looked up."""
    xp = array_module(z.data)
    t = noisy[(xp.arange(len(noisy)), last)].reshape(-1, 1)
    return (0.5 * (1.0 + erf((z - t) / (sigma * math.sqrt(2))))).sum(axis=0)


def imbalance(v):
    """(std / mean)² = mean of squares / square of mean - 1."""
    m = v.mean()
    return (v * v).mean() / (m * m) - 1.0
