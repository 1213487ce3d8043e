"""Who computes what, and how it becomes one gradient: the same bits for any number of workers.

    batch -> micro-batches 0..G-1 -> a worker takes the next one -> gradients -> one tree of sums

Float sums depend on their order, so the order is fixed: gradients are added along a binary tree
over the micro-batches. Neither the cut nor the tree knows how many workers there are. What is
added, the gradient of a micro-batch, has the bits of the processor and its BLAS, see machine.py.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from tinymixer import fast, nn, optim
from tinymixer.backend import Array, array_module, device_of
from tinymixer.engine import Tensor
from tinymixer.nn import Module
from tinymixer.optim.muon import Place

T = TypeVar("T")
R = TypeVar("R")


def micro_batches(batch: Array, size: int) -> list[Array]:
    """The batch in consecutive micro-batches of `size` images; the last one may be smaller."""
    return [batch[i : i + size] for i in range(0, len(batch), size)]


class FlatParameters:
    """All that a model learns in one array, `weights` (N,); each such Parameter becomes a view.

    The optimizer, the sum over workers and the checkpoint each see one array, of the library `xp`.
    Any array of the same length (gradients, moments, averages) can be looked at by name through
    `named`. `buffers` are the model's arrays that are no parameters. What is frozen is not here:
    nothing that is done to these arrays can change it.
    """

    def __init__(self, model: Module):
        self.parameters = model.learned_parameters()
        self.starts = np.cumsum([0, *(p.size for p in self.parameters.values())])
        self.xp = array_module(next(iter(self.parameters.values())).data)
        self.weights = self.xp.concatenate([p.data.ravel() for p in self.parameters.values()])
        self._gather = fast.chosen(optim.gather, device_of(self.weights), self.weights)
        for parameter, view in zip(
            self.parameters.values(), self.named(self.weights).values(), strict=True
        ):
            parameter.data = view
        known = dict(model.named_parameters())
        self.buffers = [x for name, x in model.state().items() if name not in known]

    def named(self, flat: Array) -> dict[str, Array]:
        """Views of `flat` (N,), by parameter name and in the parameters' shapes."""
        return {
            name: flat[start:end].reshape(parameter.shape)
            for (name, parameter), start, end in zip(
                self.parameters.items(), self.starts, self.starts[1:], strict=False
            )
        }

    def gather(self, gradients: Mapping[Tensor, Array]) -> Array:
        """Gradients by Tensor as one array (N,); 0 where a parameter has none."""
        flat = self.xp.empty_like(self.weights)
        self._gather(flat, [gradients.get(p) for p in self.parameters.values()], self.starts)
        return flat

    def decay_mask(self) -> Array:
        """1 for the weights of matrices, 0 for biases and norms: weight decay leaves those be."""
        mask = self.xp.zeros_like(self.weights)
        for view in self.named(mask).values():
            view[...] = view.ndim >= 2
        return mask


def places_of(model: Module) -> list[Place]:
    """Where each hidden matrix begins in the flat weights, and its shape, in order."""
    hidden, places, start = nn.hidden_matrices(model), [], 0
    for name, parameter in model.learned_parameters().items():
        if name in hidden:
            m, n = parameter.shape
            places.append((start, (m, n)))
        start += parameter.size
    return places


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
    """The sum of `leaves` arrays (N,) over a fixed binary tree, whatever order they arrive in.

    Leaf g is micro-batch g. A node adds its two children; a node without a sibling moves up as it
    is. The second of two siblings to arrive triggers their addition, so at most log2(G) arrays wait
    for each one being computed. `total` is the sum once all have arrived.
    """

    def __init__(self, leaves: int):
        self.leaves = leaves
        self.total: Array = None
        self._waiting: dict[tuple[int, int], Array] = {}  # (level, node) -> its sum
        self._lock = threading.Lock()

    def add(self, leaf: int, array: Array) -> None:
        """Give up `array`, which is added to in place, as leaf number `leaf`."""
        node, width, level = leaf, self.leaves, 0
        while width > 1:
            if node ^ 1 < width:
                with self._lock:
                    sibling = self._waiting.pop((level, node ^ 1), None)
                    if sibling is None:
                        self._waiting[level, node] = array
                        return
                array += sibling
            node, width, level = node // 2, (width + 1) // 2, level + 1
        self.total = array
