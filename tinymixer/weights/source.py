"""Where weights come from: a file of any kind, a run's checkpoint, or arrays in memory."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tinymixer import arrays
from tinymixer.errors import CheckpointError
from tinymixer.weights.files import RECORD, InFile, InMemory, Shards, opened
from tinymixer.weights.record import read_record
from tinymixer.weights.unwrap import unwrapped

COUNTER = ".num_batches_tracked"  # of batches, by released code; nothing reads it


class Weights(Mapping[str, InFile]):
    """Weights by name, each with a shape and a dtype, and read when asked: `weights[name].read()`.

    notes: what was wrapped around them and taken off, in sentences. record: what a file of ours
    says of its model (see record.py); empty for all others. files: those that they are in. They are
    closed at the end of a `with`.
    """

    files: tuple[Path, ...] = ()

    def __init__(
        self,
        name: str,
        found: Mapping[str, InFile],
        notes: tuple[str, ...] = (),
        record: Mapping[str, Any] | None = None,
        stack: ExitStack | None = None,
    ):
        self.name, self.notes, self.record = name, notes, dict(record or {})
        self._found, self._stack = dict(found), stack or ExitStack()
        self._closed = False

    def __getitem__(self, name: str) -> InFile:
        if self._closed:
            raise ValueError(f"the weights of {self.name} are closed; use them within their `with`")
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self._stack.close()


def read_weights(source: Mapping[str, Any] | Path | str, *, average: bool = True) -> Weights:
    """The weights in a file of any kind that is known by its content, or in a mapping.

    Where averaged and raw weights are there, the averaged are taken; without `average`, the raw.
    Single whole numbers, which count batches or steps, are left out. No numbers are read before
    they are asked for. Raises CheckpointError for a file that is not
    whole, is another thing, or holds weights of kinds that no model has; TypeError for neither a
    path nor a mapping.
    """
    if isinstance(source, Mapping):
        named, name = InMemory(_flat(source)), "the mapping"
        record = read_record(name, named)  # an opened .npz file of ours is a mapping, too
        named.stored.pop(RECORD, None)
        return _of(name, named, record, average, ExitStack())
    if not isinstance(source, str | Path):
        raise TypeError(
            "weights are read from a path or a mapping of names to arrays, such as model.state(), "
            f"not from {type(source).__name__}"
        )
    path, stack = Path(source), ExitStack()
    try:
        file = stack.enter_context(opened(path))
        if "header" in file.stored and any(name.startswith("weights/") for name in file.stored):
            stack.close()
            return _of_run(path, average)
        record = read_record(path, file)
        file.stored.pop(RECORD, None)
        if not (file.stored or file.refused or file.ignored):
            raise CheckpointError(
                f"{path} is a whole {file.kind} file, and holds no arrays. Give the file of weights"
            )
        weights = _of(str(path), file, record, average, stack)
        weights.files = (path, *(file.files if isinstance(file, Shards) else ()))
        return weights
    except BaseException:
        stack.close()
        raise


def _of(name: str, file: arrays.ArrayFile, record: Any, average: bool, stack: ExitStack) -> Weights:
    """The weights in a file, unwrapped. Raises CheckpointError where they are of no use."""
    found = unwrapped([*file.stored, *file.refused], average)
    refused = [place for place in found.names.values() if place in file.refused]
    if refused:
        raise CheckpointError(
            f"{name}: {arrays.short(refused[0])} is {file.refused[refused[0]]}, which "
            "tinymixer does not read. Save weights as plain arrays of float32 in the program "
            "that made them"
        )
    if not found.names and file.ignored:
        made = next(iter(file.ignored.values()))
        raise CheckpointError(
            f"{name} holds no arrays but an object of {arrays.short(made)}, which is not made "
            "here, as to make it could run any program. Save its state_dict() in the program "
            "that made it"
        )
    kinds = {ours: file.stored[place] for ours, place in found.names.items()}
    counters = [x for x, kind in kinds.items() if kind.dtype.kind in "iu" and not kind.shape]
    other = [x for x, kind in kinds.items() if kind.dtype.kind != "f" and x not in counters]
    if other:
        several = ", ".join(f"{arrays.short(x)[1:-1]} {kinds[x].dtype}" for x in other[:4])
        raise CheckpointError(
            f"{name} holds what are not floating-point numbers: {several}. Quantised weights are "
            "not read, nor is anything but float32, float16, bfloat16 and float64; save them as "
            "float32 in the program that made them"
        )
    notes = found.notes
    if file.ignored:
        several = ", ".join(arrays.short(what) for what in list(file.ignored.values())[:3])
        notes += (f"what is no array was not read: {several}",)
    inside = {
        ours: InFile(name, file, place)
        for ours, place in found.names.items()
        if ours not in counters
    }
    return Weights(name, inside, notes, record, stack)


def _flat(named: Mapping[str, Any], most: int = 16) -> dict[str, Any]:
    """Nested mappings as one, with "/" between the names. What is no array is left out."""
    flat: dict[str, Any] = {}
    nested = any(isinstance(value, Mapping) for value in named.values())
    for name, value in named.items():
        if isinstance(value, Mapping):
            if not most:
                raise ValueError("the mapping is nested too deeply")
            flat |= {f"{name}/{inner}": x for inner, x in _flat(value, most - 1).items()}
        elif not nested or hasattr(value, "shape"):
            flat[str(name)] = value
    return flat


def _of_run(path: Path, average: bool) -> Weights:
    """The weights in a training run's checkpoint, averaged if an average was kept."""
    from tinymixer.train import checkpoint  # here, because it imports all of training

    saved = checkpoint.load(path)
    config, dataset = saved.header.config, saved.header.dataset
    sizes = {"num_classes": len(dataset.class_names), "channels": dataset.channels}
    record = {
        "model": config.model,
        "model_options": {"image_size": dataset.image_size, **config.model_options, **sizes},
        "layout": "tinymixer",
        "class_names": list(dataset.class_names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "task": config.task,
    }
    file = InMemory(saved.weights | (saved.ema if average else {}))
    return Weights(
        str(path), {name: InFile(str(path), file, name) for name in file.stored}, (), record
    )
