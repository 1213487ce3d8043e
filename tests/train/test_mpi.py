"""Ranks of MPI: real ones under mpiexec, and what a launcher's process says without mpi4py."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call
from small_runs import saved

from tinymixer import launcher
from tinymixer.train import mpi
from tinymixer.train.ranks import ALONE

TRAIN = [
    *("train", "--dataset", "shapes", "--train-size", "80", "--test-size", "50", "--epochs", "2"),
    *("--set", "hidden_dim=16", "--set", "num_blocks=2", "--set", "dropout=0.1"),
    *("--batch-size", "32", "--micro-batch", "8", "--ema", "0.9", "--cutmix", "1"),
]
BESIDE_PYTHON = Path(sys.executable).with_name("mpiexec")  # of the extra mpich
MPIEXEC = str(BESIDE_PYTHON) if BESIDE_PYTHON.exists() else shutil.which("mpiexec")

with_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs the extras mpi and mpich",
)


def run(*words):
    """`mpiexec` with each rank one worker of this Python: `-n 2 TRAIN : -n 1 OTHERS`."""
    python = [sys.executable, "-m", "tinymixer"]
    command = [MPIEXEC]
    for word in words:
        command += [*python, *TRAIN] if word == "TRAIN" else [str(word)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    assert call(*TRAIN, "--workers", "1", "--out", out) == 0
    return saved(out)


@with_mpi
@pytest.mark.parametrize(("ranks", "workers"), [(2, 1), (3, 2)])
def test_ranks_of_mpi_end_in_the_same_bits(tmp_path, alone, ranks, workers):
    out = tmp_path / "run"
    done = run("-n", ranks, "TRAIN", "--out", out, "--workers", workers)
    assert done.returncode == 0, done.stderr
    words = f"{ranks} processes of {workers} worker{'s' * (workers > 1)}"
    assert done.stdout.count(words) == 1  # the first rank alone talks
    assert done.stdout.count("test accuracy") == 1
    assert saved(out) == alone
    again = run("-n", 2, "TRAIN", "--out", out)
    assert again.returncode != 0
    assert again.stderr.count("holds a run already") == 1


@with_mpi
def test_ranks_with_other_options_are_told_once(tmp_path):
    out = "--out", tmp_path / "run"
    done = run("-n", 1, "TRAIN", *out, ":", "-n", 1, "TRAIN", *out, "--lr", "1e-5")
    assert done.returncode != 0
    assert done.stderr.count("process 2 has other options than process 1") == 1
    assert "Traceback" not in done.stderr


@with_mpi
def test_a_command_for_one_process_says_so_once():
    command = [MPIEXEC, "-n", "2", sys.executable, "-m", "tinymixer", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert done.stderr.count("but this command is for one") == 1


# --- Without MPI ---------------------------------------------------------------------------------

LAUNCHERS = {
    "MPICH": {"PMI_SIZE": "4", "PMI_RANK": "1", "MPI_LOCALNRANKS": "2"},
    "Open MPI": {
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    },
    "Slurm": {
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_PROCID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    },
}


@pytest.fixture
def no_launcher(monkeypatch):
    for names in launcher.LAUNCHERS:
        for name in names:
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_is_known_by_what_it_tells(name, monkeypatch, no_launcher):
    for variable, value in LAUNCHERS[name].items():
        monkeypatch.setenv(variable, value)
    assert launcher.launched() == (4, 1, 2)


def test_an_ordinary_start_is_alone_and_imports_no_mpi(monkeypatch, no_launcher):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert mpi.world() is ALONE
    monkeypatch.setenv("SLURM_PROCID", "0")  # in a script of sbatch: no step of several tasks
    assert mpi.world() is ALONE
    monkeypatch.setenv("PMI_SIZE", "1")
    assert mpi.world() is ALONE


@pytest.mark.parametrize("rank", ["0", "1"])
def test_without_mpi4py_nothing_is_done_and_one_rank_says_why(
    rank, tmp_path, monkeypatch, no_launcher, capsys
):
    for name, value in LAUNCHERS["MPICH"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PMI_RANK", rank)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.chdir(tmp_path)
    assert call(*TRAIN) == 2
    said = capsys.readouterr().err
    assert said.count("mpi4py does not start here") == (rank == "0")
    assert said.count("pip install 'tinymixer[mpi]'") == (rank == "0")
    assert not os.listdir(tmp_path)
