"""Files as PyTorch writes them, of both kinds, written by hand: there is no PyTorch in here.

    zip_file({"state_dict": {"head.weight": array}, "epoch": 3})
    legacy_file(...)

Contents are pickles of protocol 2, put together step by step; see Python's `pickletools`.
"""

import io
import struct
import zipfile

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "f4": "Float",
    "f2": "Half",
    "f8": "Double",
    "bf16": "BFloat16",
    "b1": "Bool",
    "i8": "Long",
    "i4": "Int",
    "i2": "Short",
    "i1": "Char",
    "u1": "Byte",
    "c8": "ComplexFloat",
    "c16": "ComplexDouble",
}


class Steps(bytes):
    """Steps of a pickle, as they are."""


class Strided:
    """A tensor that is a part of a storage: shape and strides in numbers, as PyTorch counts."""

    def __init__(self, storage, shape, strides, offset=0, kind=None):
        self.storage, self.shape, self.strides, self.offset = storage, shape, strides, offset
        self.kind = kind


def bfloat16(array):
    """The tensor of the upper halves of a float32 array."""
    halves = (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").ravel()
    return Strided(halves, array.shape, contiguous(array.shape), kind="bf16")


def contiguous(shape):
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


class Pickler:
    """The steps that make an object, and the storages that they speak of, by key."""

    def __init__(self):
        self.storages, self._keys = {}, {}

    def whole(self, found):
        return b"\x80\2" + self.steps(found) + b"."

    def steps(self, found):
        if isinstance(found, Steps):
            return bytes(found)
        if found is None or isinstance(found, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[found]
        if isinstance(found, int):
            return b"J" + struct.pack("<i", found) if abs(found) < 2**31 else self._long(found)
        if isinstance(found, float):
            return b"G" + struct.pack(">d", found)
        if isinstance(found, str):
            text = found.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        if isinstance(found, tuple):
            return b"(" + b"".join(map(self.steps, found)) + b"t"
        if isinstance(found, list):
            return b"](" + b"".join(map(self.steps, found)) + b"e"
        if isinstance(found, dict):
            pairs = b"".join(self.steps(k) + self.steps(v) for k, v in found.items())
            return b"ccollections\nOrderedDict\n)R(" + pairs + b"u"
        if isinstance(found, np.ndarray):
            array = np.array(found, order="C")  # that of a scalar stays one
            found = Strided(array.ravel(), array.shape, contiguous(array.shape))
        return self._tensor(found)

    def _tensor(self, x):
        if id(x.storage) not in self._keys:
            self._keys[id(x.storage)] = str(len(self._keys))
            self.storages[self._keys[id(x.storage)]] = x.storage
        word = STORAGES[x.kind or x.storage.dtype.str[1:]]
        storage = b"(" + self.steps("storage") + f"ctorch\n{word}Storage\n".encode()
        storage += self.steps(self._keys[id(x.storage)]) + self.steps("cpu")
        storage += self.steps(len(x.storage)) + b"tQ"
        rest = self.steps(x.offset) + self.steps(tuple(x.shape)) + self.steps(tuple(x.strides))
        hooks = b"\x89ccollections\nOrderedDict\n)R"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + hooks + b"tR"

    @staticmethod
    def _long(n):
        raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw


def zip_file(contents, order="little", method=zipfile.ZIP_STORED, more=()):
    """The bytes of the newer kind; `more` members (name, bytes) come on top."""
    pickler = Pickler()
    pickle = contents if isinstance(contents, bytes) else pickler.whole(contents)
    members = [("data.pkl", pickle), ("byteorder", order.encode())]
    for key, x in pickler.storages.items():
        members.append((f"data/{key}", (x.byteswap() if order == "big" else x).tobytes()))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in [*members, ("version", b"3\n"), *more]:
            archive.writestr(zipfile.ZipInfo(f"weights/{name}"), content, method)
    return buffer.getvalue()


def legacy_file(contents, order="little"):
    """The bytes of the older kind."""
    pickler = Pickler()
    body = contents if isinstance(contents, bytes) else pickler.whole(contents)
    little = Pickler().steps(order == "little")
    machine = Steps(b"}" + Pickler().steps("little_endian") + little + b"s")  # a plain dictionary
    file = b"".join(Pickler().whole(x) for x in (MAGIC, VERSION, machine)) + body
    file += Pickler().whole(sorted(pickler.storages))
    for key in sorted(pickler.storages):
        x = pickler.storages[key]
        file += len(x).to_bytes(8, order) + (x.byteswap() if order == "big" else x).tobytes()
    return file


# Flax: MessagePack


def msgpack_file(tree):
    return _packed(tree)


def _packed(found):
    if isinstance(found, dict):
        pairs = b"".join(_packed(k) + _packed(v) for k, v in found.items())
        return (
            b"\xdf" + len(found).to_bytes(4, "big") + pairs
            if len(found) > 15
            else (bytes([0x80 | len(found)]) + pairs)
        )
    if isinstance(found, str):
        text = found.encode()
        head = bytes([0xA0 | len(text)]) if len(text) < 32 else b"\xd9" + bytes([len(text)])
        return head + text
    if isinstance(found, int):
        return b"\xd3" + found.to_bytes(8, "big", signed=True)
    name, array = found if isinstance(found, tuple) else (found.dtype.name, np.asarray(found))
    raw = np.ascontiguousarray(array).tobytes()
    inner = b"\x93" + bytes([0x90 | array.ndim]) + b"".join(map(_packed, array.shape))
    inner += _packed(name) + b"\xc6" + len(raw).to_bytes(4, "big") + raw
    return b"\xc9" + len(inner).to_bytes(4, "big") + b"\1" + inner
