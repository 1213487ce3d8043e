"""Files of named arrays, .npz or .safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer.errors import CheckpointError
from tinymixer.files import write_atomically


def write_file(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` to an .npz or .safetensors file; ValueError for another kind of file."""
    if path.suffix == ".npz":
        write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    elif path.suffix == ".safetensors":
        write_atomically(path, _safetensors().save(arrays))
    else:
        raise ValueError(f"cannot write {path}: expected a name that ends in .npz or .safetensors")


def read_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays in an .npz or .safetensors file, or CheckpointError saying what is wrong."""
    try:
        if path.suffix == ".safetensors":
            return _safetensors().load(path.read_bytes())
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise CheckpointError(f"no file {path}: expected weights, .npz or .safetensors") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except KeyError as error:  # of the table of types that safetensors has for NumPy
        raise CheckpointError(
            f"{path} holds arrays of type {error.args[0]}, which NumPy does not have; expected "
            "float32, float16 or float64. Convert them to float32 with the library that made them, "
            "in PyTorch by tensor.float(), and save them again"
        ) from error
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise CheckpointError(
            f"{path} is not a whole .npz or .safetensors file of arrays "
            f"({str(error).partition(chr(10))[0]}). Fetch or convert it again"
        ) from error


def _safetensors() -> Any:
    try:
        from safetensors import numpy
    except ImportError:
        raise CheckpointError(
            "reading and writing .safetensors needs the package safetensors: pip install "
            "'tinymixer[safetensors]'"
        ) from None
    return numpy
