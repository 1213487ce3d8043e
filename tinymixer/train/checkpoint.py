"""A checkpoint: named arrays and a header, in one `.npz` file that any NumPy can open.

    weights/<parameter>   what the model is, and its buffers
    ema/<parameter>       the average of its weights, where one is kept
    optimizer/<name>      the optimizer's flat arrays
    header                JSON, as bytes: format, names of the arrays, configuration, data set,
                          position, history

Writing is atomic: the old file or the new one, never a part. Reading admits no pickle, and nothing
is used before all of it has been read, its checksums (the zip's CRC-32) have passed, and no array
is missing.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
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


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: the header's entries, and arrays by name in three groups."""

    header: dict[str, Any]
    weights: dict[str, np.ndarray]
    ema: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]


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
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
        *(KeyError, ValueError, TypeError, MemoryError, SyntaxError, OverflowError),
    ) as error:
        raise CheckpointError(
            f"{path} is not a whole tinymixer checkpoint ({str(error).partition(chr(10))[0]}). It "
            "is damaged or was written by something else; take another one of the run's"
        ) from error
    return Checkpoint(header, **groups)


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
    try:
        config = Config.from_dict(saved.header["config"])
        model = config.build_model(len(saved.header["dataset"]["class_names"]), nn.BLANK)
        model.load_state(saved.weights | saved.ema)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not fit its own configuration: {error}") from error
    return model, saved
