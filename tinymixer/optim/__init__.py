"""Floor 1. Optimizers and schedules: arrays in, arrays out, no Tensor.

All parameters of a model lie in one flat array, all gradients in another, so an optimizer is a few
element-wise lines. They are run over blocks that stay in the cache: each block is read from memory
once for the whole update. `state` names the arrays that a checkpoint has to keep.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from tinymixer.backend import Array, array_module, device_of
from tinymixer.errors import counted
from tinymixer.options import Number, OneOf, Whole, require

BLOCK = 1 << 15  # elements: five float32 blocks fit in 1 MB of cache


@contextmanager
def undone_unless(healthy: Array | bool, arrays: Sequence[Array]) -> Iterator[None]:
    """In its `with` block, changes of `arrays` are undone unless `healthy`, a bool or an array ().

    On a GPU, `healthy` may not be computed yet: it is read there, without waiting for it.
    """
    if healthy is True or (isinstance(healthy, np.ndarray) and healthy):
        yield
        return
    before = [array.copy() for array in arrays]
    yield
    for array, old in zip(arrays, before, strict=True):
        array[...] = array_module(array).where(healthy, array, old)


def gather(out: Array, gradients: Sequence[Array | None], starts: np.ndarray) -> None:
    """out[starts[i] : starts[i + 1]] = gradients[i], whatever its shape; 0 where it is None."""
    require_pieces(out, gradients, starts)
    for gradient, start, end in zip(gradients, starts, starts[1:], strict=False):
        out[start:end] = 0 if gradient is None else gradient.reshape(-1)


def require_pieces(out: Array, gradients: Sequence[Array | None], starts: np.ndarray) -> None:
    """Raise ValueError unless each gradient has out's dtype and as many numbers as its place."""
    if len(starts) != len(gradients) + 1 or starts[-1] > len(out):
        raise ValueError(
            f"gather: expected the {len(gradients)} starts of the gradients and the end of the "
            f"last, within the {counted(len(out), 'number')} of out; got starts {starts}"
        )
    for i, gradient in enumerate(gradients):
        size = int(starts[i + 1] - starts[i])
        if gradient is not None and (
            not isinstance(gradient, type(out))
            or gradient.size != size
            or gradient.dtype != out.dtype
        ):
            raise ValueError(
                f"gather: gradient {i} is {_words(_seen(gradient))}; expected "
                f"{counted(size, 'number')} of "
                f"{out.dtype}, where out is"
            )


def require_alike(name: str, weights: Array, **others: Array) -> None:
    """Raise TypeError or ValueError unless all are arrays (N,) of one type, dtype and length."""
    ours = _seen(weights)
    if len(ours[1]) != 1 or ours[2] not in ("float32", "float64", "float16"):
        raise TypeError(
            f"{name}: expected one flat array (N,) of floats, got {_words(ours)}. A "
            "model's are put into one first: see train.parallel.FlatParameters"
        )
    for other, array in others.items():
        if _seen(array) != ours:
            raise ValueError(
                f"{name}: {other} is {_words(_seen(array))}; expected {_words(ours)}, like the rest"
            )


def _seen(x: Array) -> tuple[type, tuple[int, ...], str]:
    return type(x), getattr(x, "shape", ()), str(getattr(x, "dtype", ""))


def _words(seen: tuple[type, tuple[int, ...], str]) -> str:
    kind, shape, dtype = seen
    return f"a {kind.__module__}.{kind.__name__}{f' of {dtype} {shape}' if dtype else ''}"


def require_step(name: str, lr: float, step: int) -> None:
    """Raise ValueError unless lr is finite, and 0 or more, and step counts from 0."""
    if not (isinstance(lr, int | float | np.floating) and 0 <= lr < math.inf):
        raise ValueError(f"{name}: expected lr as a finite number of 0 or more, got {lr!r}")
    if not (isinstance(step, int | np.integer) and step >= 0):
        raise ValueError(f"{name}: expected step as a whole number of 0 or more, got {step!r}")


