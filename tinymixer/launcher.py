"""Floor 0. Which of several processes this is, as mpiexec or another launcher says."""

import os

# How many processes there are, which one this is, and how many are on this machine.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),  # MPICH, Intel MPI, srun --mpi=pmi2
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE"),
)


def launched() -> tuple[int, int, int]:
    """(number of processes, this one's rank, how many are on this machine); (1, 0, 1) if alone."""
    for names in LAUNCHERS:
        said = [os.environ.get(name, "").partition("(")[0] for name in names]  # 2(x3): on 3 nodes
        if said[0].isdigit() and said[1].isdigit() and int(said[0]) > 1:
            here = int(said[2]) if said[2].isdigit() else 1
            return int(said[0]), int(said[1]), max(1, min(here, int(said[0])))
    return 1, 0, 1
