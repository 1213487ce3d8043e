"""Wrong calls of every public function of ops, nn, optim and engine, generated from right ones.

Each right call has one thing in it changed: the shape, the type, the order or the values of an
argument, its being there, or an option. It then either raises in words of ours, which name the
function, or gives what `numpy_words.py` says that it has to give. Words are ours if they are raised
by a `raise` of the package; whatever else escapes is NumPy's or Python's.

    python tests/test_wrong_calls.py 5000     prints the table
"""

import linecache
import math
import sys
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cupy_stand_in
import numpy as np
import numpy_words as words
import pytest

from tinymixer import nn, ops, optim
from tinymixer.engine import Function, Tensor
from tinymixer.ops import primitives as p

PACKAGE = Path(ops.__file__).parents[1].as_posix()
S, B, C, D_S, D_C, K, E = 7, 3, 5, 11, 13, 17, 2
H, W = 4, 6


@dataclass
class Call:
    """A right call: make(**options)(*arrays) is oracle(*arrays, **options)."""

    name: str
    make: object
    arrays: list
    oracle: object
    options: dict = field(default_factory=dict)
    fixed: tuple = ()  # places of arrays that are no Tensors


def call_of_function(f, oracle, *arrays, fixed=(), **options):
    return Call(f.__name__, f, list(arrays), oracle, options, fixed)


def normal(*shape):
    return np.random.default_rng(shape or 1).standard_normal(shape)


def positive(*shape):
    return np.abs(normal(*shape)) + 0.5


