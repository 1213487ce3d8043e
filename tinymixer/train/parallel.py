"""One gradient from many micro-batches, on as many threads as there are cores.

    batch -> micro-batches 0..G-1 -> any worker takes the next -> gradients -> one tree of sums

A micro-batch is small enough for its activations to stay in the cache, forward and backward. Float
sums depend on their order, so the order is fixed: gradients are added along a binary tree over the
micro-batches, whoever computed them. Neither the cut nor the tree knows how many workers there
are, which is why the trained weights are the same, bit for bit, for 1, 2 or 4 of them.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from tinymixer import fast
from tinymixer.backend import Array, Replay, array_module
from tinymixer.engine import Tensor, enable_grad
from tinymixer.nn import Module, auxiliary

Updates = tuple[tuple[Callable[..., None], tuple[Array, ...]], ...]  # see nn.Auxiliary
T = TypeVar("T")
R = TypeVar("R")


class FlatParameters:
    """All parameters of a model in one array, `weights` (N,); each Parameter becomes a view.

    The optimizer, the sum over workers and the checkpoint each see one array. Any array of the
    same length (gradients, moments, averages) can be looked at by name through `named`.
    """

    def __init__(self, model: Module):
        self.parameters = dict(model.named_parameters())
        self.starts = np.cumsum([0, *(p.size for p in self.parameters.values())])
        xp = array_module(next(iter(self.parameters.values())).data)
        self.weights = xp.concatenate([p.data.ravel() for p in self.parameters.values()])
        for parameter, view in zip(
            self.parameters.values(), self.named(self.weights).values(), strict=True
        ):
            parameter.data = view

    def named(self, flat: Array) -> dict[str, Array]:
        """Views of `flat` (N,), by parameter name and in the parameters' shapes."""
        return {
            name: flat[start:end].reshape(parameter.shape)
            for (name, parameter), start, end in zip(
                self.parameters.items(), self.starts, self.starts[1:], strict=False
            )
        }

    def gather(self, gradients: Mapping[Tensor, Array], out: Array) -> None:
        """Copy gradients by Tensor into `out` (N,); 0 where a parameter has none."""
        fast.gather(out, [gradients.get(p) for p in self.parameters.values()], self.starts)

    def decay_mask(self) -> Array:
        """1 for the weights of matrices, 0 for biases and norms: weight decay leaves those be."""
        mask = array_module(self.weights).zeros_like(self.weights)
        for view in self.named(mask).values():
            view[...] = view.ndim >= 2
        return mask


