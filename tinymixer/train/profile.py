"""What a step is made of: its time by operation, and the matrix products that it cannot do without.

The engine and the models contain nothing for this. While a step is profiled, the `forward` and
`backward` of every Function go through a function of ours, which may time them or look at what
they compute.
"""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tinymixer.backend import Array, array_module, to_device
from tinymixer.engine import Function
from tinymixer.fast.gpu import products as gpu_products
from tinymixer.fast.gpu.launches import Launches

# call(function, direction, method, arrays): what is done in place of method(*arrays).
Call = Callable[[Function, str, Callable[..., Any], tuple[Any, ...]], Any]


@contextmanager
def around(call: Call) -> Iterator[None]:
    """In its `with` block, each forward and backward of a Function, in any thread, is a `call`."""

    def watched(method: Callable[..., Any], direction: str) -> Callable[..., Any]:
        return lambda self, *arrays: call(self, direction, partial(method, self), arrays)

    with ExitStack() as stack:
        for function in _below(Function):
            for direction in ("forward", "backward"):
                if direction in vars(function):
                    method = watched(vars(function)[direction], direction)
                    stack.enter_context(replaced(function, direction, method))
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """In its `with` block, the attribute `name` that a class or an object has is `value`."""
    own = vars(owner).get(name)  # None where an object has it from its class
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def _below(cls: Any) -> Iterator[type]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _below(subclass)


