"""How twins enter the engine's table, and how they are left out for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tinymixer.engine import Function, twins

Twin = TypeVar("Twin", bound=type[Function])


def twin_of(reference: type[Function], device: str) -> Callable[[Twin], Twin]:
    """Class decorator: use this subclass of `reference` for arrays on `device`, "cpu" or "gpu"."""

    def register(twin: Twin) -> Twin:
        twins[reference, device] = twin
        return twin

    return register


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
