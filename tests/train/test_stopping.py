"""Runs that are really stopped, as processes, at random moments: they end in the same bits."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tinymixer.train.stopping import Stopped, StopSignal

TRAIN = [
    *("--dataset", "shapes", "--train-size", "320", "--test-size", "50", "--epochs", "2"),
    *("--set", "hidden_dim=16", "--set", "num_blocks=2", "--set", "dropout=0.1"),
    *("--set", "drop_path_rate=0.1", "--batch-size", "32", "--micro-batch", "8"),
    *("--ema", "0.9", "--flip", "random", "--cutmix", "1"),
]
STOPS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT] if os.name == "posix" else []


def start(*arguments):
    command = [sys.executable, "-m", "tinymixer", "train", "--save-every", "0", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def weights(run):
    with np.load(run / "last.npz") as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files if name != "header"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The weights of a whole run, and the seconds that it takes."""
    out = tmp_path_factory.mktemp("whole") / "run"
    begin = time.monotonic()
    process = start(*TRAIN, "--out", str(out))
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    return weights(out), time.monotonic() - begin


def interrupted(out, seconds, luck):
    """Train in `out`, stopped at a random moment each time, until it is done; the stops it took."""
    stops = []
    arguments = [*TRAIN, "--out", str(out)]
    while True:
        process = start(*arguments, "--workers", luck.choice("12"))
        wish = luck.choice(STOPS) if len(stops) < 4 else None
        try:
            _, complaint = process.communicate(timeout=luck.uniform(0.3, seconds) if wish else None)
        except subprocess.TimeoutExpired:
            process.send_signal(wish)
            _, complaint = process.communicate()
        if process.returncode == 0:
            return stops
        assert process.returncode in {-wish, 128 + wish}, complaint
        stops.append(wish)
        if (out / "last.npz").exists():
            arguments = ["--resume", str(out)]


@pytest.mark.skipif(not STOPS, reason="there is no signal to send in its place")
def test_the_break_of_windows_asks_for_a_stop_too(monkeypatch):
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR2, raising=False)
    stop = StopSignal()
    with pytest.raises(Stopped, match="SIGUSR2"), stop.heard(None):
        os.kill(os.getpid(), signal.SIGUSR2)
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


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
        assert weights(out) == expected
