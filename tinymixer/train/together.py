"""The processes of a run: those that it starts, or those that a launcher started."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import tinymixer
from tinymixer.backend import to_numpy
from tinymixer.errors import counted
from tinymixer.fast.cpu import return_freed_memory
from tinymixer.train.machine import Machine
from tinymixer.train.processes import AVAILABLE, Processes
from tinymixer.train.ranks import require_alike

if TYPE_CHECKING:
    from tinymixer.train.trainer import Trainer

# Images x parameters: threads finish a shorter run before other processes have started.
LEAST_WORK = 1e9


@contextmanager
def together(trainer: "Trainer", follow: Callable[..., None]) -> Iterator[None]:
    """In its `with` block, all ranks of a run are there and about to do the same.

    Each process that it starts calls follow(ranks, dataset, split, position).
    """
    ranks, threads = trainer.ranks, trainer.workers.count
    with ExitStack() as stack:
        if trainer.processes > 1:
            started = Processes(
                trainer.processes, follow, trainer.dataset, trainer.split, trainer.position()
            )
            ranks, threads = stack.enter_context(started), 1
            trainer.dataset, trainer.split, _ = started.shared  # and let go of its own
            trainer.own_step.dataset = trainer.split
            return_freed_memory()
        stack.enter_context(trainer.workers.joined(ranks, threads))
        require_alike(ranks, _facts(trainer), Machine.here(trainer.device))
        yield


def _facts(trainer: "Trainer") -> dict[str, str]:
    """What has to be the same on all ranks, in words."""
    record, weights = trainer.record, to_numpy(trainer.flat.weights).tobytes()
    return {
        "version of tinymixer": tinymixer.__version__,
        "options": str(trainer.config.plain()),
        "data": f"{record.name} with fingerprint {record.fingerprint[:12]}",
        "position": f"epoch {trainer.epoch + 1}, step {trainer.step + 1}",
        "weights": hashlib.sha256(weights).hexdigest()[:12],
    }


def worth_starting(trainer: "Trainer") -> int:
    """How many processes will train a run fastest, as far as is known before."""
    config = trainer.config
    images = (trainer.steps - trainer.steps_done) * config.batch_size
    alone = trainer.device == "gpu" or trainer.ranks.size > 1 or not AVAILABLE
    if alone or images * trainer.model.num_parameters() < LEAST_WORK:
        return 1
    return min(trainer.workers.count, -(-config.batch_size // config.micro_batch))


def shared_by(trainer: "Trainer") -> str:
    """What computes, in words."""
    if trainer.processes > 1:
        return f"{trainer.processes} processes"
    threads = counted(trainer.workers.count, "worker")
    size: int = trainer.ranks.size
    return threads if size == 1 else f"{size} processes of {threads}"
