"""The primitives: what a learner composes, and what the hand-written Functions are checked against.

Element-wise ones broadcast as NumPy does. Broadcasting repeats an operand, so its adjoint sums:
`unbroadcast` adds up the gradient along the axes where the operand was repeated.

Beside each stands the operator or method of Tensor that it is. Powers and functions of single
elements are in elementwise.py, and are primitives too.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function, Tensor
from tinymixer.errors import counted
from tinymixer.ops.elementwise import Exp, Log, Power, Sqrt, Tanh  # noqa: F401


def unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of broadcasting an array of `shape` to dy.shape: sum what was repeated."""
    if dy.shape == shape:
        return dy
    added = dy.ndim - len(shape)
    stretched = (added + i for i, n in enumerate(shape) if n == 1 and dy.shape[added + i] != 1)
    return dy.sum(axis=(*range(added), *stretched)).reshape(shape)


class Add(Function):
    """z = x + y;  dx = dz,  dy = dz."""

    shapes = "x (*) numbers, y (*) numbers"

    def forward(self, x: Array, y: Array) -> Array:
        self.saved = getattr(x, "shape", ()), getattr(y, "shape", ())
        return x + y

    def backward(self, dz: Array) -> tuple:
        x_shape, y_shape = self.saved
        dx = unbroadcast(dz, x_shape) if self.needs[0] else None
        dy = unbroadcast(dz, y_shape) if self.needs[1] else None
        return dx, dy


Tensor.__add__ = lambda x, y: Add()(x, y)
Tensor.__radd__ = lambda x, y: Add()(x, y)


class Subtract(Function):
    """z = x - y;  dx = dz,  dy = -dz."""

    shapes = "x (*) numbers, y (*) numbers"

    def forward(self, x: Array, y: Array) -> Array:
        self.saved = getattr(x, "shape", ()), getattr(y, "shape", ())
        return x - y

    def backward(self, dz: Array) -> tuple:
        x_shape, y_shape = self.saved
        dx = unbroadcast(dz, x_shape) if self.needs[0] else None
        dy = unbroadcast(-dz, y_shape) if self.needs[1] else None
        return dx, dy


Tensor.__sub__ = lambda x, y: Subtract()(x, y)
Tensor.__rsub__ = lambda x, y: Subtract()(y, x)


class Multiply(Function):
    """z = x * y;  dx = dz * y,  dy = dz * x."""

    shapes = "x (*) numbers, y (*) numbers"

    def forward(self, x: Array, y: Array) -> Array:
        self.saved = x, y
        return x * y

    def backward(self, dz: Array) -> tuple:
        x, y = self.saved
        dx = unbroadcast(dz * y, np.shape(x)) if self.needs[0] else None
        dy = unbroadcast(dz * x, np.shape(y)) if self.needs[1] else None
        return dx, dy


Tensor.__mul__ = lambda x, y: Multiply()(x, y)
Tensor.__rmul__ = lambda x, y: Multiply()(x, y)
Tensor.__neg__ = lambda x: Multiply()(x, -1.0)


class Divide(Function):
    """z = x / y;  dx = dz / y,  dy = -dz * z / y."""

    shapes = "x (*) numbers, y (*) numbers"

    def forward(self, x: Array, y: Array) -> Array:
        z = x / y
        self.saved = getattr(x, "shape", ()), y, z
        return z

    def backward(self, dz: Array) -> tuple:
        x_shape, y, z = self.saved
        dx = unbroadcast(dz / y, x_shape) if self.needs[0] else None
        dy = unbroadcast(-dz * z / y, np.shape(y)) if self.needs[1] else None
        return dx, dy


Tensor.__truediv__ = lambda x, y: Divide()(x, y)
Tensor.__rtruediv__ = lambda x, y: Divide()(y, x)

VECTOR = (
    "Give a vector its second axis first: v.reshape(1, -1) for a row, v.reshape(-1, 1) for a column"
)


class MatMul(Function):
    """z = x @ y on the last two axes, the leading ones broadcast;  dx = dz yᵀ,  dy = xᵀ dz.

    x (..., m, k), y (..., k, n)  ->  z (..., m, n).  Raises ValueError for vectors.
    """

    shapes = "x (*, m, k) numbers, y (*, k, n) numbers"
    cures = (("x", VECTOR), ("y", VECTOR))

    def forward(self, x: Array, y: Array) -> Array:
        self.saved = x, y
        return x @ y

    def backward(self, dz: Array) -> tuple:
        x, y = self.saved
        dx = unbroadcast(dz @ y.swapaxes(-1, -2), x.shape) if self.needs[0] else None
        dy = unbroadcast(x.swapaxes(-1, -2) @ dz, y.shape) if self.needs[1] else None
        return dx, dy

    def multiply_accumulates(self, x: Array, y: Array) -> int:
        stacked = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        return math.prod(stacked) * x.shape[-2] * y.shape[-2] * y.shape[-1]


Tensor.__matmul__ = lambda x, y: MatMul()(x, y)
Tensor.__rmatmul__ = lambda x, y: MatMul()(y, x)


