"""Arrays of a file and those of a model: where one is found in the other, and whether it fits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinymixer.weights.layouts import Places


def their_shape(place: Places) -> tuple[int, ...]:
    """The shape of the array of a file that holds these of ours."""
    first = place[0][1].theirs
    return first if len(place) == 1 else (first[0], sum(view.theirs[1] for _, view in place))


def pieces(array: np.ndarray, place: Places, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our arrays, by name, that an array of a file holds."""
    widths = np.cumsum([view.theirs[1] for _, view in place[:-1]])
    parts = np.split(array, widths, axis=1) if len(place) > 1 else [array]
    return {
        name: view.read(part, state[name].shape)
        for (name, view), part in zip(place, parts, strict=True)
    }


def finite(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the numbers of `array` are finite in the precision that they are read in."""
    with np.errstate(over="ignore"):  # 1e39 is infinite in float32
        return bool(np.isfinite(array.astype(dtype)).all())


def some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
