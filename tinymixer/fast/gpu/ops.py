"""Twins of the operations: what lies between the matrix products, in as few passes as it takes.

The order of every sum depends on shapes alone: the same input gives the same bits.

The twins compute in float32; other types are left to the reference.
"""

import numpy as np

from tinymixer import ops
from tinymixer.backend import Array, array_module
from tinymixer.fast.gpu import kernels
from tinymixer.fast.gpu.kernels import (
    LANES,
    NORM_ROWS,
    Variant,
    aligned,
    one_warp_each,
    pack_of,
    walk,
    walk_flat,
)
from tinymixer.fast.gpu.products import operand_type, product
from tinymixer.fast.table import float32, twin_of
from tinymixer.ops.gelu import check_form
from tinymixer.ops.norm import Norm
from tinymixer.ops.primitives import Add, MatMul

# Matrices (rows, columns) with a bias of `axis` 0: one of each row, or 1: one of each column. -----


def _gelu(h: Array, b: Array, axis: int, form: str) -> Array:
    """GELU(h + b)."""
    a = array_module(h).empty_like(h)
    by, grid, shape, variant = walk(axis, h.dtype, h, a)
    kernels.launch(
        f"gelu_{by}", grid, h, b, a, *shape, np.int32(check_form(form) == "erf"), variant=variant
    )
    return a


def _gelu_backward(h: Array, b: Array, d: Array, axis: int, form: str) -> Array:
    """d, which is da, becomes dh = da GELU'(h + b); returned are the parts of db."""
    by, grid, shape, variant = walk(axis, h.dtype, h, d)
    parts, erf = _parts(h, grid, axis), np.int32(check_form(form) == "erf")
    kernels.launch(f"gelu_backward_{by}", grid, h, b, d, parts, *shape, erf, variant=variant)
    return parts


def _add_bias(y: Array, b: Array, axis: int) -> Array:
    """y + b in float32, in the place of a y that is."""
    z = y if y.dtype == np.float32 else array_module(y).empty(y.shape, np.float32)
    by, grid, shape, variant = walk(axis, y.dtype, y, z)
    kernels.launch(f"add_{by}", grid, y, b, z, *shape, variant=variant)
    return z


def _operand(x: Array, dtype: np.dtype) -> Array:
    """x, float32, as a product is to see it."""
    if dtype == np.float32:
        return x
    y = array_module(x).empty(x.shape, dtype)
    _, grid, (_, size), variant = walk_flat(dtype, x, y)
    kernels.launch("store", grid, x, y, size, variant=variant)
    return y


def _operand_and_parts(x: Array, dtype: np.dtype, axis: int) -> tuple[Array, Array]:
    """The same, and the parts of the sums that a bias of `axis` has as its gradient."""
    xp, keep = array_module(x), dtype == np.float32
    y = xp.empty(0 if keep else x.shape, dtype)
    by, grid, shape, variant = walk(axis, dtype, *((x,) if keep else (x, y)))
    parts = _parts(x, grid, axis)
    kernels.launch(f"sum_{by}", grid, x, y, parts, *shape, variant=variant)
    return (x if keep else y), parts


def _parts(x: Array, grid: tuple[int, int], axis: int) -> Array:
    """Room for one part of each sum along `axis` from each block that shares in it."""
    return array_module(x).empty((grid[axis], x.shape[axis]), np.float32)


