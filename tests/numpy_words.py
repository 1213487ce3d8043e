"""What the functions of ops, nn, optim and engine compute, once more, in NumPy and in float64.

Each takes the options and the arrays of a call and returns what it must give. It raises whatever it
likes for arguments that it is not defined for: a call that is answered all the same is a fault.
"""

import math

import numpy as np


def need(*conditions):
    if not all(conditions):
        raise AssertionError


def channel_linear(x, W, b=None):
    need(W.ndim == 2, b is None or b.shape == W.shape[1:])
    return np.einsum("...c,cd->...d", x, W) + (0 if b is None else b)


def token_linear(x, W, b):
    need(W.ndim == 2, b.shape == W.shape[:1])
    return np.einsum("ds,s...->d...", W, x) + b.reshape(-1, *[1] * (x.ndim - 1))


def gelu(x, form="tanh"):
    need(form in ("tanh", "erf"))
    if form == "erf":
        return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(np.real(x) / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def token_mlp(x, W1, b1, W2, b2, form="tanh"):
    need(W2.shape == W1.shape[::-1])
    return token_linear(gelu(token_linear(x, W1, b1), form), W2, b2)


def channel_mlp(x, W1, b1, W2, b2, form="tanh"):
    need(W2.shape == W1.shape[::-1])
    return channel_linear(gelu(channel_linear(x, W1, b1), form), W2, b2)


def norm(axes, ndim, usual):
    def f(x, gamma, beta, eps=usual):
        need(gamma.shape == beta.shape == x.shape[-1:], ndim in (None, x.ndim))
        need(0 <= eps < math.inf)
        variance = x.var(axis=axes, keepdims=True)
        return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(variance + eps) * gamma + beta

    return f


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(logits, targets, label_smoothing=0.0, ignore=None):
    K = logits.shape[-1]
    need(0 <= label_smoothing <= 1, logits.size)
    q = targets
    counted = np.ones(logits.shape[:-1])
    if targets.shape == logits.shape[:-1]:
        need(targets.dtype.kind in "iu")
        if ignore is not None:
            counted = (targets != ignore) * 1.0
        need(((targets >= 0) & (targets < K))[counted > 0].all())
        q = np.eye(K)[np.where(counted > 0, targets, 0).astype(int)]
    need(q.shape == logits.shape)
    q = (1 - label_smoothing) * q + label_smoothing / K
    p = softmax(logits)
    terms = np.array(
        [0.0 if w == 0 else -w * math.log(v) for w, v in zip(q.flat, p.flat, strict=True)]
    )
    rows = terms.reshape(*q.shape).sum(-1)
    return (rows * counted).sum() / max(1, counted.sum())


def split_attention(z, *branches):
    n, (B, C) = len(branches), branches[0].shape[-2:]
    need(z.shape == (B, n * C), len({x.shape for x in branches}) == 1)
    alpha = np.exp(z.reshape(B, n, C))
    alpha = alpha / alpha.sum(1, keepdims=True)
    return sum(alpha[:, b] * x for b, x in enumerate(branches))


def load(z, noisy, last, sigma):
    need(z.shape == noisy.shape, last.shape == z.shape[:1], 0 < sigma < math.inf)
    need(last.dtype.kind in "iu", (last >= 0).all(), (last < z.shape[1]).all())
    t = np.array([row[k] for row, k in zip(noisy, last, strict=True)])[:, None]
    return (0.5 * (1 + np.vectorize(math.erf)(np.real(z - t) / sigma / math.sqrt(2)))).sum(0)


def imbalance(v):
    need(v.ndim == 1)
    return v.var() / v.mean() ** 2


def dropout(x, keep, rate):
    need(0 <= rate < 1, np.broadcast_shapes(x.shape, keep.shape) == x.shape)
    return x * keep / (1 - rate)


def dispatch(x, rows, axis=0):
    need(rows.ndim == 1, x.ndim == 2, rows.dtype.kind in "iu", (rows >= 0).all())
    need(len(set(rows.tolist())) == len(rows), axis in (0, 1))
    if not len(rows):
        return x.take(rows, axis)
    return np.stack([x[r] if axis == 0 else x[:, r] for r in rows.tolist()], axis)


def combine(p, *answers_and_order, axis=0):
    *answers, order = answers_and_order
    need(p.ndim == 2, p.shape[1] == len(answers), order.dtype.kind in "iu", order.ndim == 1)
    answers = [a if axis == 0 else a.T for a in answers]
    need(all(a.ndim == 2 for a in answers), len({a.shape[1] for a in answers}) == 1)
    need(sum(map(len, answers)) == len(order), (order >= 0).all())
    y, start = np.zeros((len(p), answers[0].shape[1])), 0
    for e, a in enumerate(answers):
        rows = order[start : start + len(a)].tolist()
        need(len(set(rows)) == len(rows))
        for row, answer in zip(rows, a, strict=True):
            y[row] = y[row] + p[row, e] * answer
        start += len(a)
    return y if axis == 0 else y.T


def patchify(images, patch_size):
    B, height, width, _ = images.shape
    P = patch_size
    need(height % P == 0, width % P == 0, B, images.dtype.kind == "f")
    tokens = [
        images[:, i : i + P, j : j + P].reshape(B, -1)
        for i in range(0, height, P)
        for j in range(0, width, P)
    ]
    return np.stack(tokens)


def unfold(x, kernel, stride, padding=0):
    before, after = padding if isinstance(padding, tuple) else (padding, padding)
    need(x.ndim == 4, min(before, after) >= 0)
    x = np.pad(x, [(before, after)] * 2 + [(0, 0)] * 2)
    H, W, B, _ = x.shape
    need(min(H, W) >= kernel)
    windows = [
        [
            x[i : i + kernel, j : j + kernel].transpose(2, 0, 1, 3).reshape(B, -1)
            for j in range(0, W - kernel + 1, stride)
        ]
        for i in range(0, H - kernel + 1, stride)
    ]
    return np.array(windows)


def moved(x, axis, source):
    """x (H, W, B, C) with line i from source(i), or 0 where that is None."""
    need(x.ndim == 4, axis in (0, 1))
    x = np.swapaxes(x, 0, axis)
    y = np.stack(
        [np.zeros_like(x[0]) if source(i) is None else x[source(i)] for i in range(len(x))]
    )
    return np.swapaxes(y, 0, axis)


def shift(x, step, axis, mode="circular"):
    need(mode in ("circular", "zero"), x.ndim == 4)
    n = x.shape[axis]
    inside = (lambda i: (i - step) % n) if mode == "circular" else None
    return moved(x, axis, inside or (lambda i: i - step if 0 <= i - step < n else None))


def axial_shift(x, axis, shift_size=5, dilation=1, padding="zero"):
    need(padding == "zero", shift_size % 2 == 1, shift_size > 0, dilation > 0, x.ndim == 4)
    C = x.shape[-1]
    width = -(-C // shift_size)
    parts = [
        shift(x[..., g * width : (g + 1) * width], dilation * (g - shift_size // 2), axis, "zero")
        for g in range(shift_size)
        if g * width < C
    ]
    return np.concatenate(parts, -1)


def regions(x, p, axis, padding="circular"):
    need(x.ndim == 4, axis in (0, 1), padding in ("circular", "zero", "replicate"), p >= 1)
    x = np.swapaxes(x, 0, axis)
    n, added = len(x), -len(x) % p
    need(padding != "circular" or added <= n)
    more = {"circular": x[:added], "zero": 0 * x[:1], "replicate": x[-1:]}[padding]
    extra = more if padding == "circular" else np.repeat(more, added, 0)
    x = np.concatenate([x, extra]) if added else x
    y = np.stack([np.concatenate(list(x[g : g + p]), -1) for g in range(0, len(x), p)])
    return np.swapaxes(y, 0, axis)


def unregions(y, p, axis, n):
    need(y.ndim == 4, axis in (0, 1), n >= 1, p >= 1)
    y = np.swapaxes(y, 0, axis)
    need(-(-n // p) == len(y), y.shape[-1] % p == 0)
    rows = [part for region in y for part in np.split(region, p, -1)]
    return np.swapaxes(np.stack(rows[:n]), 0, axis)


def resample(x, A_h, A_w):
    need(x.ndim == 4)
    return np.einsum("ih,jw,hwbc->ijbc", A_h, A_w, x)


def raft(x, size, axis):
    need(x.ndim == 4, x.shape[3] % size == 0, axis in (0, 1))
    parts = np.split(x if axis == 0 else x.swapaxes(0, 1), size, -1)
    return np.concatenate(parts, 0)


def unraft(y, size, axis):
    need(y.ndim == 4, len(y) % size == 0, axis in (0, 1))
    x = np.concatenate(np.split(y, size, 0), -1)
    return x if axis == 0 else x.swapaxes(0, 1)


def swap_segments(x, axis):
    need(x.ndim == 4, axis in (0, 1), x.shape[3] % x.shape[axis] == 0)
    y, n = np.empty_like(x), x.shape[axis]
    s = x.shape[3] // n
    for i in range(n):
        for k in range(n):
            to, source = [slice(None)] * 4, [slice(None)] * 4
            to[axis], source[axis] = i, k
            to[3], source[3] = slice(k * s, (k + 1) * s), slice(i * s, (i + 1) * s)
            y[tuple(to)] = x[tuple(source)]
    return y


def power(x, n):
    return x**n
