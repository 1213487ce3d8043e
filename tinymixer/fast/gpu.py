"""Twins for CuPy: what lies between the matrix products of a training step, in kernels of our own.

A GPU multiplies faster than its memory delivers, and each launch costs the CPU some microseconds.
So what counts is how often an array passes through memory, and in how many launches: a bias, GELU
and its derivative, and the sum that is a bias's gradient are one pass here. `kernels.cu` holds the
kernels, compiled on first use; every product is one of two matrices, by CuPy, in the
`backend.precision` that is set.

The order of every sum depends on shapes alone: the same input gives the same bits.

The twins compute in float32. Given any other precision they turn into their reference.
"""

import math
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinymixer import data, ops, optim
from tinymixer.backend import Array, array_module, cuda_module, product
from tinymixer.data import autoaugment
from tinymixer.data.draws import Stream
from tinymixer.fast.table import as_reference, float32_only, twin_of
from tinymixer.ops.linear import check_tokens

SOURCE = Path(__file__).with_name("kernels.cu")
LANES, WARPS = BLOCK = 32, 8  # threads, of every kernel
TALL, WIDE = 128, 4096  # the most that a block takes of a column, and of a row
MOST_IMAGES = 65535  # augmented at once: so far a grid reaches in y
CONSTANTS = {"LANES": LANES, "WARPS": WARPS, "TALL": TALL, "WIDE": WIDE}  # of the source
CONSTANTS |= {stream.name: int(stream) for stream in (Stream.CROP, Stream.FLIP, Stream.AUTO)}
CONSTANTS |= {o.name: int(o) for o in autoaugment.Operation} | {"MOST": autoaugment.MOST}


@cache
def _module(xp: ModuleType) -> Any:
    return cuda_module(xp, SOURCE.read_text("utf-8"), CONSTANTS)


@cache
def _kernel(xp: ModuleType, name: str) -> Any:
    return _module(xp).get_function(name)


def launch(name: str, grid: tuple[int, int], *arguments: Any) -> None:
    """Run a kernel on arrays and NumPy scalars: its parameters, in their order and types."""
    xp = array_module(next(a for a in arguments if not isinstance(a, np.generic)))
    _kernel(xp, name)(grid, BLOCK, arguments)


# Matrices (rows, columns) with a bias of `axis` 0: one of each row, or 1: one of each column. -----

WALKS = ("rows", "columns")