@dataclass(eq=False)
class Sum(Function):
    """y = Σ x over `axis` (all of them if None);  dx = dy, repeated along what was summed."""

    shapes = "x (...)"

    axis: int | tuple[int, ...] | None = None
    keepdims: bool = False

    def forward(self, x: Array) -> Array:
        self.saved = (x.shape,)
        return x.sum(axis=_axes(type(self).__name__, self.axis, x.ndim), keepdims=self.keepdims)

    def backward(self, dy: Array) -> Array:
        (shape,) = self.saved
        return _repeat(dy, shape, self.axis, self.keepdims)


Tensor.sum = lambda x, axis=None, keepdims=False: Sum(axis, keepdims)(x)


@dataclass(eq=False)
class Mean(Function):
    """y = (1/n) Σ x over `axis` (all of them if None), n values each;  dx = dy / n, repeated."""

    shapes = "x (...)"

    axis: int | tuple[int, ...] | None = None
    keepdims: bool = False

    def forward(self, x: Array) -> Array:
        axis = _axes(type(self).__name__, self.axis, x.ndim)
        along = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        if any(x.shape[i] == 0 for i in along):
            raise ValueError(f"Mean: no numbers of x {x.shape} lie along axis={axis}")
        y = x.mean(axis=axis, keepdims=self.keepdims)
        self.saved = x.shape, x.size // max(1, y.size)
        return y

    def backward(self, dy: Array) -> Array:
        shape, n = self.saved
        return _repeat(dy / n, shape, self.axis, self.keepdims)


Tensor.mean = lambda x, axis=None, keepdims=False: Mean(axis, keepdims)(x)


def _axes(name: str, axis: Any, ndim: int) -> Any:
    """`axis` itself. Raises ValueError unless it names axes of an array of ndim axes, each once."""
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    whole = all(isinstance(i, int | np.integer) for i in axes)
    if (
        not whole
        or not all(-ndim <= i < ndim for i in axes)
        or len({i % ndim for i in axes}) < len(axes)
    ):
        raise ValueError(
            f"{name}: axis={axis!r} does not name axes of an array of {ndim}; expected whole "
            f"numbers below {ndim}, each axis once, or None for all"
        )
    return axis


def _repeat(dy: Array, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Array:
    """The adjoint of a sum over `axis`: dy repeated to `shape`."""
    xp = array_module(dy)
    if axis is not None and not keepdims:
        dy = xp.expand_dims(dy, axis)
    return xp.broadcast_to(dy, shape)


class Reshape(Function):
    """y = x with the same elements in the same order under another shape;  dx = dy, shaped back."""

    shapes = "x (...)"

    def __init__(self, *shape: Any):
        self.shape = tuple(shape[0]) if shape and isinstance(shape[0], tuple | list) else shape

    def forward(self, x: Array) -> Array:
        self.saved = (x.shape,)
        try:
            return x.reshape(self.shape)
        except (ValueError, TypeError):
            raise ValueError(
                f"Reshape: to fill {self.shape} x {x.shape} has "
                f"{counted(x.size, 'number')}; expected "
                "whole numbers with that product, one of them -1 for whatever is left"
            ) from None

    def backward(self, dy: Array) -> Array:
        (shape,) = self.saved
        return dy.reshape(shape)


Tensor.reshape = lambda x, *shape: Reshape(*shape)(x)


class Transpose(Function):
    """y = x with its axes in the order `axes` (reversed if none given);  dx = dy, put back."""

    shapes = "x (...)"

    def __init__(self, *axes: Any):
        self.axes = tuple(axes[0]) if axes and isinstance(axes[0], tuple | list) else axes

    def forward(self, x: Array) -> Array:
        axes = _axes("Transpose", self.axes or tuple(reversed(range(x.ndim))), x.ndim)
        if len(axes) != x.ndim:
            raise ValueError(f"Transpose: expected each axis of x {x.shape} once, got {axes}")
        self.saved = (axes,)
        return x.transpose(axes)

    def backward(self, dy: Array) -> Array:
        (axes,) = self.saved
        return dy.transpose(tuple(np.argsort([axis % dy.ndim for axis in axes])))


Tensor.transpose = lambda x, *axes: Transpose(*axes)(x)


@dataclass(eq=False)
class Index(Function):
    """y = x[key];  dx = 0 but at key, where dy is added, as often as key names an element.

    Raises IndexError for a key that x does not have.
    """

    shapes = "x (...)"

    key: Any

    def forward(self, x: Array) -> Array:
        self.saved = (x.shape,)
        try:
            return x[self.key]
        except (IndexError, TypeError, ValueError):
            raise IndexError(
                f"Index: x {x.shape} has nothing at [{self.key!r}]; expected whole numbers and "
                "slices within its axes, arrays of such numbers, or a mask of its shape"
            ) from None

    def backward(self, dy: Array) -> Array:
        (shape,) = self.saved
        xp = array_module(dy)
        dx = xp.zeros(shape, dy.dtype)
        xp.add.at(dx, self.key, dy)
        return dx


Tensor.__getitem__ = lambda x, key: Index(key)(x)
