"""ReLU, the activation function of Hire-MLP's region branches."""

from tinymixer.backend import Array
from tinymixer.engine import Function


class ReLU(Function):
    """y = x where x > 0, otherwise 0;  dx = dy where x > 0, otherwise 0.

    x (any shape)  ->  y (the same shape)

    At exactly 0 there is no derivative; 0 is used, as is usual.
    """

    shapes = "x (...)"

    def forward(self, x: Array) -> Array:
        positive = x > 0
        self.saved = (positive,)
        return x * positive

    def backward(self, dy: Array) -> Array:
        (positive,) = self.saved
        return dy * positive
