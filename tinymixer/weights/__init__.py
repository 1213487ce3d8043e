"""Floor 5. Weights of others: the names and layouts of released checkpoints, read and written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer.backend import to_numpy
from tinymixer.errors import CheckpointError
from tinymixer.nn import Module
from tinymixer.weights.files import read_file, write_file
from tinymixer.weights.layouts import LAYOUTS, correspondence
from tinymixer.weights.rules import View

__all__ = ["LAYOUTS", "load_state", "num_classes_in", "read_file", "save_state", "state_in"]

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
    left over, misshapen or not finite, and the model stays as it was. ValueError for a layout that
    the model's system does not have.
    """
    if not name:
        name = str(source) if isinstance(source, str | Path) else "the mapping"
    model.load_state(_as_ours(model, _arrays(source), layout, name))


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


def num_classes_in(
    source: Mapping[str, Any] | Path | str, model: Module, layout: str
) -> int | None:
    """For how many classes weights were made, by the bias of the head; None if it is not there."""
    for name, [(our_name, _), *_] in correspondence(model, layout).items():
        if our_name == "head.b" and name in (arrays := _arrays(source)):
            return arrays[name].size
    return None


def _as_ours(
    model: Module, theirs: Mapping[str, np.ndarray], layout: str, source: str
) -> dict[str, np.ndarray]:
    """Our arrays by name, or CheckpointError with all that is wrong."""
    state, expected = model.state(), correspondence(model, layout)
    ours: dict[str, np.ndarray] = {}
    wrong: dict[str, list[str]] = {"missing": [], "misshapen": [], "not finite": []}
    for name, parts in expected.items():
        dtype = state[parts[0][0]].dtype
        shape = _their_shape([view for _, view in parts])
        if name not in theirs:
            wrong["missing"].append(f"{name} {shape}")
        elif theirs[name].shape != shape:
            wrong["misshapen"].append(f"{name} {theirs[name].shape}, expected {shape}")
        elif not _finite(theirs[name], dtype):
            read_as = "" if theirs[name].dtype == dtype else f", read as {dtype}"
            wrong["not finite"].append(f"{name} {theirs[name].dtype}{read_as}")
        else:
            widths = np.cumsum([view.theirs[1] for _, view in parts[:-1]])
            pieces = np.split(theirs[name], widths, axis=1) if len(parts) > 1 else [theirs[name]]
            for (our_name, view), piece in zip(parts, pieces, strict=True):
                ours[our_name] = view.read(piece, state[our_name].shape)
    wrong["left over"] = [
        f"{name} {array.shape}"
        for name, array in theirs.items()
        if name not in expected and not name.endswith(COUNTER)
    ]
    if any(wrong.values()):
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__} in the layout {layout!r}: "
            f"{'; '.join(f'{what}: {_some(names)}' for what, names in wrong.items() if names)}. "
            "Choose the model, its options and the layout that the weights were made with"
        )
    return ours


def _finite(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether `array` holds numbers that are finite in the precision they are read in."""
    with np.errstate(over="ignore"):  # 1e39 is infinite in float32
        return array.dtype.kind in "fiu" and bool(np.isfinite(array.astype(dtype)).all())


def _their_shape(views: list[View]) -> tuple[int, ...]:
    first = views[0].theirs
    if len(views) == 1:
        return first
    return (first[0], sum(view.theirs[1] for view in views))


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _arrays(source: Mapping[str, Any] | Path | str) -> dict[str, np.ndarray]:
    """Names and NumPy arrays of a mapping or file; what wraps all of them is taken off."""
    found: Any = read_file(Path(source)) if isinstance(source, str | Path) else source
    for wrapper in ("model", "state_dict"):
        if isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if "header" in found and any(name.startswith("weights/") for name in found):
        found = _trained(found)
    return {name: np.asarray(array) for name, array in found.items()}


def _trained(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The weights in the arrays of a training run's checkpoint, averaged if an average was kept."""
    return {
        name.removeprefix(group): array
        for group in ("weights/", "ema/")
        for name, array in checkpoint.items()
        if name.startswith(group)
    }
