"""Floor 2. What the Functions are checked on: a new one is covered by writing one line here.

Sizes are different primes, so that a swapped axis cannot hide, and each Function has one line
with a single element. The values are drawn once and are the same in every run.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from tinymixer.backend import Array
from tinymixer.engine import Function
from tinymixer.gradcheck.checks import check_function
from tinymixer.gradcheck.report import Report
from tinymixer.ops import (
    GELU,
    AxialShift,
    BatchNorm,
    ChannelLinear,
    ChannelMLP,
    Combine,
    Dispatch,
    Dropout,
    GroupNorm,
    Imbalance,
    LayerNorm,
    Load,
    Patchify,
    Raft,
    Regions,
    ReLU,
    Resample,
    Shift,
    Softmax,
    SoftmaxCrossEntropy,
    SplitAttention,
    SwapSegments,
    TokenLinear,
    TokenMLP,
    Unfold,
    Unraft,
    Unregions,
)
from tinymixer.ops.primitives import (
    Add,
    Divide,
    Exp,
    Index,
    Log,
    MatMul,
    Mean,
    Multiply,
    Power,
    Reshape,
    Sqrt,
    Subtract,
    Sum,
    Tanh,
    Transpose,
)

S, B, C, D_S, D_C = 7, 3, 5, 11, 13
H, W = 7, 4  # of a token grid,
G = 2, 3  # with few images and channels: nearly all of its Functions only move what is there
K = 17  # classes

_rng = np.random.default_rng(0)


class Case:
    """One Function, with its options, on one set of inputs; `constants` get no gradient."""

    def __init__(self, op: Function, *arrays: Array, constants: Collection[str] = ()):
        self.op, self.arrays, self.constants = op, arrays, constants

    @property
    def name(self) -> str:
        """The Function, its options and its shapes: `Sum(axis=0) (7, 3, 5)`."""
        options = ", ".join(f"{k}={v}" for k, v in vars(self.op).items())
        shapes = " ".join(str(np.shape(x)) for x in self.arrays)
        return f"{type(self.op).__name__}({options}) {shapes}"

    def check(self) -> Report:
        report = check_function(self.op, *self.arrays, constants=self.constants)
        return replace(report, name=self.name)


def normal(*shape: int) -> Array:
    return _rng.standard_normal(shape)


def positive(*shape: int) -> Array:
    """In (0.5, 2): away from where log, square root and division stop being smooth."""
    return _rng.uniform(0.5, 2, shape)


def off_zero(*shape: int) -> Array:
    """Of either sign, at least 0.5 away from 0, where a ReLU has its kink."""
    x = normal(*shape)
    return x + 0.5 * np.sign(x)


def keep(*shape: int) -> Array:
    mask = _rng.random(shape) < 0.7
    mask.flat[0] = True
    return mask


def labels(count: int) -> Array:
    return _rng.integers(0, K, count)


def partly(numbers: Array, *shape: int) -> Array:
    """The class numbers, every third of them 255: to be ignored."""
    numbers[::3] = 255
    return numbers.reshape(shape)


def distribution(*shape: int) -> Array:
    p = positive(*shape)
    return p / p.sum(-1, keepdims=True)


def mlp(*x: int, n: int, hidden: int, tokens: bool) -> tuple[Any, ...]:
    """x, W1, b1, W2, b2 of an MLP that mixes n tokens, or n channels."""
    W1, W2 = normal(n, hidden), normal(hidden, n)
    b1, b2 = normal(hidden), normal(n)
    return (
        (normal(*x), W1.T.copy(), b1, W2.T.copy(), b2) if tokens else (normal(*x), W1, b1, W2, b2)
    )


ORDER = np.array([0, 2, 3, 6, 2, 5, 3])  # rows of expert 0 (four), 1 (two), 2; rows 1, 4 of none

CASES = [
    Case(ChannelLinear(), normal(S, B, C), normal(C, D_C), normal(D_C)),
    Case(ChannelLinear(), normal(B, C), normal(C, K), normal(K)),
    Case(ChannelLinear(), normal(1, 1, 1), normal(1, 1), normal(1)),
    Case(ChannelLinear(), normal(S, B, C), normal(C, D_C)),
    Case(TokenLinear(), normal(S, B, C), normal(D_S, S), normal(D_S)),
    Case(TokenLinear(), normal(1, 1, 1), normal(1, 1), normal(1)),
    Case(TokenMLP("tanh"), *mlp(S, B, C, n=S, hidden=D_S, tokens=True)),
    Case(TokenMLP("erf"), *mlp(S, B, C, n=S, hidden=D_S, tokens=True)),
    Case(TokenMLP(), *mlp(1, 1, 1, n=1, hidden=1, tokens=True)),
    Case(ChannelMLP("tanh"), *mlp(S, B, C, n=C, hidden=D_C, tokens=False)),
    Case(ChannelMLP("erf"), *mlp(S, B, C, n=C, hidden=D_C, tokens=False)),
    Case(ChannelMLP(), *mlp(1, 1, 1, n=1, hidden=1, tokens=False)),
    Case(GELU("tanh"), normal(S, B, C)),
    Case(GELU("erf"), 2 * normal(S, B, C)),
    Case(GELU(), normal(1)),
    Case(ReLU(), off_zero(S, B, C)),
    Case(ReLU(), off_zero(1)),
    Case(LayerNorm(), normal(S, B, C), normal(C), normal(C)),
    Case(LayerNorm(eps=0.1), 0.1 * normal(B, C), normal(C), normal(C)),
    Case(LayerNorm(), normal(1, 1, 1), normal(1), normal(1)),
    Case(GroupNorm(), normal(7, 2, B, C), normal(C), normal(C)),
    Case(GroupNorm(), normal(1, 1, 1, 1), normal(1), normal(1)),
    Case(BatchNorm(), normal(7, 2, B, C), normal(C), normal(C)),
    Case(BatchNorm(), normal(1, 1, 1, 1), normal(1), normal(1)),
    Case(SoftmaxCrossEntropy(), normal(B, K), labels(B)),
    Case(SoftmaxCrossEntropy(label_smoothing=0.1), normal(B, K), labels(B)),
    Case(SoftmaxCrossEntropy(0.1), normal(B, K), distribution(B, K), constants=["targets"]),
    Case(SoftmaxCrossEntropy(), normal(1, 1), np.zeros(1, int)),
    Case(SoftmaxCrossEntropy(ignore=K), normal(2, B, K), labels(2 * B).reshape(2, B)),
    Case(SoftmaxCrossEntropy(0.1, ignore=255), normal(2, B, K), partly(labels(2 * B), 2, B)),
    Case(SplitAttention(), normal(B, 3 * C), *(normal(2, S, B, C) for _ in range(3))),
    Case(SplitAttention(), normal(B, 2 * C), normal(S, B, C), normal(S, B, C)),
    Case(SplitAttention(), normal(1, 1), normal(1, 1, 1)),
    Case(Dropout(rate=0.3), normal(S, B, C), keep(S, B, C)),
    Case(Dropout(rate=0.3), normal(S, B, C), keep(B, 1)),
    Case(Dropout(rate=0.3), normal(1), keep(1)),
    Case(Shift(2, axis=0), normal(H, W, *G)),
    Case(Shift(-1, axis=1), normal(H, W, *G)),
    Case(Shift(3, axis=0, mode="zero"), normal(H, W, *G)),
    Case(Shift(-6, axis=1, mode="zero"), normal(H, W, *G)),
    Case(Shift(1, axis=0), normal(1, 1, 1, 1)),
    Case(Regions(4, axis=0), normal(H, W, *G)),
    Case(Regions(2, axis=1), normal(H, W, *G)),
    Case(Regions(3, axis=1, padding="replicate"), normal(H, W, *G)),
    Case(Regions(5, axis=0, padding="zero"), normal(H, W, *G)),
    Case(Regions(1, axis=0), normal(1, 1, 1, 1)),
    Case(Unregions(4, axis=0, n=H), normal(2, W, 2, 4 * 3)),
    Case(Unregions(2, axis=1, n=W), normal(H, 2, 2, 2 * 3)),
    Case(Unregions(1, axis=1, n=1), normal(1, 1, 1, 1)),
    Case(Patchify(2), normal(B, 2 * 2, 5 * 2, 3)),
    Case(Patchify(1), normal(1, 1, 1, 1)),
    Case(Unfold(kernel=3, stride=2, padding=1), normal(7, 2, B, C)),
    Case(Unfold(kernel=2, stride=3), normal(7, 2, B, C)),
    Case(Unfold(kernel=2, stride=2, padding=(0, 1)), normal(7, 2, B, C)),
    Case(Unfold(kernel=1, stride=1), normal(1, 1, 1, 1)),
    Case(AxialShift(axis=0, shift_size=3), normal(5, 3, 2, 7)),
    Case(AxialShift(axis=1, shift_size=5), normal(2, 5, 3, 7)),
    Case(AxialShift(axis=1, shift_size=3, dilation=2, padding="circular"), normal(2, 5, 3, 7)),
    Case(AxialShift(axis=0, shift_size=5, dilation=3, padding="reflect"), normal(3, 2, 2, 11)),
    Case(AxialShift(axis=1, shift_size=5, dilation=2, padding="replicate"), normal(2, 3, 2, 11)),
    Case(AxialShift(axis=0, shift_size=3), normal(1, 1, 1, 1)),
    Case(Resample(), normal(H, W, *G), normal(13, H), normal(2, W), constants=["A_h", "A_w"]),
    Case(Resample(), normal(1, 1, 1, 1), normal(1, 1), normal(1, 1), constants=["A_h", "A_w"]),
    Case(Raft(size=2, axis=0), normal(H, W, 2, 2 * 3)),
    Case(Raft(size=2, axis=1), normal(H, W, 2, 2 * 3)),
    Case(Raft(1, 0), normal(1, 1, 1, 1)),
    Case(Unraft(size=2, axis=0), normal(2 * H, W, *G)),
    Case(Unraft(size=2, axis=1), normal(2 * W, H, *G)),
    Case(Unraft(1, 0), normal(1, 1, 1, 1)),
    Case(SwapSegments(axis=0), normal(3, 2, C, 6)),
    Case(SwapSegments(axis=1), normal(3, 2, C, 6)),
    Case(SwapSegments(0), normal(1, 1, 1, 1)),
    Case(Softmax(), normal(S, B, C)),
    Case(Softmax(), normal(1, 1)),
    Case(Dispatch(), normal(S, C), np.array([5, 0, 3])),
    Case(Dispatch(axis=1), normal(C, S), np.array([5, 0, 3])),
    Case(Dispatch(), normal(1, 1), np.zeros(1, int)),
    Case(Combine(), positive(S, B), normal(4, C), normal(2, C), normal(1, C), ORDER),
    Case(Combine(axis=1), positive(S, B), normal(C, 4), normal(C, 2), normal(C, 1), ORDER),
    Case(Combine(), positive(1, 1), normal(1, 1), np.zeros(1, int)),
    Case(Load(sigma=0.5), normal(S, B), normal(S, B), np.array([0, 2, 1, 1, 0, 2, 2])),
    Case(Load(sigma=1.0), normal(1, 1), normal(1, 1), np.zeros(1, int)),
    Case(Imbalance(), positive(C)),
    Case(Imbalance(), positive(1)),
    Case(Add(), normal(S, B, C), normal(B, 1)),
    Case(Add(), normal(1), normal(1)),
    Case(Subtract(), normal(B, 1), normal(S, B, C)),
    Case(Subtract(), normal(1), normal(1)),
    Case(Multiply(), normal(S, B, C), normal(B, 1)),
    Case(Multiply(), normal(S, 1, C), normal(C)),
    Case(Multiply(), normal(1), normal(1)),
    Case(Divide(), normal(S, B, C), positive(B, 1)),
    Case(Divide(), normal(C), positive(S, B, C)),
    Case(Divide(), normal(1), positive(1)),
    Case(MatMul(), normal(S, C), normal(C, D_C)),
    Case(MatMul(), normal(B, S, C), normal(C, D_C)),
    Case(MatMul(), normal(S, C), normal(B, C, D_C)),
    Case(MatMul(), normal(1, 1), normal(1, 1)),
    Case(Exp(), normal(S, B, C)),
    Case(Exp(), normal(1)),
    Case(Log(), positive(S, B, C)),
    Case(Log(), positive(1)),
    Case(Power(3), normal(S, B, C)),
    Case(Power(-2), positive(S, B, C)),
    Case(Power(0.7), positive(S, B, C)),
    Case(Power(2), normal(1)),
    Case(Sqrt(), positive(S, B, C)),
    Case(Sqrt(), positive(1)),
    Case(Tanh(), normal(S, B, C)),
    Case(Tanh(), normal(1)),
    Case(Sum(), normal(S, B, C)),
    Case(Sum(axis=1), normal(S, B, C)),
    Case(Sum(axis=(0, 2), keepdims=True), normal(S, B, C)),
    Case(Sum(axis=-1), normal(1, 1)),
    Case(Mean(), normal(S, B, C)),
    Case(Mean(axis=0), normal(S, B, C)),
    Case(Mean(axis=(0, -1), keepdims=True), normal(S, B, C)),
    Case(Mean(axis=0), normal(1, 1)),
    Case(Reshape(C, -1), normal(S, B, C)),
    Case(Reshape(1, 1), normal(1)),
    Case(Transpose(1, 2, 0), normal(S, B, C)),
    Case(Transpose(-1, 0, 1), normal(S, B, C)),
    Case(Transpose(), normal(S, B, C)),
    Case(Transpose(), normal(1, 1)),
    Case(Index((slice(None, None, 2), 1)), normal(S, B, C)),
    Case(Index([2, 0, 2, 2]), normal(S, B, C)),
    Case(Index(0), normal(1)),
]
