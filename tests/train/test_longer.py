"""Runs that go on for longer than they were begun for."""

import dataclasses

import numpy as np
import pytest
import small_runs
from small_runs import assert_same, untimed

from tinymixer.errors import CheckpointError
from tinymixer.train import checkpoint
from tinymixer.train.stopping import Stopped
from tinymixer.train.trainer import Trainer


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("tinymixer.train.run_folder.RunFolder.report", lambda *_, **__: None)


@pytest.fixture
def run(dataset, tmp_path):
    def make(config, out="run", **options):
        trainer = Trainer(config, dataset, tmp_path / out, workers=1, quiet=True, **options)
        trainer.run()
        return trainer

    return make


@pytest.fixture
def resumed(dataset, tmp_path):
    def make(epochs=None, out="run"):
        path = tmp_path / out / "last.npz"
        trainer = Trainer.resume(path, dataset, epochs=epochs, workers=1, quiet=True)
        trainer.run()
        return trainer

    return make


def test_with_a_constant_learning_rate_a_finished_run_goes_on_to_the_bits_of_a_longer_one(
    changed, run, resumed
):
    short, long = (changed(schedule="constant", epochs=n) for n in (1, 2))
    run(short)
    assert_same(resumed(2), run(long, "long"))


@pytest.mark.parametrize("epochs", [1 / 3, 4 / 3])
def test_also_where_it_ended_within_an_epoch(epochs, changed, run, resumed):
    """The part that was done counts: three steps make an epoch, and the first is not repeated."""
    run(changed(schedule="constant", epochs=epochs))
    found, expected = resumed(2), run(changed(schedule="constant", epochs=2), "long")
    np.testing.assert_array_equal(found.flat.weights, expected.flat.weights)
    np.testing.assert_array_equal(found.average, expected.average)
    assert [row.epoch for row in found.history] == [1, 2]
    for row, other in zip(untimed(found.history), untimed(expected.history), strict=True):
        # sums of an epoch, one of them taken out of a mean again
        assert dataclasses.replace(row, train_loss=0, train_accuracy=0) == dataclasses.replace(
            other, train_loss=0, train_accuracy=0
        )
        assert row.train_loss == pytest.approx(other.train_loss, rel=1e-12)
        assert row.train_accuracy == pytest.approx(other.train_accuracy, rel=1e-12)


def test_a_run_that_was_stopped_may_be_given_another_end(
    changed, run, resumed, dataset, tmp_path, monkeypatch
):
    """While the learning rate still rises it depends on no end, so all the bits are the same."""
    warm = {"warmup_epochs": 1.0, "schedule": "cosine"}
    with monkeypatch.context() as patch:
        small_runs.stop_at(patch, 2)
        with pytest.raises(Stopped):
            run(changed(epochs=1.5, **warm))
    assert_same(resumed(2), run(changed(epochs=2, **warm), "long"))


def test_a_cosine_that_has_come_down_goes_up_again_to_where_the_longer_one_is(
    changed, run, resumed, monkeypatch
):
    short, long = (changed(schedule="cosine", warmup_epochs=0.0, epochs=n) for n in (1, 2))
    run(short)
    found = resumed(2)
    plan = lambda step: (short if step < 3 else long).learning_rate(step, 3)  # noqa: E731
    assert plan(2) < plan(3)
    monkeypatch.setattr(Trainer, "learning_rate", lambda trainer: plan(trainer.steps_done))
    expected = run(long, "long")
    np.testing.assert_array_equal(found.flat.weights, expected.flat.weights)
    assert found.history[-1].lr == long.learning_rate(6, 3)


def test_the_record_keeps_what_was_done(changed, run, resumed, dataset, tmp_path):
    run(changed(epochs=4 / 3))
    resumed(2)
    trainer = resumed(3)
    header = checkpoint.load(tmp_path / "run" / "last.npz").header
    assert header.config.epochs == 3
    assert header.extended == trainer.extended == ((4 / 3, 4 / 3), (2.0, 2))
    assert [row.epoch for row in header.history] == [1, 2, 3]
    again = Trainer.resume(tmp_path / "run" / "last.npz", dataset, epochs=3, quiet=True)
    assert again.extended == header.extended  # the same end is no other one
    assert again.finished


def test_a_longer_run_stops_and_goes_on_like_any_other(changed, run, resumed, monkeypatch):
    run(changed(epochs=1))
    with monkeypatch.context() as patch:
        small_runs.stop_at(patch, 2)
        with pytest.raises(Stopped):
            resumed(2)
    found = resumed()
    run(changed(epochs=1), "other")
    assert_same(found, resumed(2, "other"))


@pytest.mark.parametrize("epochs", [0.5, 1, 4 / 3])
def test_less_than_is_done_is_refused(epochs, changed, run, dataset, tmp_path):
    trainer = run(changed(epochs=5 / 3))
    path = tmp_path / "run" / "last.npz"
    saved = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"has done 1\.66667 epochs already; give more"):
        Trainer.resume(path, dataset, epochs=epochs)
    assert path.read_bytes() == saved
    assert trainer.extended == ()


def test_a_run_may_end_earlier_than_it_was_begun_for(changed, run, resumed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        small_runs.stop_at(patch, 2)
        with pytest.raises(Stopped):
            run(changed(epochs=9, schedule="constant"))
    assert_same(resumed(1), run(changed(epochs=1, schedule="constant"), "short"))
    assert checkpoint.load(tmp_path / "run" / "last.npz").header.extended == ((2 / 3, 9),)


def test_with_validation_images_the_test_images_are_measured_at_the_new_end(changed, run, resumed):
    run(changed(epochs=1, val_size=20))
    history = resumed(3).history
    assert [row.test_loss is None for row in history] == [False, True, False]
