"""Functions drawn at random, right ones and wrong ones, and what the gradient check says to them.

    python tests/gradcheck/random_functions.py --count 2000

A right function is a composition of primitives and operations, an operation at inputs of another
size, or a learner's own Function in plain NumPy, with kinks, with numbers over 16 orders of
magnitude, with 0 to 100,000 elements. A wrong one is the same with one error of 1e-6 relative in
its gradient: in one element (of those within six decades of the largest) or in the factor of one
whole input. Printed is how often a right one was called failed, a wrong one passed, and how often
nothing was decided.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymixer import ops
from tinymixer.engine import Function, Tensor
from tinymixer.gradcheck import CASES, Report, check, check_function
from tinymixer.gradcheck.subject import of_composition, of_function

ERROR = 1e-6


@dataclass
class Drawn:
    """A function with its inputs. f is a Function, or composed of Tensors."""

    kind: str
    name: str
    f: Any
    arrays: list
    constants: tuple = ()

    def check(self) -> Report:
        if isinstance(self.f, Function):
            return check_function(self.f, *self.arrays, constants=self.constants)
        return check(self.f, *self.arrays)

    def gradients(self) -> dict[int, np.ndarray]:
        if isinstance(self.f, Function):
            subject = of_function(self.f, *self.arrays, constants=self.constants)
        else:
            subject = of_composition(self.f, *self.arrays)
        with np.errstate(all="ignore"):
            y = subject.forward(*subject.arrays)
            w = np.random.default_rng(1).standard_normal(y.shape)
            return dict(subject.backward(w, subject.arrays))


class Planted(Function):
    """y = x, whose backward multiplies one element of dx, or all of them, by 1 + ERROR."""

    def __init__(self, element: int | None):
        self.element = element

    def forward(self, x):
        return x + 0

    def backward(self, dy):
        dx = dy.copy()
        if self.element is None:
            return dx * (1 + ERROR)
        dx.flat[self.element] *= 1 + ERROR
        return dx


def planted(drawn: Drawn, rng: np.random.Generator) -> Drawn | None:
    """The same function with one error; None where it has no gradient that an error could be in."""
    sizes = {i: np.abs(g) for i, g in drawn.gradients().items()}
    finite = {
        i: g
        for i, g in sizes.items()
        # A gradient that is zero by symmetry is rounding, in which no digit can be wrong.
        if g.size and np.isfinite(g).all() and (g * np.abs(drawn.arrays[i])).max() > 1e-12
    }
    largest = max((g.max() for g in finite.values()), default=0)
    live = [i for i, g in finite.items() if g.max() > 1e-9 * largest]
    if not live:
        return None
    i = int(rng.choice(live))
    large = np.flatnonzero(finite[i] > 1e-6 * finite[i].max())
    element = int(rng.choice(large)) if rng.random() < 0.7 else None
    where = "a factor" if element is None else "an element"
    if isinstance(drawn.f, Function):
        f: Any = _wrong(drawn.f, i, element)
    else:

        def f(*inputs, right=drawn.f):
            return right(*(Planted(element)(x) if j == i else x for j, x in enumerate(inputs)))

    return Drawn(
        drawn.kind, f"{drawn.name}, {where} of input {i}", f, drawn.arrays, drawn.constants
    )


def _wrong(op: Function, i: int, element: int | None) -> Function:
    right = type(op)

    def backward(self, dy):
        gradients = right.backward(self, dy)
        several = list(gradients) if isinstance(gradients, tuple) else [gradients]
        several[i] = Planted(element).backward(several[i])
        return tuple(several)

    wrong = type(f"Wrong{right.__name__}", (right,), {"backward": backward})
    copied = wrong.__new__(wrong)
    vars(copied).update(vars(op))
    return copied


# ------------------------------------------------------------------ learners' own Functions


class Elementwise(Function):
    """y = g(x), dx = dy g'(x), in real numbers only, as learners write it."""

    def __init__(self, g: Callable, derivative: Callable):
        self.g, self.derivative = g, derivative

    def forward(self, x):
        self.saved = (x,)
        return self.g(np.asarray(x, np.float64))

    def backward(self, dy):
        return dy * self.derivative(self.saved[0])


