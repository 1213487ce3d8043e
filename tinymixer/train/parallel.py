"""How work is shared and becomes one gradient: the same bits for any number of workers.

    batch -> micro-batches 0..G-1 -> ranks and workers take them -> gradients -> one tree of sums

Float sums depend on their order, so the order is fixed: gradients are added along a binary tree
over the micro-batches. Neither the cut nor the tree knows how many workers there are: threads of a
process, or ranks of them, see ranks.py. What is added, the gradient of a micro-batch, has the bits
of the processor and its BLAS, see machine.py.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from tinymixer import fast, nn, optim
from tinymixer.backend import Array, array_module, device_of
from tinymixer.engine import Tensor
from tinymixer.launcher import launched
from tinymixer.nn import Module
from tinymixer.optim.muon import Place
from tinymixer.processors import processors, threads_start
from tinymixer.train.ranks import ALONE, Ranks

T = TypeVar("T")
R = TypeVar("R")


def micro_batches(batch: Array, size: int) -> list[Array]:
    """The batch in consecutive micro-batches of `size` images; the last one may be smaller."""
    return [batch[i : i + size] for i in range(0, len(batch), size)]


class FlatParameters:
    """All that a model learns in one array, `weights` (N,); each such Parameter becomes a view.

    The optimizer, the sum over workers and the checkpoint each see one array, of the library `xp`.
    Any array of the same length (gradients, moments, averages) can be looked at by name through
    `named`. `buffers` are the model's arrays that are not parameters. What is frozen is not here,
    so no change of these arrays can change it.
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
        """1 for the weights of matrices, 0 for biases and norms, which do not decay."""
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
    """Threads that share the weights, with BLAS held to one thread in each; and their ranks.

    NumPy releases the interpreter lock in matrix products and in element-wise loops, but not
    between them: threads wait for it, processes do not, see ranks.py. With one worker, everything
    runs in the calling thread; where no threads start there is one, whatever `count` is.
    """

    def __init__(self, count: int, ranks: Ranks = ALONE):
        self.count, self.ranks = count if threads_start() else 1, ranks

    @classmethod
    def of_this_machine(
        cls, count: int | None = None, device: str = "cpu", ranks: Ranks = ALONE
    ) -> "Workers":
        """`count` workers, or one for each processor that this rank has; a GPU is fed by one."""
        _, _, here = launched()
        usual = min(processors(), max(1, (os.cpu_count() or 1) // here))
        return cls(1 if device == "gpu" else count or usual, ranks)

    def __enter__(self) -> "Workers":
        # entered, not only made: until a thread that set the limit leaves it, no other can
        self._limits = threadpool_limits(1, user_api="blas").__enter__()
        self._pool = ThreadPoolExecutor(self.count) if self.count > 1 else None
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._limits.__exit__(*exception)

    @contextmanager
    def joined(self, ranks: Ranks, count: int) -> Iterator[None]:
        """In its `with` block, outside of `with workers`: use `count` threads of one of `ranks`."""
        before = self.count, self.ranks
        self.count, self.ranks = count, ranks
        try:
            yield
        finally:
            self.count, self.ranks = before

    def map(self, f: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """[f(item), ...] in order of the items, on every rank; the first exception is raised here.

        Each rank computes its share. Where there are several, what f returns is sent: small things.
        """
        several = self.ranks.size > 1
        mine = [items[i] for i in self.ranks.share(len(items))] if several else items
        done = list(map(f, mine) if self._pool is None else self._pool.map(f, mine))
        return list(chain(*self.ranks.gather(done))) if several else done


class GradientSum:
    """The sum of `leaves` arrays (N,) over a fixed binary tree, whatever order they arrive in.

    Leaf g is micro-batch g. A node adds its two children; a node without a sibling moves up as it
    is. The second of two siblings to arrive triggers their addition, so at most log2(G) arrays wait
    for each one being computed.
    """

    def __init__(self, leaves: int):
        self.leaves = leaves
        self.root = (leaves - 1).bit_length(), 0
        self.waiting: dict[tuple[int, int], Array] = {}  # (level, node) -> its sum
        self._lock = threading.Lock()

    def add(self, node: int, array: Array, level: int = 0) -> None:
        """Give up `array`, which is added to in place, as a leaf or as a node of another level."""
        while (level, node) != self.root:
            if node ^ 1 < -(-self.leaves >> level):  # as many nodes as there are at this level
                with self._lock:
                    sibling = self.waiting.pop((level, node ^ 1), None)
                    if sibling is None:
                        self.waiting[level, node] = array
                        return
                array += sibling
            level, node = level + 1, node // 2
        self.waiting[self.root] = array

    @property
    def total(self) -> Array | None:
        """The sum, once all have arrived."""
        return self.waiting.get(self.root)

    def over(self, ranks: Ranks, like: Array) -> Array:
        """The sum (N,), of the type of `like`, on every rank, once each has added its own leaves.

        The nodes whose sibling is on another rank are cut into one slice of the N numbers for each
        rank, which finishes the tree for its slice. Then the slices are put together. So all ranks
        add, and each sends about 2 N numbers where its leaves are one branch of the tree.
        """
        if ranks.size == 1:
            return self.waiting[self.root]
        cuts = [r * len(like) // ranks.size for r in range(ranks.size + 1)]
        own, xp = GradientSum(self.leaves), array_module(like)
        for sent in ranks.exchange(
            [
                {place: array[start:end] for place, array in self.waiting.items()}
                for start, end in pairwise(cuts)
            ]
        ):
            for (level, node), array in sent.items():
                own.add(node, array.copy(), level)
        slices = ranks.exchange([{"sum": own.waiting[self.root]}] * ranks.size)
        return xp.concatenate([sent["sum"] for sent in slices])
