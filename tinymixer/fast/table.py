"""How twins enter the engine's table, and how they are left out for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from tinymixer.backend import Array
from tinymixer.engine import Function, twins

Twin = TypeVar("Twin", bound=type[Function])


def twin_of(reference: type[Function], device: str) -> Callable[[Twin], Twin]:
    """Class decorator: use this subclass of `reference` for arrays on `device`, "cpu" or "gpu"."""

    def register(twin: Twin) -> Twin:
        twins[reference, device] = twin
        return twin

    return register


def float32_only(forward: Callable[..., Array]) -> Callable[..., Array]:
    """Turn the twin into its reference, for backward too, unless all of its inputs are float32.

    An empty x is the reference's as well: an expert may get no rows, and a GPU launches no grid of
    no blocks.
    """

    @wraps(forward)
    def checked(self: Any, *arrays: Array) -> Array:
        if arrays[0].size and all(array.dtype == np.float32 for array in arrays):
            return forward(self, *arrays)
        return as_reference(self, *arrays)

    return checked


def as_reference(twin: Any, *arrays: Array) -> Array:
    """Turn the twin into its reference, for good, and start over: forward(*arrays) of `ops`."""
    twin.__class__ = type(twin).__base__
    return twin.forward(*arrays)


@contextmanager
def reference_ops() -> Iterator[None]:
    """Within it, every Function called, in any thread, is the one of `ops`.

    A Function already on a tape stays what it was, so a loss computed outside may be walked inside.
    """
    registered = dict(twins)
    twins.clear()
    try:
        yield
    finally:
        twins.update(registered)
