"""Ranks that MPI started, on this machine or on many: `mpiexec -n 4 tinymixer train ...`.

mpi4py brings Python and MPI together, and mpiexec starts the processes: that of MPICH, Open MPI,
Intel or a cluster. What MPI adds up itself, in an order that it does not promise, is not used.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tinymixer.backend import Array
from tinymixer.errors import TinymixerError
from tinymixer.launcher import launched
from tinymixer.train.ranks import ALONE, Ranks

T = TypeVar("T")


def world() -> Ranks:
    """The ranks that this process was started with: of MPI, or ALONE. Use it `with world():`.

    Raises TinymixerError if a launcher started it and mpi4py is missing, or is of another MPI.
    """
    size, rank, _ = launched()
    return ALONE if size == 1 else MPIRanks(size, rank)


class MPIRanks(Ranks):
    """The ranks of MPI's world."""

    def __init__(self, size: int, rank: int):
        self.rank, self.size = rank, size
        try:
            from mpi4py import MPI
            from mpi4py.util.pkl5 import Intracomm
        except Exception as error:  # an ImportError, or a RuntimeError of a library it cannot find
            raise TinymixerError(
                f"started as one of {size} processes, but mpi4py does not start here ({error}): "
                "pip install 'tinymixer[mpi]', or start it without mpiexec"
            ) from error
        self._comm = Intracomm(MPI.COMM_WORLD)
        if self._comm.size != size:
            raise TinymixerError(
                f"the launcher started {size} processes, but mpi4py sees {self._comm.size}: it "
                "belongs to another MPI than this mpiexec; install mpi4py for this one"
            )

    def _all(self, item: T) -> list[T]:
        return self._comm.allgather(item)

    def exchange(self, parts: Sequence[Mapping[Any, Array]]) -> list[Mapping[Any, Array]]:
        self.gather(None)  # where the failure of a rank is noticed
        return self._comm.alltoall(parts)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and not isinstance(error, Exception):  # the others are not asked
            self._comm.Abort(130)
        super().__exit__(kind, error, trace)
