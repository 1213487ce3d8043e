"""Floor 5. Other people's weights: released checkpoints, read and written in their layouts."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer.backend import to_numpy
from tinymixer.errors import CheckpointError
from tinymixer.nn import Module
from tinymixer.weights.files import InFile, opened, read_file, write_file
from tinymixer.weights.layouts import LAYOUTS, correspondence
from tinymixer.weights.rules import View

__all__ = [
    "LAYOUTS",
    "load_state",
    "num_classes_in",
    "read_file",
    "save_state",
    "shapes_in",
    "state_in",
]

RUNNING, COUNTER = ".running_var", ".num_batches_tracked"


def load_state(
    model: Module,
    source: Mapping[str, Any] | Path | str,
    layout: str = "tinymixer",
    *,
    name: str = "",
) -> None:
    """Copy the weights in `source`, named and laid out as in `layout`, into `model`.

    source is a mapping of names to arrays, or an .npz or .safetensors file of them, or a checkpoint
    of a training run; `name` is what errors call it. Every array must be used, every shape must fit
    and every number be finite in the model's precision, or CheckpointError lists what is missing,
    left over, misshapen or not finite, and the model stays as it was. No numbers of a file are read
    before all names and shapes fit. ValueError for a layout that the model's system does not have.
    """
    if not name:
        name = str(source) if isinstance(source, str | Path) else "the mapping"
    with _arrays(source) as theirs:
        model.load_state(_as_ours(model, theirs, layout, name))


def save_state(model: Module, path: Path | str, layout: str = "tinymixer") -> None:
    """Write the weights of `model` to an .npz or .safetensors file, named and laid out as `layout`.

    Raises ValueError for another kind of file or a layout that the model's system does not have.
    """
    write_file(Path(path), state_in(model, layout))


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
        shapes[name] = _their_shape([view for _, view in parts])
        if name.endswith(RUNNING):
            shapes[name.removesuffix(RUNNING) + COUNTER] = ()
    return shapes


def num_classes_in(
    source: Mapping[str, Any] | Path | str, model: Module, layout: str
) -> int | None:
    """The number of classes of `source`, from the bias of its head; None if it has none."""
    with _arrays(source) as theirs:
        for name, [(our_name, _), *_] in correspondence(model, layout).items():
            if our_name == "head.b" and name in theirs:
                return math.prod(theirs[name].shape)
    return None


def _as_ours(
    model: Module, theirs: Mapping[str, np.ndarray | InFile], layout: str, source: str
) -> dict[str, np.ndarray]:
    """Our arrays by name, or CheckpointError with all that is wrong."""
    ours: dict[str, np.ndarray] = {}
    expected = correspondence(model, layout)
    shapes = {name: _their_shape([view for _, view in parts]) for name, parts in expected.items()}
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
            if name not in expected and not name.endswith(COUNTER)
        ],
    }
    if not any(wrong.values()):
        ours, wrong["not finite"] = _read(model, theirs, expected)
    if any(wrong.values()):
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__} in the layout {layout!r}: "
            f"{'; '.join(f'{what}: {_some(names)}' for what, names in wrong.items() if names)}. "
            "Choose the model, its options and the layout that the weights were made with"
        )
    return ours


def _read(
    model: Module,
    theirs: Mapping[str, np.ndarray | InFile],
    expected: Mapping[str, list[tuple[str, View]]],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Our arrays by name, and those of theirs that are not finite in the model's precision."""
    state, ours, not_finite = model.state(), {}, []
    for name, parts in expected.items():
        array, dtype = theirs[name], state[parts[0][0]].dtype
        if isinstance(array, InFile):
            array = array.read()
        if not _finite(array, dtype):
            read_as = "" if array.dtype == dtype else f", read as {dtype}"
            not_finite.append(f"{name} {array.dtype}{read_as}")
            continue
        widths = np.cumsum([view.theirs[1] for _, view in parts[:-1]])
        pieces = np.split(array, widths, axis=1) if len(parts) > 1 else [array]
        for (our_name, view), piece in zip(parts, pieces, strict=True):
            ours[our_name] = view.read(piece, state[our_name].shape)
    return ours, not_finite


def _finite(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether `array` holds floating-point numbers, finite in the precision they are read in."""
    with np.errstate(over="ignore"):  # 1e39 is infinite in float32
        return array.dtype.kind == "f" and bool(np.isfinite(array.astype(dtype)).all())


def _their_shape(views: list[View]) -> tuple[int, ...]:
    first = views[0].theirs
    if len(views) == 1:
        return first
    return (first[0], sum(view.theirs[1] for view in views))


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@contextmanager
def _arrays(
    source: Mapping[str, Any] | Path | str,
) -> Iterator[Mapping[str, np.ndarray | InFile]]:
    """Names and arrays of a mapping or file, unwrapped from a "model" or "state_dict"."""
    if isinstance(source, str | Path):
        with opened(Path(source)) as found:
            trained = "header" in found and any(name.startswith("weights/") for name in found)
            yield _trained(Path(source)) if trained else found
    else:
        named: Any = source
        for wrapper in ("model", "state_dict"):
            if isinstance(named.get(wrapper), Mapping):
                named = named[wrapper]
        yield {name: np.asarray(array) for name, array in named.items()}


def _trained(path: Path) -> dict[str, np.ndarray]:
    """The weights in a training run's checkpoint, averaged if an average was kept."""
    from tinymixer.train import checkpoint  # here, because it imports all of training

    saved = checkpoint.load(path)
    return saved.weights | saved.ema
