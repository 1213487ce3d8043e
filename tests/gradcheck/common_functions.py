"""Functions for gradient checkers, written once for NumPy, PyTorch and JAX, right and wrong ones.

An error is in the gradient of one input: a factor, in all of it or in one element (any whose
gradient, for one random dy, is at least a thousandth of the largest), a wrong sign, a missing term
or a wrong axis.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

SEED = 2026


class Family(NamedTuple):
    """Functions with one formula. xp is the library: numpy, torch or jax.numpy."""

    kind: str
    name: str
    draw: Callable  # rng -> inputs
    forward: Callable  # xp, *inputs -> y
    backward: Callable  # xp, dy, *inputs -> (dx, ...)
    mistakes: Mapping[str, Callable] = MappingProxyType({})  # other backwards, each with one error


@dataclass(frozen=True)
class Example:
    """A function on one set of inputs; error says what is wrong with its backward, if anything."""

    family: Family
    inputs: tuple
    backward: Callable
    error: str = ""


# ------------------------------------------------------------------ what goes in


def normal(*shapes) -> Callable:
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def any_size(*shapes) -> Callable:
    """From 1e-8 to 1e8, each input of its own size."""
    return lambda rng: tuple(rng.standard_normal(s) * 10 ** rng.uniform(-8, 8) for s in shapes)


def unit_interval(rng) -> tuple:
    return (rng.uniform(0, 1, (7, 5)),)


def near_zero(rng) -> tuple:
    return (10 ** rng.uniform(-8, 0, (7, 5)),)


def whole(*shapes) -> Callable:
    """-3 to 3: several at the kink, exactly, as counts, pixels and the outputs of a ReLU are."""
    return lambda rng: tuple(rng.integers(-3, 4, shape).astype(float) for shape in shapes)


def many(rng) -> tuple:
    return (rng.standard_normal(int(10 ** rng.uniform(3, 4.3))),)


def two_many(rng) -> tuple:
    return tuple(rng.standard_normal((2, int(10 ** rng.uniform(3, 4.3)))))


# ------------------------------------------------------------------ formulas of several lines


def rows(xp, x):
    """The sum over the last axis, which stays."""
    return xp.sum(x, axis=-1, keepdims=True)


def columns(xp, x):
    return xp.sum(x, axis=0, keepdims=True)


def softmax(xp, x):
    e = xp.exp(x - xp.max(x))
    return e / rows(xp, e)


def softmax_backward(add=rows):
    def backward(xp, dy, x):
        y = softmax(xp, x)
        return (y * (dy - add(xp, y * dy)),)

    return backward


def silu(xp, x):
    return x / (1 + xp.exp(-x))


def silu_backward(xp, dy, x):
    s = 1 / (1 + xp.exp(-x))
    return (dy * (s + x * s * (1 - s)),)


def layer_norm(xp, x):
    centred = x - rows(xp, x) / x.shape[-1]
    return centred / xp.sqrt(rows(xp, centred * centred) / x.shape[-1] + 1e-6)


def layer_norm_backward(add=rows, mean=1, stretch=1):
    def backward(xp, dy, x):
        n, y = x.shape[-1], layer_norm(xp, x)
        centred = x - rows(xp, x) / n
        scale = 1 / xp.sqrt(rows(xp, centred * centred) / n + 1e-6)
        return (scale * (dy - mean * add(xp, dy) / n - stretch * y * add(xp, dy * y) / n),)

    return backward


def direction_backward(add=rows, term=1):
    def backward(xp, dy, x):
        length = xp.sqrt(rows(xp, x * x))
        return (dy / length - term * x * add(xp, dy * x) / (length * length * length),)

    return backward


def largest(xp, x):
    return xp.amax(x, axis=-1)


def largest_backward(xp, dy, x):
    chosen = 1.0 * (x == xp.amax(x, axis=-1, keepdims=True))
    return (dy[..., None] * chosen / rows(xp, chosen),)


def running_backward(axis):
    def backward(xp, dy, x):
        return (xp.sum(dy, axis=axis, keepdims=True) - xp.cumsum(dy, axis=axis) + dy,)

    return backward


def log_sum_exp(xp, x):
    return xp.log(xp.sum(xp.exp(x - xp.max(x)), axis=-1)) + xp.max(x)


# ------------------------------------------------------------------ the families

TERM, AXIS = "a term is missing", "wrong axis"
SMOOTH, SIZES, EDGE = "smooth, x near 1", "x of 1e-8 to 1e8", "log 0, sqrt 0, 1/0 near"
KINKED, AT_KINK, NORMS = "kinks", "exactly at a kink", "norms"
SOFTMAX, PRODUCTS, LARGE, LINEAR = "softmax", "products", "1,000 to 20,000 numbers", "linear in x"
X, SQUARE = (7, 5), (5, 5)

FAMILIES = [
    Family(SMOOTH, "tanh", normal(X), lambda xp, x: xp.tanh(x),
           lambda xp, dy, x: (dy * (1 - xp.tanh(x) ** 2),)),
    Family(SMOOTH, "silu", normal(X), silu, silu_backward,
           {TERM: lambda xp, dy, x: (dy / (1 + xp.exp(-x)),)}),
    Family(SMOOTH, "x sin x", normal(X), lambda xp, x: x * xp.sin(x),
           lambda xp, dy, x: (dy * (xp.sin(x) + x * xp.cos(x)),),
           {TERM: lambda xp, dy, x: (dy * x * xp.cos(x),)}),
    Family(SIZES, "x²", any_size(X), lambda xp, x: x * x, lambda xp, dy, x: (2 * x * dy,)),
    Family(SIZES, "x y", any_size(X, X), lambda xp, x, y: x * y,
           lambda xp, dy, x, y: (dy * y, dy * x)),
    Family(SIZES, "1/x", any_size(X), lambda xp, x: 1 / x, lambda xp, dy, x: (-dy / (x * x),)),
    Family(SIZES, "x + x³", any_size(X), lambda xp, x: x + x * x * x,
           lambda xp, dy, x: (dy * (1 + 3 * x * x),), {TERM: lambda xp, dy, x: (dy * 3 * x * x,)}),
    Family(EDGE, "log x", unit_interval, lambda xp, x: xp.log(x), lambda xp, dy, x: (dy / x,)),
    Family(EDGE, "√x", unit_interval, lambda xp, x: xp.sqrt(x),
           lambda xp, dy, x: (dy / (2 * xp.sqrt(x)),)),
    Family(EDGE, "x/y", normal(X, X), lambda xp, x, y: x / y,
           lambda xp, dy, x, y: (dy / y, -dy * x / (y * y))),
    Family(EDGE, "x log x", near_zero, lambda xp, x: x * xp.log(x),
           lambda xp, dy, x: (dy * (xp.log(x) + 1),), {TERM: lambda xp, dy, x: (dy * xp.log(x),)}),
    Family(KINKED, "relu", normal((11, 13)), lambda xp, x: xp.where(x > 0, x, 0.0),
           lambda xp, dy, x: (dy * (x > 0),)),
    Family(KINKED, "|x|", normal((11, 13)), lambda xp, x: xp.abs(x),
           lambda xp, dy, x: (dy * xp.sign(x),)),
    Family(KINKED, "max(x, y)", normal(X, X), lambda xp, x, y: xp.maximum(x, y),
           lambda xp, dy, x, y: (dy * (x >= y), dy * (x < y))),
    Family(KINKED, "clip", normal((11, 13)), lambda xp, x: xp.clip(x, -1, 1),
           lambda xp, dy, x: (dy * (xp.abs(x) < 1),)),
    Family(KINKED, "largest of a row", normal(X), largest, largest_backward),
    Family(AT_KINK, "relu", whole(X), lambda xp, x: xp.where(x > 0, x, 0.0),
           lambda xp, dy, x: (dy * (x > 0),)),
    Family(AT_KINK, "|x|", whole(X), lambda xp, x: xp.abs(x),
           lambda xp, dy, x: (dy * xp.sign(x),)),
    Family(AT_KINK, "max(x, y)", whole(X, X), lambda xp, x, y: xp.maximum(x, y),
           lambda xp, dy, x, y: (dy * (x >= y), dy * (x < y))),
    Family(AT_KINK, "largest of a row", whole(X), largest, largest_backward),
    Family(NORMS, "length", any_size((17,)), lambda xp, x: xp.sqrt(xp.sum(x * x)),
           lambda xp, dy, x: (dy * x / xp.sqrt(xp.sum(x * x)),)),
    Family(NORMS, "direction", any_size(X), lambda xp, x: x / xp.sqrt(rows(xp, x * x)),
           direction_backward(),
           {TERM: direction_backward(term=0), AXIS: direction_backward(columns)}),
    Family(NORMS, "LayerNorm", normal(X), layer_norm, layer_norm_backward(),
           {TERM: layer_norm_backward(stretch=0), AXIS: layer_norm_backward(columns)}),
    Family(NORMS, "LayerNorm", normal((3, 19)), layer_norm, layer_norm_backward(),
           {TERM: layer_norm_backward(mean=0), AXIS: layer_norm_backward(columns)}),
    Family(SOFTMAX, "softmax", normal(X), softmax, softmax_backward(),
           {TERM: softmax_backward(lambda xp, x: 0), AXIS: softmax_backward(columns)}),
    Family(SOFTMAX, "log softmax", normal(X), lambda xp, x: x - log_sum_exp(xp, x)[:, None],
           lambda xp, dy, x: (dy - softmax(xp, x) * rows(xp, dy),),
           {TERM: lambda xp, dy, x: (dy,),
            AXIS: lambda xp, dy, x: (dy - softmax(xp, x) * columns(xp, dy),)}),
    Family(SOFTMAX, "log Σ exp", lambda rng: (10 * rng.standard_normal(X),), log_sum_exp,
           lambda xp, dy, x: (dy[:, None] * softmax(xp, x),)),
    Family(PRODUCTS, "x W", normal(X, SQUARE), lambda xp, x, W: x @ W,
           lambda xp, dy, x, W: (dy @ W.T, x.T @ dy),
           {AXIS: lambda xp, dy, x, W: (dy @ W, x.T @ dy)}),
    Family(PRODUCTS, "tanh(x W)", normal(X, SQUARE), lambda xp, x, W: xp.tanh(x @ W),
           lambda xp, dy, x, W: ((dy * (1 - xp.tanh(x @ W) ** 2)) @ W.T,
                                 x.T @ (dy * (1 - xp.tanh(x @ W) ** 2))),
           {AXIS: lambda xp, dy, x, W: ((dy * (1 - xp.tanh(x @ W) ** 2)) @ W.T,
                                        (x.T @ (dy * (1 - xp.tanh(x @ W) ** 2))).T),
            TERM: lambda xp, dy, x, W: (dy @ W.T, x.T @ dy)}),
    Family(PRODUCTS, "gain", normal(SQUARE, (5,)), lambda xp, x, g: x * g,
           lambda xp, dy, x, g: (dy * g, xp.sum(dy * x, axis=0)),
           {AXIS: lambda xp, dy, x, g: (dy * g, xp.sum(dy * x, axis=1))}),
    Family(PRODUCTS, "Π x", normal((11,)), lambda xp, x: xp.prod(x),
           lambda xp, dy, x: (dy * xp.prod(x) / x,)),
    Family(LARGE, "mean of x²", many, lambda xp, x: xp.mean(x * x),
           lambda xp, dy, x: (2 * x * dy / len(x),)),
    Family(LARGE, "Σ x y", two_many, lambda xp, x, y: xp.sum(x * y),
           lambda xp, dy, x, y: (dy * y, dy * x)),
    Family(LARGE, "Σ √(1 + x²)", many, lambda xp, x: xp.sum(xp.sqrt(1 + x * x)),
           lambda xp, dy, x: (dy * x / xp.sqrt(1 + x * x),)),
    Family(LARGE, "Σ x tanh x", many, lambda xp, x: xp.sum(x * xp.tanh(x)),
           lambda xp, dy, x: (dy * (xp.tanh(x) + x * (1 - xp.tanh(x) ** 2)),),
           {TERM: lambda xp, dy, x: (dy * xp.tanh(x),)}),
    Family(LINEAR, "running sum", any_size(X), lambda xp, x: xp.cumsum(x, axis=0),
           running_backward(0), {AXIS: running_backward(1)}),
    Family(LINEAR, "x - mean of its row", any_size(X), lambda xp, x: x - rows(xp, x) / x.shape[-1],
           lambda xp, dy, x: (dy - rows(xp, dy) / x.shape[-1],),
           {TERM: lambda xp, dy, x: (dy,),
            AXIS: lambda xp, dy, x: (dy - columns(xp, dy) / x.shape[-1],)}),
    Family(LINEAR, "x - 2 xᵀ", any_size(SQUARE), lambda xp, x: x - 2 * x.T,
           lambda xp, dy, x: (dy - 2 * dy.T,),
           {TERM: lambda xp, dy, x: (dy,), AXIS: lambda xp, dy, x: (dy.T - 2 * dy,)}),
]  # fmt: skip
KINDS = list(dict.fromkeys(family.kind for family in FAMILIES))


# ------------------------------------------------------------------ one error

FACTORS = {
    f"{name}, {where}": (factor, where == "one element")
    for factor, name in {1 + 1e-6: "× (1 + 1e-6)", 1 + 1e-3: "× (1 + 1e-3)", 2.0: "× 2"}.items()
    for where in ("one element", "all elements")
} | {"wrong sign": (-1.0, False)}
ERRORS = [*FACTORS, TERM, AXIS]


def with_error(family: Family, inputs: tuple, error: str, rng: np.random.Generator) -> Example:
    if error in family.mistakes:
        return Example(family, inputs, family.mistakes[error], error)
    factor, single = FACTORS[error]
    dy = rng.standard_normal(np.shape(family.forward(np, *inputs)))
    i = int(rng.integers(len(inputs)))
    dx = np.abs(family.backward(np, dy, *inputs)[i])
    factors = np.ones(dx.shape)
    at = rng.choice(np.flatnonzero(dx >= 1e-3 * dx.max())) if single else slice(None)
    factors.flat[at] = factor

    def backward(xp, dy, *inputs):
        gradients = list(family.backward(xp, dy, *inputs))
        gradients[i] = gradients[i] * xp.asarray(factors)
        return tuple(gradients)

    return Example(family, inputs, backward, error)


def draw(seed: int = SEED, each: int = 10) -> Iterator[Example]:
    """Of each kind `each` right functions and `each` wrong ones, the errors in equal parts."""
    rng, used = np.random.default_rng(seed), Counter()
    for n in range(each):
        for kind in KINDS:
            families = [family for family in FAMILIES if family.kind == kind]
            family = families[n % len(families)]
            yield Example(family, family.draw(rng), family.backward)
            possible = [error for error in ERRORS if error in FACTORS or error in family.mistakes]
            error = min(possible, key=lambda error: (used[error], rng.random()))
            used[error] += 1
            yield with_error(family, family.draw(rng), error, rng)
