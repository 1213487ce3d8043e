"""Resizing a grid: each line of the new one is a weighted sum of lines of the old one.

Interpolation is linear in what it interpolates, so along one axis it is a matrix A, and on a grid
one matrix for each axis: first whole rows are added up, then, within each row, whole columns.
"""

from collections.abc import Callable

import numpy as np

from tinymixer.backend import Array
from tinymixer.engine import Function


class Resample(Function):
    """y = A_h x A_wᵀ on the two leading axes: y[i, j] = Σ_h Σ_w A_h[i, h] A_w[j, w] x[h, w].

    x (H, W, B, C), constants A_h (H', H), A_w (W', W)  ->  y (H', W', B, C)

    dx = A_hᵀ dy A_w. Raises ValueError where x and the matrices disagree on H or W.
    """

    shapes = "x (H, W, B, C), A_h (N, H) reals, A_w (M, W) reals"

    def forward(self, x: Array, A_h: Array, A_w: Array) -> Array:
        A_h, A_w = A_h.astype(x.dtype), A_w.astype(x.dtype)
        self.saved = A_h, A_w
        return _product(x, A_h, A_w)

    def backward(self, dy: Array) -> tuple:
        A_h, A_w = self.saved
        return _product(dy, A_h.T, A_w.T), None, None

    def multiply_accumulates(self, x: Array, *_: Array) -> int:
        A_h, A_w = self.saved
        return x[0].size * A_h.size + len(A_h) * x[0, 0].size * A_w.size


def _product(x: Array, A_h: Array, A_w: Array) -> Array:
    """A_h x A_wᵀ: a product over (W*B*C) columns, then in each new row one over (B*C) columns."""
    H, W, B, C = x.shape
    rows = A_h @ x.reshape(H, -1)  # (H', W*B*C)
    return (A_w @ rows.reshape(-1, W, B * C)).reshape(len(A_h), len(A_w), B, C)


def bilinear_matrix(n_in: int, n_out: int) -> np.ndarray:
    """A (n_out, n_in): each new value on the straight line between its two old neighbours."""
    return _interpolation(n_in, n_out, 2, lambda t: 1 - t)


def bicubic_matrix(n_in: int, n_out: int) -> np.ndarray:
    """A (n_out, n_in): each new value from its four old neighbours, by Keys' cubic kernel.

    With a = -0.75, and t the distance of a neighbour:
        (a + 2) t³ - (a + 3) t² + 1       for t <= 1
        a t³ - 5a t² + 8a t - 4a          for 1 < t <= 2

    Source: Keys 1981, "Cubic convolution interpolation", IEEE TASSP 29, equation 15 with a for
    the -1/2 there; a as in most image libraries.
    """
    return _interpolation(n_in, n_out, 4, _cubic)


def _cubic(t: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * a * t - 4 * a
    return np.where(t <= 1, near, far)


def _interpolation(n_in: int, n_out: int, taps: int, kernel: Callable) -> np.ndarray:
    """A (n_out, n_in), float64, from the `taps` nearest old values, weighted by their distance.

    Value i is the centre of a cell: with cells of width 1 in the old line, new centre o lies at
    (o + 1/2) n_in/n_out - 1/2. What lies beyond the border counts as the border. Nothing is
    smoothed before it is shrunk. For n_in = n_out, A is the identity.
    """
    if n_in < 1 or n_out < 1:
        raise ValueError(f"interpolation: expected sizes of 1 or more, got {n_in} -> {n_out}")
    centre = (np.arange(n_out)[:, None] + 0.5) * n_in / n_out - 0.5
    old = np.floor(centre) + np.arange(taps) - (taps // 2 - 1)  # (n_out, taps)
    A = np.zeros((n_out, n_in))
    inside = old.clip(0, n_in - 1).astype(int)
    np.add.at(A, (np.arange(n_out)[:, None], inside), kernel(abs(old - centre)))
    return A
