"""GELU, the activation function of every MLP here, in its two forms.

    erf:   y = x Φ(x)                                 Φ the standard normal distribution function
    tanh:  y = x (1 + tanh u) / 2,  u = √(2/π) (x + 0.044715 x³)

The tanh form approximates the other to 5e-4 and is what the published Mixer weights were trained
with; most PyTorch code uses erf. Mixing them up changes the logits a little.

Source: Hendrycks, Gimpel 2016, "Gaussian error linear units", arXiv 1606.08415, section 2.
"""

import math
from dataclasses import dataclass

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function
from tinymixer.ops.erf import normal_cdf, normal_density
from tinymixer.options import OneOf

SLOPE = math.sqrt(2 / math.pi)
CUBIC = 0.044715
FORMS = ("tanh", "erf")
FORM = ("form", OneOf(FORMS))  # an option, and what it may be


def check_form(form: str) -> str:
    """`form` itself, or ValueError if it is neither "tanh" nor "erf"."""
    if not (isinstance(form, str) and form in FORMS):
        raise ValueError(f"GELU: unknown form {form!r}; expected 'tanh' or 'erf'")
    return form


def gelu(x: Array, form: str) -> Array:
    """y = GELU(x), element by element."""
    if check_form(form) == "erf":
        return x * normal_cdf(x)
    u = SLOPE * x * (1 + CUBIC * x * x)  # not x ** 3: a power is much slower
    return 0.5 * x * (1 + array_module(x).tanh(u))


def gelu_derivative(x: Array, form: str) -> Array:
    """dy/dx of y = GELU(x), element by element."""
    if check_form(form) == "erf":
        return normal_cdf(x) + x * normal_density(x)
    t = array_module(x).tanh(SLOPE * x * (1 + CUBIC * x * x))
    du = SLOPE * (1 + 3 * CUBIC * x * x)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du


@dataclass(eq=False)
class GELU(Function):
    """y = x Φ(x), or its tanh form;  dx = dy * y'(x).

    x (any shape)  ->  y (the same shape)
    """

    shapes = "x (...)"
    allowed = (FORM,)

    form: str = "tanh"

    def forward(self, x: Array) -> Array:
        self.saved = (x,)
        return gelu(x, self.form)

    def backward(self, dy: Array) -> Array:
        (x,) = self.saved
        return dy * gelu_derivative(x, self.form)
