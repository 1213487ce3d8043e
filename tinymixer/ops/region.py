"""Hire-MLP's rearrangements: rows are shifted, and neighbouring rows become channels of one token.

A region is p neighbouring rows of the grid, or p columns. Concatenated they have p*C channels,
which an ordinary channel MLP mixes: so Hire-MLP mixes positions without a weight for each position,
and is not tied to an image size. Where all rows are shifted before, a region holds rows of two
regions of the previous block, and information passes between regions.

`axis` is 0 to work along the rows of x (H, W, B, C), 1 along its columns; below, "row" means
either. Nothing is computed here: whole runs of C channels are moved.

Source: Guo et al. 2021, "Hire-MLP: vision MLP via hierarchical rearrangement", arXiv 2108.13341,
section 3.2; the choice of shifts and paddings as in the code released with it.
"""

from typing import Any

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function
from tinymixer.options import Whole, require

SHIFTS = ("circular", "zero")
PADDINGS = ("circular", "zero", "replicate")


class Shift(Function):
    """Move every row `step` places on: y[i] = x[i - step];  dx[i] = dy[i + step].

    x (H, W, B, C)  ->  y (H, W, B, C)

    Rows that leave at one end come in again at the other ("circular"), or are lost, and zeros come
    in ("zero"). Backward is the shift by -step.
    """

    shapes = "x (H, W, B, C)"

    def __init__(self, step: int, axis: int, mode: str = "circular"):
        self.step = require("Shift: step", step, Whole())
        self.axis = _one_of((0, 1), axis, "Shift: axis")
        self.mode = _one_of(SHIFTS, mode, "Shift: mode")

    def forward(self, x: Array) -> Array:
        return self._moved(x, self.step)

    def backward(self, dy: Array) -> Array:
        return self._moved(dy, -self.step)

    def _moved(self, x: Array, step: int) -> Array:
        y = array_module(x).roll(x, step, self.axis)
        if self.mode == "zero" and step:
            rows = y.swapaxes(0, self.axis)
            rows[slice(step) if step > 0 else slice(step, None)] = 0
        return y


class Regions(Function):
    """Concatenate the p rows of each region: y[g, r*C + c] = x[g*p + r, c].

    x (H, W, B, C)  ->  y (G, W, B, p*C), G = ceil(H/p), or along columns (H, G, B, p*C)

    Where p does not divide H, rows are added after the last one to fill its region: the first rows
    again ("circular"), the last one again ("replicate"), or zeros ("zero"). A row used twice has
    two gradients, which backward adds.

    The channels of y run over (place r in the region, channel), so that runs of C stay whole; in
    the released weights they run over (channel, place).

    Raises ValueError where circular padding would need more rows than there are.
    """

    shapes = "x (H, W, B, C)"

    def __init__(self, p: int, axis: int, padding: str = "circular"):
        if p not in Whole(1):
            raise ValueError(f"Regions: expected regions of at least 1 row, got p={p!r}")
        self.p, self.axis = p, _one_of((0, 1), axis, "Regions: axis")
        self.padding = _one_of(PADDINGS, padding, "Regions: padding")

    def forward(self, x: Array) -> Array:
        rows = x.swapaxes(0, self.axis)
        n, added = len(rows), -len(rows) % self.p
        self.saved = (n,)
        if added:
            padded = array_module(x).zeros((n + added, *rows.shape[1:]), x.dtype)
            padded[:n] = rows
            for i, source in self._copies(n).items():
                padded[i] = rows[source]
            x = padded.swapaxes(0, self.axis)
        return line_up(x, self.p, self.axis)

    def backward(self, dy: Array) -> Array:
        (n,) = self.saved
        dpadded = take_apart(dy, self.p, self.axis).swapaxes(0, self.axis)
        copies = self._copies(n)
        drows = dpadded[:n].copy() if copies else dpadded[:n]
        for i, source in copies.items():
            drows[source] += dpadded[i]
        return drows.swapaxes(0, self.axis)

    def _copies(self, n: int) -> dict[int, int]:
        """For each added row that is a copy, the row that it is a copy of."""
        added = -n % self.p
        if self.padding == "circular" and added > n:
            raise ValueError(
                f"Regions: {n} rows lack {added} for regions of {self.p}, and circular padding can "
                f"repeat each only once. Use larger images, smaller regions, or another padding: "
                "'replicate' or 'zero'"
            )
        source = {"circular": lambda i: i, "replicate": lambda i: n - 1}.get(self.padding)
        return {n + i: source(i) for i in range(added)} if source else {}


class Unregions(Function):
    """Split regions into rows again, and keep the first n of them: x[g*p + r, c] = y[g, r*C + c].

    y (G, W, B, p*C)  ->  x (n, W, B, C), or along columns y (H, G, B, p*C)  ->  x (H, n, B, C)

    The adjoint of Regions with zeros as padding, and so that is its backward: rows that were
    dropped have no gradient.

    Raises ValueError unless n rows make G regions.
    """

    shapes = "y (H, W, B, C)"

    def __init__(self, p: int, axis: int, n: int):
        self.p, self.n = require("Unregions: p", p, Whole(1)), require("Unregions: n", n, Whole(1))
        self.axis = _one_of((0, 1), axis, "Unregions: axis")

    def forward(self, y: Array) -> Array:
        G = y.shape[self.axis]
        if -(-self.n // self.p) != G or y.shape[-1] % self.p:
            raise ValueError(
                f"Unregions: expected {-(-self.n // self.p)} regions, as {self.n} rows make, with "
                f"channels for {self.p} rows each; got {G} with {y.shape[-1]} channels (y "
                f"{y.shape}, axis {self.axis}). Give the p, axis and length that Regions had"
            )
        rows = take_apart(y, self.p, self.axis).swapaxes(0, self.axis)
        return rows[: self.n].swapaxes(0, self.axis)

    def backward(self, dx: Array) -> Array:
        return Regions(self.p, self.axis, "zero").forward(dx)


def line_up(x: Array, p: int, axis: int) -> Array:
    """x (..., G*p, ..., C)  ->  (..., G, ..., p*C): the places of a region before the channels."""
    x = x.reshape(*x.shape[:axis], -1, p, *x.shape[axis + 1 :])
    x = array_module(x).moveaxis(x, axis + 1, -2)
    return x.reshape(*x.shape[:-2], -1)


def take_apart(y: Array, p: int, axis: int) -> Array:
    """y (..., G, ..., p*C)  ->  (..., G*p, ..., C), the inverse of `line_up`."""
    y = y.reshape(*y.shape[:-1], p, -1)
    y = array_module(y).moveaxis(y, -2, axis + 1)
    return y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])


def _one_of(known: tuple, value: Any, what: str) -> Any:
    """`value`; ValueError if it is not one of `known`."""
    if not isinstance(value, int | str) or value not in known:
        raise ValueError(f"{what} is {value!r}; expected {' or '.join(map(repr, known))}")
    return value
