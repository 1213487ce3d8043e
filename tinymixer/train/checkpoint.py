"""A checkpoint: named arrays and a header, in one `.npz` file that any NumPy can open.

    weights/<parameter>   what the model is, and its buffers
    ema/<parameter>       the average of its weights, where one is kept
    optimizer/<name>      the optimizer's flat arrays
    header                JSON, as bytes: the format, a digest, and what `records.Header` says

Writing is atomic: the old file or the new one, never a part. A file is read in this order: the
header; the names, shapes and types of all arrays, which must be those that its configuration
needs; the numbers. Nothing is used before all of it has been read and the digest is right.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer import data, nn
from tinymixer.arrays import ArrayFile, Stored, all_finite, opened
from tinymixer.backend import Array, array_module, to_numpy
from tinymixer.errors import CheckpointError, brief
from tinymixer.files import write_atomically
from tinymixer.train.parallel import places_of
from tinymixer.train.records import DatasetRecord, Header, shown

FORMAT = 3
NAMES = ("last.npz", "best.npz")  # of a run's checkpoints: the latest first
GROUPS = ("weights", "ema", "optimizer")
MOST_HEADER = 2**26  # bytes


@dataclass(frozen=True)
class Checkpoint:
    """What the file `path` holds: its header, and arrays by name in three groups."""

    path: Path
    header: Header
    weights: dict[str, np.ndarray]
    ema: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]

    @property
    def finite(self) -> bool:
        """Whether all its numbers are."""
        groups = self.weights, self.ema, self.optimizer
        arrays = (array for group in groups for array in group.values())
        return all(bool(array_module(array).isfinite(array).all()) for array in arrays)

    def fitting(self) -> AbstractContextManager[None]:
        """Turn a ValueError into a CheckpointError: this file does not fit its own options."""
        return _fitting(self.path)


def require_unused(folder: Path) -> None:
    """Raise CheckpointError if `folder` holds a run: another one there would write over it."""
    found = of_run(folder)
    if found:
        raise CheckpointError(
            f"{folder} holds a run already; --resume {found} goes on with it, another --out begins "
            "a new one"
        )


def of_run(folder: Path) -> Path | None:
    """The latest checkpoint of the run in `folder`; None if it holds none."""
    return next((folder / name for name in NAMES if (folder / name).exists()), None)


def save(
    path: Path,
    header: Header,
    weights: Mapping[str, Array],
    ema: Mapping[str, Array],
    optimizer: Mapping[str, Array],
) -> None:
    """Write a checkpoint to `path`, or raise CheckpointError and leave what was there."""
    arrays = {
        f"{group}/{name}": to_numpy(array)
        for group, members in zip(GROUPS, (weights, ema, optimizer), strict=True)
        for name, array in members.items()
    }
    said = header.to_json()
    text = json.dumps({"format": FORMAT, "digest": _digest(said, arrays), **said})
    arrays["header"] = np.frombuffer(text.encode(), np.uint8)
    try:
        write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    except OSError as error:
        raise CheckpointError(
            f"cannot save {path}: {error.strerror or error}. What was saved there before is "
            "intact; make room and --resume, or choose another --out"
        ) from error


def load(path: Path) -> Checkpoint:
    """Read a whole checkpoint, or raise CheckpointError that says what is wrong with it."""
    try:
        with opened(path, compressed=False) as file:
            said = _read_header(path, file)
            for name, what in file.refused.items():
                raise ValueError(f"{name} is {what}")
            digest = said.pop("digest")
            header = Header.from_json(said)
            with _fitting(path):
                _require_same(file.stored, _needed(header, file.stored))
            arrays = {key: file.read(key) for key in file.stored if key != "header"}
    except (CheckpointError, MemoryError):
        raise
    except FileNotFoundError:
        raise CheckpointError(
            f"no checkpoint {path}: expected the last.npz or best.npz of a training run"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can make its reader raise anything
        raise _not_whole(path, error) from error
    if digest != _digest(said, arrays):
        raise _not_whole(path, "its content is not what was written: the digests differ")
    for key, array in arrays.items():
        if not all_finite(array):
            raise _not_whole(path, f"{key} is not finite")
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in GROUPS}
    for key, array in arrays.items():
        group, _, name = key.partition("/")
        groups[group][name] = array
    return Checkpoint(path, header, **groups)


def to_resume(path: Path, dataset: data.Dataset, epochs: float | None = None) -> Checkpoint:
    """The checkpoint from which a run goes on, with `epochs` to another end, see Header.until.

    Raises CheckpointError if it was trained on other data, and for another one than last.npz beside
    a last.npz: where the run is by now must not be lost.
    """
    saved, last = load(path), path.with_name(NAMES[0])
    if path.name != last.name and last.exists():
        raise CheckpointError(
            f"{path} cannot go on beside {last}, which it would write over; resume {last}, or "
            f"copy {path.name} to a folder of its own and resume it there"
        )
    begun, given = saved.header.dataset, DatasetRecord.of(dataset)
    if begun.fingerprint != given.fingerprint:
        raise CheckpointError(
            f"{path} was trained on other data: {begun.name} with fingerprint "
            f"{begun.fingerprint[:12]}, not {given.name} with {given.fingerprint[:12]}. Resume "
            "with the data set it began with"
        )
    told = ("class_names", "mean", "std", "image_size", "channels", "train_images", "test_images")
    if differs := begun.difference(given, told):
        raise CheckpointError(
            f"{path} was trained on {differs}; resume with the data set it began with"
        )
    return saved if epochs is None else replace(saved, header=saved.header.until(epochs))


def load_model(path: Path) -> tuple[Any, Checkpoint]:
    """The model of a checkpoint, with its averaged weights if it has some, and the checkpoint.

    Raises CheckpointError if the file is damaged or its weights do not fit its configuration.
    """
    saved = load(path)
    with saved.fitting():
        model = _model(saved.header, nn.BLANK)
        model.load_state(saved.weights | saved.ema)
    return model, saved


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(
            f"{path} does not fit its own configuration: {brief(error)}"
        ) from error


def _not_whole(path: Path, why: Exception | str) -> CheckpointError:
    reason = f"it has no {why}" if isinstance(why, KeyError) else brief(why)
    return CheckpointError(
        f"{path} is not a whole tinymixer checkpoint ({reason}). It is damaged or was written by "
        "something else; take another one of the run's"
    )


def _read_header(path: Path, file: ArrayFile) -> dict[str, Any]:
    """What the file says beside its arrays; CheckpointError for another format."""
    stored = file.stored["header"]
    if stored.dtype != np.uint8 or stored.nbytes > MOST_HEADER:
        raise ValueError("its header is not text")
    said = json.loads(file.read("header").tobytes())
    if not isinstance(said, dict):
        raise ValueError("its header is not an object")
    found = said.pop("format")
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {shown(found)}; this tinymixer reads format {FORMAT}. "
            "Use the tinymixer that wrote it, or a newer one"
        )
    return said


def _digest(said: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over what a header says, and over the name, shape, type and numbers of each array."""
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for key in sorted(arrays):
        array = arrays[key]
        digest.update(f"{key} {array.shape} {array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _needed(header: Header, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The arrays that a run of this configuration has, built with no more than the file holds."""
    numbers = sum(x.size for x in stored.values())
    if max(_whole_numbers(header.config.model_options), default=0) > numbers:
        raise ValueError("it describes a larger model than the file holds")
    try:
        model = _model(header, nn.Zeros(numbers, len(stored)))
    except MemoryError:
        raise ValueError("it describes a larger model than fits into memory") from None
    weights = model.state()
    learned = {name: x.data for name, x in model.learned_parameters().items()}
    ema = learned if header.config.ema else {}
    flat = np.zeros(sum(x.size for x in learned.values()), np.float32)
    optimizer = header.config.build_optimizer(flat, places_of(model)).state
    return {
        f"{group}/{name}": Stored(array.shape, array.dtype)
        for group, arrays in zip(GROUPS, (weights, ema, optimizer), strict=True)
        for name, array in arrays.items()
    }


def _model(header: Header, rng: Any) -> Any:
    of = header.dataset
    return header.config.build_model(len(of.class_names), rng, of.channels, of.image_size)


def _whole_numbers(found: Any) -> Iterator[int]:
    """All integers in a value of JSON."""
    if isinstance(found, int):
        yield abs(found)
    elif isinstance(found, dict | list):
        for value in found.values() if isinstance(found, dict) else found:
            yield from _whole_numbers(value)


def _require_same(stored: Mapping[str, Stored], needed: Mapping[str, Stored]) -> None:
    """Raise ValueError for the first missing or unneeded array, or one of another type."""
    for key in sorted(needed.keys() | stored.keys() - {"header"}):
        found, expected = stored.get(key), needed.get(key)
        if found is None or expected is None or found.shape != expected.shape:
            shapes = ["nothing" if x is None else x.shape for x in (found, expected)]
            raise ValueError(f"{key} is {shapes[0]}, expected {shapes[1]}")
        if found.dtype != expected.dtype:
            raise ValueError(f"{key} is {found.dtype}, expected {expected.dtype}")
