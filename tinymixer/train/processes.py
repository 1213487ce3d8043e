"""Ranks as processes of this machine: pipes for small things, shared memory for arrays.

    this process, rank 0  --pipe-->  python -c "... serve()", rank 1, 2, ...

Python's interpreter lock lets one thread at a time run Python, however many there are; processes
have one each. They are started anew, not forked, so that they behave alike on all systems and a
script needs no `if __name__ == "__main__"`. What they are given, the data set above all, lies in
shared memory: it is not copied for each. A process whose pipe ends, because the one that started it
has ended in any way, ends at once.
"""

import mmap
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

import numpy as np

from tinymixer.backend import Array
from tinymixer.errors import TinymixerError
from tinymixer.fast.cpu import keep_freed_memory
from tinymixer.processors import threads_start
from tinymixer.train.ranks import RankError, Ranks

T = TypeVar("T")

# Windows maps no file by its name while that is open.
AVAILABLE = os.name == "posix" and threads_start()
ALIGNMENT = 64  # bytes: a cache line
PATIENCE = 5.0  # seconds that a process has to end by itself
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "MKL", "OMP")}


class Memory:
    """Bytes that several processes see: a file that is mapped into each, by its `path`.

    It is gone with the process that made it.
    """

    def __init__(self, path: str | None = None):
        made = ""  # a file to be deleted
        if path is not None:
            self._file = os.open(path, os.O_RDWR)
        elif hasattr(os, "memfd_create"):
            self._file = os.memfd_create("tinymixer")
            path = f"/proc/{os.getpid()}/fd/{self._file}"
        else:
            self._file, made = tempfile.mkstemp(prefix="tinymixer-")
            path = made
        self.path = path
        self._bytes = np.empty(0, np.uint8)
        weakref.finalize(self, _forget, self._file, made)

    def bytes(self, size: int) -> np.ndarray:
        """At least the first `size` bytes, uint8; there may be more."""
        if len(self._bytes) < size:
            if os.fstat(self._file).st_size < size:
                os.truncate(self._file, size)
            self._bytes = np.frombuffer(mmap.mmap(self._file, size), np.uint8)
        return self._bytes

    def put(self, buffers: Sequence[Any]) -> list[tuple[int, int]]:
        """Copy buffers to the beginning, one after the other; (start, end) of each."""
        places, end = [], 0
        for buffer in buffers:
            start = -(-end // ALIGNMENT) * ALIGNMENT
            end = start + memoryview(buffer).nbytes
            places.append((start, end))
        memory = self.bytes(max(1, end))
        for buffer, (start, end) in zip(buffers, places, strict=True):
            if start < end:
                memory[start:end] = np.frombuffer(buffer, np.uint8)
        return places

    def get(self, start: int, end: int) -> np.ndarray:
        return self.bytes(max(1, end))[start:end]


def _forget(file: int, made: str) -> None:
    os.close(file)
    if made:
        os.unlink(made)


class Processes(Ranks):
    """Rank 0 of `size` processes; each of the others runs f(ranks, *arguments), then ends.

    f is a function of a module and the arguments can be pickled; `shared` are the same arguments,
    with their arrays where all processes see them.
    """

    def __init__(self, size: int, f: Callable[..., Any], *arguments: Any):
        if not AVAILABLE:
            raise TinymixerError("processes: this system cannot share memory so; use workers")
        self.rank, self.size = 0, size
        self._memory = Memory()
        buffers: list[pickle.PickleBuffer] = []
        said = pickle.dumps(arguments, protocol=5, buffer_callback=buffers.append)
        raw = [buffer.raw() for buffer in buffers]
        self._task = f, said, self._memory.path, self._memory.put(raw)
        self.shared = _taken(self._memory, *self._task[1::2])
        self._started: list[_Started] = []

    def __enter__(self) -> "Processes":
        try:
            for rank in range(1, self.size):
                self._started.append(_Started(rank, self._started))
            for process in self._started:
                process.send((process.rank, self.size, self._task))
            self._exchange = _Exchange(self)
        except BaseException:
            self._end()
            raise
        return self

    @property
    def pids(self) -> list[int]:
        """The process numbers of ranks 1, 2, ..."""
        return [process.pid for process in self._started]

    def _all(self, item: T) -> list[T]:
        found = [item, *(process.receive() for process in self._started)]
        for process in self._started:
            process.send(found)
        return found

    def exchange(self, parts: Sequence[Mapping[Any, Array]]) -> list[Mapping[Any, Array]]:
        return self._exchange(parts)

    def __exit__(self, *exception: Any) -> None:
        try:
            super().__exit__(*exception)
        finally:
            self._end()

    def _end(self) -> None:
        while self._started:
            self._started.pop().end()


class _Started:
    """A process that this one started, and its pipes."""

    def __init__(self, rank: int, together: "list[_Started]"):
        self.rank, self._together = rank, together  # with this one
        places = map(os.path.abspath, sys.path)  # "" is the folder that this process is in
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(places)},
            start_new_session=True,  # Ctrl-C in a terminal is for the one that was started there
        )
        self.pid = self._process.pid

    def send(self, item: Any) -> None:
        try:
            pickle.dump(item, self._process.stdin)  # type: ignore[arg-type]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            raise self._lost() from None

    def receive(self) -> Any:
        try:
            return pickle.load(self._process.stdout)  # type: ignore[arg-type]
        except (EOFError, pickle.UnpicklingError):
            raise self._lost() from None

    def _lost(self) -> RankError:
        """The error for the process that ended: if others did too, the one that a signal ended,
        since those that miss it may end for that reason.
        """
        self._process.wait()
        ended = [(x._process.poll(), x) for x in self._together]
        code, first = min(
            ((code, x) for code, x in ended if code is not None), key=lambda one: one[0] >= 0
        )
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return RankError(
            f"worker process {first.rank + 1} (pid {first.pid}) was ended {how}, not by "
            "this run; go on from the last checkpoint with --resume"
        )

    def end(self) -> None:
        """Wait for it to end, by itself or because its pipe is closed."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # stopped, or in a long product
            self._process.kill()
            self._process.wait()


class _Exchange:
    """Arrays from every rank to every rank, through two memories of each, used in turn.

    What was sent last may still be read while the next is written, so there are two. What was sent
    before that is not read any more: all ranks have been here since.
    """

    def __init__(self, ranks: Ranks):
        self._ranks, self._turn = ranks, 0
        self._mine = Memory(), Memory()
        paths = ranks.gather([memory.path for memory in self._mine])
        self._memories = [
            self._mine if rank == ranks.rank else tuple(map(Memory, of_rank))
            for rank, of_rank in enumerate(paths)
        ]

    def __call__(self, parts: Sequence[Mapping[Any, Array]]) -> list[Mapping[Any, Array]]:
        self._turn ^= 1
        arrays = {id(array): array for part in parts for array in part.values()}  # once for all
        places = dict(zip(arrays, self._mine[self._turn].put(list(arrays.values())), strict=True))
        said = [
            {name: (x.dtype.str, x.shape, *places[id(x)]) for name, x in part.items()}
            for part in parts
        ]
        return [
            {
                name: memories[self._turn].get(*place).view(dtype).reshape(shape)
                for name, (dtype, shape, *place) in from_rank[self._ranks.rank].items()
            }
            for memories, from_rank in zip(self._memories, self._ranks.gather(said), strict=True)
        ]


# --- In a process that was started ---------------------------------------------------------------


class _Served(Ranks):
    def __init__(self, rank: int, size: int, inbox: "queue.SimpleQueue[Any]", outbox: BinaryIO):
        self.rank, self.size = rank, size
        self._inbox, self._outbox = inbox, outbox
        self._exchange = _Exchange(self)

    def _all(self, item: T) -> list[T]:
        pickle.dump(item, self._outbox)
        self._outbox.flush()
        return self._inbox.get()

    def exchange(self, parts: Sequence[Mapping[Any, Array]]) -> list[Mapping[Any, Array]]:
        return self._exchange(parts)


def serve() -> None:
    """The main function of a started process: run what it is sent, then end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # rank 0 warns
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(reader, inbox), daemon=True).start()
    keep_freed_memory()
    rank, size, (f, said, path, places) = inbox.get()
    code = 1
    try:
        memory = Memory(path)
        with suppress(Exception), _Served(rank, size, inbox, writer) as ranks:  # rank 0 is told
            f(ranks, *_taken(memory, said, places))
            code = 0
    finally:
        os._exit(code)


def _listen(reader: BinaryIO, inbox: "queue.SimpleQueue[Any]") -> None:
    """Put all that arrives into the inbox; when the pipe ends, end this process."""
    while True:
        try:
            inbox.put(pickle.load(reader))
        except BaseException:
            os._exit(1)


def _taken(memory: Memory, said: bytes, places: Sequence[tuple[int, int]]) -> tuple[Any, ...]:
    return pickle.loads(said, buffers=[memory.get(*place) for place in places])
