"""Twins for NumPy: the operations where a training step spends its time.

A CPU multiplies matrices about as fast as NumPy's BLAS can be fed; what can still be saved lies
between the products. Three things cost time there:

    passes    every NumPy call walks its arrays once, at 0.1 to 0.3 ns an element in cache and ten
              times that from memory. So long chains run block by block, in buffers that stay in
              cache, and a sum over rows or columns is a product with a vector of ones.
    twice     GELU and its derivative share their one expensive term, an exponential. So the
              derivative is made along with y and kept, and backward is one product with it.
    memory    a large array that is freed and made anew is given back to the operating system and
              comes back page by page: see `keep_freed_memory`.

The twins compute in float32; other types are left to the reference.
"""

import ctypes
import math
import threading
from contextlib import suppress
from typing import Any

import numpy as np

from tinymixer import ops
from tinymixer.backend import Array
from tinymixer.fast.table import float32, twin_of
from tinymixer.ops.gelu import CUBIC, SLOPE, check_form

BLOCK = 32768  # elements: enough for threads not to queue for the interpreter, and near L2's size
# With AVX-512, NumPy's tanh takes half the time of its exp; with AVX2 it takes half as much again.
TANH_IS_CHEAP = not {"AVX512_SKX", "X86_V4"}.isdisjoint(
    np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", ())
)
_thread = threading.local()  # .buffers: each thread's own, overwritten from block to block


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed for the next array; True if it will.

    By default glibc hands large freed blocks back to the operating system, which delivers them
    again zeroed, one page fault per 4 KiB: in a training step a tenth of the time, and more in
    several threads, because they queue for it. Kept, memory stays at the peak it once had.

    It holds for the whole process, so it is a program's decision and not an import's. Call it
    before threads start. Elsewhere than on glibc it does nothing.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {M_ARENA_MAX: 1, M_MMAP_THRESHOLD: 2**30, M_TRIM_THRESHOLD: 2**31 - 1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def return_freed_memory() -> None:
    """Give what is free by now back to the operating system, once."""
    with suppress(AttributeError, OSError, TypeError):  # elsewhere than on glibc
        ctypes.CDLL(None).malloc_trim(0)


# GELU and its derivative, together ----------------------------------------------------------------


def gelu_in_place(x: Array, form: str, with_derivative: bool) -> Array | None:
    """x becomes GELU(x); returned is the derivative at the old x, or None if not asked for.

    x must be float32 and C-contiguous. Passes over memory: one, which reads x and writes x and the
    derivative. The reference takes 9 for tanh-GELU and 18 for its derivative, each with a new
    array; for erf several times as many.
    """
    derivative = np.empty_like(x) if with_derivative else None
    flat, d_flat = x.reshape(-1), None if derivative is None else derivative.reshape(-1)
    kernel: Any = GELU_KERNELS.get(form) or check_form(form)  # which refuses any other form
    if not hasattr(_thread, "buffers"):
        _thread.buffers = np.empty((4, BLOCK), np.float32)
    with np.errstate(over="ignore"):  # exp may reach infinity: its reciprocal, 0, is what is wanted
        for start in range(0, x.size, BLOCK):
            block = flat[start : start + BLOCK]
            d_block = None if d_flat is None else d_flat[start : start + BLOCK]
            kernel(block, d_block, *_thread.buffers[:, : block.size])
    return derivative


def _gelu_tanh(x: Array, d: Array | None, s: Array, w: Array, *_: Array) -> None:
    """y = x s,  s = (1 + tanh u) / 2 = 1 / (1 + exp(-2u));  y' = s + y (1 - s) 2u'.

    One tanh where the reference takes two, or one exponential, whichever this machine does faster.
    """
    scale = 1 if TANH_IS_CHEAP else -2
    np.square(x, out=w)
    np.multiply(w, scale * SLOPE * CUBIC, out=s)
    s += scale * SLOPE
    s *= x  # u, or -2u
    if TANH_IS_CHEAP:
        np.tanh(s, out=s)
        s += 1
        s *= 0.5
    else:
        np.exp(s, out=s)
        s += 1
        np.divide(1, s, out=s)
    x *= s
    if d is not None:
        w *= 6 * SLOPE * CUBIC
        w += 2 * SLOPE  # 2u'
        np.subtract(1, s, out=d)
        d *= x  # before 2u', which for large x overflows: 0 stays 0
        d *= w
        d += s


# Φ(-z) exp(z²/2) ≈ N(z) / D(z) for z ≥ 0. This function falls smoothly from 1/2 towards
# 1/(z√2π), and so does the quotient. The coefficients minimise the largest error that is left
# in Φ and in zΦ, 9e-8 (iteratively reweighted least squares on 400 Chebyshev points of [0, 6.5],
# against erfc to 40 digits). All are positive: no pole, and every term falls to its limit.
N0, N1, N2 = 4.876938308971113, 2.1350513063177705, 0.4051464629247098
D0, D1, D2 = 9.75387483246838, 12.052689246597279, 5.548750181621831
SIGN_BIT = 0x80000000
FAR = np.full(BLOCK, 32.0, np.float32)  # exp(-FAR²/2) is 0; beside a number minimum takes 5 times


def _gelu_erf(x: Array, d: Array | None, z: Array, e: Array, n: Array, m: Array) -> None:
    """y = x Φ(x);  y' = Φ(x) + x φ(x).

    φ is exp(-x²/2) / √(2π), and Φ(-|x|) the same exponential times a quotient of two short
    polynomials in |x|: one exponential serves both. Φ(x) = 1/2 ± (1/2 - Φ(-|x|)), with x's sign.
    """
    np.abs(x, out=z)
    np.minimum(z, FAR[: z.size], out=z)  # or the polynomials overflow
    np.square(x, out=e)
    e *= -0.5
    np.exp(e, out=e)
    np.multiply(z, N2, out=n)
    n += N1
    n *= z
    n += N0
    np.add(z, D2, out=m)
    m *= z
    m += D1
    m *= z
    m += D0
    n /= m
    n *= e  # Φ(-|x|)
    np.subtract(0.5, n, out=n)
    bits, sign = n.view(np.uint32), m.view(np.uint32)
    np.bitwise_and(x.view(np.uint32), SIGN_BIT, out=sign)
    bits ^= sign  # a third of the time of copysign
    n += 0.5  # Φ(x)
    if d is not None:
        np.multiply(x, 1 / math.sqrt(2 * math.pi), out=d)
        d *= e
        d += n
    x *= n


GELU_KERNELS = {"tanh": _gelu_tanh, "erf": _gelu_erf}


@twin_of(ops.GELU, "cpu", float32)
class FastGELU(ops.GELU):
    """In backward one pass, dy times what forward kept."""

    def forward(self, x: Array) -> Array:
        y = x.copy(order="C")
        self.saved = (gelu_in_place(y, self.form, any(self.needs)),)
        return y

    def backward(self, dy: Array) -> Array:
        (derivative,) = self.saved
        return dy * derivative


# The MLPs -----------------------------------------------------------------------------------------


@twin_of(ops.TokenMLP, "cpu", float32)
class FastTokenMLP(ops.TokenMLP):
    """What lies between the products: the first bias, GELU with its derivative, one product back.

    Passes over the hidden layer (tanh), sums included and a GELU in cached blocks counted as one:
    forward 10 before and 2 after, backward 20 and 2.
    """

    def forward(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
        X = x.reshape(len(x), -1)  # (S, B*C)
        a = W1 @ X  # (D_S, B*C)
        a += b1[:, None]
        derivative = gelu_in_place(a, self.form, any(self.needs))
        y = W2 @ a  # (S, B*C)
        y += b2[:, None]
        self.saved = X, W1, derivative, a, W2
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, W1, derivative, a, W2 = self.saved
        dY = dy.reshape(len(dy), -1)  # (S, B*C)
        ones = np.ones(dY.shape[1], np.float32)
        dW2 = dY @ a.T if self.needs[3] else None  # (S, D_S)
        db2 = dY @ ones if self.needs[4] else None
        dh = W2.T @ dY  # (D_S, B*C)
        dh *= derivative
        dW1 = dh @ X.T if self.needs[1] else None  # (D_S, S)
        db1 = dh @ ones if self.needs[2] else None
        dx = (W1.T @ dh).reshape(dy.shape) if self.needs[0] else None
        return dx, dW1, db1, dW2, db2


@twin_of(ops.ChannelMLP, "cpu", float32)
class FastChannelMLP(ops.ChannelMLP):
    """As FastTokenMLP, with the channels' products from the right."""

    def forward(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
        X = x.reshape(-1, len(W1))  # (S*B, C)
        a = X @ W1  # (S*B, D_C)
        a += b1
        derivative = gelu_in_place(a, self.form, any(self.needs))
        y = a @ W2  # (S*B, C)
        y += b2
        self.saved = X, W1, derivative, a, W2
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, W1, derivative, a, W2 = self.saved
        dY = dy.reshape(X.shape)  # (S*B, C)
        ones = np.ones(len(dY), np.float32)
        dW2 = a.T @ dY if self.needs[3] else None  # (D_C, C)
        db2 = ones @ dY if self.needs[4] else None
        dh = dY @ W2.T  # (S*B, D_C)
        dh *= derivative
        dW1 = X.T @ dh if self.needs[1] else None  # (C, D_C)
        db1 = ones @ dh if self.needs[2] else None
        dx = (dh @ W1.T).reshape(dy.shape) if self.needs[0] else None
        return dx, dW1, db1, dW2, db2


@twin_of(ops.LayerNorm, "cpu", float32)
class FastLayerNorm(ops.LayerNorm):
    """Every mean and every sum is a product with a vector.

    The two means of g = γ dy need no g: mean(g) = dy @ γ / C, and mean(g x̂) = (dy x̂) @ γ / C.
    Passes over memory: forward 7 before and 6 after, backward 11 and 10. The passes are cheaper,
    too: by a product a mean takes a sixth of the time of `.mean(-1)`, and fewer passes make a new
    array.
    """

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        C = x.shape[-1]
        X = x.reshape(-1, C)  # (S*B, C)
        mean = X @ np.ones(C, np.float32) / C  # (S*B,); not X @ (1/C): 1/C is rounded, C is not
        x_hat = X - mean[:, None]
        scale = 1 / np.sqrt(np.vecdot(x_hat, x_hat) / C + self.eps)
        x_hat *= scale[:, None]
        y = x_hat * gamma
        y += beta
        self.saved = x_hat, scale, gamma
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        x_hat, scale, gamma = self.saved
        N, C = x_hat.shape
        dY, ones = dy.reshape(N, C), np.ones(N, np.float32)
        dy_x_hat = dY * x_hat
        dx = None
        dgamma = ones @ dy_x_hat if self.needs[1] else None
        dbeta = ones @ dY if self.needs[2] else None
        if self.needs[0]:
            g_mean = dY @ gamma / C  # (S*B,)
            g_x_hat_mean = dy_x_hat @ gamma / C
            dx = dY * gamma
            dx -= np.multiply(x_hat, g_x_hat_mean[:, None], out=dy_x_hat)
            dx -= g_mean[:, None]
            dx *= scale[:, None]
            dx = dx.reshape(dy.shape)
        return dx, dgamma, dbeta


# Norms of a grid: x (H, W, B, C) as (H*W, B*C), a row for each place ------------------------------


@twin_of(ops.GroupNorm, "cpu", float32)
class FastGroupNorm(ops.GroupNorm):
    """Sums over places are products with ones, and leave a table (B, C), small beside x.

    Passes over memory: forward 7 before and 6 after, backward 11 and 8.
    """

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        return _grid_norm(self, x, gamma, beta, 1)

    def backward(self, dy: Array) -> tuple:
        return _grid_norm_backward(self, dy, 1)


@twin_of(ops.BatchNorm, "cpu", float32)
class FastBatchNorm(ops.BatchNorm):
    """As FastGroupNorm, where images share statistics and not channels."""

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        return _grid_norm(self, x, gamma, beta, 0)

    def backward(self, dy: Array) -> tuple:
        return _grid_norm_backward(self, dy, 0)


def _grid_norm(op: Any, x: Array, gamma: Array, beta: Array, shared: int) -> Array:
    """y, by statistics that axis `shared` of the tables (B, C) has in common."""
    B, C = x.shape[-2:]
    X = x.reshape(-1, B * C)
    n = x.size // (C, B)[shared]  # in a group
    mean = _over_places(X, B).sum(shared, keepdims=True) / n  # (B, 1) or (1, C)
    centred = X - _row(mean, B, C)
    y = np.square(centred)
    variance = _over_places(y, B).sum(shared, keepdims=True) / n
    scale = 1 / np.sqrt(variance + op.eps)
    np.multiply(centred, _row(scale * gamma, B, C), out=y)
    y += _row(beta, B, C)
    op.saved, op.statistics = (centred, scale, gamma), (mean[None, None], variance[None, None])
    return y.reshape(x.shape)


def _grid_norm_backward(op: Any, dy: Array, shared: int) -> tuple:
    """As in ops.norm, with x̂ = centred * scale."""
    centred, scale, gamma = op.saved
    B, C = dy.shape[-2:]
    dY = dy.reshape(centred.shape)
    product = dY * centred
    by_x_hat, plain = _over_places(product, B) * scale, _over_places(dY, B)  # Σ dy x̂, Σ dy
    dx = None
    if op.needs[0]:
        n = dy.size // (C, B)[shared]
        g_mean = (plain * gamma).sum(shared, keepdims=True) / n
        g_x_hat_mean = (by_x_hat * gamma).sum(shared, keepdims=True) / n
        dx = dY * _row(gamma, B, C)
        dx -= np.multiply(centred, _row(scale * g_x_hat_mean, B, C), out=product)
        dx -= _row(g_mean, B, C)
        dx *= _row(scale, B, C)
        dx = dx.reshape(dy.shape)
    dgamma = by_x_hat.sum(0) if op.needs[1] else None
    return dx, dgamma, plain.sum(0) if op.needs[2] else None


def _over_places(X: Array, B: int) -> Array:
    """X (H*W, B*C) summed to (B, C)."""
    return (np.ones(len(X), np.float32) @ X).reshape(B, -1)


def _row(table: Array, B: int, C: int) -> Array:
    """A table that broadcasts to (B, C) as what each row of (H*W, B*C) meets."""
    row = np.empty((B, C), np.float32)
    row[...] = table
    return row.reshape(-1)
