"""Memory, streams and graphs of the stand-in for CuPy, in the strictest way that CUDA allows.

Memory goes to the next who asks as soon as an array is dropped, full of NaN. While a stream
captures, nothing is computed: results are what lies in their memory, until the graph is launched on
the same memory, in whatever array it is by then. What would have to wait for the GPU raises.
"""

import itertools
import os
import time
import weakref
from collections import defaultdict
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

UNIT = 512  # bytes
_driver = defaultdict(list)  # free blocks, by size; they are never given back
_addresses = itertools.count(1)


class OutOfMemoryError(MemoryError):
    pass


class Memory:
    """Of the driver, until it is dropped."""

    def __init__(self, size):
        self.size = -(-size // UNIT) * UNIT
        self._block = _driver[self.size].pop() if _driver[self.size] else _block(self.size)
        self.ptr = self._block.ctypes.data

    def __del__(self, driver=_driver):  # which outlives the names of a module
        self._block[:] = 0xFF
        driver[self.size].append(self._block)


def _block(size):
    memory = np.full(size + UNIT, 0xFF, np.uint8)
    start = -memory.ctypes.data % UNIT
    return memory[start : start + size]


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset


class MemoryPool:
    """Keeps what is dropped for the next of the same size on the same stream."""

    def __init__(self, allocator=lambda size: MemoryPointer(Memory(size), 0)):
        self._allocator, self._total = allocator, 0
        self.set_limit(int(os.environ.get("CUPY_GPU_MEMORY_LIMIT", "0")))
        self._free = defaultdict(list)

    def malloc(self, size):
        size = -(-size // UNIT) * UNIT
        free = self._free[get_current_stream().ptr, size]
        mem = free.pop() if free else self._more(size)
        return MemoryPointer(_Lease(self, mem, free), 0)

    def _more(self, size):
        """As in CuPy: where there is no more, what is free is given back, and it is tried again."""
        if self._limit and self._total + size > self._limit:
            self.free_all_blocks()
        try:
            mem = self._allocator(size).mem
        except OutOfMemoryError:
            self.free_all_blocks()
            mem = self._allocator(size).mem
        self._total += size
        return mem

    def free_all_blocks(self):
        for free in self._free.values():
            self._total -= sum(mem.size for mem in free)
            free.clear()

    def set_limit(self, size):
        self._limit = size

    def total_bytes(self):
        return self._total


class _Lease:
    """Memory of a pool, until it is dropped."""

    def __init__(self, pool, mem, free):
        self._pool, self._mem, self._free, self.ptr = weakref.ref(pool), mem, free, mem.ptr

    def __del__(self):
        self._mem._block[:] = 0xFF
        if self._pool() is not None:
            self._free.append(self._mem)


class _Bytes:
    """Memory, as NumPy asks for it; it keeps `owner`, if anybody owns it."""

    def __init__(self, ptr, shape, strides=None, typestr="|u1", *, owner=None):
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "data": (ptr, False),
            "shape": shape,
            "strides": strides,
            "typestr": typestr,
        }


_pool = MemoryPool()
_allocators = [_pool.malloc]


def get_default_memory_pool():
    return _pool


@contextmanager
def using_allocator(allocator):
    _allocators.append(allocator)
    try:
        yield
    finally:
        _allocators.pop()


def placed(host):
    """`host` in memory of the device: as it is if it lies there, else a copy."""
    if is_placed(host) or not host.size:
        return host
    pointer = _allocators[-1](host.nbytes)
    memory = np.asarray(_Bytes(pointer.ptr, (host.nbytes,), owner=pointer.mem)).view(host.dtype)
    order = host.shape[::-1] if host.flags.fnc else host.shape
    memory = memory.reshape(order)
    memory = memory.T if host.flags.fnc else memory
    if _recorded() is None:
        memory[...] = host
    return memory


def is_placed(host):
    while host is not None and not isinstance(host, _Bytes):
        host = getattr(host, "base", None)
    return host is not None


def _raw(host):
    """The same memory, whichever array gets it after its owner."""
    if not host.size:
        return host
    like = host.__array_interface__
    memory = _Bytes(host.ctypes.data, host.shape, host.strides, like["typestr"])
    return np.asarray(memory).view(host.dtype)


def raws(x):
    if isinstance(x, np.ndarray):
        return _raw(x)
    if isinstance(x, tuple | list):
        return type(x)(map(raws, x))
    if isinstance(x, dict):
        return {key: raws(value) for key, value in x.items()}
    return x


# Streams and graphs -------------------------------------------------------------------------------


class Stream:
    def __init__(self, null=False, non_blocking=False):
        self.ptr = 0 if null else next(_addresses) << 12
        self._blocking, self._work = not non_blocking, None

    def __eq__(self, other):
        return isinstance(other, Stream) and self.ptr == other.ptr

    __hash__ = None

    def __enter__(self):
        _streams.append(self)
        return self

    def __exit__(self, *_):
        _streams.pop()

    def begin_capture(self):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        assert not _capturing
        _capturing.append(self)
        self._work = []
        for tell in on_capture:
            tell(self.ptr, lambda run: self._work.append(("KERNEL", run)))

    def end_capture(self):
        assert _capturing.pop() is self
        work, self._work = self._work, None
        for tell in on_capture:
            tell(0, None)
        return Graph(work)

    def synchronize(self):
        wait()


class Graph:
    def __init__(self, work):
        self._work = work

    def upload(self, stream=None):
        pass

    def launch(self, stream=None):
        wait()
        for _, run in self._work:
            run()

    def debug_dot_str(self, flags=0):
        """As CUDA prints it with every flag: the type of a node first."""
        assert flags == 1
        lines = ["digraph dot {", "subgraph cluster_1 {", 'label="graph_1" graph[style="dashed"];']
        for i, (kind, _) in enumerate(self._work):
            name, _, direction = kind.partition(" ")
            label = f"{{{name}\n| {{ID | {i} (topoId: 0) | _Z6kernelPf\\<\\<\\<1,1,0\\>\\>\\>}}"
            if direction:
                label = f"{{\n{name}\n| {{{{ID}} | {{{i}}}}}\n| {{kind | {direction}}}"
            lines.append(f'"graph_1_node_{i}"[style="bold" shape="record" label="{label}\n}}"];')
        lines += [
            f'"graph_1_node_{i}" -> "graph_1_node_{i + 1}" [headlabel=0];'
            for i in range(len(self._work) - 1)
        ]
        return "\n".join([*lines, "}", "}"])


class Event:
    """A moment of the program: nothing here is ever on its way."""

    def record(self, stream=None):
        self.at = time.perf_counter()

    def synchronize(self):
        wait()


def get_elapsed_time(start, end):
    return 1e3 * (end.at - start.at)


on_capture = []  # told the stream that begins to capture, and to whom work is given; 0 at its end
_capturing: list[Stream] = []
_streams = [Stream(null=True)]


def get_current_stream():
    return _streams[-1]


def _recorded():
    """The work that the current stream captures; None if it computes."""
    stream = get_current_stream()
    if _capturing and stream != _capturing[0] and (stream._blocking and _capturing[0]._blocking):
        raise RuntimeError("cudaErrorStreamCaptureImplicit: another stream is capturing")
    return stream._work


def wait():
    """What cannot be done before all else is done."""
    if _recorded() is not None:
        raise RuntimeError(
            "the current stream is capturing, so synchronous API calls are disallowed"
        )


NOT_CAPTURED = {"matmul", "tensordot"}  # CuPy calls cuBLAS
SYNCHRONOUS = {"bincount"}  # the size of the result has to be known


def compute(function, args, kwargs):
    """What NumPy makes of arrays; while capturing, its memory, and the work is recorded."""
    work, name = _recorded(), function.__name__
    if work is None:
        return function(*args, **kwargs)
    if name in NOT_CAPTURED:
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )
    if name in SYNCHRONOUS:
        wait()
    raw_args, raw_kwargs = raws(args), raws(kwargs)
    out = kwargs.get("out")
    if out is not None or name in IN_PLACE:
        work.append(("KERNEL", lambda: function(*raw_args, **raw_kwargs)))
        return out[0] if isinstance(out, tuple) else out
    with np.errstate(all="ignore"):
        shape_of = function(*args, **kwargs)
    if not isinstance(shape_of, np.ndarray | np.generic):
        return shape_of
    shape_of = np.asarray(shape_of)
    if is_placed(shape_of):
        return shape_of
    result = placed(shape_of)
    target = _raw(result)
    kind = "MEMCPY DtoD (DEVICE to DEVICE)" if name == "copy" else "KERNEL"
    work.append((kind, lambda: np.copyto(target, function(*raw_args, **raw_kwargs))))
    return result


IN_PLACE = {"__setitem__", "at", "launch"}


cuda = SimpleNamespace(
    is_available=lambda: True,
    runtime=SimpleNamespace(runtimeGetVersion=lambda: 0),  # a CUDA whose cuBLAS is not installed
    Event=Event,
    get_elapsed_time=get_elapsed_time,
    Device=lambda: SimpleNamespace(synchronize=wait),
    Graph=Graph,
    Memory=Memory,
    MemoryPointer=MemoryPointer,
    MemoryPool=MemoryPool,
    Stream=Stream,
    get_current_stream=get_current_stream,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    using_allocator=using_allocator,
)