class Optimizer:
    """What all have in common: `step` checks what it is given, and `_update` is their formula."""

    decay: Array
    state: dict[str, Array]

    def step(
        self,
        weights: Array,
        gradients: Array,
        lr: float,
        step: int,
        healthy: Array | bool = True,
        average: Array | None = None,
        average_decay: float = 0.0,
    ) -> None:
        """Update `weights` (N,) in place from gradients (N,), or change nothing unless `healthy`.

        `step` counts from 0. An `average` of the weights (N,) follows, see `update_average`.
        """
        name = f"{type(self).__name__}.step"
        require_alike(name, weights, gradients=gradients, decay=self.decay)
        require_step(name, lr, step)
        self._update_and_average(weights, gradients, lr, step, healthy, average, average_decay)

    def _update_and_average(
        self,
        weights: Array,
        gradients: Array,
        lr: float,
        step: int,
        healthy: Array | bool,
        average: Array | None,
        average_decay: float,
    ) -> None:
        """Two things that a GPU does at once."""
        self._update(weights, gradients, lr, step, healthy)
        if average is not None:
            update_average(average, weights, average_decay, healthy)

    def _update(
        self, weights: Array, gradients: Array, lr: float, step: int, healthy: Array | bool
    ) -> None:
        raise NotImplementedError(f"{type(self).__name__} defines no _update")


class SGD(Optimizer):
    """Momentum: v <- momentum v + g,  w <- w - lr (v + weight_decay w).

    decay (N,) says how much of weight_decay each weight feels, 0 to 1.
    Source: Polyak 1964; decoupled decay: Loshchilov, Hutter 2017, arXiv 1711.05101.
    """

    def __init__(self, decay: Array, *, momentum: float = 0.9, weight_decay: float = 0.0):
        require_alike("SGD", decay)
        self.decay = decay
        self.momentum = require("SGD: momentum", momentum, Number(0, 1, below=True))
        self.weight_decay = require("SGD: weight_decay", weight_decay, Number(0))
        self.state = {"v": array_module(decay).zeros_like(decay)}

    def _update(
        self, weights: Array, gradients: Array, lr: float, step: int, healthy: Array | bool
    ) -> None:
        for w, g, decay, v in _blocks(healthy, weights, gradients, self.decay, self.state["v"]):
            v *= self.momentum
            v += g
            w -= lr * (v + self.weight_decay * decay * w)


