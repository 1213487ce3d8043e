"""A function that is replayed gives what it gives when called, or it is called."""

import gc
from collections import Counter

import cupy_memory
import cupy_stand_in
import numpy as np
import pytest

from tinymixer.backend import to_numpy
from tinymixer.fast.gpu import cublas, graphs
from tinymixer.fast.gpu.graphs import Replay
from tinymixer.fast.gpu.products import precision, product


@pytest.fixture
def cupy(with_cublas):
    return with_cublas


class Function:
    """Products, sums and steps in place on the way from x (M, K) and y (K, N) to three arrays."""

    def __init__(self, cupy):
        self.cupy, self.called = cupy, 0
        self.W = cupy.asarray(np.random.default_rng(0).standard_normal((4, 4), np.float32))

    def __call__(self, x, y):
        self.called += 1
        h = product(self.W, x)
        h += 1
        z = self.cupy.empty((len(h), y.shape[1]), np.float32)
        z[...] = product(h, y)
        z = z * z  # what z was is free now, and goes to the next who asks
        big = z.copy() * 2
        return z, big.sum(0), x


def arrays(cupy, seed, K=3, N=2):
    rng = np.random.default_rng(seed)
    shapes = (4, K), (K, N)
    return [cupy.asarray(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(to_numpy(x), to_numpy(y))


def test_a_replayed_function_gives_the_same_bits_whatever_its_inputs(cupy):
    f, plain, replay = Function(cupy), Function(cupy), Replay()
    for seed in range(6):
        inputs = arrays(cupy, seed)
        assert_same(replay(f, *inputs), plain(*inputs))
    assert f.called == 2 + 2  # itself twice, and to ask for memory and to be recorded
    assert replay.why_not is None
    assert len(replay.nodes()) == 1


def test_what_else_it_reads_may_change_in_its_place(cupy):
    f, replay = Function(cupy), Replay()
    inputs = arrays(cupy, 0)
    for _ in range(4):
        found = replay(f, *inputs)
        assert_same(found, Function.__call__(f, *inputs))
        f.W *= 2


def test_every_size_has_its_own_graph_and_a_third_has_none(cupy):
    f, plain, replay = Function(cupy), Function(cupy), Replay()
    for seed in range(4):
        for K, N in ((3, 2), (5, 2), (3, 7)):
            inputs = arrays(cupy, seed, K, N)
            assert_same(replay(f, *inputs), plain(*inputs))
    assert f.called == 4 + 4 + 4  # one more size is called every time
    assert len(replay.nodes()) == graphs.KEPT == 2


def test_every_precision_has_its_own_graph(cupy):
    f, replay = Function(cupy), Replay()
    inputs = arrays(cupy, 0)
    found = {}
    for name in ("fp32", "tf32") * 3:
        with precision(name):
            found[name] = [to_numpy(x) for x in replay(f, *inputs)]
            assert_same(found[name], Function(cupy)(*inputs))
    assert len(replay.nodes()) == 2
    if cupy is cupy_stand_in:
        assert (found["fp32"][0] != found["tf32"][0]).any()


@pytest.mark.parametrize(("limit", "N"), [("0", 200), ("1024", 500)])
def test_its_memory_is_nobody_elses(cupy, monkeypatch, limit, N):
    """A later request for memory of the same sizes is given other memory, and writes to it."""
    monkeypatch.setenv("CUPY_GPU_MEMORY_LIMIT", limit)  # bytes, 0 for none; of each new pool
    f, replay = Function(cupy), Replay()
    inputs = arrays(cupy, 0, N=N)  # so large that not all memory fits all
    expected = [to_numpy(x) for x in f(*inputs)]
    for _ in range(2):
        replay(f, *inputs)
    shapes = [(4, N), (4, 3), (3, N), (N,)] * 20
    others = [cupy.full(shape, 7, np.float32) for shape in shapes]
    assert_same(replay(f, *inputs), expected)
    assert all((x == 7).all() for x in others)
    assert replay.why_not is None


def test_two_graphs_do_not_disturb_each_other(cupy):
    f, first, then = Function(cupy), Replay(), Replay()
    inputs, more = arrays(cupy, 0), arrays(cupy, 1)
    expected = [to_numpy(x) for x in f(*inputs)]
    for _ in range(4):
        kept = first(f, *inputs)
        then(f, *more)
        assert_same(kept, expected)


def test_the_memory_of_a_graph_goes_with_it(cupy):
    f, replay = Function(cupy), Replay()
    inputs = arrays(cupy, 0)
    for _ in range(3):
        replay(f, *inputs)
    (recorded,) = replay._graphs.values()
    pool = recorded._pool
    assert pool.total_bytes() > 0
    del recorded, replay
    gc.collect()
    assert pool.total_bytes() == 0


# --- what cannot be replayed ---


def counts(f, x, y):
    return (*f(x, y), x * f.called)


def reads(f, x, y):
    return f(x * float(x.sum()), y)


def brings(f, x, y):
    return f(x * f.cupy.asarray(np.ones(3, np.float32)), y)


def by_cupy(f, x, y):
    return (*f(x, y), x @ y)


def counts_entries(f, x, y):
    return (*f(x, y), f.cupy.nonzero(x > 0)[0])


NOT_TO_BE_REPLAYED = {
    "a number that changes": (counts, "other bits, in output 3"),
    "a number for the host": (reads, "RuntimeError: .*capturing"),
    "an array from the host": (brings, "RuntimeError: .*capturing"),
    "a product by CuPy": (by_cupy, "NotImplementedError: .*cuBLAS API during stream capture"),
    "a size that arrays decide": (counts_entries, "RuntimeError: .*capturing"),
}


@pytest.mark.parametrize(("function", "why"), NOT_TO_BE_REPLAYED.values(), ids=NOT_TO_BE_REPLAYED)
def test_what_cannot_be_replayed_is_called_for_good_and_said_once(cupy, function, why):
    f, told = Function(cupy), []
    replay = Replay(told.append)

    def recorded(x, y):
        return function(f, x, y)

    for seed in range(4):
        inputs = arrays(cupy, seed)
        f.called = 10 * seed
        found = replay(recorded, *inputs)
        f.called = 10 * seed
        assert_same(found, recorded(*inputs))
    assert told == [replay.why_not]
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(replay.why_not)
    assert replay.nodes() == []
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream(null=True)
    x = arrays(cupy, 0)
    assert_same(Replay()(f, *x), f(*x))  # nothing is recorded any more


def test_an_error_of_the_function_itself_is_its_callers(cupy):
    replay = Replay()
    with pytest.raises(ZeroDivisionError):
        replay(lambda x: 1 // 0, *arrays(cupy, 0)[:1])
    assert replay.why_not is None


def why_not(cupy, monkeypatch):
    f, replay = Function(cupy), Replay()
    for seed in range(4):
        inputs = arrays(cupy, seed)
        assert_same(replay(f, *inputs), Function(cupy)(*inputs))
    return replay.why_not


def test_without_cublas_called_directly_nothing_is_recorded(stand_in, monkeypatch):
    monkeypatch.setattr(cublas, "library_name", lambda version: "no such library")
    assert why_not(stand_in, monkeypatch).startswith("cuBLAS cannot be called directly (OSError")


@pytest.mark.parametrize("blocks", range(5))
def test_where_memory_ends_none_of_the_graph_is_given_back(stand_in, monkeypatch, blocks):
    given_back, left = [], [blocks]
    memory = cupy_memory.Memory

    def scarce(size):
        left[0] -= 1
        if left[0] < 0:
            raise cupy_memory.OutOfMemoryError("out of memory")
        return memory(size)

    def recording():
        return stand_in.cuda.get_current_stream() != stand_in.cuda.Stream(null=True)

    free = cupy_memory.MemoryPool.free_all_blocks
    monkeypatch.setattr(stand_in.cuda, "Memory", scarce)
    monkeypatch.setattr(
        cupy_memory.MemoryPool,
        "free_all_blocks",
        lambda pool: (given_back.append(recording()), free(pool)),
    )
    assert why_not(stand_in, monkeypatch) == "no memory for a graph of its own: out of memory"
    assert True not in given_back


def test_what_lies_free_elsewhere_is_given_back_before_a_graph_asks(stand_in, monkeypatch):
    """A card with half as much again as f needs is enough."""
    held, most = [0], [np.inf]

    class Counted(cupy_memory.Memory):
        def __init__(self, size):
            self.size = 0
            if held[0] + size > most[0]:
                raise cupy_memory.OutOfMemoryError("out of memory")
            super().__init__(size)
            held[0] += self.size

        def __del__(self):
            held[0] -= self.size
            if self.size:
                super().__del__()

    stand_in.get_default_memory_pool().free_all_blocks()
    monkeypatch.setattr(cupy_memory, "Memory", Counted)
    monkeypatch.setattr(stand_in.cuda, "Memory", Counted)
    cublas.opened(stand_in)
    f, inputs = Function(stand_in), arrays(stand_in, 0, N=4096)
    others = held[0]
    f(*inputs)
    most[0] = others + 1.5 * (held[0] - others)
    recorded = graphs._Graph(f, inputs)
    most[0] = np.inf
    assert_same(recorded(*inputs), f(*inputs))


def test_a_copy_from_the_host_would_be_found(stand_in, monkeypatch):
    kinds = Counter({"KERNEL": 3, "MEMCPY HtoD (HOST to DEVICE)": 1})
    monkeypatch.setattr(graphs, "node_kinds", lambda dot: kinds)
    assert "would copy between host and device" in why_not(stand_in, monkeypatch)


@pytest.mark.parametrize("method", ["begin_capture", "end_capture"])
def test_whatever_cuda_refuses_is_told(stand_in, monkeypatch, method):
    right = getattr(cupy_memory.Stream, method)

    def refuses(stream):
        if method == "end_capture":
            right(stream)
        raise RuntimeError("cudaErrorUnknown: no\nsecond line")

    monkeypatch.setattr(cupy_memory.Stream, method, refuses)
    assert why_not(stand_in, monkeypatch) == "RuntimeError: cudaErrorUnknown: no"


# --- nodes ---


def test_the_nodes_are_counted_by_kind(stand_in):
    f, replay = Function(stand_in), Replay()
    for _ in range(3):
        replay(f, *arrays(stand_in, 0))
    # two products, h += 1, z[...], z * z, * 2, sum; and z.copy()
    assert replay.nodes() == [{"KERNEL": 7, "MEMCPY DtoD (DEVICE to DEVICE)": 1}]


DOT = r"""digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="record" label="{KERNEL
| {ID | 0 (topoId: 2) | gelu_rows\<\<\<1,256,0\>\>\>}
| {{node handle | func handle} | {0x1 | 0x2}}
| {cooperative | 0}
}"];
"graph_1_node_1"[style="solid" shape="record" label="{
MEMCPY
| {{ID | node handle} | {1 (topoId: 1) | 0x3}}
| {kind | HtoD (HOST to DEVICE PAGEABLE)}
| {{srcPtr | dstPtr} | {pitch | ptr} | {0 | 0x0}}
}"];
"graph_1_node_2"[style="solid" shape="record" label="{
MEMSET
| {{ID | node handle} | {2 (topoId: 0) | 0x4}}
}"];
"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];
"graph_1_node_1" -> "graph_1_node_2" [headlabel=0];
}
}
"""


def test_nodes_are_read_from_what_cuda_prints():
    kinds = graphs.node_kinds(DOT)
    assert kinds == {"KERNEL": 1, "MEMCPY HtoD (HOST to DEVICE PAGEABLE)": 1, "MEMSET": 1}
    assert graphs.host_copies(kinds) == 1
    assert graphs.node_kinds("digraph dot {\n}\n") == {}
