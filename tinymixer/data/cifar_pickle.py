"""Floor 1. CIFAR's Python files: pickles, read without running anything that is in them."""

import io
import pickle
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


class _CifarUnpickler(pickle.Unpickler):
    """Accepts only the names that CIFAR's Python files mention, and maps them to stand-ins."""

    _STAND_INS: ClassVar[dict[str, Any]] = {
        "numpy.core.multiarray._reconstruct": lambda *_: _Pixels(),
        "numpy._core.multiarray._reconstruct": lambda *_: _Pixels(),
        "numpy.ndarray": _Pixels,
        "numpy.dtype": _Dtype,
        "_codecs.encode": lambda text, _: text.encode("latin-1"),
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
