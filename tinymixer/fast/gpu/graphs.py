"""A function of device arrays, recorded once as a CUDA graph and then launched as a whole.

Each launch costs the CPU some microseconds, and a step has hundreds of them. A graph has them all
in one. It does again what was recorded, on the same memory: so nothing else may use its memory, and
whatever Python did meanwhile is not done again. Whether anything is lost by that is checked before
a graph is used; in doubt none is used.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from tinymixer.backend import Array, to_numpy
from tinymixer.errors import TinymixerError
from tinymixer.fast.gpu import cublas, products

KEPT = 2  # graphs of a Replay: whole batches, and the last of an epoch
EVERYTHING = 1  # cudaGraphDebugDotFlagsVerbose
HOST = "HOST"  # in the direction of a copy that leaves or enters the device


class Replay:
    """`replay(f, *arrays)` is f(*arrays), a tuple, in less time.

    f is to depend on nothing but its arrays, others that stay where they are, and constants. What
    it returns are arrays, tuples of them, and what is the same each time.

    The first call for arrays of other shapes or types is f's own; with the second it is recorded,
    and from the third on it is launched, and copies of its outputs are returned. Where this fails
    in any way, f is called from then on, `why_not` says why, and `tell` is called with it.
    """

    def __init__(self, tell: Callable[[str], Any] = lambda why_not: None):
        self.why_not: str | None = None
        self._tell = tell
        self._graphs: dict[Any, _Graph | None] = {}  # None after the first call

    def __call__(self, f: Callable[..., tuple], *arrays: Array) -> tuple:
        key = products.product_type(), *((x.shape, x.dtype) for x in arrays)
        if graph := self._graphs.get(key):
            return _copied(graph(*arrays))
        outputs = f(*arrays)
        if self.why_not is None and key in self._graphs:
            try:
                self._graphs[key] = _checked(_Graph(f, arrays), arrays, outputs)
            except Exception as error:  # CuPy, CUDA and f raise unrelated types here
                self._give_up(error)
        elif self.why_not is None and len(self._graphs) < KEPT:
            self._graphs[key] = None
        return outputs

    def nodes(self) -> list[Counter[str]]:
        """What each graph consists of: how many nodes of each kind, as CUDA names them."""
        return [graph.nodes() for graph in self._graphs.values() if graph]

    def _give_up(self, error: Exception) -> None:
        first = str(error).partition("\n")[0]
        known = isinstance(error, TinymixerError)
        self.why_not = first if known else f"{type(error).__name__}: {first}"
        self._graphs.clear()
        self._tell(self.why_not)


def _checked(graph: "_Graph", arrays: tuple, outputs: tuple) -> "_Graph":
    """Raises TinymixerError unless the graph makes of `arrays` the bits that `outputs` are."""
    if host_copies(kinds := graph.nodes()):
        raise TinymixerError(f"a graph would copy between host and device: {dict(kinds)}")
    for i, (found, expected) in enumerate(zip(graph(*arrays), outputs, strict=True)):
        if _bits(found) != _bits(expected):
            raise TinymixerError(f"a graph computes other bits, in output {i}")
    return graph


def _copied(x: Any) -> Any:
    """The arrays within x copied, and all else as it is."""
    if isinstance(x, tuple):
        return tuple(map(_copied, x))
    return x.copy() if hasattr(x, "dtype") else x


def _bits(x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(map(_bits, x))
    return (x.shape, x.dtype, to_numpy(x).tobytes()) if hasattr(x, "dtype") else x


class _Graph:
    """f, recorded on arrays like `arrays`, with all the memory that it needs.

    Memory that f drops goes back to a pool of its own, which nothing else uses. So the graph may go
    on using it, as long as the pool gives nothing back to CUDA.
    """

    def __init__(self, f: Callable[..., tuple], arrays: tuple):
        import cupy

        library = cublas.opened(cupy)
        if isinstance(library, str):
            raise TinymixerError(f"cuBLAS cannot be called directly ({library})")
        self._pool = cupy.cuda.MemoryPool(_allocate)
        self._pool.set_limit(size=0)  # none, even if the environment says otherwise: see _allocate
        stream = cupy.cuda.Stream()  # what goes to the default stream meanwhile raises an error
        cupy.cuda.Device().synchronize()
        # What f needed until now lies free in another pool, and a graph needs as much anew.
        cupy.get_default_memory_pool().free_all_blocks()
        with stream, cupy.cuda.using_allocator(self._pool.malloc):
            self._inputs = [x.copy() for x in arrays]
            f(*self._inputs)  # asks for the memory, and sets the stream of cuBLAS
            stream.begin_capture()
            try:
                self._outputs = f(*self._inputs)
            except BaseException:
                with suppress(Exception):  # it says that the capture has failed
                    stream.end_capture()
                raise
            self._graph = stream.end_capture()
        self._graph.upload(stream)
        stream.synchronize()

    def __call__(self, *arrays: Array) -> tuple:
        for own, given in zip(self._inputs, arrays, strict=True):
            own[...] = given
        self._graph.launch()
        return self._outputs

    def nodes(self) -> Counter[str]:
        return node_kinds(self._graph.debug_dot_str(EVERYTHING))

    def __del__(self) -> None:
        # A pool that is dropped keeps what it has for good. What is free in it goes here; what f
        # left elsewhere, such as a table that is made once, stays.
        self.__dict__.pop("_graph", None)
        self.__dict__.pop("_outputs", None)
        self.__dict__.pop("_inputs", None)
        if pool := self.__dict__.pop("_pool", None):
            pool.free_all_blocks()


def _allocate(size: int) -> Any:
    """Memory for a graph, from CUDA.

    CuPy's pools answer a lack of memory by giving back to CUDA what is free in them, which a graph
    still needs. Any other error they pass on.
    """
    import cupy

    try:
        return cupy.cuda.MemoryPointer(cupy.cuda.Memory(size), 0)
    except (MemoryError, RuntimeError) as error:
        raise TinymixerError(f"no memory for a graph of its own: {error}") from error


def node_kinds(dot: str) -> Counter[str]:
    """Of each kind of node, how many there are in what CUDA prints of a graph.

    Copies are named with their direction: `MEMCPY DtoD (DEVICE to DEVICE)`.
    """
    kinds: Counter[str] = Counter()
    for node in re.split(r'^"graph_\d+_node_\d+"(?=\[)', dot, flags=re.MULTILINE)[1:]:
        kind = re.search(r"label=\"\{?\s*(\w+)", node)
        direction = re.search(r"\| \{kind \| ([^}]*)\}", node)
        words = (kind[1] if kind else "unknown", *((direction[1],) if direction else ()))
        kinds[" ".join(words)] += 1
    return kinds


def host_copies(kinds: Mapping[str, int]) -> int:
    """How many of a graph's nodes are copies that leave or enter the device."""
    return sum(count for kind, count in kinds.items() if HOST in kind)
