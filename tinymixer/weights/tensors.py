"""What the contents of a PyTorch file say of a tensor: where it is, and of which kind."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinymixer.arrays import Stored, are_counts, short, stated
from tinymixer.weights.pickles import Made, Name, Outside

# The types of storages, by the word for them in "torch.FloatStorage", and of numbers by PyTorch's.
STORAGES = {
    "Float": "f4",
    "Half": "f2",
    "Double": "f8",
    "BFloat16": "bfloat16",
    "Bool": "b1",
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "ComplexFloat": "c8",
    "ComplexDouble": "c16",
}
DTYPES = {
    "float32": "f4",
    "float16": "f2",
    "float64": "f8",
    "bfloat16": "bfloat16",
    "bool": "b1",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint8": "u1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "complex64": "c8",
    "complex128": "c16",
}
OTHERS = {"QInt8": "i1", "QUInt8": "u1", "QInt32": "i4", "Untyped": "u1"}  # not read: only skipped
REFUSED = {  # what PyTorch's functions that rebuild it make, where that is not a plain tensor
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_wrapper_subclass": "a tensor of a class of its own",
    "_rebuild_meta_tensor_no_storage": "a tensor without numbers (meta)",
}


class Refused(ValueError):
    """A tensor of a kind that is not read; args[0] says which."""


@dataclass(frozen=True)
class Tensor:
    """Where a tensor is: in storage `key` of `length` numbers, from `offset` on, with `strides`."""

    stored: Stored
    kind: str  # of STORAGES or DTYPES
    key: str
    length: int
    offset: int
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """The numbers of the storage from the first of the tensor to its last."""
        if not self.stored.size:
            return 0
        shape = self.stored.shape
        return 1 + sum((n - 1) * step for n, step in zip(shape, self.strides, strict=True))

    @property
    def itemsize(self) -> int:
        return 2 if self.stored.bfloat16 else self.stored.dtype.itemsize


def storage_length(storage: Any) -> tuple[str, tuple[int, int]] | None:
    """The key of a storage, its length and the bytes of each number; None if that is not known."""
    if not isinstance(storage, tuple) or len(storage) < 5 or not isinstance(storage[1], Name):
        return None
    word = storage[1].path.rpartition(".")[2].removesuffix("Storage")
    kind = STORAGES.get(word, OTHERS.get(word))
    if kind is None or not isinstance(storage[2], str) or not are_counts(storage[4:5], tuple):
        return None
    return storage[2], (storage[4], 2 if kind == "bfloat16" else np.dtype(kind).itemsize)


def tensor_of(made: Made) -> Tensor:
    """Where the tensor is that a function of torch._utils would rebuild."""
    for _ in range(4):  # a Parameter is rebuilt of a tensor
        function, arguments = made.name.rpartition(".")[2], made.arguments
        if function in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            inner: Any = arguments[0] if arguments else None
        elif function == "_rebuild_from_type_v2" and len(arguments) == 4:
            inner = _again(arguments[0], arguments[2])
        else:
            break
        if not isinstance(inner, Made):
            raise ValueError("a tensor is damaged")
        made = inner
    if function not in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        raise Refused(REFUSED.get(function, f"a tensor made by {short(made.name)}"))
    if len(arguments) < 4 or not isinstance(arguments[0], Outside):
        raise ValueError("a tensor is damaged")
    storage, offset, shape, strides = arguments[0].where, *arguments[1:4]
    shape, strides = _plain(shape), _plain(strides)
    if not isinstance(storage, tuple) or len(storage) < 5 or storage[0] != "storage":
        raise ValueError("a storage is damaged")
    type_, key, length = storage[1], storage[2], storage[4]
    kind = _kind(type_, arguments[6] if function.endswith("v3") and len(arguments) > 6 else None)
    if not isinstance(key, str) or not are_counts((length, offset), tuple):
        raise ValueError("a storage is damaged")
    if len(storage) > 5 and storage[5] is not None:
        raise Refused("a tensor in a part of another storage")
    if not are_counts(strides, tuple):
        raise ValueError("the strides of a tensor are damaged")
    dtype = np.dtype("f4" if kind == "bfloat16" else kind)
    tensor = Tensor(
        stated(key, shape, dtype, bfloat16=kind == "bfloat16"), kind, key, length, offset, strides
    )
    if function.endswith("v3"):  # the lengths of its storages are in bytes
        tensor = Tensor(tensor.stored, kind, key, length // tensor.itemsize, offset, strides)
    if len(strides) != len(shape) or offset + tensor.span > tensor.length:
        raise ValueError("a tensor is larger than its storage")
    if tensor.stored.size > tensor.length:
        raise Refused("a tensor that repeats the numbers of a smaller one (expanded)")
    return tensor


def _again(function: Any, arguments: Any) -> Made | None:
    if isinstance(function, Name) and isinstance(arguments, tuple):
        return Made(function.path, arguments)
    return None


def _plain(size: Any) -> Any:
    """torch.Size(sizes) is that tuple."""
    if isinstance(size, Made) and size.name == "torch.Size" and len(size.arguments) == 1:
        size = size.arguments[0]
    return tuple(size) if isinstance(size, list) else size


def _kind(storage: Any, dtype: Any) -> str:
    """The type of the numbers. Raises Refused for one that NumPy does not have."""
    if isinstance(dtype, Name):
        found = DTYPES.get(dtype.path.removeprefix("torch."))
        name = dtype.path
    elif isinstance(storage, Name):
        name = storage.path
        found = STORAGES.get(name.rpartition(".")[2].removesuffix("Storage"))
    else:
        raise ValueError("a storage is damaged")
    if found is None:
        raise Refused(f"a tensor of {short(name).strip(chr(39))}")
    return found
