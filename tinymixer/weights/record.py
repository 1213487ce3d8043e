"""What a file of weights that we write says of itself, so that it can be used alone.

    model           the name of its configuration, "mixer_b16"
    model_options   all options that the model is built of
    layout          how its arrays are named and laid out: tinymixer, official or timm
    class_names     in the order of the head's outputs; only where they are known
    mean, std       of each colour, in pixel units, 0..255; only where they are known

JSON: the entry "record" of an .npz file, as bytes; the text "record" among the metadata of a
.safetensors file. Anything may be missing.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer import nn
from tinymixer.arrays import ArrayFile, short
from tinymixer.errors import CheckpointError, brief, counted
from tinymixer.models import create_model
from tinymixer.weights.files import RECORD

MOST = 2**22  # bytes
MOST_CLASSES = 10**6
LARGEST_SIDE = 4096  # of images: the one size that may be more than a small model has numbers


def read_record(path: Path | str, file: ArrayFile) -> dict[str, Any]:
    """What the file says of itself; {} if nothing. CheckpointError for what we never write."""
    text: Any = file.metadata.get(RECORD)
    try:
        if RECORD in file.stored:
            stored = file.stored[RECORD]
            if stored.dtype != np.uint8 or len(stored.shape) != 1 or stored.nbytes > MOST:
                return {}  # an array of someone's model
            text = file.read(RECORD).tobytes()
        if text is None:
            return {}
        said = checked(json.loads(text))
        _described(said, [stored.size for stored in file.stored.values()])
        return {key: value for key, value in said.items() if value is not None}
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can make its reader raise anything
        raise CheckpointError(
            f"{path} has a damaged record of its model ({brief(error)}). Convert it again"
        ) from error


def written(record: Mapping[str, Any], model: Any, sizes: Sequence[int]) -> dict[str, Any]:
    """The record of a file with the weights of `model`, in arrays of these sizes, as it is read.

    Raises ValueError for one that `read_record` would not take, or that is of another model.
    """
    try:
        said = checked(json.loads(json.dumps(record)))
        built = _described(said, sizes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"record: {brief(error)}") from error
    if said["std"] and max(said["std"]) <= 1:
        raise ValueError(f"record: its std is {said['std']}, of pixels 0..1; multiply it by 255")
    if built is not None and _backbone(built) != _backbone(model):
        raise ValueError(
            f"record: {said['model']} with these model_options is not the model whose weights are "
            "written; give its own configuration, with all options that differ"
        )
    return said


def _backbone(model: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of its arrays. The head says itself of how many classes it is."""
    return {k: x.shape for k, x in model.state().items() if not k.startswith("head.")}


def _described(said: Mapping[str, Any], sizes: Sequence[int]) -> Any:
    """The model that a record describes, of zeros; None if it names none.

    Raises ValueError for another one than arrays of these sizes can hold. So it can be believed: to
    build the model that it describes takes no more than the file has.
    """
    options = said["model_options"] or {}
    names, classes = said["class_names"], options.get("num_classes")
    if names and classes is not None and len(names) != classes:
        raise ValueError(f"it has {counted(len(names), 'name')} for num_classes={short(classes)}")
    if said["model"] is None:
        return None
    numbers = sum(sizes)
    if max(whole_numbers(options), default=0) > max(numbers, LARGEST_SIDE):
        raise ValueError("it describes a larger model than the file holds")
    zeros: Any = nn.Zeros(numbers, len(sizes))
    return create_model(said["model"], **options, rng=zeros)


def whole_numbers(found: Any) -> Iterator[int]:
    """All integers in a value of JSON."""
    if isinstance(found, int):
        yield abs(found)
    elif isinstance(found, dict | list):
        for value in found.values() if isinstance(found, dict) else found:
            yield from whole_numbers(value)


def checked(said: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a record, each as documented, or ValueError. Others are left out."""
    if not isinstance(said, Mapping):
        raise ValueError("it is not an object")
    tests = {
        "model": lambda x: isinstance(x, str) and x.isprintable() and len(x) < 100,
        "model_options": lambda x: isinstance(x, dict) and all(isinstance(key, str) for key in x),
        "layout": lambda x: x in ("tinymixer", "official", "timm"),
        "class_names": _are_names,
        "mean": lambda x: _are_numbers(x) and min(x) >= 0,
        "std": lambda x: _are_numbers(x) and min(x) > 0,
    }
    for key, right in tests.items():
        if said.get(key) is not None and not right(said[key]):
            raise ValueError(f"its {key} is {short(said[key])}")
    return {key: said.get(key) for key in tests}


def _are_names(found: Any) -> bool:
    if not isinstance(found, list) or not 0 < len(found) <= MOST_CLASSES:
        return False
    return all(isinstance(name, str) and name.isprintable() for name in found)


def _are_numbers(found: Any) -> bool:
    if not isinstance(found, list) or len(found) not in (1, 3):
        return False
    return all(type(x) in (int, float) and math.isfinite(x) for x in found)