# Matrix products ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Product:
    """A matrix product that the Function `by` calls: the two sides' shapes and memory order."""

    by: str
    left: tuple[int, ...]
    right: tuple[int, ...]
    transposed: tuple[bool, bool]  # a side whose columns lie together in memory, such as W.T
    flops: int  # one multiplication and one addition for each product of two elements

    def operands(self, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Two float32 arrays like these, of ordinary numbers, and one for what they make."""
        sides = []
        for shape, transposed in zip((self.left, self.right), self.transposed, strict=True):
            stored = (*shape[:-2], shape[-1], shape[-2]) if transposed else shape
            side = rng.standard_normal(stored, dtype=np.float32)
            sides.append(side.swapaxes(-1, -2) if transposed else side)
        return sides[0], sides[1], sides[0] @ sides[1]


def products_of(compute: Callable[[], Any]) -> list[Product]:
    """The products of matrices that Functions call while `compute` runs, in order.

    They are given arrays that look like any other and note down the products they take part in.
    A product with a vector reads its matrix once, as a sum does, and is not counted.
    """
    found: list[Product] = []
    caller = ""

    class Witness(np.ndarray):
        def __array_ufunc__(
            self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any
        ) -> Any:
            arrays = [_bare(x) for x in inputs]
            if out is not None:
                options["out"] = tuple(map(_bare, out))
            y = getattr(ufunc, method)(*arrays, **options)
            if ufunc is np.matmul and min(x.ndim for x in arrays) > 1:
                a, b = arrays
                order = (not a.flags.c_contiguous, not b.flags.c_contiguous)
                found.append(Product(caller, a.shape, b.shape, order, 2 * y.size * a.shape[-1]))
            if out is not None:
                return out[0]
            return y.view(Witness) if isinstance(y, np.ndarray) else y

    def call(
        function: Function, direction: str, method: Callable[..., Any], arrays: tuple[Any, ...]
    ) -> Any:
        nonlocal caller
        caller = type(function).__name__
        return method(*(x.view(Witness) if isinstance(x, np.ndarray) else x for x in arrays))

    with around(call):
        compute()
    return found


def continued(two: Sequence[Product], three: Sequence[Product], images: int) -> list[Product]:
    """The products for so many images, if each adds to those for two what the third one adds."""

    def size(a: int, b: int) -> int:
        return a + (b - a) * (images - 2)

    return [
        replace(
            p,
            left=tuple(map(size, p.left, q.left)),
            right=tuple(map(size, p.right, q.right)),
            flops=size(p.flops, q.flops),
        )
        for p, q in zip(two, three, strict=False)
    ]


def _bare(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, np.ndarray) else x


class ProductsAlone:
    """Matrix products and nothing else: `ProductsAlone()(products)` computes them one by one.

    Products that are alike use the same arrays, which stay in the cache as far as they fit. So the
    time is the least that these products can take here, and what a step takes longer is its own.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._mine = threading.local()  # each thread has its own arrays

    def __call__(self, products: Sequence[Product]) -> None:
        computations = vars(self._mine).setdefault("computations", {})
        for product in products:
            if product not in computations:
                computations[product] = self._computation(product)
            computations[product]()

    def _computation(self, of: Product) -> Callable[[], Any]:
        a, b, y = (to_device(x, self._device) for x in of.operands(np.random.default_rng(0)))
        if self._device == "gpu" and a.ndim == b.ndim == 2:  # as twins do, in the set precision
            a, b = (x.astype(gpu_products.operand_type()) for x in (a, b))
            return partial(gpu_products.product, a, b, a.dtype)
        return partial(array_module(a).matmul, a, b, out=y)


# Time ---------------------------------------------------------------------------------------------


# Other programs do not disturb the processor time of one thread. Windows counts it in 16 ms ticks,
# and Python in a browser does not count it.
clock = time.perf_counter
if sys.platform != "win32" and hasattr(time, "thread_time"):
    clock = time.thread_time


class Stopwatch:
    """Seconds of one thread by name, each without what was measured inside of it."""

    def __init__(self) -> None:
        self.seconds: dict[Any, float] = defaultdict(float)
        self.calls: dict[Any, int] = defaultdict(int)
        self._inside = [0.0]  # seconds measured within each call that is still running

    def run(self, name: Any, f: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """f(*arguments, **options), on the clock of `name`."""
        self._inside.append(0.0)
        start = clock()
        try:
            return f(*arguments, **options)
        finally:
            elapsed = clock() - start
            self.seconds[name] += elapsed - self._inside.pop()
            self.calls[name] += 1
            self._inside[-1] += elapsed

    def on(self, name: Any, owner: Any, method: str) -> AbstractContextManager[None]:
        """In its `with` block, `method` of the object `owner` is on the clock of `name`."""
        return replaced(owner, method, partial(self.run, name, getattr(owner, method)))


@dataclass(frozen=True)
class OperationTime:
    """What one operation takes of a step that one thread does alone, in ms of processor time.

    `other` is time that is neither a Function's forward nor its backward; `products` is that of
    its matrix products alone.
    """

    name: str
    calls: int
    forward: float
    backward: float
    other: float
    products: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.other


def profile_rows(watch: Stopwatch, steps: int) -> list[OperationTime]:
    """The longest first, of seconds in `steps` steps under (name, kind of time)."""
    rows = []
    for name in dict.fromkeys(name for name, _ in watch.seconds):
        forward, backward, other, products = (
            1e3 * watch.seconds[name, kind] / steps
            for kind in ("forward", "backward", "other", "products")
        )
        calls = (watch.calls[name, "forward"] or watch.calls[name, "other"]) // steps
        rows.append(OperationTime(name, calls, forward, backward, other, products))
    return sorted(rows, key=lambda row: -row.total)


def profile_table(rows: Sequence[OperationTime]) -> str:
    """The rows as a table, and their sum below it."""
    sums = (
        sum(getattr(row, kind) for row in rows)
        for kind in ("forward", "backward", "other", "products")
    )
    whole = OperationTime("total", 0, *sums)
    cells = [["operation", "calls", "forward", "backward", "total ms", "share", "products alone"]]
    for row in [*rows, whole]:
        times = [f"{ms:.1f}" if ms else "" for ms in (row.forward, row.backward, row.total)]
        share, alone = f"{row.total / whole.total:.1%}", f"{row.products:.1f}"
        cells.append([row.name, f"{row.calls or ''}", *times, share, alone if row.products else ""])
    head, *body, last = aligned(cells)
    rule = "-" * len(head)
    return "\n".join([head, rule, *body, rule, last])


def launch_table(
    rows: Sequence[Launches], step_ms: float, peak_gflop_s: float, copy_gb_s: float
) -> str:
    """The rows as a table, with the share that each reaches of what the GPU can do at most.

    That is to multiply or to read and write, whichever a row comes closer to.
    """
    cells = [["kernel or product", "launches", "ms a step", "share", "GB/s", "GFLOP/s", "of most"]]
    for row in rows:
        reached = max(row.gflop_s / peak_gflop_s, row.gb_s / copy_gb_s)
        times = f"{row.count}", f"{row.total_ms:.3f}", f"{row.total_ms / step_ms:.1%}"
        rates = f"{row.gb_s:,.0f}", f"{row.gflop_s:,.0f}" if row.flops else "", f"{reached:.1%}"
        cells.append([row.name, *times, *rates])
    rest = step_ms - sum(row.total_ms for row in rows)
    cells.append(["all else", "", f"{rest:.3f}", f"{rest / step_ms:.1%}", "", "", ""])
    head, *body = aligned(cells)
    return "\n".join([head, "-" * len(head), *body])


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = "<" + ">" * (len(widths) - 1)
    return [
        "  ".join(f"{cell:{side}{w}}" for cell, side, w in zip(line, sides, widths, strict=True))
        for line in cells
    ]