def right_calls():
    """One right call of each function at least."""
    grid, f = normal(H, W, B, 12), call_of_function
    token = normal(S, B, C), normal(D_S, S), normal(D_S), normal(S, D_S), normal(S)
    channel = normal(S, B, C), normal(C, D_C), normal(D_C), normal(D_C, C), normal(C)
    gamma, beta = normal(12), normal(12)
    q = positive(B, K) / positive(B, K).sum(-1, keepdims=True)
    order = np.array([0, 2, 3, 6, 2, 5])
    yield f(ops.ChannelLinear, words.channel_linear, *channel[:3])
    yield f(ops.ChannelLinear, words.channel_linear, *channel[:2])
    yield f(ops.TokenLinear, words.token_linear, *token[:3])
    yield f(ops.TokenMLP, words.token_mlp, *token, form="tanh")
    yield f(ops.ChannelMLP, words.channel_mlp, *channel, form="erf")
    yield f(ops.GELU, words.gelu, token[0], form="tanh")
    yield f(ops.ReLU, lambda x: np.maximum(x, 0), token[0])
    yield f(ops.Softmax, words.softmax, token[0])
    yield f(ops.LayerNorm, words.norm(-1, None, 1e-6), grid, gamma, beta, eps=1e-6)
    yield f(ops.GroupNorm, words.norm((0, 1, 3), 4, 1e-5), grid, gamma, beta, eps=1e-3)
    yield f(ops.BatchNorm, words.norm((0, 1, 2), 4, 1e-5), grid, gamma, beta, eps=1e-3)
    smoothed = {"label_smoothing": 0.1, "ignore": None}
    yield f(ops.SoftmaxCrossEntropy, words.cross_entropy, normal(B, K), q, fixed=(1,), **smoothed)
    some = np.arange(B)
    yield f(ops.SoftmaxCrossEntropy, words.cross_entropy, normal(B, K), some, fixed=(1,), ignore=2)
    yield f(ops.SplitAttention, words.split_attention, normal(B, 2 * C), token[0], -token[0])
    last = np.array([0, 2, 1, 1, 0, 2, 2])
    yield f(ops.Load, words.load, normal(S, B), positive(S, B), last, fixed=(2,), sigma=0.5)
    yield f(ops.Imbalance, words.imbalance, positive(C))
    keep = normal(S, B, C) > 0
    yield f(ops.Dropout, words.dropout, token[0], keep, fixed=(1,), rate=0.3)
    rows = np.array([5, 0, 3])
    yield f(ops.Dispatch, words.dispatch, normal(S, C), rows, fixed=(1,), axis=0)
    yield f(ops.Dispatch, words.dispatch, normal(C, S), rows, fixed=(1,), axis=1)
    answers = normal(4, C), normal(2, C)
    yield f(ops.Combine, words.combine, positive(S, 2), *answers, order, fixed=(3,), axis=0)
    yield f(ops.Patchify, words.patchify, normal(B, 8, 12, 3), patch_size=4)
    yield f(ops.Unfold, words.unfold, grid, kernel=3, stride=2, padding=1)
    yield f(ops.SwapSegments, words.swap_segments, grid, axis=0)
    yield f(ops.Shift, words.shift, grid, step=1, axis=0, mode="zero")
    yield f(ops.AxialShift, words.axial_shift, grid, axis=1, shift_size=3, dilation=1)
    yield f(ops.Regions, words.regions, grid, p=3, axis=0, padding="circular")
    yield f(ops.Unregions, words.unregions, grid, p=2, axis=1, n=11)
    yield f(ops.Resample, words.resample, grid, normal(3, H), normal(8, W), fixed=(1, 2))
    yield f(ops.Raft, words.raft, grid, size=2, axis=0)
    yield f(ops.Unraft, words.unraft, grid, size=2, axis=1)
    for op, oracle in (
        (p.Add, np.add),
        (p.Subtract, np.subtract),
        (p.Multiply, np.multiply),
        (p.Divide, np.divide),
    ):
        yield f(op, lambda x, y, oracle=oracle: oracle(x, y), normal(S, B, C), positive(B, 1))
    yield f(p.MatMul, lambda x, y: np.einsum("...ij,...jk->...ik", x, y), *channel[:2])
    for op, oracle in ((p.Exp, np.exp), (p.Log, np.log), (p.Sqrt, np.sqrt), (p.Tanh, np.tanh)):
        yield f(op, lambda x, oracle=oracle: oracle(x), positive(S, B))
    yield f(p.Power, words.power, positive(S, B), n=3)
    for op, oracle in ((p.Sum, np.sum), (p.Mean, np.mean)):
        yield f(op, lambda x, axis, oracle=oracle: oracle(x, axis), normal(S, B), axis=1)
    yield Call(
        "Reshape",
        lambda shape: p.Reshape(shape),
        [normal(S, B)],
        lambda x, shape: np.reshape(x, shape),
        {"shape": (B, S)},
    )
    yield Call(
        "Transpose",
        lambda axes: p.Transpose(axes),
        [normal(S, B)],
        lambda x, axes: np.transpose(x, axes or None),
        {"axes": (1, 0)},
    )
    yield f(p.Index, lambda x, key: x[key], normal(S, B), key=2)
    yield Call("Tensor", lambda: Tensor, [normal(S, B)], np.asarray)
    yield Call(
        "backward", lambda: backward, [normal(S, B), normal(S, B)], gradient_words, fixed=(0, 1)
    )
    yield from layers()
    yield from optimizers()


def backward(x, dy):
    """The gradient of 1 x with respect to x, given dy."""
    leaf = Tensor(x)
    (leaf * 1.0).backward(dy)
    return leaf.grad


def gradient_words(x, dy):
    x, dy = np.asarray(x), np.asarray(dy)
    words.need(x.shape == dy.shape, x.dtype == dy.dtype)
    return dy


