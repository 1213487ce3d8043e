"""Files of PyTorch, of both kinds, read without PyTorch and without running anything.

    zip        name/data.pkl, a pickle, and name/data/<key>, the numbers of each storage
    legacy     pickles one after the other (a magic number, the version, the machine, the contents,
               the keys of the storages), then of each storage its length and its numbers

The contents are a pickle that says of each tensor: a storage, a place in it, a size and strides.
See `torch.serialization` and `torch._utils`.
"""

import os
import zipfile
from typing import IO, Any

import numpy as np

from tinymixer.arrays import (
    CHUNK,
    MOST_ARRAYS,
    ArrayFile,
    from_bfloat16,
    require_names,
    short,
)
from tinymixer.errors import counted
from tinymixer.weights.pickles import Made, read_pickle
from tinymixer.weights.tensors import Refused, Tensor, storage_length, tensor_of

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # ends the first pickle of a legacy file
DEEPEST, MOST_ENTRIES = 16, 2**20  # of the containers that the contents may be nested in


class PyTorchFile(ArrayFile):
    """The tensors of a file by name: "model/head.weight" is entry head.weight of entry model.

    refused: what is not a plain tensor, by name. ignored: objects besides the weights; they are not
    created.
    """

    kind = "PyTorch"

    def __init__(self, contents: Any, big_endian: bool):
        super().__init__()
        self._order = ">" if big_endian else "<"
        self._tensors: dict[str, Tensor] = {}
        self._entries = 0
        self._find(contents, "", 0)
        require_names([*self._tensors, *self.refused])
        self.stored = {name: tensor.stored for name, tensor in self._tensors.items()}

    def _find(self, found: Any, name: str, depth: int) -> None:
        """Enter what is found under `name`, and in the containers that it is."""
        if isinstance(found, Made) and found.name.rpartition(".")[2].startswith("_rebuild_"):
            try:
                self._enter(name, tensor_of(found))
            except Refused as error:
                self.refused[name] = str(error)
        elif isinstance(found, Made) and found.name.endswith("multiarray._reconstruct"):
            self.refused[name] = "an array of NumPy in a pickle"
        elif isinstance(found, dict | Made):
            if isinstance(found, Made) and found.name != "collections.OrderedDict":
                self.ignored[name] = found.name
            self._find_in(_entries(found), name, depth)
        elif isinstance(found, list | tuple):
            self._find_in({str(i): x for i, x in enumerate(found)}, name, depth)

    def _find_in(self, entries: dict[Any, Any], name: str, depth: int) -> None:
        self._entries += len(entries)
        if self._entries > MOST_ENTRIES or len(self._tensors) > MOST_ARRAYS:
            raise ValueError(
                f"it holds more than {MOST_ARRAYS:,} arrays or {MOST_ENTRIES:,} entries"
            )
        if depth >= DEEPEST:
            raise ValueError(f"its containers are nested more than {DEEPEST} deep")
        for key, value in entries.items():
            if isinstance(value, dict | Made | list | tuple):
                self._find(value, f"{name}/{key}" if name else key, depth + 1)

    def _enter(self, name: str, tensor: Tensor) -> None:
        if name in self._tensors:
            raise ValueError(f"array {short(name)} is there twice")
        self._tensors[name] = tensor

    def read(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        raw = self._bytes(tensor, tensor.offset * tensor.itemsize, tensor.span * tensor.itemsize)
        if tensor.stored.bfloat16:
            flat = from_bfloat16(raw.view(f"{self._order}u2"))
        else:
            flat = raw.view(f"{self._order}{tensor.kind}").astype(tensor.stored.dtype, copy=False)
        strides = [step * flat.itemsize for step in tensor.strides]
        view = np.lib.stride_tricks.as_strided(flat, tensor.stored.shape, strides)
        return view if view.flags.c_contiguous else view.copy()

    def _bytes(self, tensor: Tensor, start: int, n: int) -> np.ndarray:
        """n bytes from byte `start` of the tensor's storage, as uint8."""
        raise NotImplementedError


class ZipFile(PyTorchFile):
    """The newer kind. The CRC of a storage is checked whenever a tensor of it is read."""

    def __init__(self, archive: zipfile.ZipFile, pickle: str):
        self._archive = archive
        self._folder = pickle.removesuffix("data.pkl")
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its members are compressed, as PyTorch never writes them")
        with archive.open(pickle) as file:
            contents, _ = read_pickle(file)
        super().__init__(contents, self._says_big_endian())
        members = {member.filename: member.file_size for member in archive.infolist()}
        for name, tensor in self._tensors.items():
            if members.get(self._place(tensor)) != tensor.length * tensor.itemsize:
                raise ValueError(f"the numbers of {short(name)} are not whole")

    def _says_big_endian(self) -> bool:
        if f"{self._folder}byteorder" not in self._archive.namelist():
            return False
        with self._archive.open(f"{self._folder}byteorder") as file:
            said = file.read(7)
        if said not in (b"little", b"big"):
            raise ValueError(f"its byte order is {short(said)}")
        return said == b"big"

    def _place(self, tensor: Tensor) -> str:
        return f"{self._folder}data/{tensor.key}"

    def _bytes(self, tensor: Tensor, start: int, n: int) -> np.ndarray:
        raw = np.empty(n, np.uint8)
        with self._archive.open(self._place(tensor)) as file:
            place = 0
            while piece := file.read(CHUNK):  # to the end, where the CRC is checked
                low, high = max(start - place, 0), min(start + n - place, len(piece))
                if low < high:
                    part = np.frombuffer(piece, np.uint8)[low:high]
                    raw[place + low - start : place + high - start] = part
                place += len(piece)
        if place < start + n:
            raise ValueError("it ends too early")
        return raw


class LegacyFile(PyTorchFile):
    """The kind that PyTorch wrote before version 1.6, and still does when asked."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        file.seek(0)
        _, version, machine = (read_pickle(file)[0] for _ in range(3))
        if version != 1001 or not isinstance(machine, dict | Made):
            raise ValueError(f"its version is {short(version)}, expected 1001")
        contents, outside = read_pickle(file)
        keys, _ = read_pickle(file)
        super().__init__(contents, _entries(machine).get("little_endian") is False)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("its list of storages is damaged")
        size, lengths = (
            os.fstat(file.fileno()).st_size,
            dict(filter(None, map(storage_length, outside))),
        )
        self._starts: dict[str, int] = {}
        place = file.tell()
        for key in keys:
            if key not in lengths:
                break  # of a type that is not known: what follows cannot be found
            numbers, itemsize = lengths[key]
            file.seek(place)
            if int.from_bytes(file.read(8), self._endian()) != numbers:
                raise ValueError(f"it ends too early, or its storage {short(key)} is damaged")
            self._starts[key] = place + 8
            place += 8 + numbers * itemsize
        if place > size:
            raise ValueError(f"it has {counted(size, 'byte')}, and needs {place:,}")
        for name, tensor in self._tensors.items():
            if tensor.key not in self._starts or tensor.length > lengths[tensor.key][0]:
                raise ValueError(f"the numbers of {short(name)} are not there")

    def _endian(self) -> Any:
        return "big" if self._order == ">" else "little"

    def _bytes(self, tensor: Tensor, start: int, n: int) -> np.ndarray:
        self._file.seek(self._starts[tensor.key] + start)
        raw = np.empty(n, np.uint8)
        if self._file.readinto(raw.data) != n:  # type: ignore[attr-defined]
            raise ValueError("it ends too early")
        return raw


def _entries(found: Any) -> dict[str, Any]:
    """Those of a dictionary or of what was made like one: by entries, or by a list of pairs."""
    if isinstance(found, dict):
        return found
    pairs = found.arguments[0] if len(found.arguments) == 1 else ()
    pairs = pairs if isinstance(pairs, list) else ()
    pairs = [p for p in pairs if isinstance(p, list | tuple) and len(p) == 2]
    return {key: value for key, value in pairs if isinstance(key, str)} | found.entries


def pickle_member(names: list[str]) -> str | None:
    """The member of a zip archive that makes it a file of PyTorch; None for other archives."""
    found = [name for name in names if name.endswith("data.pkl") and name.count("/") <= 1]
    return found[0] if len(found) == 1 else None
