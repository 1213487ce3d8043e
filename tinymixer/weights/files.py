"""Files of named arrays, .npz or .safetensors."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer import arrays
from tinymixer.errors import CheckpointError, brief
from tinymixer.files import write_atomically

MOST = 2**28  # bytes that compressed arrays may hold where no model says what is needed


def write_file(path: Path, named: Mapping[str, np.ndarray]) -> None:
    """Write named arrays to an .npz or .safetensors file; ValueError for another kind of file."""
    if path.suffix == ".npz":
        write_atomically(path, lambda file: np.savez(file, **named))  # type: ignore[arg-type]
    elif path.suffix == ".safetensors":
        write_atomically(path, _safetensors().save(named))
    else:
        raise ValueError(f"cannot write {path}: expected a name that ends in .npz or .safetensors")


@dataclass(frozen=True)
class InFile:
    """An array in an open file, which is read by `read`."""

    path: Path
    file: arrays.ArrayFile
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.stored[self.name].shape

    def read(self) -> np.ndarray:
        with _explained(self.path):
            return self.file.read(self.name)


@contextmanager
def opened(path: Path) -> Iterator[dict[str, InFile]]:
    """The arrays by name in a file of either kind, or CheckpointError saying what is wrong."""
    with ExitStack() as stack:
        with _explained(path):
            file = stack.enter_context(arrays.opened(path))
        yield {name: InFile(path, file, name) for name in file.stored}


def read_file(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz or .safetensors file, or CheckpointError saying what is wrong.

    `load_state` reads no more than its model needs. Here that is not known, so a file that unpacks
    to more than MOST bytes and to more than four times its own size is refused.
    """
    with _explained(path), arrays.opened(path) as file:
        size = sum(stored.nbytes for stored in file.stored.values())
        if size > max(MOST, 4 * path.stat().st_size):
            raise ValueError(f"it unpacks to {size:,} bytes")
        return {name: file.read(name) for name in file.stored}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Within it, what goes wrong with reading `path` is a CheckpointError in one line."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"no file {path}: expected weights, .npz or .safetensors") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except arrays.UnknownNumbers as error:
        raise CheckpointError(
            f"{path} holds arrays of type {error}, which tinymixer does not read; expected "
            "float32, float16 or float64. Convert them to float32 with the library that made them, "
            "in PyTorch by tensor.float(), and save them again"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make its reader raise anything
        raise CheckpointError(
            f"{path} is not a whole .npz or .safetensors file of arrays "
            f"({brief(error)}). Fetch or convert it again"
        ) from error


def _safetensors() -> Any:
    try:
        from safetensors import numpy
    except ImportError:
        raise CheckpointError(
            "writing .safetensors needs the package safetensors: pip install "
            "'tinymixer[safetensors]'"
        ) from None
    return numpy
