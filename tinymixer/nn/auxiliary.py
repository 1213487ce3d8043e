"""What a training pass yields besides its output: losses to add, and updates for after the step.

A pass changes nothing in the model: several threads may share it. It records them, and the training
loop collects them:

    with auxiliary() as extra:
        loss = loss_of(model(images, rng=rng))
    loss = sum(extra.losses, loss)
    ...                                   # backpropagation, and the step of the optimizer
    for update, arrays in extra.updates:  # in the order of the micro-batches
        update(*arrays)
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinymixer.backend import Array
from tinymixer.engine import Tensor

Update = tuple[Callable[..., None], tuple[Array, ...]]

_thread = threading.local()  # .collected: each thread's own


class Auxiliary:
    """`losses` are scalars to add to the loss; `updates` are functions with their arguments.

    An update is called once the step is done. Where several threads share a model, updates are
    called in the order of the micro-batches, so that the result does not depend on which thread
    was faster.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.updates: list[Update] = []


@contextmanager
def auxiliary() -> Iterator[Auxiliary]:
    """Collect what the training passes within it, in this thread, yield besides their output."""
    before = getattr(_thread, "collected", None)
    _thread.collected = found = Auxiliary()
    try:
        yield found
    finally:
        _thread.collected = before


def add_loss(loss: Tensor) -> None:
    """Add a scalar to the loss of this pass. Outside of `auxiliary` it is ignored."""
    if found := getattr(_thread, "collected", None):
        found.losses.append(loss)


def after_step(update: Callable[..., None], *arrays: Array) -> None:
    """Call update(*arrays) after the step. Outside of `auxiliary` it is called now.

    The update may use nothing else of this pass: a pass that a GPU replays computes these arrays
    again, but is recorded, update included, only once.
    """
    if found := getattr(_thread, "collected", None):
        found.updates.append((update, arrays))
    else:
        update(*arrays)
