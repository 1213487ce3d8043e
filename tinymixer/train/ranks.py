"""Several processes that train as one: which one this is, and what they send one another.

    rank 0            rank 1            ...      each has the data, the model and the optimizer
    leaves 0..1       leaves 2..3                computes its own micro-batches
       \\                 /
        exchange, gather                         sums of gradients; losses, hits, running statistics
       /                 \\
    the same update   the same update            weights are never sent

A rank is a process of this machine (processes.py), one that MPI started (mpi.py), or a thread,
which shows the idea and tests it (Threads, here). What crosses does not depend on the kind, and the
sum is one tree for all, see parallel.GradientSum: so the bits do not depend on it either.
"""

import copy
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tinymixer.backend import Array
from tinymixer.errors import TinymixerError, note
from tinymixer.processors import threads_start
from tinymixer.train.machine import Machine

T = TypeVar("T")


class RankError(TinymixerError):
    """Another rank failed, or its process has ended."""


class Ranks:
    """One process alone, and what every kind of rank offers. Use it `with ranks:`.

    Every rank has to make the same calls in the same order: each waits for all others. A rank that
    leaves by an exception tells the others, whose next call raises RankError with its message.
    """

    rank, size = 0, 1
    seconds = 0.0  # spent on what crosses, and on waiting for the others

    def gather(self, item: T) -> list[T]:
        """The items of all ranks, in their order, on every rank. For small things: they are copied.

        Raises RankError if another rank failed or its process has ended.
        """
        start = time.monotonic()
        found = self._all((item, None, False))
        self.seconds += time.monotonic() - start
        self._require_together(found, leaving=False)
        return [item for item, _, _ in found]

    def exchange(self, parts: Sequence[Mapping[Any, Array]]) -> list[Mapping[Any, Array]]:
        """Send the named arrays parts[r] to each rank r; what each rank sent to this one, in order.

        What arrives may lie where its sender wrote it: it is read only, until the next exchange.
        """
        return [sent[self.rank] for sent in self.gather(parts)]

    def share(self, count: int) -> range:
        """Which of `count` items are this rank's; the shares differ by one at most."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """All leave together, so that no failure is missed."""
        if error is None or (isinstance(error, Exception) and not isinstance(error, RankError)):
            found = self._all((None, None if error is None else _in_words(error), True))
            if error is None:
                self._require_together(found, leaving=True)

    def _require_together(self, found: Any, leaving: bool) -> None:
        """Raise RankError for a rank that failed, or that leaves when this one does not."""
        for rank, (_, failure, _) in enumerate(
            found
        ):  # a failure explains who left, so it is first
            if failure is not None:
                raise RankError(f"process {rank + 1} of {self.size}: {failure}")
        for rank, (_, _, leaves) in enumerate(found):
            if leaves != leaving:
                does = f"{self.size} {'has ended' if leaves else 'goes on'}"
                raise RankError(
                    f"process {rank + 1} of {does}, but process {self.rank + 1} does not"
                )

    def _all(self, item: T) -> list[T]:
        """The items of all ranks, in their order: what each kind does in its own way."""
        return [item]


ALONE = Ranks()


def require_alike(ranks: Ranks, facts: Mapping[str, str], machine: Machine) -> None:
    """Raise TinymixerError if a fact, by its name, differs between ranks.

    Different machines are fine, but then the bits differ: rank 0 prints a note.
    """
    (first, usual), *others = ranks.gather((facts, machine))
    for rank, (theirs, other) in enumerate(others, 1):
        for name, what in first.items():
            if theirs[name] != what:
                raise TinymixerError(
                    f"process {rank + 1} has other {name} than process 1: {theirs[name]}, not "
                    f"{what}; give all of them the same"
                )
        if other != usual and ranks.rank == 0:
            note(
                f"process {rank + 1} computes with other arithmetic than process 1 "
                f"({'; '.join(other.differences(usual))}): the bits of the weights depend on how "
                "the work is shared"
            )


def _in_words(error: Exception) -> str:
    if isinstance(error, TinymixerError):
        return str(error)
    return "".join(traceback.format_exception(error))  # a bug of ours


class Threads(Ranks):
    """Ranks as threads of one process: `run_threads(3, f)`. What is sent is copied."""

    def __init__(self, rank: int, size: int, table: list[Any], barrier: threading.Barrier):
        self.rank, self.size = rank, size
        self._table, self._barrier = table, barrier

    def _all(self, item: T) -> list[T]:
        self._table[self.rank] = item
        try:
            self._barrier.wait()
            found = copy.deepcopy(self._table)
            self._barrier.wait()  # before the table is written again
        except threading.BrokenBarrierError:
            raise RankError("another thread has ended") from None
        return found


def run_threads(size: int, f: Callable[[Ranks], T]) -> list[T]:
    """[f(ranks) of each rank], all at once: rank 0 here, each other in a thread of its own.

    The first error is raised, one of f's own before the RankErrors that it causes in the others.
    TinymixerError where no threads start.
    """
    if size > 1 and not threads_start():
        raise TinymixerError(
            f"run_threads: {size} ranks need a thread each, and Python in a browser starts none; "
            "run this in a Python of your machine"
        )
    table: list[Any]
    table, barrier = [None] * size, threading.Barrier(size)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def one(rank: int) -> None:
        try:
            with Threads(rank, size, table, barrier) as ranks:
                results[rank] = f(ranks)
        except BaseException as error:
            barrier.abort()
            errors.append(error)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(1, size)]
    for thread in threads:
        thread.start()
    one(0)
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda error: isinstance(error, RankError)):
        raise error
    return results