class AdamW(Optimizer):
    """Adam with decoupled weight decay: steps of about the size lr, however steep the loss is:

    m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g²
    w <- w - lr (m̂ / (√v̂ + eps) + weight_decay w),  m̂ = m / (1 - beta1^t),  v̂ = v / (1 - beta2^t)

    t counts from 1; decay (N,) says how much of weight_decay each weight feels, 0 to 1.
    Source: Loshchilov, Hutter 2017, "Decoupled weight decay regularization", arXiv 1711.05101,
    algorithm 2.
    """

    def __init__(
        self,
        decay: Array,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        require_alike("AdamW", decay)
        if not (isinstance(betas, tuple | list) and len(betas) == 2):
            raise ValueError(f"AdamW: expected betas as a pair of numbers, got {betas!r}")
        beta1, beta2 = (require("AdamW: betas", b, Number(0, 1, below=True)) for b in betas)
        self.decay, self.betas = decay, (beta1, beta2)
        self.eps = require("AdamW: eps", eps, Number(0, above=True))
        self.weight_decay = require("AdamW: weight_decay", weight_decay, Number(0))
        zeros_like = array_module(decay).zeros_like
        self.state = {"m": zeros_like(decay), "v": zeros_like(decay)}

    def _update(
        self, weights: Array, gradients: Array, lr: float, step: int, healthy: Array | bool
    ) -> None:
        sqrt = array_module(weights).sqrt
        beta1, beta2 = self.betas
        unbias1, unbias2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
        arrays = weights, gradients, self.decay, self.state["m"], self.state["v"]
        for w, g, decay, m, v in _blocks(healthy, *arrays):
            m += (1 - beta1) * (g - m)
            v += (1 - beta2) * (g * g - v)
            w -= lr * (m / unbias1 / (sqrt(v / unbias2) + self.eps))
            w -= lr * self.weight_decay * decay * w


def _blocks(healthy: Array | bool, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Views of the same block of all arrays, to change them: none are left changed unless healthy.

    A GPU has no such cache, so its block is everything.
    """
    size = len(arrays[0])
    if device_of(arrays[0]) == "cpu":
        for start in range(0, size if healthy else 0, BLOCK):
            yield tuple(array[start : start + BLOCK] for array in arrays)
    else:
        with undone_unless(healthy, arrays):
            yield arrays


def learning_rate(
    step: int, *, base: float, final: float, warmup: int, total: int, schedule: str = "cosine"
) -> float:
    """The learning rate at `step` of `total`: up in a line for `warmup` steps, then down.

    With t from 0 to 1 after the warm-up:
        "cosine"    final + (base - final) (1 + cos πt) / 2
        "linear"    base + (final - base) t
        "trapezoid" base while t <= 0.4, then down in a line
        "constant"  base

    Sources: for the cosine Loshchilov, Hutter 2016, "SGDR", arXiv 1608.03983, equation 5; for the
    trapezoid Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training
    durations", arXiv 2405.18392, where its rate falls in "cooldown".
    """
    require("learning_rate: step", step, Whole(0))
    require("learning_rate: base", base, Number(0))
    require("learning_rate: final", final, Number(0))
    require("learning_rate: warmup", warmup, Number(0))
    require("learning_rate: total", total, Number(0))
    require("learning_rate: schedule", schedule, OneOf(SCHEDULES))
    if step < warmup:
        return base * (step + 1) / (warmup + 1)
    t = min(1, (step - warmup) / max(1, total - warmup))
    return final + (base - final) * SCHEDULES[schedule](t)


HELD = 0.4  # share of a trapezoid, after the warm-up, that keeps the highest rate

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    "linear": lambda t: 1 - t,
    "trapezoid": lambda t: min(1.0, (1 - t) / (1 - HELD)),
    "constant": lambda t: 1.0,
}


def clip_by_global_norm(gradients: Array, max_norm: float) -> Array:
    """Scale `gradients` (N,), in place, to a Euclidean norm of at most max_norm; 0 is no limit.

    Returns the norm before, (), where the gradients are, so a GPU need not be waited for. A norm of
    NaN scales nothing. Source: Pascanu et al. 2012, arXiv 1211.5063, algorithm 1.
    """
    require_alike("clip_by_global_norm", gradients)
    if not (isinstance(max_norm, int | float | np.floating) and 0 <= max_norm < math.inf):
        raise ValueError(
            f"clip_by_global_norm: expected max_norm as a finite number of 0 or more, got "
            f"{max_norm!r}. 0 is no limit"
        )
    xp = array_module(gradients)
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the norm
        norm = xp.sqrt(gradients @ gradients)
        if max_norm:
            factor = max_norm / xp.fmax(norm.astype(np.float64), max_norm)
            gradients *= factor.astype(gradients.dtype)
    return norm


def update_average(
    average: Array, weights: Array, decay: float, healthy: Array | bool = True
) -> None:
    """Exponential moving average of the weights, in place: a <- decay a + (1 - decay) w."""
    require_alike("update_average", weights, average=average)
    if not (isinstance(decay, int | float | np.floating) and 0 <= decay <= 1):
        raise ValueError(f"update_average: expected decay from 0 to 1, got {decay!r}")
    for a, w in _blocks(healthy, average, weights):
        a += (1 - decay) * (w - a)