def layers():
    """Layers, whose weights are drawn; the oracle takes them from the layer."""
    rng = np.random.default_rng(3)

    def layer(make, oracle, x, **sizes):
        kept = {}

        def made(**options):
            module = make(**options, rng=np.random.default_rng(3))
            kept["weights"] = [w.data.astype(float) for w in module.parameters()]
            return module

        return Call(make.__name__, made, [x], lambda x, **_: oracle(x, *kept["weights"]), sizes)

    x = rng.standard_normal((S, B, C)).astype(np.float32)
    yield layer(nn.ChannelLinear, words.channel_linear, x, C=C, D=D_C)
    yield layer(nn.TokenLinear, words.token_linear, x, S=S, D=D_S)
    yield layer(nn.TokenMLP, lambda x, *w: words.token_mlp(x, *w), x, S=S, D_S=D_S, gelu="tanh")
    yield layer(nn.ChannelMLP, lambda x, *w: words.channel_mlp(x, *w), x, C=C, D_C=D_C, gelu="tanh")
    images = rng.standard_normal((B, 8, 12, 3)).astype(np.float32)

    def embed(x, W, b):
        return words.channel_linear(words.patchify(x, math.isqrt(len(W) // 3)), W, b)

    yield layer(nn.PatchEmbed, embed, images, patch_size=4, C=C)
    ones, zeros = np.ones(C), np.zeros(C)
    norm = words.norm
    yield Call(
        "LayerNorm",
        nn.LayerNorm,
        [x],
        lambda x, C, eps: norm(-1, None, 0)(x, ones, zeros, eps),
        {"C": C, "eps": 1e-6},
    )
    grid = rng.standard_normal((H, W, B, C)).astype(np.float32)
    yield Call(
        "GroupNorm",
        nn.GroupNorm,
        [grid],
        lambda x, C, eps: norm((0, 1, 3), 4, 0)(x, ones, zeros, eps),
        {"C": C, "eps": 1e-5},
    )

    def evaluated(x, C, eps, momentum):
        words.need(x.shape[-1] == C, 0 <= eps < math.inf, 0 <= momentum <= 1, x.ndim == 4)
        return x / math.sqrt(1 + eps)

    yield Call("BatchNorm", nn.BatchNorm, [grid], evaluated, {"C": C, "eps": 1e-5, "momentum": 0.1})


def optimizers():
    """Functions on flat arrays, each made one that returns what it changes."""
    w, g, decay = normal(19), normal(18, 1)[:1].repeat(19) + np.arange(19), np.ones(19)

    def sgd(momentum, weight_decay, lr, step):
        def run(w, g, decay):
            w = w.copy() if isinstance(w, np.ndarray) else w
            optim.SGD(decay, momentum=momentum, weight_decay=weight_decay).step(w, g, lr, step)
            return w

        return run

    def sgd_words(w, g, decay, momentum, weight_decay, lr, step):
        words.need(w.shape == g.shape == decay.shape, w.ndim == 1, 0 <= momentum < 1, lr >= 0)
        words.need(w.dtype == g.dtype == decay.dtype, step >= 0, weight_decay >= 0)
        words.need(lr < math.inf, weight_decay < math.inf)
        return w - lr * (g + weight_decay * decay * w)

    options = {"momentum": 0.9, "weight_decay": 0.1, "lr": 0.01, "step": 0}
    yield Call("SGD", sgd, [w, g, decay], sgd_words, options, (0, 1, 2))

    def adamw(eps, weight_decay, lr, step, betas):
        def run(w, g, decay):
            w = w.copy() if isinstance(w, np.ndarray) else w
            optimizer = optim.AdamW(decay, eps=eps, weight_decay=weight_decay, betas=betas)
            optimizer.step(w, g, lr, step)
            return w

        return run

    def adamw_words(w, g, decay, eps, weight_decay, lr, step, betas):
        words.need(w.shape == g.shape == decay.shape, w.ndim == 1, eps > 0, lr >= 0)
        words.need(w.dtype == g.dtype == decay.dtype, step >= 0, weight_decay >= 0)
        words.need(eps < math.inf, lr < math.inf, weight_decay < math.inf, len(betas) == 2)
        b1, b2 = betas
        words.need(0 <= b1 < 1, 0 <= b2 < 1)
        m, v = (1 - b1) * g / (1 - b1 ** (step + 1)), (1 - b2) * g * g / (1 - b2 ** (step + 1))
        w = w - lr * m / (np.sqrt(v) + eps)
        return w - lr * weight_decay * decay * w

    options = {"eps": 1e-8, "weight_decay": 0.1, "lr": 0.01, "step": 0, "betas": (0.9, 0.99)}
    yield Call("AdamW", adamw, [w, g, decay], adamw_words, options, (0, 1, 2))

    def clip(max_norm):
        def run(g):
            g = g.copy() if isinstance(g, np.ndarray) else g
            optim.clip_by_global_norm(g, max_norm)
            return g

        return run

    def clip_words(g, max_norm):
        words.need(0 <= max_norm < math.inf, g.ndim == 1)
        length = math.sqrt(sum(x * x for x in g.tolist()))
        return g * (max_norm / length) if max_norm and length > max_norm else g

    yield Call("clip_by_global_norm", clip, [g], clip_words, {"max_norm": 1.5}, (0,))

    def average(decay):
        def run(a, w):
            a = a.copy() if isinstance(a, np.ndarray) else a
            optim.update_average(a, w, decay)
            return a

        return run

    def average_words(a, w, decay):
        words.need(a.shape == w.shape, a.dtype == w.dtype, a.ndim == 1, 0 <= decay <= 1)
        return decay * a + (1 - decay) * w

    yield Call("update_average", average, [w, g], average_words, {"decay": 0.9}, (0, 1))

    def gather():
        def run(a, b):
            out = np.zeros(21)
            optim.gather(out, [a, b], np.array([0, 15, 21]))
            return out

        return run

    def gather_words(a, b):
        words.need(a.dtype == b.dtype == np.float64, a.size == 15, b.size == 6)
        return np.concatenate([np.ravel(np.asarray(a)), np.ravel(np.asarray(b))])

    yield Call("gather", gather, [normal(3, 5), normal(6)], gather_words, {}, (0, 1))

    def rate(**options):
        return lambda: np.float64(optim.learning_rate(**options))

    def rate_words(step, base, final, warmup, total, schedule):
        for x in (step, base, final, warmup, total):
            words.need(0 <= x < math.inf, isinstance(x, int | float))
        words.need(schedule == "linear", isinstance(step, int))
        if step < warmup:
            return np.float64(base * (step + 1) / (warmup + 1))
        return np.float64(base + (final - base) * min(1, (step - warmup) / max(1, total - warmup)))

    options = {"step": 7, "base": 0.1, "final": 0.01, "warmup": 3, "total": 20}
    yield Call("learning_rate", rate, [], rate_words, {**options, "schedule": "linear"})


# One thing changed --------------------------------------------------------------------------------

OPTIONS = [
    -1,
    0,
    1,
    2,
    5,
    1.5,
    -0.5,
    math.nan,
    math.inf,
    -math.inf,
    "abc",
    "",
    None,
    [],
    (1,),
    (0, 0),
    True,
    10**6,
    10**30,
    [1, 2],
    {},
    object(),
    1j,
    np.array([1, 2]),
]
NO_ARRAYS = [None, "abc", [], {}, object(), [[1.0], [1.0, 2.0]], b"abc", 3.0, 2, (1.0, 2.0), abs]


def changed_array(x, rng):
    """x with something wrong with it, and in words what."""
    shape, n = x.shape, x.ndim
    axis = int(rng.integers(n)) if n else 0
    flat = x.astype(x.dtype)
    ways = {
        "an axis more in front": lambda: x[None],
        "an axis more behind": lambda: x[..., None],
        "an axis less": lambda: x.take(0, axis),
        "one longer": lambda: np.concatenate([x, x.take([0], axis)], axis),
        "one shorter": lambda: x.take(range(shape[axis] - 1), axis),
        "an axis of 1": lambda: x.take([0], axis),
        "an axis of 0": lambda: x.take(range(0), axis),
        "scalar": lambda: x.reshape(-1)[0:1].reshape(()),
        "shape (1,)": lambda: x.reshape(-1)[:1],
        "shape (N, 1)": lambda: x.reshape(-1, 1),
        "flat": lambda: x.reshape(-1),
        "axes reversed": lambda: x.T,
        "int64": lambda: (x * 3).astype(np.int64),
        "uint8": lambda: np.abs(x * 3).astype(np.uint8),
        "bool": lambda: x > 0,
        "objects": lambda: x.astype(object),
        "strings": lambda: x.astype(str),
        "complex": lambda: x + 0j,
        "float32": lambda: x.astype(np.float32),
        "float64": lambda: x.astype(np.float64),
        "a list": lambda: x.tolist(),
        "a matrix": lambda: x.reshape(-1, 1).view(np.matrix),
        "masked": lambda: np.ma.masked_array(x),
        "on the device": lambda: cupy_stand_in.asarray(x),
        "negative": lambda: -np.abs(flat) - 1,
        "large": lambda: np.abs(flat) + 1000,
        "twice": lambda: x.take([0] * shape[0], 0),
        "no array": lambda: NO_ARRAYS[rng.integers(len(NO_ARRAYS))],
        "no number": lambda: np.where(np.arange(x.size).reshape(shape) == 0, np.nan, x),
        "infinite": lambda: np.where(np.arange(x.size).reshape(shape) == 0, np.inf, x),
    }
    while True:
        name = list(ways)[rng.integers(len(ways))]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ways[name](), name
        except (ValueError, IndexError, TypeError):
            continue


def wrong_call(call, rng):
    """(options, arrays, what is wrong) of a call with one thing changed."""
    options, arrays = dict(call.options), list(call.arrays)
    kinds = ["array"] * 5 * bool(arrays) + ["option"] * 2 * bool(options) + ["order"] * bool(arrays)
    kind = kinds[rng.integers(len(kinds))]
    if kind == "option":
        name = list(options)[rng.integers(len(options))]
        options[name] = OPTIONS[rng.integers(len(OPTIONS))]
        return options, arrays, f"{name}={options[name]!r}"
    i = int(rng.integers(len(arrays)))
    if kind == "order" and call.name not in (
        "Tensor",
        "backward",
        "gather",
        "clip_by_global_norm",
        "SGD",
        "AdamW",
        "update_average",
    ):
        what = int(rng.integers(3))
        if what == 0 and len(arrays) > 1 and call.name != "ChannelLinear":
            arrays.pop()
            return options, arrays, "the last argument left out"
        if what == 1 and isinstance(call.make, type) and issubclass(call.make, Function):
            arrays.append(arrays[-1])
            return options, arrays, "the last argument twice"
        j = int(rng.integers(len(arrays)))
        arrays[i], arrays[j] = arrays[j], arrays[i]
        return options, arrays, f"arguments {i} and {j} exchanged"
    arrays[i], what = changed_array(arrays[i], rng)
    return options, arrays, f"argument {i}: {what}"


def outcome(call, options, arrays):
    """("refused" | "right" | "silent" | "not our words", what was said) of a call."""
    given = [
        Tensor(x) if type(x) is np.ndarray and x.dtype.kind == "f" and i not in call.fixed else x
        for i, x in enumerate(arrays)
    ]
    if call.name == "Tensor":
        given = arrays
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = call.make(**options)(*given)
            if isinstance(y, Tensor) and y.creator is not None and y.data.dtype.kind == "f":
                dy = np.random.default_rng(1).standard_normal(y.shape)
                dy = np.asarray(dy, y.dtype)
                y.backward(dy if isinstance(y.data, np.ndarray) else cupy_stand_in.asarray(dy))
    except Exception as error:
        return judged(call, error)
    found = y.data if isinstance(y, Tensor) else y
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = [host(x) for x in arrays]
            wide = [np.asarray(x) if isinstance(x, int | float | list) else x for x in plain]
            wide = [x.astype(float) if x.dtype.kind == "f" else x for x in wide]
            narrow = call.name in ("SGD", "AdamW", "update_average", "gather", "Tensor", "backward")
            expected = np.asarray(call.oracle(*(plain if narrow else wide), **options))
            found = np.asarray(host(found))
            if found.shape != expected.shape:
                return "silent", f"shape {found.shape}, not {expected.shape}"
            near = 1e-3 if found.dtype != np.float64 or call.make in nn.__dict__.values() else 1e-8
            scale = np.abs(expected[np.isfinite(expected)]).max(initial=1e-30)
            same = np.isclose(found, expected, rtol=near, atol=near * scale, equal_nan=True)
            if not same.all():
                return "silent", "another result"
            if call.make not in vars(nn).values() and not slope_is_right(call, options, given):
                return "silent", "another gradient"
    except Exception as error:
        return "silent", f"the oracle says {type(error).__name__}: {error}"
    return "right", ""


def slope_is_right(call, options, tensors):
    """Whether Σ dy y rises along a random direction as the gradients say, by the oracle.

    Central differences of step 1e-5 leave 1e-10 of truncation and 1e-11 of rounding, times the
    size of what is added up; an error of broadcasting or of a missing factor is of the size itself.
    Where numbers are large, not finite or of another type, nothing is said.
    """
    is_leaf = [isinstance(x, Tensor) and x.grad is not None for x in tensors]
    leaves = [x for x, leaf in zip(tensors, is_leaf, strict=True) if leaf]
    values = [x.data if isinstance(x, Tensor) else x for x in tensors]
    if not leaves or not all(
        type(x) is np.ndarray and (x.dtype == np.float64 or x.dtype.kind in "biu") for x in values
    ):
        return True
    largest = max(np.abs(x.data).max(initial=0) for x in leaves)
    if call.name in ("ReLU", "backward") or not largest < 9:
        return True
    rng = np.random.default_rng(2)
    v = [
        rng.standard_normal(x.shape) if leaf else 0 for x, leaf in zip(values, is_leaf, strict=True)
    ]
    h = 1e-5

    def along(h):
        moved = [x + h * d if x.dtype.kind == "f" else x for x, d in zip(values, v, strict=True)]
        y = np.asarray(call.oracle(*moved, **options))
        return (np.random.default_rng(1).standard_normal(y.shape) * y).sum()

    slope = (along(h) - along(-h)) / (2 * h)
    terms = [
        (x.grad * d).sum()
        for x, d in zip(tensors, v, strict=True)
        if any(x is leaf for leaf in leaves)
    ]
    size = 1 + sum(map(abs, terms)) + abs(slope)
    return not np.isfinite(slope) or abs(sum(terms) - slope) < 1e-5 * size


def host(x):
    return x.get() if isinstance(x, cupy_stand_in.ndarray) else x


def judged(call, error):
    """Whether an error is in our words."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno).strip()
    said = f"{type(error).__name__}: {error}"
    ours = frame.filename.startswith(PACKAGE) and line.startswith("raise ")
    kinds = (ValueError, TypeError, *[IndexError] * (call.name == "Index"))
    if ours and isinstance(error, kinds) and len(str(error)) > 20:
        return "refused", said
    return "not our words", f"{said} [{Path(frame.filename).name}:{frame.lineno} {line}]"


def table(n):
    """(Counter of (function, outcome), the faults in words) of n wrong calls."""
    calls, found, faults = list(right_calls()), Counter(), []
    for i in range(n):
        call = calls[i % len(calls)]
        options, arrays, what = wrong_call(call, np.random.default_rng(i))
        result, said = outcome(call, options, arrays)
        found[call.name, result] += 1
        if result not in ("refused", "right"):
            faults.append(f"#{i} {call.name} {what}: {result}: {said}")
    return found, faults


@pytest.mark.parametrize("call", list(right_calls()), ids=lambda call: call.name)
def test_the_right_calls_are_right(call):
    assert outcome(call, call.options, call.arrays) == ("right", "")


@pytest.mark.parametrize("n", [500, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_wrong_call_is_refused_in_our_words_or_gives_a_right_result(n):
    _, faults = table(n)
    assert faults == []


if __name__ == "__main__":
    found, faults = table(int(sys.argv[1]))
    kinds = "refused", "right", "silent", "not our words"
    print(f"{'function':22}{'calls':>8}" + "".join(f"{kind:>15}" for kind in kinds))
    for name in dict.fromkeys(name for name, _ in found):
        counts = [found[name, kind] for kind in kinds]
        print(f"{name:22}{sum(counts):8}" + "".join(f"{count:15}" for count in counts))
    sums = [sum(found[name, kind] for name in {name for name, _ in found}) for kind in kinds]
    print(f"{'total':22}{sum(sums):8}" + "".join(f"{count:15}" for count in sums))
    print(*faults, sep="\n")
