"""How twins enter the engine's table, what they take, and how they are left out for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from tinymixer import engine
from tinymixer.backend import Array
from tinymixer.engine import Twin

Code = TypeVar("Code")


def twin_of(
    reference: Any, device: str, takes: Callable[..., bool] | None = None
) -> Callable[[Code], Code]:
    """Decorator: on `device`, "cpu" or "gpu", use this instead of `reference` for what it takes.

    Of a Function, it is a subclass whose forward and backward run on nodes of the Function itself:
    they read the node's options and call nothing of their own class.
    """

    def register(code: Code) -> Code:
        engine.twins[reference, device] = Twin(code, takes)
        return code

    return register


def float32(*arrays: Array) -> bool:
    """All of them are; and the first is not empty, as it is for an expert that no row is sent to:
    a GPU launches no grid of no blocks.
    """
    return arrays[0].size > 0 and all(array.dtype == np.float32 for array in arrays)


@contextmanager
def reference_ops() -> Iterator[None]:
    """Use no twins in its `with` block, in any thread: all that runs is the clear code.

    A Function already on a tape stays what it was, so a loss computed outside may be walked inside.
    """
    registered = dict(engine.twins)
    engine.twins.clear()
    try:
        yield
    finally:
        engine.twins.update(registered)
