"""Swap positions with segments of channels, so that a matrix over channels mixes rows or columns.

Source: Hou et al. 2021, "Vision Permutator", arXiv 2106.12368, section 3.2 and figure 2.
"""

from dataclasses import dataclass

from tinymixer.backend import Array
from tinymixer.engine import Function
from tinymixer.options import Whole


@dataclass(eq=False)
class SwapSegments(Function):
    """Swap the places along `axis` with as many segments of the channels.

    y[h, w, b, k*s + j] = x[k, w, b, h*s + j]  along axis 0:  H segments of s = C/H channels, j < s
    y[h, w, b, k*s + j] = x[h, k, b, w*s + j]  along axis 1:  W segments of s = C/W channels

    x (H, W, B, C)  ->  y (H, W, B, C)

    The channels of y at one place hold one segment of all the places of a column (or row), so an
    ops.ChannelLinear of y mixes these. Swapping twice changes nothing: the Function is its own
    inverse and, since it only moves numbers, its own adjoint.

    Raises ValueError where the places along the axis do not divide the channels.
    """

    shapes = "x (H, W, B, C)"

    axis: int

    allowed = (("axis", Whole(0, 1)),)

    def forward(self, x: Array) -> Array:
        n, C = x.shape[self.axis], x.shape[-1]
        if x.ndim != 4 or C % n:
            raise ValueError(
                f"SwapSegments: {C} channels cannot be cut into {n} segments, one for each place "
                f"along axis {self.axis} of x {x.shape}; expected x (H, W, B, C). Choose a width "
                "that both sides of the grid divide"
            )
        segments = x.reshape(*x.shape[:3], n, C // n)  # (H, W, B, H or W, s)
        return segments.swapaxes(self.axis, 3).reshape(x.shape)

    def backward(self, dy: Array) -> Array:
        return self.forward(dy)
