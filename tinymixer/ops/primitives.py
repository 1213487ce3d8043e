"""The primitives: what a learner composes, and what the hand-written Functions are checked against.

Element-wise ones broadcast as NumPy does. Broadcasting repeats an operand, so its adjoint sums:
`unbroadcast` adds up the gradient along the axes where the operand was repeated.

Beside each stands the operator or method of Tensor that it is.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function, Tensor


def unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of broadcasting an array of `shape` to dy.shape: sum what was repeated."""
    if dy.shape == shape:
        return dy
    added = dy.ndim - len(shape)
    stretched = (added + i for i, n in enumerate(shape) if n == 1 and dy.shape[added + i] != 1)
    return dy.sum(axis=(*range(added), *stretched)).reshape(shape)


class Add(Function):
    """z = x + y;  dx = dz,  dy = dz."""

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


class MatMul(Function):
    """z = x @ y on the last two axes, the leading ones broadcast;  dx = dz yᵀ,  dy = xᵀ dz.

    x (..., m, k), y (..., k, n)  ->  z (..., m, n).  Raises ValueError for vectors.
    """

    def forward(self, x: Array, y: Array) -> Array:
        if np.ndim(x) < 2 or np.ndim(y) < 2:
            raise ValueError(
                f"MatMul: expected matrices, got shapes {np.shape(x)} and {np.shape(y)}. Give a "
                "vector its second axis first: v.reshape(1, -1) for a row, v.reshape(-1, 1) for a "
                "column"
            )
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


class Exp(Function):
    """y = exp(x);  dx = dy * y."""

    def forward(self, x: Array) -> Array:
        y = array_module(x).exp(x)
        self.saved = (y,)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved
        return dy * y


Tensor.exp = lambda x: Exp()(x)


class Log(Function):
    """y = log(x), natural;  dx = dy / x."""

    def forward(self, x: Array) -> Array:
        self.saved = (x,)
        return array_module(x).log(x)

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved
        return dy / x


Tensor.log = lambda x: Log()(x)


class Sqrt(Function):
    """y = √x;  dx = dy / (2y)."""

    def forward(self, x: Array) -> Array:
        y = array_module(x).sqrt(x)
        self.saved = (y,)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved
        return 0.5 * dy / y


Tensor.sqrt = lambda x: Sqrt()(x)


class Tanh(Function):
    """y = tanh(x);  dx = dy * (1 - y²)."""

    def forward(self, x: Array) -> Array:
        y = array_module(x).tanh(x)
        self.saved = (y,)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved
        return dy * (1 - y * y)


Tensor.tanh = lambda x: Tanh()(x)


@dataclass(eq=False)
class Sum(Function):
    """y = Σ x over `axis` (all of them if None);  dx = dy, repeated along what was summed."""

    axis: int | tuple[int, ...] | None = None
    keepdims: bool = False

    def forward(self, x: Array) -> Array:
        self.saved = (x.shape,)
        return x.sum(axis=self.axis, keepdims=self.keepdims)

    def backward(self, dy: Array) -> Array:
        (shape,) = self.saved
        return _repeat(dy, shape, self.axis, self.keepdims)


Tensor.sum = lambda x, axis=None, keepdims=False: Sum(axis, keepdims)(x)


@dataclass(eq=False)
class Mean(Function):
    """y = (1/n) Σ x over `axis` (all of them if None), n values each;  dx = dy / n, repeated."""

    axis: int | tuple[int, ...] | None = None
    keepdims: bool = False

    def forward(self, x: Array) -> Array:
        y = x.mean(axis=self.axis, keepdims=self.keepdims)
        self.saved = x.shape, x.size // max(1, y.size)
        return y

    def backward(self, dy: Array) -> Array:
        shape, n = self.saved
        return _repeat(dy / n, shape, self.axis, self.keepdims)


Tensor.mean = lambda x, axis=None, keepdims=False: Mean(axis, keepdims)(x)


def _repeat(dy: Array, shape: tuple[int, ...], axis: Any, keepdims: bool) -> Array:
    """The adjoint of a sum over `axis`: dy repeated to `shape`."""
    xp = array_module(dy)
    if axis is not None and not keepdims:
        dy = xp.expand_dims(dy, axis)
    return xp.broadcast_to(dy, shape)


class Reshape(Function):
    """y = x with the same elements in the same order under another shape;  dx = dy, shaped back."""

    def __init__(self, *shape: Any):
        self.shape = shape[0] if isinstance(shape[0], tuple) else shape

    def forward(self, x: Array) -> Array:
        self.saved = (x.shape,)
        return x.reshape(self.shape)

    def backward(self, dy: Array) -> Array:
        (shape,) = self.saved
        return dy.reshape(shape)


Tensor.reshape = lambda x, *shape: Reshape(*shape)(x)


class Transpose(Function):
    """y = x with its axes in the order `axes` (reversed if none given);  dx = dy, put back."""

    def __init__(self, *axes: Any):
        self.axes = axes[0] if axes and isinstance(axes[0], tuple) else axes

    def forward(self, x: Array) -> Array:
        self.saved = (self.axes or tuple(reversed(range(x.ndim))),)
        return x.transpose(self.saved[0])

    def backward(self, dy: Array) -> Array:
        (axes,) = self.saved
        return dy.transpose(tuple(np.argsort([axis % dy.ndim for axis in axes])))


Tensor.transpose = lambda x, *axes: Transpose(*axes)(x)


@dataclass(eq=False)
class Index(Function):
    """y = x[key];  dx = 0 but at key, where dy is added, as often as key names an element."""

    key: Any

    def forward(self, x: Array) -> Array:
        self.saved = (x.shape,)
        return x[self.key]

    def backward(self, dy: Array) -> Array:
        (shape,) = self.saved
        xp = array_module(dy)
        dx = xp.zeros(shape, dy.dtype)
        xp.add.at(dx, self.key, dy)
        return dx


Tensor.__getitem__ = lambda x, key: Index(key)(x)