def _walk(x: Array, axis: int) -> tuple[str, tuple[int, int], tuple[np.int32, np.int32]]:
    """How the kernels walk x: "rows" or "columns", the grid, and x's shape as they take it."""
    rows, columns = x.shape
    if axis == 0:
        grid = -(-columns // WIDE), rows
    else:
        grid = -(-columns // LANES), -(-rows // TALL)
    return WALKS[axis], grid, (np.int32(rows), np.int32(columns))


def _gelu(h: Array, b: Array, axis: int, form: str) -> Array:
    """GELU(h + b)."""
    walk, grid, shape = _walk(h, axis)
    a = array_module(h).empty_like(h)
    launch(f"gelu_{walk}", grid, h, b, a, *shape, np.int32(form == "erf"))
    return a


def _gelu_backward(h: Array, b: Array, d: Array, axis: int, form: str) -> Array:
    """d, which is da, becomes dh = da GELU'(h + b); returned are the parts of db."""
    walk, grid, shape = _walk(h, axis)
    parts = _parts(h, grid, axis)
    launch(f"gelu_backward_{walk}", grid, h, b, d, parts, *shape, np.int32(form == "erf"))
    return parts


def _add_bias(y: Array, b: Array, axis: int) -> None:
    """y += b."""
    walk, grid, shape = _walk(y, axis)
    launch(f"add_{walk}", grid, y, b, *shape)


def _sum(x: Array, axis: int) -> Array:
    """The gradient of a bias of `axis`, from that of what it was added to."""
    walk, grid, shape = _walk(x, axis)
    parts = _parts(x, grid, axis)
    launch(f"sum_{walk}", grid, x, parts, *shape)
    return _sum_of_parts(parts)


def _parts(x: Array, grid: tuple[int, int], axis: int) -> Array:
    """Room for one part of each sum along `axis` from each block that shares in it."""
    return array_module(x).empty((grid[axis], x.shape[axis]), np.float32)


def _sum_of_parts(parts: Array) -> Array:
    count, width = parts.shape
    total = array_module(parts).empty(width, np.float32)
    grid = -(-width // LANES), 1
    launch("sum_parts", grid, parts, total, np.int32(count), np.int32(width))
    return total


def _contiguous(x: Array, *shape: int) -> Array:
    return array_module(x).ascontiguousarray(x).reshape(shape)


# The twins ----------------------------------------------------------------------------------------


@twin_of(ops.GELU, "gpu")
class FastGELU(ops.GELU):
    """x as a matrix of one row, whose bias is 0."""

    @float32_only
    def forward(self, x: Array) -> Array:
        X = _contiguous(x, 1, -1)
        zero = array_module(x).zeros(1, np.float32)
        self.save(X, zero)
        return _gelu(X, zero, 0, self.form).reshape(x.shape)

    def backward(self, dy: Array) -> Array:
        X, zero = self.saved
        d = _contiguous(dy, *X.shape).copy()
        _gelu_backward(X, zero, d, 0, self.form)
        return d.reshape(dy.shape)


@twin_of(ops.TokenMLP, "gpu")
class FastTokenMLP(ops.TokenMLP):
    """Kept is the first product without its bias, which backward adds again in passing."""

    @float32_only
    def forward(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
        check_tokens("TokenMLP", x, W1)
        X, b1, b2 = _contiguous(x, len(x), -1), _contiguous(b1, -1), _contiguous(b2, -1)  # (S, B*C)
        h = product(W1, X)  # (D_S, B*C)
        a = _gelu(h, b1, 0, self.form)
        y = product(W2, a)  # (S, B*C)
        _add_bias(y, b2, 0)
        self.save(X, W1, h, b1, a, W2)
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, W1, h, b1, a, W2 = self.saved
        dY = _contiguous(dy, *X.shape)  # (S, B*C)
        dW2 = product(dY, a.T) if self.needs[3] else None  # (S, D_S)
        db2 = _sum(dY, 0) if self.needs[4] else None
        dh = product(W2.T, dY)  # (D_S, B*C)
        parts = _gelu_backward(h, b1, dh, 0, self.form)
        db1 = _sum_of_parts(parts) if self.needs[2] else None
        dW1 = product(dh, X.T) if self.needs[1] else None  # (D_S, S)
        dx = product(W1.T, dh).reshape(dy.shape) if self.needs[0] else None
        return dx, dW1, db1, dW2, db2


@twin_of(ops.ChannelMLP, "gpu")
class FastChannelMLP(ops.ChannelMLP):
    """As FastTokenMLP, with the channels' products from the right."""

    @float32_only
    def forward(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
        if x.shape[-1] != len(W1):
            return super().forward(x, W1, b1, W2, b2)  # it knows what to say
        X, b1, b2 = _contiguous(x, -1, len(W1)), _contiguous(b1, -1), _contiguous(b2, -1)
        h = product(X, W1)  # (S*B, D_C)
        a = _gelu(h, b1, 1, self.form)
        y = product(a, W2)  # (S*B, C)
        _add_bias(y, b2, 1)
        self.save(X, W1, h, b1, a, W2)
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, W1, h, b1, a, W2 = self.saved
        dY = _contiguous(dy, *X.shape)  # (S*B, C)
        dW2 = product(a.T, dY) if self.needs[3] else None  # (D_C, C)
        db2 = _sum(dY, 1) if self.needs[4] else None
        dh = product(dY, W2.T)  # (S*B, D_C)
        parts = _gelu_backward(h, b1, dh, 1, self.form)
        db1 = _sum_of_parts(parts) if self.needs[2] else None
        dW1 = product(X.T, dh) if self.needs[1] else None  # (C, D_C)
        dx = product(dh, W1.T).reshape(dy.shape) if self.needs[0] else None
        return dx, dW1, db1, dW2, db2


@twin_of(ops.LayerNorm, "gpu")
class FastLayerNorm(ops.LayerNorm):
    """Kept are x itself and two numbers a row; x̂ is made again in passing."""

    @float32_only
    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        xp, C = array_module(x), x.shape[-1]
        X, gamma, beta = _contiguous(x, -1, C), _contiguous(gamma, C), _contiguous(beta, C)
        rows = len(X)
        y, mean, scale = xp.empty_like(X), xp.empty(rows, np.float32), xp.empty(rows, np.float32)
        shape = np.int32(rows), np.int32(C)
        grid = _warp_a_row(rows)
        launch("layer_norm", grid, X, gamma, beta, y, mean, scale, *shape, np.float32(self.eps))
        self.save(X, gamma, mean, scale)
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, gamma, mean, scale = self.saved
        rows, C = X.shape
        dY, shape = _contiguous(dy, rows, C), (np.int32(rows), np.int32(C))
        dx = dgamma = dbeta = None
        if self.needs[0]:
            dx = array_module(X).empty_like(X)
            grid = _warp_a_row(rows)
            launch("layer_norm_backward", grid, dY, X, gamma, mean, scale, dx, *shape)
            dx = dx.reshape(dy.shape)
        if self.needs[1] or self.needs[2]:
            _, grid, shape = _walk(X, 1)
            gamma_parts, beta_parts = _parts(X, grid, 1), _parts(X, grid, 1)
            launch("layer_norm_sums", grid, dY, X, mean, scale, gamma_parts, beta_parts, *shape)
            dgamma = _sum_of_parts(gamma_parts) if self.needs[1] else None
            dbeta = _sum_of_parts(beta_parts) if self.needs[2] else None
        return dx, dgamma, dbeta


def _warp_a_row(rows: int) -> tuple[int, int]:
    return -(-rows // WARPS), 1


@twin_of(ops.SoftmaxCrossEntropy, "gpu")
class FastSoftmaxCrossEntropy(ops.SoftmaxCrossEntropy):
    """Without a wait for the GPU: a class number out of range makes the loss NaN.

    The reference looks at the numbers and raises ValueError, for which they have to arrive on the
    CPU first. Whoever reads the loss finds the NaN, and the trainer stops at it. With `ignore`,
    where n has to be counted, this is the reference.
    """

    def forward(self, logits: Array, targets: Array) -> Array:
        soft = targets.shape == logits.shape
        known = soft or (targets.shape == logits.shape[:-1] and targets.dtype.kind in "iu")
        if self.ignore is not None or logits.dtype != np.float32 or not known:
            return as_reference(self, logits, targets)
        xp, K = array_module(logits), logits.shape[-1]
        X = _contiguous(logits, -1, K)
        rows = len(X)
        wanted = _contiguous(targets.astype(np.float32 if soft else np.int64), -1)
        nothing = xp.empty(0, np.int64 if soft else np.float32)
        classes, probabilities = (nothing, wanted) if soft else (wanted, nothing)
        losses, log_sums = xp.empty((1, rows), np.float32), xp.empty((rows, 2), np.float32)
        options = np.int32(rows), np.int32(K), np.int32(soft), np.float32(self.label_smoothing)
        grid = _warp_a_row(rows)
        launch("cross_entropy", grid, X, classes, probabilities, losses, log_sums, *options)
        self.save(X, classes, probabilities, log_sums, options, logits.shape)
        return _sum(losses, 0).reshape(())

    def backward(self, dloss: Array) -> tuple:
        X, classes, probabilities, log_sums, options, shape = self.saved
        dlogits, grid = array_module(X).empty_like(X), _warp_a_row(len(X))
        arrays = dloss, X, classes, probabilities, log_sums, dlogits
        launch("cross_entropy_backward", grid, *arrays, *options)
        return dlogits.reshape(shape), None


# The optimizer ------------------------------------------------------------------------------------


class AdamW(optim.AdamW):
    """All of an update in one launch, the average included. Weights are float32."""

    def step(self, weights: Array, gradients: Array, lr: float, step: int) -> None:
        """Update `weights` (N,) in place by gradients (N,); `step` counts from 0."""
        self.step_and_average(weights, gradients, lr, step, None, 0.0)

    def step_and_average(
        self,
        weights: Array,
        gradients: Array,
        lr: float,
        step: int,
        average: Array | None,
        average_decay: float,
    ) -> None:
        """Both, as the kernel does them; without an average, that of the weights is themselves."""
        beta1, beta2 = self.betas
        arrays = weights, gradients, self.decay, self.state["m"], self.state["v"]
        numbers = (
            *(lr, 1 - beta1, 1 - beta2, 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)),
            *(self.eps, self.weight_decay, 1 - average_decay),
        )
        launch(
            "adamw",
            (-(-len(weights) // (WARPS * LANES)), 1),
            *(*arrays, weights if average is None else average, np.int64(len(weights))),
            *map(np.float32, numbers),
        )


# Augmentation -------------------------------------------------------------------------------------


class Augment(data.Augment):
    """Crop and flip in one launch, the operations of a policy in one, and the random words of all
    else in one for each use.

    As array operations, Philox alone is ten rounds of ten launches. The bits are the same.
    """

    @staticmethod
    def _draws(seed: int, stream: Stream, epoch: int, index: Array) -> Array:
        index = _whole_numbers(index)
        words = array_module(index).empty((4, *index.shape), np.uint32)
        place = np.uint64(seed), np.uint32(stream), np.uint32(epoch)
        grid = -(-index.size // (WARPS * LANES)), 1
        launch("random_words", grid, index, words, np.int64(index.size), *place)
        return words

    def _crop_and_flip(
        self, images: Array, indices: Array, epoch: int, seed: int, outside: int
    ) -> Array:
        """images uint8 (N, H, W, 3), or labels (N, H, W); indices from 0 to N - 1."""
        height, width = images.shape[1:3]
        mirrored_once = self.crop_padding < min(height, width)
        if images.dtype != np.uint8 or not mirrored_once or len(indices) > MOST_IMAGES:
            return super()._crop_and_flip(images, indices, epoch, seed, outside)
        xp = array_module(images)
        batch = xp.empty((len(indices), *images.shape[1:]), np.uint8)
        size = math.prod(images.shape[1:])
        coin_epoch, turns = (0, epoch) if self.flip == "alternating" else (epoch, 0)
        launch(
            "crop_and_flip",
            (-(-size // WIDE), len(batch)),
            xp.ascontiguousarray(images),
            _whole_numbers(indices),
            batch,
            *map(np.int32, (height, width, size // (height * width), self.crop_padding)),
            *map(np.int32, (self.padding == "zero", outside, self.flip != "none")),
            np.uint64(seed),
            *map(np.uint32, (epoch, coin_epoch, turns)),
        )
        return batch

    def _by_policy(
        self, batch: Array, indices: Array, epoch: int, seed: int, outside: int
    ) -> Array:
        """batch uint8 (B, H, W, 3), or labels (B, H, W), is written over: it is the crop's own."""
        if self.auto_augment == "none" or batch.dtype != np.uint8:
            return super()._by_policy(batch, indices, epoch, seed, outside)
        xp = array_module(batch)
        batch = xp.ascontiguousarray(batch)
        policy = autoaugment.policy(batch, self.auto_augment)
        height, width = batch.shape[1:3]
        launch(
            "auto_augment",
            (len(batch), 1),
            *(batch, xp.empty_like(batch), _whole_numbers(indices)),
            *(policy, autoaugment.maps(batch, height, width)),
            *map(np.int32, (len(policy), height, width, math.prod(batch.shape[3:]), outside)),
            *(np.uint64(seed), np.uint32(epoch)),
        )
        return batch


def _whole_numbers(x: Array) -> Array:
    return array_module(x).ascontiguousarray(x.astype(np.int64, copy=False))
