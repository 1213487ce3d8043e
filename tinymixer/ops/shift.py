"""Axial shift: groups of channels move along the rows or the columns of the grid."""

from collections.abc import Callable, Iterator
from typing import Any

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function
from tinymixer.options import Whole


def _mirrored(j: int, n: int) -> int:
    there_and_back = 2 * (n - 1) or 1  # without the first and the last line twice
    j %= there_and_back
    return min(j, there_and_back - j)


# padding -> which of n lines stands at place j, outside of 0 .. n - 1; None: nothing, so zeros
OUTSIDE: dict[str, Callable[[int, int], int | None]] = {
    "zero": lambda j, n: None,
    "circular": lambda j, n: j % n,
    "reflect": _mirrored,
    "replicate": lambda j, n: 0 if j < 0 else n - 1,
}


class AxialShift(Function):
    """Move each group of channels along one axis of the grid: y[i, c] = x[i - δ(c), c].

    x (H, W, B, C)  ->  y (H, W, B, C);  i is a row for axis=0, a column for axis=1

    The channels are cut in order into k = shift_size groups of ⌈C/k⌉, the last ones smaller or
    empty, and group g is moved by δ = dilation * (g - (k - 1)/2) lines: the first group towards 0,
    the middle one not at all. A linear map after it then sees, in the channels of one place, what
    lay up to (k - 1)/2 * dilation places away.

    A line i - δ outside of the grid is, by padding,
        zero        0
        circular    the one that left at the other end
        reflect     its mirror image, the border itself not doubled
        replicate   the border
    and the same holds where δ exceeds the axis.

    y[i] is a copy of one line or of none, so dx[j] adds up the dy[i] of all the lines i that copied
    it: with zeros, the opposite shift.

    Raises ValueError for options out of range and for x without its four axes.

    Source: Lian, Yu, Sun, Gao 2021, "AS-MLP: an axial shifted MLP architecture for vision", arXiv
    2107.08391, section 3.2 and figure 2; paddings and dilation in its ablation study.
    """

    shapes = "x (H, W, B, C)"
    cures = (("x", "Give tokens (S, B, C) their grid back: x.reshape(H, W, B, C)"),)

    def __init__(self, axis: int, shift_size: int = 5, dilation: int = 1, padding: str = "zero"):
        if axis not in Whole(0, 1):
            raise ValueError(
                f"AxialShift: axis {axis!r} is not an axis of the grid; expected 0, to move along "
                "the rows of x (H, W, B, C), or 1, along the columns"
            )
        if shift_size not in Whole(1) or shift_size % 2 == 0:
            raise ValueError(
                f"AxialShift: expected an odd shift_size, got {shift_size!r}: as many groups of "
                "channels move back as forth, and one stays. Take 1, 3, 5, ..."
            )
        if dilation not in Whole(1):
            raise ValueError(
                f"AxialShift: expected a dilation of at least 1, got {dilation!r}. For no shift at "
                "all, take shift_size=1"
            )
        if not (isinstance(padding, str) and padding in OUTSIDE):
            raise ValueError(
                f"AxialShift: unknown padding {padding!r}; expected one of {', '.join(OUTSIDE)}"
            )
        self.axis, self.shift_size = axis, shift_size
        self.dilation, self.padding = dilation, padding

    def forward(self, x: Array) -> Array:
        moves = list(self._moves(x.shape[self.axis], x.shape[-1]))
        self.saved = (moves,)
        y = array_module(x).zeros(x.shape, x.dtype)
        for to, source in moves:
            y[to] = x[source]
        return y

    def backward(self, dy: Array) -> Array:
        (moves,) = self.saved
        dx = array_module(dy).zeros(dy.shape, dy.dtype)
        for to, source in moves:
            dx[source] += dy[to]
        return dx

    def _moves(self, n: int, C: int) -> Iterator[tuple[Any, Any]]:
        """(to, source) for y[to] = x[source]: blocks of lines and channels, no `to` twice."""
        size = -(-C // self.shift_size)  # ⌈C/k⌉
        for group in range(self.shift_size):
            channels = slice(group * size, (group + 1) * size)
            delta = self.dilation * (group - self.shift_size // 2)
            low, high = max(0, delta), min(n, n + delta)  # the lines i with i - δ in the grid
            if low < high:
                yield self._at(low, high, channels), self._at(low - delta, high - delta, channels)
            for i in (i for i in range(n) if not low <= i < high):
                j = OUTSIDE[self.padding](i - delta, n)
                if j is not None:
                    yield self._at(i, i + 1, channels), self._at(j, j + 1, channels)

    def _at(self, start: int, stop: int, channels: slice) -> Any:
        return (*[slice(None)] * self.axis, slice(start, stop), ..., channels)