class Workers:
    """Threads that share the weights, and BLAS held to one thread in each.

    NumPy releases the interpreter lock in matrix products and in element-wise loops, so threads
    are enough. With one worker, everything runs in the calling thread.
    """

    def __init__(self, count: int):
        self.count = count

    @classmethod
    def of_this_machine(cls, count: int | None = None, device: str = "cpu") -> "Workers":
        """`count` workers, or one for each processor; a GPU is fed by one."""
        return cls(1 if device == "gpu" else count or os.cpu_count() or 1)

    def __enter__(self) -> "Workers":
        self._limits = threadpool_limits(1, user_api="blas")
        self._pool = ThreadPoolExecutor(self.count) if self.count > 1 else None
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._limits.restore_original_limits()

    def map(self, f: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """[f(item), ...] in order of the items; the first exception is raised here."""
        if self._pool is None:
            return [f(item) for item in items]
        return list(self._pool.map(f, items))


class GradientSum:
    """Sums of arrays (N,) over a fixed binary tree, whatever order they arrive in.

    Leaf g is micro-batch g. A node adds its two children, a node without sibling moves up as it
    is. Whoever brings the second of two siblings adds them, so at most log2(G) arrays wait for each
    one being computed, and they are used again for the next batch.
    """

    def __init__(self, like: Array):
        self.total: Array | None = None
        self._like = like
        self._free: list[Array] = []
        self._lock = threading.Lock()

    def start(self, leaves: int) -> None:
        """Begin a sum of `leaves` arrays. The `total` before it is used up."""
        if self.total is not None:
            self._free.append(self.total)
        self.total = None
        self._leaves = leaves
        self._waiting: dict[tuple[int, int], Array] = {}  # (level, node) -> its sum

    def buffer(self) -> Array:
        """An array to compute a leaf into."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return array_module(self._like).empty_like(self._like)

    def add(self, leaf: int, array: Array) -> None:
        """Give up `array`, a buffer, as leaf number `leaf`."""
        node, width, level = leaf, self._leaves, 0
        while width > 1:
            if node ^ 1 < width:
                with self._lock:
                    sibling = self._waiting.pop((level, node ^ 1), None)
                    if sibling is None:
                        self._waiting[level, node] = array
                        return
                array += sibling
                with self._lock:
                    self._free.append(sibling)
            node, width, level = node // 2, (width + 1) // 2, level + 1
        self.total = array


def batch_gradient(
    loss_of: Callable[..., tuple[Tensor, R]],
    pieces: Sequence[Array],
    flat: FlatParameters,
    gradients: GradientSum,
    workers: Workers,
    *,
    inputs_of: Callable[[int, Array], tuple] = lambda g, piece: (g, piece),
    replay: Replay | None = None,
) -> list[tuple[Array, R]]:
    """Leave the gradient of the mean loss of a batch, cut into `pieces`, in `gradients.total`.

    loss_of(*inputs_of(g, pieces[g])) is the mean loss of micro-batch g, and whatever else is to be
    known of it; a loss that the model yields beside its output (nn.add_loss) is added to it.
    Returned are all of these, where they were computed: nobody has waited for them. Where a loss is
    not finite, `total` means nothing. The updates that the model asked for are done. With a
    `replay`, on a GPU, all but inputs_of is one launch.
    """
    images = sum(map(len, pieces))
    differentiate = partial(_differentiated, loss_of, flat)
    compute = differentiate if replay is None else partial(_replayed, replay, differentiate)
    gradients.start(len(pieces))

    def micro_batch(g: int) -> tuple[Array, R, Updates]:
        inputs, buffer = inputs_of(g, pieces[g]), gradients.buffer()
        weights = flat.weights
        share = array_module(weights).full((), len(pieces[g]) / images, weights.dtype)
        done = compute(share, inputs, buffer)
        gradients.add(g, buffer)
        return done

    done = workers.map(micro_batch, range(len(pieces)))
    for update, arrays in (asked for _, _, updates in done for asked in updates):
        update(*arrays)
    return [(loss, beside) for loss, beside, _ in done]


def _differentiated(
    loss_of: Callable[..., tuple[Tensor, R]],
    flat: FlatParameters,
    share: Array,
    inputs: tuple,
    out: Array,
) -> tuple[Array, R, Updates]:
    """The loss of `inputs`, what is beside it, and updates; `share` of its gradient is in `out`."""
    # a loss that overflows is returned, whatever becomes of its gradient
    hush = np.errstate(over="ignore", invalid="ignore", divide="ignore")
    with hush, enable_grad(), auxiliary() as extra:
        loss, beside = loss_of(*inputs)
        for more in extra.losses:
            loss = loss + more
        sink: dict = {}
        loss.backward(share.astype(loss.dtype, copy=False), into=sink)
    flat.gather(sink, out=out)
    return loss.data, beside, tuple(extra.updates)


def _replayed(
    replay: Replay, differentiate: Callable[..., tuple], share: Array, inputs: tuple, out: Array
) -> tuple[Array, Any, Updates]:
    """The same by a graph, which has all of it in memory of its own."""

    def compute(share: Array, *inputs: Array) -> tuple:
        gradient = array_module(out).empty_like(out)
        loss, beside, updates = differentiate(share, inputs, gradient)
        return loss, beside, updates, gradient

    *kept, gradient = replay(compute, share, *inputs)
    out[...] = gradient
    loss, beside, updates = _copied(tuple(kept))
    return loss, beside, updates


def _copied(x: Any) -> Any:
    """The arrays within x copied, and all else as it is."""
    if isinstance(x, tuple):
        return tuple(map(_copied, x))
    return x.copy() if hasattr(x, "dtype") else x


def cut(batch: Array, micro_batch: int) -> list[Array]:
    """The batch in consecutive micro-batches; the last one may be smaller."""
    return [batch[i : i + micro_batch] for i in range(0, len(batch), micro_batch)]
