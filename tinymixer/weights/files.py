"""Files of named arrays: which kind one is, by its content, and the reader of that kind.

    .npz            NumPy's archive              tinymixer.arrays
    .safetensors    of Hugging Face              tinymixer.arrays
    .pth, .pt       PyTorch's, zip and legacy    pytorch.py, pickles.py
    .msgpack        Flax's                       msgpack.py
    .json           an index of several files    here

All other kinds are refused, and called by their names (kinds.py).
"""

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tinymixer import arrays
from tinymixer.errors import CheckpointError, brief, counted
from tinymixer.files import write_atomically
from tinymixer.weights import kinds, msgpack, pytorch

MOST = 2**28  # bytes that compressed arrays may hold where no model says what is needed
MOST_INDEX = 2**22  # bytes of an index of files
MOST_SHARDS = 100  # files of an index
RECORD = "record"  # the entry of an .npz file, or the text in a .safetensors file, that we write


class Foreign(ValueError):
    """A file of another kind; args[0] follows its name: "is a web page. Download ..."."""


@dataclass(frozen=True)
class InFile:
    """An array in an open file, which is read by `read`."""

    path: Path | str
    file: arrays.ArrayFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.stored[self.name].shape

    @property
    def dtype(self) -> np.dtype:
        return self.file.stored[self.name].dtype

    def read(self) -> np.ndarray:
        with _explained(self.path, self.file.kind):
            return self.file.read(self.name)


class InMemory(arrays.ArrayFile):
    """Arrays that are there already."""

    def __init__(self, named: Mapping[str, Any]):
        super().__init__()
        self._arrays = {name: np.asarray(array) for name, array in named.items()}
        self.stored = {name: arrays.Stored(x.shape, x.dtype) for name, x in self._arrays.items()}

    def read(self, name: str) -> np.ndarray:
        return self._arrays[name]


class Shards(arrays.ArrayFile):
    """Arrays in several files, as the index `said` lists them; all lie in one folder."""

    kind = "index"

    def __init__(self, said: Any, folder: Path, stack: ExitStack):
        super().__init__()
        places = said.get("weight_map") if isinstance(said, dict) else None
        if not isinstance(places, dict) or not all(isinstance(x, str) for x in places.values()):
            raise ValueError("it has no weight_map from names to files")
        arrays.require_names(list(places))
        self.files: list[Path] = []
        self._places: dict[str, arrays.ArrayFile] = {}
        shards: dict[str, arrays.ArrayFile] = {}
        for shard in sorted(set(places.values())):
            if Path(shard).name != shard or not shard.isprintable() or len(shards) >= MOST_SHARDS:
                raise ValueError(f"{arrays.short(shard)} is not the name of a file beside it")
            if not (folder / shard).exists():
                raise Foreign(
                    f"is an index, and its part {shard} is not beside it. Download all parts into "
                    "its folder"
                )
            self.files.append(folder / shard)
            shards[shard] = stack.enter_context(opened(folder / shard, index=False))
        for name, shard in places.items():
            if name in shards[shard].refused:
                self.refused[name] = shards[shard].refused[name]
            elif name in shards[shard].stored:
                self._places[name], self.stored[name] = shards[shard], shards[shard].stored[name]
            else:
                raise ValueError(f"{arrays.short(name)} is not in {shard}, where it should be")

    def read(self, name: str) -> np.ndarray:
        return self._places[name].read(name)


@contextmanager
def opened(path: Path, index: bool = True) -> Iterator[arrays.ArrayFile]:
    """The file of arrays at `path`, or CheckpointError saying what is wrong."""
    with ExitStack() as stack:
        with _explained(path, "weights"):
            file = stack.enter_context(arrays.open_regular(path))
            kind = _kind(file)
        with _explained(path, ".npz or PyTorch" if kind == "zip" else kind):
            found = _reader(kind, file, path, stack, index)
        yield found


def read_file(path: Path | str) -> dict[str, np.ndarray]:
    """All arrays of a file, by their names in it, or CheckpointError saying what is wrong.

    `load_state` reads no more than its model needs. Here that is not known, so a file that unpacks
    to more than MOST bytes and to more than four times its own size is refused.
    """
    path = Path(path)
    with opened(path) as file, _explained(path, file.kind):
        size = sum(stored.nbytes for stored in file.stored.values())
        if size > max(MOST, 4 * path.stat().st_size):
            raise ValueError(f"it unpacks to {counted(size, 'byte')}")
        if file.refused:
            raise not_read(str(path), *next(iter(file.refused.items())))
        return {name: file.read(name) for name in file.stored if name != RECORD}


