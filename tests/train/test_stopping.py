"""Runs that are really stopped, as processes, at random moments: they end in the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from seen_processes import children, gone
from small_runs import saved

TRAIN = [
    *("--dataset", "shapes", "--train-size", "320", "--test-size", "50", "--epochs", "2"),
    *("--set", "hidden_dim=16", "--set", "num_blocks=2", "--set", "dropout=0.1"),
    *("--set", "drop_path_rate=0.1", "--batch-size", "32", "--micro-batch", "8"),
    *("--ema", "0.9", "--flip", "random", "--cutmix", "1"),
]
STOPS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT] if os.name == "posix" else []


# Processes share the work, however little it is.
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "  # as main has it for imports
    "import tinymixer.train.together as together; together.LEAST_WORK = 0; "
    "from tinymixer.cli import main; raise SystemExit(main())"
)


def start(*arguments):
    command = [sys.executable, "-c", COMMAND, "train", "--save-every", "0", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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
        assert saved(out) == expected
