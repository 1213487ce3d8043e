"""Raft tokens: a column of the grid, or a row, together with some of its channels.

Without rafts, a vertical MLP sees one channel of one column, H numbers. With a raft it sees r
channels at once, r*H numbers: every m-th channel, m = C/r. Raft and Unraft only move numbers, and
each is the other's inverse and adjoint.

Source: Tatsunami, Taki 2022, "RaftMLP", arXiv 2108.04384, section 3.2 and figure 2.
"""

from dataclasses import dataclass

from tinymixer.backend import Array
from tinymixer.engine import Function
from tinymixer.options import Whole


@dataclass(eq=False)
class Raft(Function):
    """Columns of places (axis 0), or rows of them (axis 1), with `size` channels on each raft.

    y[q*H + h, w, b, u] = x[h, w, b, q*m + u],  u < m,  q < r = size

    x (H, W, B, r*m)  ->  y (r*H, W, B, m) along axis 0,  (r*W, H, B, m) along axis 1

    The first axis of y is what an ops.TokenMLP mixes. For r = 1 and axis 0 nothing moves.

    Raises ValueError where r does not divide the channels.
    """

    shapes = "x (H, W, B, C)"

    size: int
    axis: int

    allowed = (
        ("size", Whole(1)),
        ("axis", Whole(0, 1)),
    )

    def forward(self, x: Array) -> Array:
        if x.ndim != 4 or x.shape[3] % self.size:
            raise ValueError(
                f"Raft: rafts of {self.size} do not divide the channels of {x.shape}; expected "
                "x (H, W, B, C). Choose a raft size that divides C"
            )
        return _raft(x, self.size, self.axis)

    def backward(self, dy: Array) -> Array:
        return _unraft(dy, self.size, self.axis)


@dataclass(eq=False)
class Unraft(Function):
    """The inverse of Raft: every number back in its place.

    x[h, w, b, q*m + u] = y[q*H + h, w, b, u]

    y (r*H, W, B, m) along axis 0, (r*W, H, B, m) along axis 1  ->  x (H, W, B, r*m)
    """

    shapes = "y (N, M, B, C)"
    cures = (("y", "Give it what Raft makes of a grid with the same size and axis"),)

    size: int
    axis: int

    allowed = (
        ("size", Whole(1)),
        ("axis", Whole(0, 1)),
    )

    def forward(self, y: Array) -> Array:
        if y.ndim != 4 or len(y) % self.size:
            raise ValueError(
                f"Unraft: rafts of {self.size} do not divide the {len(y)} rows of {y.shape}; "
                "expected what Raft makes of a grid with the same size and axis"
            )
        return _unraft(y, self.size, self.axis)

    def backward(self, dx: Array) -> Array:
        return _raft(dx, self.size, self.axis)


def _raft(x: Array, r: int, axis: int) -> Array:
    """x (H, W, B, r*m)  ->  (r*H, W, B, m) or, along axis 1, (r*W, H, B, m)."""
    H, W, B, C = x.shape
    members = x.reshape(H, W, B, r, C // r).transpose(3, axis, 1 - axis, 2, 4)
    return members.reshape(-1, *members.shape[2:])


def _unraft(y: Array, r: int, axis: int) -> Array:
    """(r*H, W, B, m) or, along axis 1, (r*W, H, B, m)  ->  (H, W, B, r*m)."""
    members = y.reshape(r, len(y) // r, *y.shape[1:])  # (r, along, across, B, m)
    x = members.transpose(1 + axis, 2 - axis, 3, 0, 4)  # (H, W, B, r, m)
    return x.reshape(*x.shape[:3], -1)
