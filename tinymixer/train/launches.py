"""What a step asks of a GPU: its kernels and matrix products, each timed by itself.

A GPU runs behind the program that feeds it, so the clock of a call says nothing of its kernel. What
a step launches is noted down instead, and each launch of another kind is then repeated on the
arrays that it had. Those that fit into the GPU's cache, of 50 MB or so, come from there then, and
faster than memory would deliver them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinymixer.backend import Array, gpu_ms
from tinymixer.fast.gpu import kernels, ops
from tinymixer.train.profile import aligned, replaced

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
    """Within it, the kernels and the products of `fast.gpu` are noted down, by kind."""
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

    def noted_product(A: Array, B: Array, *dtype: Any) -> Array:
        again = partial(product, A, B, *dtype)
        C = again()
        (M, K), N = A.shape, B.shape[1]
        key = A.dtype, C.dtype, A.flags.c_contiguous, B.flags.c_contiguous
        note(key, f"product {M} x {K} x {N}", again, (A, B, C), 2 * M * K * N)
        return C

    with ExitStack() as stack:
        stack.enter_context(replaced(kernels, "launch", noted_launch))
        stack.enter_context(replaced(ops, "product", noted_product))
        found: list[Kind] = []
        yield found
        found += kinds.values()


def timed(kinds: Sequence[Kind], ahead: Callable[[], Any]) -> list[Launches]:
    """Each kind, repeated and timed behind `ahead`, see gpu_ms; the longest of the step first.

    What a kernel changes in place goes on changing: the arrays are worth nothing afterwards.
    """
    rows = []
    for kind in kinds:
        ms = gpu_ms(kind.again, REPEATS, ahead)
        rows.append(Launches(kind.name, kind.count, ms, kind.bytes, kind.flops))
    return sorted(rows, key=lambda row: -row.total_ms)


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
