"""Primitives of single elements: powers, exponential, logarithm, square root, tanh.

Beside each stands the operator or method of Tensor that it is.
"""

from dataclasses import dataclass

import numpy as np

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function, Tensor


@dataclass(eq=False)
class Power(Function):
    """y = xⁿ for a number n;  dx = dy * n xⁿ⁻¹.

    For whole n of up to 8 by multiplication: a power is much slower in float32.
    """

    shapes = "x (...) numbers"

    n: float

    def __post_init__(self) -> None:
        if not isinstance(self.n, int | float | np.integer | np.floating):
            raise TypeError(
                f"Power: expected a number as the exponent, got {type(self.n).__name__}. For a "
                "Tensor or an array y, and x above 0, write (y * x.log()).exp()"
            )
        self.n = self.n.item() if isinstance(self.n, np.generic) else self.n  # which would promote

    def forward(self, x: Array) -> Array:
        self.saved = (x,)
        return _power(x, self.n)

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved
        return dy * (self.n * _power(x, self.n - 1)) if self.n else 0.0 * dy


def _power(x: Array, n: float) -> Array:
    """xⁿ, of x's dtype."""
    if n == 0.5:
        return array_module(x).sqrt(x)
    if n < 0:
        return 1.0 / _power(x, -n)
    if n not in range(9):
        return x ** float(n)
    y = x if n % 2 else array_module(x).ones_like(x)
    while n := n // 2:  # the digits of n in base 2
        x = x * x
        y = y * x if n % 2 else y
    return y


Tensor.__pow__ = lambda x, n: Power(n)(x)


class Exp(Function):
    """y = exp(x);  dx = dy * y."""

    shapes = "x (...) numbers"

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

    shapes = "x (...) numbers"

    def forward(self, x: Array) -> Array:
        self.saved = (x,)
        return array_module(x).log(x)

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved
        return dy / x


Tensor.log = lambda x: Log()(x)


class Sqrt(Function):
    """y = √x;  dx = dy / (2y)."""

    shapes = "x (...) numbers"

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

    shapes = "x (...) numbers"

    def forward(self, x: Array) -> Array:
        y = array_module(x).tanh(x)
        self.saved = (y,)
        return y

    def backward(self, dy: Array) -> Array:
        (y,) = self.saved
        return dy * (1 - y * y)


Tensor.tanh = lambda x: Tanh()(x)
