"""A checkpoint: named arrays and a header, in one `.npz` file that any NumPy can open.

    weights/<parameter>   what the model is, and its buffers
    ema/<parameter>       the average of its weights, where one is kept
    optimizer/<name>      the optimizer's flat arrays
    header                JSON, as bytes: format, names of the arrays, configuration, data set,
                          position, history

Writing is atomic: the old file or the new one, never a part. Reading admits no pickle, and nothing
is used before all of it has been read, its checksums (the zip's CRC-32) have passed, and no array
or entry is missing.
"""

import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer import nn
from tinymixer.backend import Array, to_numpy
from tinymixer.errors import CheckpointError
from tinymixer.files import write_atomically
from tinymixer.train.config import Config

FORMAT = 1
NAMES = ("last.npz", "best.npz")  # of a run's checkpoints: the latest first
ENTRIES = ("config", "dataset", "position", "history", "so_far")  # of a header
OF_DATASET = ("name", "fingerprint", "class_names", "mean", "std")
OF_SO_FAR = ("loss", "correct", "images", "seconds")  # sums over the epoch that is not done yet
OF_EPOCH = (
    *("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
    *("lr", "seconds", "images_per_s"),
)


@dataclass(frozen=True)
class Checkpoint:
    """What the file `path` holds: the header's entries, and arrays by name in three groups."""

    path: Path
    header: dict[str, Any]
    weights: dict[str, np.ndarray]
    ema: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]

    @property
    def config(self) -> Config:
        """The run's Config. Raises CheckpointError for one that this tinymixer cannot make."""
        with self.fitting():
            return Config.from_dict(self.header["config"])

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Within it, to fail at what is made of this checkpoint is a CheckpointError naming it."""
        try:
            yield
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise CheckpointError(
                f"{self.path} does not fit its own configuration: {what}"
            ) from error


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
    header: Mapping[str, Any],
    weights: Mapping[str, Array],
    ema: Mapping[str, Array],
    optimizer: Mapping[str, Array],
) -> None:
    """Write a checkpoint to `path`, or raise CheckpointError and leave what was there."""
    arrays = {
        f"{group}/{name}": to_numpy(array)
        for group, members in (("weights", weights), ("ema", ema), ("optimizer", optimizer))
        for name, array in members.items()
    }
    text = json.dumps({"format": FORMAT, "arrays": list(arrays), **header})
    arrays["header"] = np.frombuffer(text.encode(), np.uint8)
    try:
        write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    except OSError as error:
        raise CheckpointError(
            f"cannot save {path}: {error.strerror or error}. What was saved there before is "
            "intact; make room and --resume, or choose another --out"
        ) from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint whole, or raise CheckpointError saying what is wrong with it."""
    try:
        arrays = _read(path)
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has checkpoint format {header['format']}; this tinymixer reads format "
                f"{FORMAT}. Use the tinymixer that wrote it, or a newer one"
            )
        if arrays.keys() != set(header["arrays"]):
            raise ValueError("its arrays are not those that its header names")
        _check(header)
        groups: dict[str, dict[str, np.ndarray]] = {"weights": {}, "ema": {}, "optimizer": {}}
        for key, array in arrays.items():
            group, _, name = key.partition("/")
            groups[group][name] = array
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(
            f"no checkpoint {path}: expected the last.npz or best.npz of a training run"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise CheckpointError(
            f"{path} is not a whole tinymixer checkpoint ({str(error).partition(chr(10))[0]}). It "
            "is damaged or was written by something else; take another one of the run's"
        ) from error
    return Checkpoint(path, header, **groups)


def _check(header: Mapping[str, Any]) -> None:
    """Raise ValueError, or what comes of it, for a header that no run writes."""
    dataset, so_far = header.get("dataset", {}), header.get("so_far", {})
    history = header.get("history", [])
    wanted = [(header, ENTRIES), (dataset, OF_DATASET), (so_far, OF_SO_FAR)]
    wanted += [(row, OF_EPOCH) for row in history]
    missing = [name for entries, names in wanted for name in names if name not in entries]
    if missing:
        raise ValueError(f"its header has no {missing[0]}")
    epoch, step = header["position"]
    names, mean, std = dataset["class_names"], dataset["mean"], dataset["std"]
    for name, fits in {
        "position": type(epoch) is type(step) is int and epoch == len(history) and step >= 0,
        "so_far": _are_numbers(so_far.values()),
        "history": all(_are_numbers(row.values()) for row in history),
        "class_names": len(names) > 0 and all(isinstance(name, str) for name in names),
        "mean": len(mean) == 3 and all(0 <= x < math.inf for x in mean),
        "std": len(std) == 3 and all(0 < x < math.inf for x in std),
    }.items():
        if not fits:
            raise ValueError(f"its header's {name} is none that a run writes")


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(x, int | float) for x in values)


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file whose members are stored as they are, not compressed.

    So a file is never larger in memory than on the disk, and what a header claims is bounded.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it has compressed members")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its members claim more bytes than the file has")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def load_model(path: Path) -> tuple[Any, Checkpoint]:
    """The model of a checkpoint, with its averaged weights if it has some, and the checkpoint.

    Raises CheckpointError if the file is damaged or its weights do not fit its configuration.
    """
    saved = load(path)
    with saved.fitting():
        model = saved.config.build_model(len(saved.header["dataset"]["class_names"]), nn.BLANK)
        model.load_state(saved.weights | saved.ema)
    return model, saved
