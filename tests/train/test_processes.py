"""Ranks as processes: the same bits, nothing left behind, and clear words when one of them dies."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from seen_processes import children, gone
from small_runs import assert_same, images_for, small, stop_at, trained

from tinymixer.train.processes import AVAILABLE, Memory, Processes
from tinymixer.train.ranks import RankError
from tinymixer.train.stopping import Stopped
from tinymixer.train.trainer import Trainer

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="processes share memory by POSIX's means")

linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads Linux's /proc")


@pytest.mark.parametrize(("model", "processes"), [("hire_mlp_nano", 2), ("sparse_mlp_nano", 3)])
def test_a_run_of_processes_ends_in_the_bits_of_one(model, processes):
    config = dataclasses.replace(small(model), val_size=3)
    expected = trained(config, "cpu")
    found = trained(config, "cpu", processes=processes)
    assert_same(found, expected)
    assert found.test() == expected.test()  # and this process can go on alone


def test_a_run_stopped_in_two_processes_goes_on_in_one_and_the_other_way_round(
    tmp_path, monkeypatch
):
    config = small("mixer_pico")
    expected = trained(config, "cpu")
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Stopped):
            trained(config, "cpu", processes=2, out=tmp_path)
    options = {"workers": 1, "quiet": True}
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(Stopped):
            Trainer.resume(tmp_path / "last.npz", images_for(config), **options).run()
    last = Trainer.resume(tmp_path / "last.npz", images_for(config), processes=2, **options)
    assert last.steps_done == 4
    last.run()
    assert_same(last, expected)


def answer(ranks, x):
    """What another process does in the tests below."""
    while (task := ranks.gather(None)[0]) is not None:
        if task == "raise":
            raise ValueError("this process can no more")
        if task == "sum":
            ranks.gather(float(x.sum()))
        if task == "add one":
            x += 1
            ranks.gather("done")


def test_what_the_processes_are_given_is_shared_and_not_copied():
    x = np.arange(6.0)
    with Processes(2, answer, x) as ranks:
        (shared,) = ranks.shared
        ranks.gather("sum")
        assert ranks.gather(0) == [0, 15.0]
        ranks.gather("add one")
        ranks.gather(0)
        assert shared.sum() == 21
        ranks.gather(None)
    assert x.sum() == 15


def test_what_arrives_is_whole_until_the_next_exchange():
    """Each is written while what was sent before may still be read; arrays grow, shrink, vanish."""

    rng = np.random.default_rng(0)
    sizes = [*rng.integers(0, 3000, 12), 0, 1, 100_000, 7]

    with Processes(3, exchanged, sizes) as ranks:
        exchanged(ranks, sizes)


def exchanged(ranks, sizes):
    for turn, size in enumerate(sizes):
        same = np.full(size, turn, np.float32)  # one array for all: it is sent once
        parts = [{"own": np.full((2, to), ranks.rank), "same": same} for to in range(ranks.size)]
        received = ranks.exchange(parts)
        for source, part in enumerate(received):
            assert (part["own"] == np.full((2, ranks.rank), source)).all()
            assert part["same"].shape == (size,)
            assert (part["same"] == turn).all()


def test_memory_is_seen_by_its_path_and_grows():
    ours = Memory()
    theirs = Memory(ours.path)
    for size in (10, 5, 100_000):
        ((start, end),) = ours.put([np.arange(size, dtype=np.uint8)])
        np.testing.assert_array_equal(theirs.get(start, end), np.arange(size, dtype=np.uint8))


def test_an_error_in_another_process_is_raised_here_with_its_traceback(capfd):
    def fail():
        with Processes(2, answer, np.zeros(1)) as ranks:
            ranks.gather("raise")
            ranks.gather(0)

    with pytest.raises(RankError, match=r"process 2 of 2:(.|\n)*ValueError: this process can"):
        fail()
    assert capfd.readouterr().err == ""


def test_a_process_that_is_killed_ends_the_run_at_once_and_the_last_checkpoint_is_whole(
    tmp_path, monkeypatch
):
    config = small("mixer_pico")
    expected = trained(config, "cpu")
    started, killed = [], []
    usual = Processes.__enter__

    def noted(ranks):
        started.append(ranks)
        return usual(ranks)

    monkeypatch.setattr(Processes, "__enter__", noted)
    trainer = Trainer(
        config, images_for(config), tmp_path, processes=3, workers=1, quiet=True, save_every=0
    )
    step, begin = trainer.training_step, []

    def killing(*arguments, number, **options):
        if number == 3:
            killed.extend(started[0].pids)
            os.kill(killed[1], signal.SIGKILL)
            begin.append(time.monotonic())
        return type(step).__call__(step, *arguments, number=number, **options)

    trainer.training_step = killing
    with pytest.raises(RankError, match=r"worker process 3 .*was ended by SIGKILL.*--resume"):
        trainer.run()
    assert time.monotonic() - begin[0] < 10
    assert all(map(gone, killed))
    again = Trainer.resume(tmp_path / "last.npz", images_for(config), workers=1, quiet=True)
    assert again.steps_done == 3
    again.run()
    assert_same(again, expected)


# A script as people write them: without `if __name__ == "__main__"`.
SCRIPT = """
from tinymixer import data
from tinymixer.train import Config, Trainer
options = dict(hidden_dim=8, num_blocks=1, tokens_mlp_dim=4, channels_mlp_dim=8)
config = Config(model_options=options, epochs={epochs}, batch_size=16, micro_batch=4)
images = data.load("shapes", train_size=160, test_size=20)
trainer = Trainer(config, images, processes=3, quiet=True)
print("begins", flush=True)
trainer.run()
print("ends")
"""


def script(epochs):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(epochs=epochs)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begins\n"
    return process


def end_after_another(ranks):
    if ranks.rank == 2:
        time.sleep(1)
        os._exit(1)
    ranks.gather("here")


def kill_the_second():
    with Processes(3, end_after_another) as ranks:
        time.sleep(0.5)  # until it has said what the others wait for
        os.kill(ranks.pids[0], signal.SIGKILL)
        ranks.gather("here")


def test_of_several_that_ended_the_killed_one_is_named():
    with pytest.raises(RankError, match=r"process 2 \(pid \d+\) was ended by SIGKILL"):
        kill_the_second()


def test_a_script_needs_no_guard():
    said, _ = script(1).communicate()
    assert said == "ends\n"


@linux
def test_the_others_die_with_the_one_that_started_them():
    process = script(100_000)
    while len(pids := children(process.pid)) < 2:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGSTOP)  # until the others wait for what it says next
    time.sleep(0.5)
    process.kill()
    process.communicate()
    assert all(gone(pid, within=10) for pid in pids)


@linux
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_stands_still_for_a_while_only_delays_the_others(stopped):
    process = script(20)
    while len(pids := children(process.pid)) < 2:
        time.sleep(0.05)
    pid = [process.pid, *pids][stopped]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(pid, signal.SIGCONT)
    said, _ = process.communicate(timeout=60)
    assert said == "ends\n"
