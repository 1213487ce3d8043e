"""What a step asks of a GPU: its kernels and matrix products, each timed by itself.

A GPU runs behind the program that feeds it, so the time of a call in Python says nothing about its
kernel. What a step launches is recorded instead, and each launch of another kind is then repeated
on the arrays that it had. Those that fit into the GPU's cache, of 50 MB or so, come from there
then, and faster than memory would deliver them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinymixer.backend import Array
from tinymixer.fast.gpu import kernels, ops

REPEATS = 20  # in a row


@dataclass(frozen=True)
class Launches:
    """Launches of one kind in one step: how many, and what each takes.

    bytes are those of its arrays, each counted once; flops are 0 for all but products.
    """

    name: str
    count: int
    ms: float
    bytes: int
    flops: int = 0

    @property
    def total_ms(self) -> float:
        return self.count * self.ms

    @property
    def gb_s(self) -> float:
        return self.bytes / self.ms / 1e6

    @property
    def gflop_s(self) -> float:
        return self.flops / self.ms / 1e6


@dataclass
class Kind:
    """What `Launches` are made of: one launch of its kind, to be repeated."""

    name: str
    again: Callable[[], Any]
    bytes: int
    flops: int
    count: int = 0


@contextmanager
def noted() -> Iterator[list[Kind]]:
    """In its `with` block, the kernels and the products of `fast.gpu` are noted down, by kind."""
    launch, product = kernels.launch, ops.product
    kinds: dict[Any, Kind] = {}

    def note(
        key: Any, name: str, again: Callable[[], Any], arrays: Sequence[Array], flops: int
    ) -> None:
        size = sum(a.nbytes for a in arrays)
        kinds.setdefault((name, key), Kind(name, again, size, flops)).count += 1

    def noted_launch(name: str, grid: Any, *arguments: Any, **options: Any) -> None:
        again = partial(launch, name, grid, *arguments, **options)
        again()
        arrays = [a for a in arguments if not isinstance(a, np.generic)]
        key = grid, tuple(options.items()), tuple((a.shape, a.dtype) for a in arrays)
        note(key, name, again, arrays, 0)

    def noted_product(A: Array, B: Array, dtype: Any = np.float32) -> Array:
        again = partial(product, A, B, dtype)
        C = again()
        (M, K), N = A.shape, B.shape[1]
        key = A.dtype, C.dtype, A.flags.c_contiguous, B.flags.c_contiguous
        note(key, f"product {M} x {K} x {N}", again, (A, B, C), 2 * M * K * N)
        return C

    found: list[Kind] = []
    kernels.launch = noted_launch
    ops.product = noted_product
    try:
        yield found
    finally:
        kernels.launch = launch
        ops.product = product
    found += kinds.values()


def gpu_ms(again: Callable[[], Any], times: int, ahead: Callable[[], Any]) -> float:
    """What a GPU needs for `again()`, called so many times in a row, by its own clock.

    `ahead()` gives it work for longer than it takes to ask for them all: the calls queue up behind
    it, and what is measured never waits for the program.
    """
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    again()  # the first may compile
    ahead()
    start.record()
    for _ in range(times):
        again()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / times


def timed(kinds: Sequence[Kind], ahead: Callable[[], Any]) -> list[Launches]:
    """Each kind, repeated and timed behind `ahead`, see gpu_ms; the longest of the step first.

    What a kernel changes in place goes on changing: the arrays are worth nothing afterwards.
    """
    rows = []
    for kind in kinds:
        ms = gpu_ms(kind.again, REPEATS, ahead)
        rows.append(Launches(kind.name, kind.count, ms, kind.bytes, kind.flops))
    return sorted(rows, key=lambda row: -row.total_ms)
