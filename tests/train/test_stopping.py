"""Runs that are really stopped, as processes, at random moments: they end in the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from itertools import groupby

import pytest
from seen_processes import children, gone, with_setting
from small_runs import saved
from test_mpi import MPIEXEC, with_mpi

from tinymixer.train import checkpoint

TRAIN = [
    *("--dataset", "shapes", "--train-size", "320", "--test-size", "50", "--epochs", "2"),
    *("--set", "hidden_dim=16", "--set", "num_blocks=2", "--set", "dropout=0.1"),
    *("--set", "drop_path_rate=0.1", "--batch-size", "32", "--micro-batch", "8"),
    *("--ema", "0.9", "--flip", "random", "--cutmix", "1"),
]
STOPS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT] if os.name == "posix" else []


# Processes share the work, however little it is, and each that saves is noted.
COMMAND = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)  # as main has it for imports
from tinymixer.cli import main
from tinymixer.train import checkpoint, together

def noted(path, *content, save=checkpoint.save):
    with path.with_name("writers").open("a") as file:
        file.write(f"{os.getpid()} ")
    save(path, *content)

together.LEAST_WORK, checkpoint.save = 0, noted
raise SystemExit(main())
"""


def require_one_writer_at_a_time(out):
    writers = [pid for pid, _ in groupby((out / "writers").read_text().split())]
    assert len(writers) == len({*writers}), "one run wrote while another one did"