OWN = {
    "abs": (np.abs, np.sign),
    "relu": (lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0)),
    "leaky": (lambda x: np.where(x > 0, x, 0.1 * x), lambda x: np.where(x > 0, 1, 0.1)),
    "hard tanh": (lambda x: np.clip(x, -1, 1), lambda x: 1.0 * (np.abs(x) < 1)),
    "square": (lambda x: x * x, lambda x: 2 * x),
    "x|x|": (lambda x: x * np.abs(x), lambda x: 2 * np.abs(x)),
    "sine": (np.sin, np.cos),
    "log 1+x²": (lambda x: np.log1p(x * x), lambda x: 2 * x / (1 + x * x)),
    "softsign": (lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / (x * x)),
    "log|x|": (lambda x: np.log(np.abs(x)), lambda x: 1 / x),
    "sqrt|x|": (lambda x: np.sqrt(np.abs(x)), lambda x: 0.5 * np.sign(x) / np.sqrt(np.abs(x))),
    "stairs": (lambda x: x + np.floor(x), lambda x: np.ones_like(x)),
}


class Norm2(Function):
    """y = |x|, the length of a vector, by a routine that knows real numbers only."""

    def forward(self, x):
        y = np.linalg.norm(np.asarray(x, np.float64))
        self.saved = (x, y)
        return np.asarray(y)

    def backward(self, dy):
        x, y = self.saved
        return dy * x / y


class LogSumExp(Function):
    """y = log Σ exp(x) over the last axis."""

    def forward(self, x):
        top = np.max(np.asarray(x, np.float64), -1, keepdims=True)
        y = np.log(np.exp(x - top).sum(-1)) + top[..., 0]
        self.saved = (x, y)
        return y

    def backward(self, dy):
        x, y = self.saved
        return dy[..., None] * np.exp(x - y[..., None])


class Largest(Function):
    """y = max of x over the last axis: a choice."""

    def forward(self, x):
        at = np.argmax(x, -1)[..., None]
        self.saved = (x.shape, at)
        return np.take_along_axis(x, at, -1)[..., 0]

    def backward(self, dy):
        shape, at = self.saved
        dx = np.zeros(shape)
        np.put_along_axis(dx, at, dy[..., None], -1)
        return dx


class Hinge(Function):
    """y = mean of max(0, 1 - x t), with t = ±1."""

    def forward(self, x, t):
        margin = np.maximum(0, 1 - x * t)
        self.saved = (margin > 0, t)
        return np.asarray(margin.mean())

    def backward(self, dy):
        inside, t = self.saved
        return dy * -t * inside / t.size, None


# ------------------------------------------------------------------ how they are drawn


def _shape(rng, largest=60) -> tuple[int, ...]:
    rank = int(rng.integers(1, 4))
    return tuple(int(n) for n in rng.integers(1, max(2, round(largest ** (1 / rank)) + 1), rank))


def _scale(rng) -> float:
    return float(10 ** rng.uniform(-8, 8)) if rng.random() < 0.7 else 1.0


def own(rng) -> Drawn:
    choice = int(rng.integers(4 + len(OWN)))
    x = rng.standard_normal(_shape(rng, 100)) * _scale(rng)
    if choice >= 4:
        name = list(OWN)[choice - 4]
        return Drawn("own, real numbers only", name, Elementwise(*OWN[name]), [x])
    if choice == 3:
        t = np.where(rng.random(x.shape) < 0.5, -1, 1)
        return Drawn("own, real numbers only", "hinge", Hinge(), [x, t])
    f = (Norm2(), LogSumExp(), Largest())[choice]
    return Drawn("own, real numbers only", type(f).__name__, f, [x])


def wide(rng) -> Drawn:
    """Elements over 16 orders of magnitude within one array."""
    name = str(rng.choice(["abs", "relu", "square", "log|x|", "sqrt|x|", "reciprocal", "softsign"]))
    x = 10 ** rng.uniform(-8, 8, _shape(rng, 60)) * np.where(rng.random() < 0.5, -1, 1)
    if rng.random() < 0.5:
        return Drawn("16 orders in one array", name, Elementwise(*OWN[name]), [x])
    positive = np.abs(x)
    f, label = [
        (lambda x: x.log() * x.sqrt(), "log x √x"),
        (lambda x: 1.0 / (x * x + 1.0), "1/(1+x²)"),
        (lambda x: (x.log() * 0.1).tanh(), "tanh(log x / 10)"),
        (lambda x: x.log().sum() + x.mean(), "Σ log x + mean"),
    ][int(rng.integers(4))]
    return Drawn("16 orders in one array", label, f, [positive])