def _sum_of_parts(parts: Array) -> Array:
    count, width = parts.shape
    total = array_module(parts).empty(width, np.float32)
    variant = Variant(pack=pack_of(width, parts.dtype, aligned(parts, total)))
    grid = -(-width // (LANES * variant.pack)), 1
    kernels.launch(
        "sum_parts", grid, parts, total, np.int32(count), np.int32(width), variant=variant
    )
    return total


def _contiguous(x: Array, *shape: int) -> Array:
    return array_module(x).ascontiguousarray(x).reshape(shape)


# The twins ----------------------------------------------------------------------------------------


@twin_of(ops.GELU, "gpu", float32)
class FastGELU(ops.GELU):
    """x as a matrix of one row, whose bias is 0."""

    def forward(self, x: Array) -> Array:
        X = _contiguous(x, 1, -1)
        zero = array_module(x).zeros(1, np.float32)
        self.saved = X, zero
        return _gelu(X, zero, 0, self.form).reshape(x.shape)

    def backward(self, dy: Array) -> Array:
        X, zero = self.saved
        d = _contiguous(dy, *X.shape).copy()
        _gelu_backward(X, zero, d, 0, self.form)
        return d.reshape(dy.shape)


@twin_of(ops.TokenLinear, "gpu", float32)
class FastTokenLinear(ops.TokenLinear):
    """Product and bias as one matrix (S, B*C)."""

    def forward(self, x: Array, W: Array, b: Array) -> Array:
        dtype = operand_type()
        X, W = _operand(_contiguous(x, len(x), -1), dtype), _operand(W, dtype)  # (S, B*C)
        self.saved = X, W
        y = _add_bias(product(W, X, dtype), _contiguous(b, -1), 0)  # (D, B*C)
        return y.reshape(-1, *x.shape[1:])

    def backward(self, dy: Array) -> tuple:
        X, W = self.saved
        dY, parts = _operand_and_parts(_contiguous(dy, len(dy), -1), X.dtype, 0)  # (D, B*C)
        db = _sum_of_parts(parts) if self.needs[2] else None
        dW = product(dY, X.T) if self.needs[1] else None  # (D, S)
        dx = product(W.T, dY).reshape(len(X), *dy.shape[1:]) if self.needs[0] else None
        return dx, dW, db


@twin_of(ops.ChannelLinear, "gpu", float32)
class FastChannelLinear(ops.ChannelLinear):
    """As FastTokenLinear, with the product from the right, and perhaps without a bias."""

    def forward(self, x: Array, W: Array, b: Array | None = None) -> Array:
        dtype = operand_type()
        X, W = _operand(_contiguous(x, -1, len(W)), dtype), _operand(W, dtype)  # (S*B, C)
        if b is None:
            y = product(X, W)  # (S*B, D)
        else:
            y = _add_bias(product(X, W, dtype), _contiguous(b, -1), 1)
        self.saved = X, W, b is not None
        return y.reshape(*x.shape[:-1], -1)

    def backward(self, dy: Array) -> tuple:
        X, W, biased = self.saved
        dY, db = _contiguous(dy, -1, dy.shape[-1]), None  # (S*B, D)
        if biased and self.needs[2]:
            dY, parts = _operand_and_parts(dY, X.dtype, 1)
            db = _sum_of_parts(parts)
        else:
            dY = _operand(dY, X.dtype)
        dW = product(X.T, dY) if self.needs[1] else None  # (C, D)
        dx = product(dY, W.T).reshape(*dy.shape[:-1], -1) if self.needs[0] else None
        return (dx, dW, db) if biased else (dx, dW)


@twin_of(ops.TokenMLP, "gpu", float32)
class FastTokenMLP(ops.TokenMLP):
    """Kept is the first product without its bias, which backward adds again in passing."""

    def forward(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
        dtype = operand_type()
        X, b1, b2 = _contiguous(x, len(x), -1), _contiguous(b1, -1), _contiguous(b2, -1)  # (S, B*C)
        X, W1, W2 = _operand(X, dtype), _operand(W1, dtype), _operand(W2, dtype)
        h = product(W1, X, dtype)  # (D_S, B*C)
        a = _gelu(h, b1, 0, self.form)
        y = _add_bias(product(W2, a, dtype), b2, 0)  # (S, B*C)
        self.saved = X, W1, h, b1, a, W2
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, W1, h, b1, a, W2 = self.saved
        dY, parts = _operand_and_parts(_contiguous(dy, *X.shape), X.dtype, 0)  # (S, B*C)
        db2 = _sum_of_parts(parts) if self.needs[4] else None
        dW2 = product(dY, a.T) if self.needs[3] else None  # (S, D_S)
        dh = product(W2.T, dY, h.dtype)  # (D_S, B*C)
        parts = _gelu_backward(h, b1, dh, 0, self.form)
        db1 = _sum_of_parts(parts) if self.needs[2] else None
        dW1 = product(dh, X.T) if self.needs[1] else None  # (D_S, S)
        dx = product(W1.T, dh).reshape(dy.shape) if self.needs[0] else None
        return dx, dW1, db1, dW2, db2


@twin_of(ops.ChannelMLP, "gpu", float32)
class FastChannelMLP(ops.ChannelMLP):
    """As FastTokenMLP, with the channels' products from the right."""

    def forward(self, x: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
        dtype = operand_type()
        X, b1, b2 = _contiguous(x, -1, len(W1)), _contiguous(b1, -1), _contiguous(b2, -1)
        X, W1, W2 = _operand(X, dtype), _operand(W1, dtype), _operand(W2, dtype)
        h = product(X, W1, dtype)  # (S*B, D_C)
        a = _gelu(h, b1, 1, self.form)
        y = _add_bias(product(a, W2, dtype), b2, 1)  # (S*B, C)
        self.saved = X, W1, h, b1, a, W2
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, W1, h, b1, a, W2 = self.saved
        dY, parts = _operand_and_parts(_contiguous(dy, *X.shape), X.dtype, 1)  # (S*B, C)
        db2 = _sum_of_parts(parts) if self.needs[4] else None
        dW2 = product(a.T, dY) if self.needs[3] else None  # (D_C, C)
        dh = product(dY, W2.T, h.dtype)  # (S*B, D_C)
        parts = _gelu_backward(h, b1, dh, 1, self.form)
        db1 = _sum_of_parts(parts) if self.needs[2] else None
        dW1 = product(X.T, dh) if self.needs[1] else None  # (C, D_C)
        dx = product(dh, W1.T).reshape(dy.shape) if self.needs[0] else None
        return dx, dW1, db1, dW2, db2


def _alike(x: Array, y: Array) -> bool:
    """Arrays of one shape; what is repeated to be added is the reference's."""
    return np.shape(x) == np.shape(y) != () and float32(x, y)


@twin_of(Add, "gpu", _alike)
class FastAdd(Add):
    """Two arrays of one shape, as a residual and its branch are, read in packs."""

    def forward(self, x: Array, y: Array) -> Array:
        self.saved = x.shape, y.shape
        X, Y = _contiguous(x, *x.shape), _contiguous(y, *y.shape)
        z = array_module(x).empty_like(X)
        _, grid, (_, size), variant = walk_flat(X.dtype, X, Y, z)
        kernels.launch("add", grid, X, Y, z, size, variant=variant)
        return z


def _matrices(x: Array, y: Array) -> bool:
    """Two matrices; stacks of them are the reference's."""
    return np.ndim(x) == np.ndim(y) == 2 and y.size > 0 and float32(x, y)


@twin_of(MatMul, "gpu", _matrices)
class FastMatMul(MatMul):
    """Two matrices as they are: by such a product a gate decides, so it is never in bfloat16."""

    def forward(self, x: Array, y: Array) -> Array:
        self.saved = _contiguous(x, *x.shape), _contiguous(y, *y.shape)
        return product(*self.saved)

    def backward(self, dz: Array) -> tuple:
        X, Y = self.saved
        dZ = _contiguous(dz, *dz.shape)
        return (
            product(dZ, Y.T) if self.needs[0] else None,
            product(X.T, dZ) if self.needs[1] else None,
        )


def _resizes(x: Array, A_h: Array, A_w: Array) -> bool:
    """The matrices may be of any type."""
    return float32(x)


@twin_of(ops.Resample, "gpu", _resizes)
class FastResample(ops.Resample):
    """Columns become rows between the two products, so that each is one of two matrices."""

    def forward(self, x: Array, A_h: Array, A_w: Array) -> Array:
        A_h, A_w = (_contiguous(A.astype(np.float32), *A.shape) for A in (A_h, A_w))
        self.saved = A_h, A_w
        return _resampled(x, A_h, A_w)

    def backward(self, dy: Array) -> tuple:
        A_h, A_w = self.saved
        return _resampled(dy, A_h.T, A_w.T), None, None


def _resampled(x: Array, A_h: Array, A_w: Array) -> Array:
    H, W, B, C = x.shape
    rows = product(A_h, _contiguous(x, H, -1)).reshape(-1, W, B, C)  # (H', W, B, C)
    y = product(A_w, _contiguous(rows.swapaxes(0, 1), W, -1))  # (W', H'*B*C)
    return _contiguous(y.reshape(-1, len(A_h), B, C).swapaxes(0, 1), len(A_h), len(A_w), B, C)


@twin_of(ops.LayerNorm, "gpu", float32)
class FastLayerNorm(ops.LayerNorm):
    """Kept are x itself and two numbers a row; x̂ is made again in passing."""

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        xp, C = array_module(x), x.shape[-1]
        X, gamma, beta = _contiguous(x, -1, C), _contiguous(gamma, C), _contiguous(beta, C)
        rows = len(X)
        y, mean, scale = xp.empty_like(X), xp.empty(rows, np.float32), xp.empty(rows, np.float32)
        numbers = np.int32(rows), np.int32(C), np.float32(self.eps)
        arrays = X, gamma, beta, y, mean, scale
        kernels.launch("layer_norm", one_warp_each(rows), *arrays, *numbers, variant=_of_rows(X, y))
        self.saved = X, gamma, mean, scale
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> tuple:
        X, gamma, mean, scale = self.saved
        (rows, C), xp = X.shape, array_module(X)
        dY, dx = _contiguous(dy, rows, C), xp.empty_like(X)
        grid = -(-rows // NORM_ROWS), 1
        parts = xp.empty((grid[0], 2 * C), np.float32)
        arrays, shape = (dY, X, gamma, mean, scale, dx, parts), (np.int32(rows), np.int32(C))
        variant = _of_rows(dY, X, dx)
        kernels.launch("layer_norm_backward", grid, *arrays, *shape, variant=variant)
        sums = _sum_of_parts(parts)
        gradients = dx.reshape(dy.shape), sums[:C], sums[C:]
        return tuple(
            g if needed else None for g, needed in zip(gradients, self.needs, strict=False)
        )


def _of_rows(*matrices: Array) -> Variant:
    """Of kernels whose warps hold whole rows."""
    C = matrices[0].shape[1]
    pack = pack_of(C, matrices[0].dtype, aligned(*matrices))
    return Variant(pack=pack, packs=-(-C // (LANES * pack)))


@twin_of(ops.GroupNorm, "gpu", float32)
class FastGroupNorm(ops.GroupNorm):
    """A norm over columns of the matrix (S, B*C): an image has C neighbours."""

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        B, C = x.shape[-2:]
        return _norm(self, x, gamma, beta, C, B)

    def backward(self, dy: Array) -> tuple:
        return _norm_backward(self, dy)


@twin_of(ops.BatchNorm, "gpu", float32)
class FastBatchNorm(ops.BatchNorm):
    """A norm over columns of the matrix (S, B*C): a channel has one in each image."""

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        return _norm(self, x, gamma, beta, 1, x.shape[-1])

    def backward(self, dy: Array) -> tuple:
        return _norm_backward(self, dy)


def _norm(op: Norm, x: Array, gamma: Array, beta: Array, w: int, groups: int) -> Array:
    """Of so many groups of columns, each w wide where it lies among the others: see ops.cu."""
    xp, (B, C) = array_module(x), x.shape[-2:]
    X, gamma, beta = _contiguous(x, -1, B * C), _contiguous(gamma, C), _contiguous(beta, C)
    y = xp.empty_like(X)
    mean, variance, scale = (xp.empty(groups, np.float32) for _ in range(3))
    _, grid, shape, variant = walk(1, X.dtype, X, y)
    layout, eps = (np.int32(w), np.int32(groups)), np.float32(op.eps)
    parts = xp.empty((grid[1], B * C, 3), np.float32)
    kernels.launch("norm_moments", grid, X, parts, *shape, variant=variant)
    statistics, count = (parts, mean, variance, scale), np.int32(len(parts))
    kernels.launch("norm_groups", one_warp_each(groups), *statistics, count, shape[1], *layout, eps)
    arrays, numbers = (X, gamma, beta, mean, scale, y), (*shape, np.int32(C), *layout)
    kernels.launch("norm_forward", grid, *arrays, *numbers, variant=variant)
    op.saved = X, gamma, mean, scale, layout
    kept = [1 if axis - x.ndim in op.axes else n for axis, n in enumerate(x.shape)]
    op.statistics = mean.reshape(kept), variance.reshape(kept)
    return y.reshape(x.shape)


def _norm_backward(op: Norm, dy: Array) -> tuple:
    X, gamma, mean, scale, layout = op.saved
    xp, groups, C = array_module(X), len(mean), np.int32(len(gamma))
    dY, dx = _contiguous(dy, *X.shape), xp.empty_like(X)
    _, grid, shape, variant = walk(1, X.dtype, X, dY, dx)
    parts, seen = xp.empty((grid[1], 2 * X.shape[1]), np.float32), (dY, X, mean, scale)
    kernels.launch("norm_sums", grid, *seen, parts, *shape, *layout, variant=variant)
    sums = _sum_of_parts(parts).reshape(2, -1)
    if op.needs[0]:
        means, n = xp.empty((2, groups), np.float32), np.float32(X.size // groups)
        numbers = shape[1], C, *layout, n
        kernels.launch("norm_means", one_warp_each(groups), sums, gamma, means, *numbers)
        arrays = *seen, gamma, means, dx
        kernels.launch("norm_backward", grid, *arrays, *shape, C, *layout, variant=variant)
    of_channels = (_sum_of_parts(half.reshape(-1, len(gamma))) for half in sums)
    gradients = dx.reshape(dy.shape), *of_channels
    return tuple(g if needed else None for g, needed in zip(gradients, op.needs, strict=False))


def _classes_or_probabilities(logits: Array, targets: Array) -> bool:
    """One class number, or one distribution, for each row; the reference says what is wrong."""
    classes = targets.shape == logits.shape[:-1] and targets.dtype.kind in "iu"
    return (classes or targets.shape == logits.shape) and float32(logits)


@twin_of(ops.SoftmaxCrossEntropy, "gpu", _classes_or_probabilities)
class FastSoftmaxCrossEntropy(ops.SoftmaxCrossEntropy):
    """Without a wait for the GPU: a class number out of range makes the loss NaN.

    The reference looks at the numbers and raises ValueError, for which they have to arrive on the
    CPU first. The NaN is seen when the loss is read, and the trainer stops at it. What is not to be
    ignored is counted where it is.
    """

    def forward(self, logits: Array, targets: Array) -> Array:
        soft = targets.shape == logits.shape
        xp, K = array_module(logits), logits.shape[-1]
        X = _contiguous(logits, -1, K)
        rows = len(X)
        wanted = _contiguous(targets.astype(np.float32 if soft else np.int64), -1)
        counted = unread = xp.empty(0, np.float32)
        classes, probabilities = (xp.empty(0, np.int64), wanted) if soft else (wanted, unread)
        losses, log_sums = xp.empty((1, rows), np.float32), xp.empty((rows, 2), np.float32)
        ignore = None if soft else self.ignore
        if ignore is not None:
            counted = xp.maximum((wanted != ignore).sum(), 1).astype(np.float32)
        options = (
            *(np.int32(rows), np.int32(K), np.int32(soft), np.float32(self.label_smoothing)),
            *(np.int32(ignore is not None), np.int64(ignore or 0)),
        )
        grid = one_warp_each(rows)
        targets = classes, probabilities, counted
        kernels.launch("cross_entropy", grid, X, *targets, losses, log_sums, *options)
        self.saved = X, targets, log_sums, options, logits.shape
        _, parts = _operand_and_parts(losses, losses.dtype, 0)
        return _sum_of_parts(parts).reshape(())

    def backward(self, dloss: Array) -> tuple:
        X, targets, log_sums, options, shape = self.saved
        dlogits, grid = array_module(X).empty_like(X), one_warp_each(len(X))
        arrays = dloss, X, *targets, log_sums, dlogits
        kernels.launch("cross_entropy_backward", grid, *arrays, *options)
        return dlogits.reshape(shape), None
