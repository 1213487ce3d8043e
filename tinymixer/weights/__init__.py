"""Floor 5. Other people's weights: released checkpoints, read and written in their layouts.

source.py    what a user brings: a file of any kind, a run's checkpoint, a mapping
files.py     which kind a file is (kinds.py: what it is otherwise), and its reader
unwrap.py    what is wrapped around weights
layouts.py   how each system's arrays are named and laid out; rules.py, the terms of it
start.py     weights that fit a model in part; fitting.py, whether an array fits
known.py     which GELU, mean and std the released weights were trained with
record.py    what a file of ours says of itself
trained/     weights that come with tinymixer
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer.backend import to_numpy
from tinymixer.errors import CheckpointError
from tinymixer.nn import Module
from tinymixer.weights.files import InFile, read_file, write_file
from tinymixer.weights.fitting import finite, pieces, some, their_shape
from tinymixer.weights.known import Known, known
from tinymixer.weights.layouts import (
    LAYOUTS,
    Correspondence,
    correspondence,
    find_layout,
    other_system,
)
from tinymixer.weights.record import written
from tinymixer.weights.source import Weights, read_weights
from tinymixer.weights.start import Started, start_from

__all__ = [
    "LAYOUTS",
    "Known",
    "Started",
    "Weights",
    "find_layout",
    "known",
    "load_state",
    "num_classes_in",
    "read_file",
    "read_weights",
    "save_state",
    "shapes_in",
    "start_from",
    "state_in",
    "trained",
]

TRAINED = Path(__file__).parent / "trained"
RUNNING, COUNTER = ".running_var", ".num_batches_tracked"
Source = Weights | Mapping[str, Any] | Path | str


def trained() -> dict[str, Path]:
    """The files of pretrained weights that come with tinymixer, by name; trained/README.md says
    how each was trained, and how good it is.
    """
    return {path.stem: path for path in sorted(TRAINED.glob("*.npz"))}


def load_state(
    model: Module,
    source: Source,
    layout: str = "auto",
    *,
    name: str = "",
) -> None:
    """Copy the weights in `source`, named and laid out as in `layout`, into `model`.

    source is what `read_weights` takes, or what it returned; `name` is what errors call it. With
    "auto" the layout is found by the names. Every array must be used, every shape must fit and
    every number be finite in the model's precision, or CheckpointError lists what is missing, left
    over, misshapen or not finite, and the model stays as it was. No numbers of a file are read
    before all names and shapes fit. ValueError for a layout that the model's system does not have.
    """
    if not isinstance(source, Weights):
        with read_weights(source) as weights:
            load_state(model, weights, layout, name=name)
        return
    if layout == "auto":
        layout = find_layout(model, source)
    model.load_state(_as_ours(model, source, layout, name or source.name))


def save_state(
    model: Module,
    path: Path | str,
    layout: str = "tinymixer",
    *,
    record: Mapping[str, Any] | None = None,
    dtype: str | None = None,
) -> None:
    """Write the weights of `model` to an .npz or .safetensors file, named and laid out as `layout`.

    record is what the file then says of itself (see record.py); dtype "float16" or "float32",
    otherwise the model's. Raises ValueError for another kind of file, a layout that the model's
    system does not have, a record of another model, or numbers that float16 is too small for.
    """
    if dtype not in (None, "float16", "float32"):
        raise ValueError(f"dtype={dtype!r}: expected float16 or float32")
    arrays = state_in(model, layout)
    if dtype is not None:
        arrays = {name: _narrowed(name, array, dtype) for name, array in arrays.items()}
    sizes = [array.size for array in arrays.values()]
    said = None if record is None else written(record, model, sizes)
    write_file(Path(path), arrays, said)


def _narrowed(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    if not np.isfinite(narrow).all():
        raise ValueError(f"{name} has numbers that are too large for {dtype}; write float32")
    return narrow


def state_in(model: Module, layout: str) -> dict[str, np.ndarray]:
    """The weights of `model` as NumPy arrays, named and laid out as in `layout`."""
    ours = {name: to_numpy(array) for name, array in model.state().items()}
    theirs = {}
    for name, parts in correspondence(model, layout).items():
        arrays = [view.write(ours[our_name]) for our_name, view in parts]
        theirs[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)
        if name.endswith(RUNNING):  # released code counts the batches, and nothing reads it
            theirs[name.removesuffix(RUNNING) + COUNTER] = np.zeros((), np.int64)
    return theirs


def shapes_in(model: Module, layout: str) -> dict[str, tuple[int, ...]]:
    """What `state_in` names, and the shape of each, without the numbers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parts in correspondence(model, layout).items():
        shapes[name] = their_shape(parts)
        if name.endswith(RUNNING):
            shapes[name.removesuffix(RUNNING) + COUNTER] = ()
    return shapes


def num_classes_in(source: Source, model: Module, layout: str = "auto") -> int | None:
    """The number of classes of `source`, from the bias of its head; None if it has none."""
    if not isinstance(source, Weights):
        with read_weights(source) as weights:
            return num_classes_in(weights, model, layout)
    if layout == "auto":
        layout = find_layout(model, source)
    for name, [(our_name, _), *_] in correspondence(model, layout).items():
        if our_name == "head.b" and name in source:
            return math.prod(source[name].shape)
    return None


def _as_ours(model: Module, theirs: Weights, layout: str, source: str) -> dict[str, np.ndarray]:
    """Our arrays by name, or CheckpointError with all that is wrong."""
    ours: dict[str, np.ndarray] = {}
    expected = correspondence(model, layout)
    theirs.require_read(expected)
    shapes = {name: their_shape(parts) for name, parts in expected.items()}
    wrong = {
        "missing": [f"{name} {shape}" for name, shape in shapes.items() if name not in theirs],
        "misshapen": [
            f"{name} {theirs[name].shape}, expected {shape}"
            for name, shape in shapes.items()
            if name in theirs and theirs[name].shape != shape
        ],
        "left over": [
            f"{name} {array.shape}"
            for name, array in theirs.items()
            if name not in expected and array.dtype.kind == "f"  # others are masks and places
        ],
    }
    if not any(wrong.values()):
        ours, wrong["not finite"] = _read(model, theirs, expected)
    if any(wrong.values()):
        hint = ""
        whole = [x for x, array in theirs.items() if array.dtype.kind in "iu"]
        if system := other_system(model, theirs):
            hint = f". These are the names of {system}"
        elif wrong["missing"] and whole:
            hint = f". Quantised weights are not read, and {whole[0]} is {theirs[whole[0]].dtype}"
        elif re.search(r"-\d+-of-\d+\.\w+$", source):
            hint = ". It is one of several parts: give the index beside them (.index.json)"
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__} in the layout {layout!r}: "
            f"{'; '.join(f'{what}: {some(names)}' for what, names in wrong.items() if names)}{hint}"
            ". Choose the model, its options and the layout that the weights were made with"
        )
    return ours


def _read(
    model: Module,
    theirs: Mapping[str, InFile],
    expected: Correspondence,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Our arrays by name, and those of theirs that are not finite in the model's precision."""
    ours: dict[str, np.ndarray] = {}
    state, not_finite = model.state(), []
    for name, parts in expected.items():
        array, dtype = theirs[name].read(), state[parts[0][0]].dtype
        if not finite(array, dtype):
            read_as = "" if array.dtype == dtype else f", read as {dtype}"
            not_finite.append(f"{name} {array.dtype}{read_as}")
            continue
        ours |= pieces(array, parts, state)
    return ours, not_finite
