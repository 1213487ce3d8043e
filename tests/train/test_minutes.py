"""A run of so many minutes: as many epochs as they hold, in the bits of a run begun with these."""

from dataclasses import replace

import pytest
from small_runs import assert_same, images_for, small, stop_at, trained

from tinymixer.errors import TinymixerError
from tinymixer.train.config import Config
from tinymixer.train.ranks import run_threads
from tinymixer.train.stopping import Stopped
from tinymixer.train.trainer import Trainer

OPEN = {"minutes": 1.0, "epochs": 0.0, "schedule": "trapezoid"}
MODEL = "mixer_pico"


def a_second_a_step(monkeypatch, *, late=0.0):
    """A clock by which each step takes a second, and the first one `late` more."""
    monkeypatch.setattr(
        Trainer, "_clock", lambda run: run.steps_done + (late if run.steps_done else 0.0)
    )


def test_a_run_of_minutes_takes_the_steps_that_they_hold(monkeypatch):
    a_second_a_step(monkeypatch)
    run = trained(small(MODEL, **OPEN), "cpu")
    assert run.steps == 58  # of 60 seconds, less what is kept free
    assert run.config.epochs == 58 / run.steps_per_epoch
    assert run.config.minutes == 1


def test_a_run_of_minutes_ends_in_the_bits_of_one_begun_with_its_epochs(monkeypatch):
    a_second_a_step(monkeypatch)
    config = small(MODEL, **OPEN, warmup_epochs=1.0)
    run = trained(config, "cpu")
    assert_same(run, trained(replace(config, minutes=0.0, epochs=run.config.epochs), "cpu"))


@pytest.mark.parametrize("late", [15, 45, 1000])
def test_a_slow_beginning_changes_no_learning_rate_of_the_past(monkeypatch, late):
    a_second_a_step(monkeypatch, late=late)
    run = trained(small(MODEL, **OPEN), "cpu")
    assert run.steps < 58
    assert_same(run, trained(small(MODEL, epochs=run.config.epochs, schedule="trapezoid"), "cpu"))


def test_the_clock_of_the_first_rank_decides(monkeypatch):
    monkeypatch.setattr(
        Trainer, "_clock", lambda run: run.steps_done * (1.0 + run.workers.ranks.rank)
    )
    config = small(MODEL, **OPEN)

    def train(ranks):
        return trained(config, "cpu", ranks=ranks)

    first, *others = run_threads(3, train)
    assert first.steps == 58
    for other in others:
        assert_same(first, other)


@pytest.mark.parametrize("steps", [3, 30], ids=["before", "after"])
def test_a_run_stopped_before_or_after_its_epochs_are_decided_goes_on(monkeypatch, tmp_path, steps):
    a_second_a_step(monkeypatch)
    config = small(MODEL, **OPEN)
    run = Trainer(config, images_for(config), tmp_path, workers=1, quiet=True)
    stop_at(monkeypatch, steps)
    with pytest.raises(Stopped):
        run.run()
    resumed = Trainer.resume(tmp_path / "last.npz", images_for(config), workers=1, quiet=True)
    assert (resumed.config.epochs == 0) == (steps == 3)
    resumed.run()
    assert_same(resumed, trained(config, "cpu"))


def test_seconds_before_a_stop_count(tmp_path):
    config = small(MODEL, epochs=1.0)
    run = trained(config, "cpu", out=tmp_path)
    resumed = Trainer.resume(tmp_path / "last.npz", images_for(config), workers=1, quiet=True)
    resumed.run()
    assert resumed._clock() >= sum(row.seconds for row in run.history) > 0


def test_epochs_may_be_open_only_while_minutes_decide_them():
    for options in ({}, {"schedule": "trapezoid"}):
        with pytest.raises(TinymixerError, match="epochs=0: expected more"):
            Config(epochs=0, **options)
    with pytest.raises(TinymixerError, match="minutes=1: expected schedule='trapezoid'"):
        Config(epochs=0, minutes=1.0)
