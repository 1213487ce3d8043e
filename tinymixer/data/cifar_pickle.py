"""Floor 1. CIFAR's Python files: pickles, read without running anything that is in them."""

import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from tinymixer.data.cifar_layout import PIXELS, Layout, Records


class _Pixels:
    """Stands in for the one NumPy array of a Python file, and accepts only bytes."""

    array: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, column_major, content = state
        if not isinstance(dtype, _Dtype) or dtype.name != "u1":
            raise ValueError("its pixels are not uint8")
        order: Literal["C", "F"] = "F" if column_major else "C"
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order=order)


class _Dtype:
    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple) -> None:
        pass  # the byte order, which bytes do not need


_NEVER = (
    *(pickle.DICT, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX),
    *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
)


class _CifarUnpickler(pickle._Unpickler):  # type: ignore[misc]
    """Accepts only the names that CIFAR's Python files mention, and maps them to stand-ins.

    It is the Python version of the unpickler, which is the bounded one: to it a memo of number
    2**31 is one entry, and each step can be looked at. Keys are words, because the hash of nested
    tuples can take for ever; of sets and objects, which have hashes too, there are none.
    """

    _STAND_INS: ClassVar[dict[str, Any]] = {
        "numpy.core.multiarray._reconstruct": lambda *_: _Pixels(),
        "numpy._core.multiarray._reconstruct": lambda *_: _Pixels(),
        "numpy.ndarray": _Pixels,
        "numpy.dtype": _Dtype,
        "_codecs.encode": lambda text, _: text.encode("latin-1"),
    }

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        if type(key) not in (str, bytes) or type(self.stack[-1]) is not dict:
            raise pickle.UnpicklingError("its entries have no names")
        self.stack[-1][key] = value

    dispatch: ClassVar[dict[int, Any]] = {
        **{
            code: step
            for code, step in pickle._Unpickler.dispatch.items()  # type: ignore[attr-defined]
            if bytes([code]) not in _NEVER
        },
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }

    def find_class(self, module: str, name: str) -> Any:
        wanted = f"{module}.{name}"
        if wanted not in self._STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {wanted}, which no CIFAR file does")
        return self._STAND_INS[wanted]


def records(layout: Layout, file: str, content: bytes) -> Records:
    """Records from a dictionary: lists of labels, and `data`, an array of planar pixels.

    A damaged pickle can raise anything.
    """
    count = layout.records(file)
    raw = _CifarUnpickler(io.BytesIO(content), encoding="bytes").load()
    named = {key.decode() if isinstance(key, bytes) else key: raw[key] for key in raw}
    labels = [bytes(list(named[key])) for key in layout.label_keys]  # refuses 256 and -1
    columns = [np.frombuffer(column, np.uint8).reshape(count, 1) for column in labels]
    return np.concatenate([*columns, named["data"].array.reshape(count, PIXELS)], axis=1)