def operation(rng) -> Drawn:
    """One of the operations' cases, its inputs drawn anew and of other sizes."""
    case = CASES[int(rng.integers(len(CASES)))]
    arrays = []
    for x in case.arrays:
        fixed = x.dtype.kind != "f" or case.constants
        new = x if fixed else x * rng.uniform(0.5, 1.5, x.shape) * _scale(rng)
        arrays.append(new)
    return Drawn("operations", case.name, case.op, arrays, tuple(case.constants))


def composition(rng, largest=60, kinked=False) -> Drawn:
    """Up to seven primitives and operations, one after another, on up to three inputs."""
    shape = _shape(rng, largest)
    scale = _scale(rng)
    arrays = [rng.standard_normal(shape) * scale]
    steps: list[tuple[str, Callable]] = [("/scale", lambda t, xs: t * (1 / scale))]
    if rng.random() < 0.15:
        steps = []
    count = int(rng.integers(1, 7))
    for k in range(count):
        steps.append(_step(rng, shape, arrays, kinked and k == count // 2))
        shape = _shape_after(steps, arrays)
    if rng.random() < 0.3:
        steps.append(("sum", lambda t, xs: t.sum()))
    name = " ".join(step for step, _ in steps)

    def f(*xs):
        t = xs[0]
        for _, step in steps:
            t = step(t, xs)
        return t

    return Drawn(
        "kinked compositions" if kinked else "compositions", f"{name} {arrays[0].shape}", f, arrays
    )


def _shape_after(steps, arrays) -> tuple[int, ...]:
    xs = [Tensor(x) for x in arrays]
    t = xs[0]
    with np.errstate(all="ignore"):
        for _, step in steps:
            t = step(t, xs)
    return t.shape


def _step(rng, shape, arrays, kink) -> tuple[str, Callable]:
    if kink:
        return [
            ("relu", lambda t, xs: ops.ReLU()(t)),
            ("|t|", lambda t, xs: ops.ReLU()(t) + ops.ReLU()(-t)),
            ("max(t,.3)", lambda t, xs: ops.ReLU()(t - 0.3) + 0.3),
            ("relu(1-t)", lambda t, xs: ops.ReLU()(1.0 - t)),
        ][int(rng.integers(4))]
    smooth: list[tuple[str, Callable]] = [
        ("tanh", lambda t, xs: t.tanh()),
        ("exp(tanh)", lambda t, xs: t.tanh().exp()),
        ("log(1+t²)", lambda t, xs: (t * t + 1.0).log()),
        ("√(t²+.1)", lambda t, xs: (t * t + 0.1).sqrt()),
        ("t/(1+t²)", lambda t, xs: t / (t * t + 1.0)),
        ("t²", lambda t, xs: t * t),
        ("-t", lambda t, xs: -t),
        ("gelu", lambda t, xs: ops.GELU("erf")(t)),
        ("gelu tanh", lambda t, xs: ops.GELU()(t)),
        ("t+.5t", lambda t, xs: t + 0.5 * t),
        ("t-1", lambda t, xs: t - 1.0),
        ("3/(2+tanh)", lambda t, xs: 3.0 / (t.tanh() + 2.0)),
    ]
    n = int(rng.integers(len(smooth) + 8))
    if n < len(smooth):
        return smooth[n]
    if len(shape) >= 2 and n == len(smooth):
        W = rng.standard_normal((shape[-1], int(rng.integers(1, 7)))) / np.sqrt(shape[-1])
        j = len(arrays)
        arrays.append(W)
        return "@W", lambda t, xs: t @ xs[j]
    if n == len(smooth) + 1:
        j = len(arrays)
        arrays.append(rng.standard_normal(shape[-1:]))
        return "*b", lambda t, xs: t * xs[j]
    if n == len(smooth) + 2:
        j = len(arrays)
        size = _scale(rng)
        arrays.append(rng.standard_normal(shape[-1:]) * size)
        return "+b", lambda t, xs: t + xs[j] * (1 / size)
    if len(shape) >= 2 and n == len(smooth) + 3:
        axis = int(rng.integers(len(shape)))
        return f"sum{axis}", lambda t, xs: t.sum(axis)
    if len(shape) >= 2 and n == len(smooth) + 4:
        return "-mean", lambda t, xs: t - t.mean(-1, keepdims=True)
    if len(shape) >= 2 and n == len(smooth) + 5:
        return "T", lambda t, xs: t.transpose()
    if n == len(smooth) + 6 and shape:
        key = rng.integers(0, shape[0], int(rng.integers(1, 2 * shape[0] + 1)))
        return "[key]", lambda t, xs: t[key]
    if shape and shape[-1] > 1:
        return "softmax", lambda t, xs: ops.Softmax()(t)
    return "*t", lambda t, xs: t * t.tanh()


def kinked(rng) -> Drawn:
    return composition(rng, kinked=True)


def large(rng, most=100_000) -> Drawn:
    """3,000 elements and more, which are moved together."""
    n = int(10 ** rng.uniform(3.5, np.log10(most)))
    if rng.random() < 0.5:
        name = list(OWN)[int(rng.integers(len(OWN) - 1))]
        return Drawn(
            "large",
            f"{name} ({n},)",
            Elementwise(*OWN[name]),
            [rng.standard_normal(n) * _scale(rng)],
        )
    drawn = composition(rng, n, kinked=rng.random() < 0.5)
    return Drawn("large", drawn.name, drawn.f, drawn.arrays)


def hidden(rng) -> Drawn:
    """Layers: x W with ReLU, normalisation and skip connection, and a loss at the end."""
    B, C, D = (int(n) for n in rng.integers(1, 9, 3))
    scale = _scale(rng)
    x, W1, W2 = (
        rng.standard_normal((B, C)) * scale,
        *(rng.standard_normal(s) for s in [(C, D), (D, C)]),
    )
    labels = rng.integers(0, C, B)
    gate = [ops.ReLU, ops.GELU][int(rng.integers(2))]

    def f(x, W1, W2):
        x = x * (1 / scale)
        h = x + gate()(x @ W1) @ W2
        h = ops.LayerNorm()(h, np.ones(C), np.zeros(C)) if C > 1 else h
        return ops.SoftmaxCrossEntropy()(h, labels)

    return Drawn("small networks", f"{gate.__name__} {B, C, D}", f, [x, W1, W2])


def empty(rng) -> Drawn:
    return Drawn("no elements", "tanh", lambda x: x.tanh(), [np.zeros((0, 3))])


KINDS = {
    composition: 0.3,
    kinked: 0.2,
    operation: 0.16,
    own: 0.12,
    hidden: 0.09,
    wide: 0.06,
    large: 0.065,
    empty: 0.005,
}


def draw(seed: int, most: int = 100_000) -> tuple[Drawn, Drawn | None]:
    """The seed'th right function, of at most about so many elements, and the same with an error."""
    rng = np.random.default_rng([2026, seed])
    make = list(KINDS)[int(rng.choice(len(KINDS), p=np.array(list(KINDS.values()))))]
    with np.errstate(all="ignore"):
        right = large(rng, most) if make is large else make(rng)
        return right, planted(right, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first function")
    parser.add_argument("--show", action="store_true", help="print every report that is not right")
    args = parser.parse_args()
    tables: dict[str, Counter] = {"right": Counter(), "wrong": Counter()}
    start, seconds = time.perf_counter(), Counter()
    for seed in range(args.first, args.first + args.count):
        for is_wrong, drawn in enumerate(draw(seed)):
            if drawn is None:
                tables["wrong"]["-", "no gradient to plant an error in"] += 1
                continue
            before = time.process_time()
            report = drawn.check()
            seconds[drawn.kind] += time.process_time() - before
            tables[("right", "wrong")[is_wrong]][drawn.kind, report.verdict] += 1
            expected = "failed" if is_wrong else "passed"
            if args.show and report.verdict != expected:
                print(f"seed {seed}, expected {expected}: {drawn.name}\n{report}", flush=True)
    for title, counts in tables.items():
        verdicts = ["passed", "failed", "not decidable here"]
        print(f"\n{title} functions   {'passed':>8} {'failed':>8} {'not decidable':>14}")
        for kind in dict.fromkeys(kind for kind, _ in counts if kind != "-"):
            print(f"{kind:24}" + "".join(f"{counts[kind, v]:9}" for v in verdicts))
        sums = [sum(n for (_, verdict), n in counts.items() if verdict == v) for v in verdicts]
        share = 100 * sums[2] / max(1, sum(sums))
        print(
            f"{'together':24}" + "".join(f"{n:9}" for n in sums) + f"   ({share:.1f} % not decided)"
        )
    shares = ", ".join(f"{kind} {n:.0f}" for kind, n in seconds.most_common())
    print(f"{time.perf_counter() - start:.0f} s; of processor time: {shares}")


if __name__ == "__main__":
    main()
