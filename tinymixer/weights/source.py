"""Where weights come from: a file of any kind, a run's checkpoint, or arrays in memory."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tinymixer import arrays
from tinymixer.errors import CheckpointError
from tinymixer.weights.files import RECORD, InFile, InMemory, Shards, not_read, opened
from tinymixer.weights.record import read_record
from tinymixer.weights.unwrap import unwrapped


class Weights(Mapping[str, InFile]):
    """Weights by name, each with a shape and a dtype, and read when asked: `weights[name].read()`.

    notes: what was wrapped around them and taken off, in sentences. record: what a file of ours
    says of its model (see record.py); empty for all others. files: those that they are in. refused:
    arrays of kinds that are not read, and which. They are closed at the end of a `with`.
    """

    files: tuple[Path, ...] = ()

    def __init__(
        self,
        name: str,
        found: Mapping[str, InFile],
        notes: tuple[str, ...] = (),
        record: Mapping[str, Any] | None = None,
        stack: ExitStack | None = None,
        refused: Mapping[str, str] | None = None,
    ):
        self.name, self.notes, self.record = name, notes, dict(record or {})
        self.refused = dict(refused or {})
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

    def require_read(self, names: Iterable[str]) -> None:
        """Raise CheckpointError if one of these is there, and is not of floating-point numbers."""
        for name in names:
            if name in self.refused:
                raise not_read(self.name, name, self.refused[name])
            if name in self._found and self._found[name].dtype.kind != "f":
                kind = self._found[name].dtype
                how = ", as quantised weights are" if kind.kind in "iu" else ""
                raise not_read(self.name, name, f"an array of {kind}{how}")

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self._stack.close()


def read_weights(
    source: Mapping[str, Any] | Path | str, *, average: bool = True, key: str = ""
) -> Weights:
    """The weights in a file of any kind that is known by its content, or in a mapping.

    Where averaged and raw weights are there, the averaged are taken; without `average`, the raw.
    Where several models are, `key` says which: the name that it has in the file. Single whole
    numbers, which count batches or steps, are left out. No numbers are read before they are asked
    for. Raises CheckpointError for a file that is damaged, holds no weights of a kind that a model
    has, or holds several models; TypeError for neither a path nor a mapping.
    """
    if isinstance(source, Mapping):
        named, name = InMemory(_flat(source)), "the mapping"
        record = read_record(name, named)  # an opened .npz file of ours is a mapping, too
        named.stored.pop(RECORD, None)
        return _of(name, named, record, average, key, ExitStack())
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
            if key:
                raise CheckpointError(f"{path} is of a run, and holds one model; leave out {key!r}")
            return _of_run(path, average)
        record = read_record(path, file)
        file.stored.pop(RECORD, None)
        if not (file.stored or file.refused or file.ignored):
            raise CheckpointError(
                f"{path} is a whole {file.kind} file, and holds no arrays. Give the file of weights"
            )
        weights = _of(str(path), file, record, average, key, stack)
        weights.files = (path, *(file.files if isinstance(file, Shards) else ()))
        return weights
    except BaseException:
        stack.close()
        raise


def _of(
    name: str, file: arrays.ArrayFile, record: Any, average: bool, key: str, stack: ExitStack
) -> Weights:
    """The weights in a file, unwrapped. Raises CheckpointError where they are of no use."""
    try:
        found = unwrapped([*file.stored, *file.refused], average, key)
    except ValueError as error:
        raise CheckpointError(f"{name}: {error}") from error
    if not found.names and file.ignored:
        made = next(iter(file.ignored.values()))
        raise CheckpointError(
            f"{name} holds no arrays but an object of {arrays.short(made)}, which is not made "
            "here, as to make it could run any program. Save its state_dict() in the program "
            "that made it"
        )
    refused = {x: file.refused[at] for x, at in found.names.items() if at in file.refused}
    kinds = {x: file.stored[at] for x, at in found.names.items() if at in file.stored}
    counters = [x for x, kind in kinds.items() if kind.dtype.kind in "iu" and not kind.shape]
    notes = found.notes
    if file.ignored:
        several = ", ".join(arrays.short(what) for what in list(file.ignored.values())[:3])
        notes += (f"what is not an array was not read: {several}",)
    if refused:
        first, what = next(iter(refused.items()))
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        notes += (f"{arrays.short(first)[1:-1]} was left out, {what}{more}",)
    inside = {x: InFile(name, file, found.names[x]) for x in kinds if x not in counters}
    weights = Weights(name, inside, notes, record, stack, refused)
    if not any(kind.dtype.kind == "f" for kind in kinds.values()):
        weights.require_read(found.names)
    return weights


def _flat(named: Mapping[str, Any], most: int = 16) -> dict[str, Any]:
    """Nested mappings as one, with "/" between the names. What is not an array is left out."""
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