def not_read(source: str, name: str, what: str) -> CheckpointError:
    """The error for an array that is needed and is of a kind that is not read."""
    return CheckpointError(
        f"{source}: {arrays.short(name)} is {what}, which tinymixer does not read as weights. Save "
        "them as float32 (or float16, bfloat16, float64) in the program that made them"
    )


def write_file(
    path: Path, named: Mapping[str, np.ndarray], record: Mapping[str, Any] | None = None
) -> None:
    """Write named arrays and a record to an .npz or .safetensors file; ValueError for another."""
    said = json.dumps(record) if record else ""
    if path.suffix == ".npz":
        entry = {RECORD: np.frombuffer(said.encode(), np.uint8)} if said else {}
        write_atomically(path, lambda file: np.savez(file, **named, **entry))  # type: ignore[arg-type]
    elif path.suffix == ".safetensors":
        metadata = {"format": "np"} | {RECORD: said} if said else None
        write_atomically(path, _safetensors().save(dict(named), metadata))
    else:
        raise ValueError(f"cannot write {path}: expected a name that ends in .npz or .safetensors")


def _kind(file: IO[bytes]) -> str:
    """What kind of file it is, by its first bytes; ValueError for one that is not read."""
    head, size = file.read(32), os.fstat(file.fileno()).st_size
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if head[:1] == b"\x80" and pytorch.MAGIC in head:
        return "PyTorch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return ".safetensors"
    if what := kinds.foreign(file):
        if "JSON" not in what or not _is_index(file):
            raise Foreign(what)
        return "index"
    if 0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF):
        return "Flax"
    if size < 8:
        raise Foreign(f"has no more than {counted(size, 'byte')}. {kinds.DOWNLOAD}")
    raise Foreign(
        "begins like no file of weights that tinymixer reads: those of NumPy (.npz), safetensors, "
        "PyTorch (.pth) and Flax (.msgpack). If it should be one of these, download it again"
    )


def _is_index(file: IO[bytes]) -> bool:
    file.seek(0)
    return b'"weight_map"' in file.read(MOST_INDEX)


def _reader(
    kind: str, file: IO[bytes], path: Path, stack: ExitStack, index: bool
) -> arrays.ArrayFile:
    """The reader of a file of this kind."""
    size = os.fstat(file.fileno()).st_size
    if kind == "zip":
        archive = stack.enter_context(zipfile.ZipFile(arrays.with_small_directory(file)))
        names = archive.namelist()
        if what := kinds.archive(names):
            raise Foreign(what)
        pickle = pytorch.pickle_member(names)
        with _explained(path, "PyTorch" if pickle else ".npz"):
            return pytorch.ZipFile(archive, pickle) if pickle else arrays.Npz(archive, size)
    if kind == "PyTorch":
        return pytorch.LegacyFile(file)
    if kind == ".safetensors":
        return arrays.Safetensors(file, size)
    if kind == "Flax":
        return msgpack.MsgpackFile(file)
    if not index:
        raise ValueError("an index is in the place of a file of weights")
    if size > MOST_INDEX:
        raise ValueError(f"an index of more than {MOST_INDEX:,} bytes")
    file.seek(0)
    return Shards(json.loads(file.read()), path.parent, stack)


@contextmanager
def _explained(path: Path | str, kind: str) -> Iterator[None]:
    """In its `with` block, what goes wrong with reading `path` is a CheckpointError in one line."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"no file {path}: expected a file of weights") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Foreign as error:
        raise CheckpointError(f"{path} {error}") from error
    except arrays.OddName as error:
        raise CheckpointError(
            f"{path} has names that tinymixer does not read: {error}. Save its arrays under names "
            "of up to 500 characters that can be printed on one line"
        ) from error
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make its reader raise anything
        raise CheckpointError(
            f"{path} is not a whole {kind} file ({brief(error)}). It is damaged, or a part of a "
            "download: fetch or convert it again"
        ) from error


def _safetensors() -> Any:
    try:
        from safetensors import numpy
    except ImportError:
        raise CheckpointError(
            "writing .safetensors needs the package safetensors: pip install "
            "'tinymixer[safetensors]'"
        ) from None
    return numpy
