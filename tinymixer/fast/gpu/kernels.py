"""How kernels of our own are compiled and launched, and how they walk a matrix.

The kernels are in the files beside this one: `ops.cu`, `optim.cu` and `data.cu`.
"""

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from tinymixer.backend import Array, array_module
from tinymixer.data import autoaugment
from tinymixer.data.draws import Stream

LANES, WARPS = BLOCK = 32, 8  # threads, of every kernel
THREADS = LANES * WARPS
TALL, WIDE = 128, 4096  # the most that a block takes of a column, and of a row
NORM_ROWS = 128  # that a block of LayerNorm's backward takes
GATHERED = 128  # arrays in one launch, which has room for 4 KiB of arguments
WIDEST = 16  # bytes of what is stored that a thread reads at once
ALIGNMENT = 32  # and of float32 beside it
CONSTANTS: dict[str, int | str] = {
    "LANES": LANES,
    "WARPS": WARPS,
    "THREADS": THREADS,
    "TALL": TALL,
    "WIDE": WIDE,
    "NORM_ROWS": NORM_ROWS,
    "GATHERED": GATHERED,
}
CONSTANTS |= {stream.name: int(stream) for stream in (Stream.CROP, Stream.FLIP, Stream.AUTO)}
CONSTANTS |= {o.name: int(o) for o in autoaugment.Operation} | {"MOST": autoaugment.MOST}
STORED = {"float32": "float", "bfloat16": "bf16"}  # dtypes, as the source names them


class Variant(NamedTuple):
    """What a launch decides of its kernel, see ops.cu; compiled when first asked for."""

    stored: str = "float32"
    pack: int = 1
    packs: int = 1


PLAIN = Variant()


@cache
def sources() -> dict[str, str]:
    """The text of each file of kernels, by the file's name."""
    folder = Path(__file__).parent
    return {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.cu"))}


def constants(variant: Variant) -> dict[str, int | str]:
    """What a source is compiled with."""
    stored, pack, packs = variant
    return CONSTANTS | {"STORED": STORED[stored], "PACK": pack, "PACKS": packs}


@cache
def _kernel(xp: ModuleType, name: str, variant: Variant) -> Any:
    file = next(file for file, text in sources().items() if f"__global__ void {name}(" in text)
    return _module(xp, file, variant).get_function(name)


@cache
def _module(xp: ModuleType, file: str, variant: Variant) -> Any:
    return cuda_module(xp, sources()[file], constants(variant))


def cuda_module(xp: ModuleType, source: str, constants: dict[str, int | str]) -> Any:
    """CUDA C++ as a module of kernels, `module.get_function(name)(grid, block, arguments)`.

    xp is CuPy. The source is compiled on first use of a kernel, for the GPU at hand, with its
    constants defined; CuPy keeps on disk what it compiled.
    """
    defined = (f"-D{name}={value}" for name, value in constants.items())
    return xp.RawModule(code=source, options=("-std=c++17", *defined))


def launch(name: str, grid: tuple[int, int], *arguments: Any, variant: Variant = PLAIN) -> None:
    """Run a kernel on arrays, the first of all, and NumPy scalars, of its parameters' types."""
    _kernel(array_module(arguments[0]), name, variant)(grid, BLOCK, arguments)


def one_thread_each(n: int) -> tuple[int, int]:
    """The grid that has a thread for each of n."""
    return -(-n // THREADS), 1


def one_warp_each(n: int) -> tuple[int, int]:
    """The grid that has a warp for each of n."""
    return -(-n // WARPS), 1


def pack_of(columns: int, stored: np.dtype, aligned: bool) -> int:
    """How many neighbours a thread takes at once."""
    n = WIDEST // stored.itemsize
    return n if aligned and columns % n == 0 else 1


def aligned(*arrays: Array) -> bool:
    """Whether packs of them may be read at once; a view may begin anywhere."""
    return all(x.data.ptr % ALIGNMENT == 0 for x in arrays)


class Walk(NamedTuple):
    """How kernels walk a matrix: by "rows" or "columns", on which grid, in which variant."""

    by: str
    grid: tuple[int, int]
    shape: tuple[np.int32, np.int32]
    variant: Variant


def walk(axis: int, stored: np.dtype, *matrices: Array) -> Walk:
    """Over matrices (rows, columns) of one shape, by the axis that shares a bias.

    axis 0: by rows, each of which has one number; 1: by columns.
    """
    return _plan(axis, stored, matrices[0].shape, aligned(*matrices))


def walk_flat(stored: np.dtype, *arrays: Array) -> Walk:
    """Over arrays of one shape, element by element: as matrices of one row."""
    return _plan(0, stored, (1, arrays[0].size), aligned(*arrays))


@cache
def _plan(axis: int, stored: np.dtype, shape: tuple[int, int], aligned: bool) -> Walk:
    rows, columns = shape
    pack = pack_of(columns, stored, aligned)
    if axis == 0:
        by, grid = "rows", (-(-columns // WIDE), rows)
    else:
        while pack > 1 and pack * LANES > columns:  # lanes without columns would idle
            pack //= 2
        by, grid = "columns", (-(-columns // (LANES * pack)), -(-rows // TALL))
    return Walk(by, grid, (np.int32(rows), np.int32(columns)), Variant(stored.name, pack))