def start(*arguments, launcher=(), **settings):
    command = [*launcher, sys.executable, "-c", COMMAND, "train", "--save-every", "0", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **settings}, **pipes)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights of a whole run, and the seconds that it takes."""
    out = tmp_path_factory.mktemp("whole") / "run"
    begin = time.monotonic()
    process = start(*TRAIN, "--out", str(out))
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    return saved(out), time.monotonic() - begin


def interrupted(out, seconds, luck):
    """Train in `out`, stopped at a random moment each time, until it is done; the stops it took.

    Any of its processes is stopped. It may stand still for a while, which is no stop.
    """
    stops = []
    arguments = [*TRAIN, "--out", str(out)]
    while True:
        run = start(*arguments, "--workers", luck.choice("123"))
        wish = luck.choice(STOPS) if len(stops) < 4 else None
        try:
            _, complaint = run.communicate(timeout=luck.uniform(0.3, seconds) if wish else None)
        except subprocess.TimeoutExpired:
            pids = [run.pid, *children(run.pid)]
            pid = luck.choice(pids)
            if wish == signal.SIGINT:  # of a terminal: the others do not hear it
                pid = run.pid
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGSTOP)
                time.sleep(luck.uniform(0, 0.3))
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, wish)
            begin = time.monotonic()
            _, complaint = run.communicate(timeout=60)
            busy = max(10, seconds)  # where a few seconds' run takes longer than that
            assert time.monotonic() - begin < busy, "a stopped run goes on"
            for other in pids[1:]:
                assert gone(other, within=10), "a process outlives its run"
        if run.returncode == 0:
            return stops
        assert run.returncode in {-wish, 128 + wish, 2}, complaint
        assert run.returncode != 2 or "was ended by SIG" in complaint
        assert "Traceback" not in complaint
        stops.append(wish)
        if (out / "last.npz").exists():
            arguments = ["--resume", str(out)]


@pytest.mark.skipif(not STOPS, reason="Windows cannot send these signals to another process")
@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))]
)
def test_a_run_stopped_at_random_moments_ends_in_the_same_bits(tmp_path, uninterrupted, seed):
    expected, seconds = uninterrupted
    luck = random.Random(seed)
    stops = []
    while not stops:  # a run that got through is no test
        out = tmp_path / str(luck.random())
        stops = interrupted(out, seconds, luck)
        require_one_writer_at_a_time(out)
        assert saved(out) == expected


# --- Under mpiexec -------------------------------------------------------------------------------

WHOM = ["the launcher", "rank 0", "rank 1"]
BLOWS = ["SIGKILL", "SIGTERM", "SIGINT", "SIGSTOP"]  # the last for a while, then SIGCONT: no stop
WITHIN = 10.0  # seconds until all processes of a run are gone
# What a run may say where another one is.
BUSY = "is in use", "was changed since it was read", "holds a run already"


class Launched:
    """A run under mpiexec, all of whose processes can be found, whatever becomes of mpiexec."""

    def __init__(self, out, luck):
        self.out, self.luck = out, luck
        mark = str(uuid.uuid4())
        where = ["--resume", out] if checkpoint.of_run(out) else [*TRAIN, "--out", out]
        launcher = [MPIEXEC, "-n", luck.choice("23")]
        self.mark = f"STARTED_BY={mark}"
        self.mpiexec = start(*where, "--workers", "1", launcher=launcher, STARTED_BY=mark)

    def wait_for_a_moment(self):
        """Until it starts up, or has saved a few times, or is done."""
        saves, seen, begin = self.luck.randrange(7), None, time.monotonic()
        if saves == 0:
            with suppress(subprocess.TimeoutExpired):
                self.mpiexec.wait(self.luck.uniform(0.3, 4))
        while saves and self.mpiexec.poll() is None:
            with suppress(FileNotFoundError):
                now = (self.out / "last.npz").stat().st_ino
                saves, seen = saves - (now != seen), now
            assert time.monotonic() - begin < 120, "a run stands still"
            time.sleep(0.01)

    def strike(self, blow, whom):
        """Send the signal `blow`; whom it hit, as others may not have been started yet."""
        rank = with_setting(self.mark, f"PMI_RANK={whom[-1]}")
        pid, whom = (rank[0], whom) if rank else (self.mpiexec.pid, WHOM[0])
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, getattr(signal, blow))
            if blow == "SIGSTOP":
                time.sleep(self.luck.uniform(0.2, 2))
                os.kill(pid, signal.SIGCONT)
        return whom

    def seconds_until_all_are_gone(self):
        begin = time.monotonic()
        while with_setting(self.mark):
            assert time.monotonic() - begin < WITHIN, "a run that was stopped goes on"
            self.mpiexec.poll()
            time.sleep(0.02)
        return time.monotonic() - begin


@with_mpi
@pytest.mark.skipif(not with_setting(), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("seed", "count"), [(0, 1), *(pytest.param(i, 4, marks=pytest.mark.slow) for i in range(1, 11))]
)
def test_a_run_killed_under_mpiexec_ends_in_the_same_bits(tmp_path, uninterrupted, seed, count):
    """After each blow it goes on with another number of ranks. Half the time these begin before it:
    then they are refused until the first ones are gone, and both never write.
    """
    luck, out = random.Random(seed), tmp_path / "run"
    blows = [(blow, WHOM[(seed + i) % 3]) for i, blow in enumerate(BLOWS)]
    luck.shuffle(blows)
    runs = [Launched(out, luck)]
    try:
        while True:
            run = runs[-1]
            if count and luck.random() < 0.5:
                runs.append(Launched(out, luck))
            run.wait_for_a_moment()
            if not count or run.mpiexec.poll() is not None:
                _, complaint = run.mpiexec.communicate(timeout=120)
                if run.mpiexec.returncode == 0:
                    break
                assert any(words in complaint for words in BUSY), complaint
            else:
                blow, whom = blows.pop()
                count -= 1
                print(f"{seed:2}  {blow:8} {run.strike(blow, whom):13}", end=" ")
                if blow == "SIGSTOP":
                    print("goes on")
                    continue
                seconds = run.seconds_until_all_are_gone()
                said, complaint = run.mpiexec.communicate(timeout=120)
                starting = blow == "SIGINT" and "->" not in said  # Python itself is
                assert starting or "Traceback" not in complaint
                done = checkpoint.load(out / "last.npz").header if checkpoint.of_run(out) else None
                when = f"epoch {len(done.history) + 1}, step {done.step}" if done else "starting"
                print(f"{when:17} {seconds:5.2f} s{', with a rival' * (run is not runs[-1])}")
            if run is runs[-1]:
                runs.append(Launched(out, luck))
    finally:
        for run in runs:
            for pid in with_setting(run.mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            run.mpiexec.communicate()
    require_one_writer_at_a_time(out)
    assert saved(out) == uninterrupted[0]
