"""A run's folder is one run's at a time, and nothing is lost where two want it."""

import dataclasses
import os

import pytest
from small_runs import images_for, small, stop_at, untimed

from tinymixer.errors import CheckpointError, InUseError, NonFiniteError, Note
from tinymixer.files import lock
from tinymixer.train import checkpoint
from tinymixer.train.compare import Budget, Comparison
from tinymixer.train.machine import Machine
from tinymixer.train.stopping import Stopped
from tinymixer.train.trainer import Trainer

CONFIG = small("mixer_pico")
QUIET = {"workers": 1, "quiet": True}


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Drawing them takes longer than all else here."""
    monkeypatch.setattr("tinymixer.train.run_folder.RunFolder.report", lambda *_, **__: None)
    monkeypatch.setattr("tinymixer.train.run_folder.RunFolder.draw", lambda *_: None)


@pytest.fixture(scope="module")
def dataset():
    return images_for(CONFIG)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


def test_while_one_trains_another_is_refused_and_changes_nothing(dataset, out, monkeypatch):
    first, second = (Trainer(CONFIG, dataset, out, **QUIET) for _ in range(2))
    right = Trainer._train_epoch

    def and_meanwhile_another(trainer):
        if trainer is first:
            before = (out / "last.npz").read_bytes()
            with pytest.raises(InUseError, match=f"the run in {out} is in use by process"):
                second.run()
            assert (out / "last.npz").read_bytes() == before
        right(trainer)

    monkeypatch.setattr(Trainer, "_train_epoch", and_meanwhile_another)
    first.run()
    assert os.listdir(out) == ["last.npz"]
    with pytest.raises(CheckpointError, match="holds a run already"):
        second.run()


def test_a_refused_run_leaves_no_folder(dataset, out):
    with lock(out / ".lock", "the run"), pytest.raises(InUseError):
        Trainer(CONFIG, dataset, out, **QUIET).run()
    assert not out.exists()


def test_what_went_on_since_it_was_read_is_not_set_back(dataset, out, monkeypatch):
    stop_at(monkeypatch, 2)
    with pytest.raises(Stopped):
        Trainer(CONFIG, dataset, out, **QUIET).run()
    first, second = (Trainer.resume(out / "last.npz", dataset, **QUIET) for _ in range(2))
    history = first.run()
    after = (out / "last.npz").read_bytes()
    with pytest.raises(CheckpointError, match="was changed since it was read; resume it again"):
        second.run()
    assert (out / "last.npz").read_bytes() == after
    assert untimed(Trainer.resume(out / "last.npz", dataset, **QUIET).run()) == untimed(history)


def test_a_run_that_stopped_goes_on_in_the_same_object(dataset, out, monkeypatch):
    stop_at(monkeypatch, 2)
    trainer = Trainer(CONFIG, dataset, out, **QUIET)
    with pytest.raises(Stopped):
        trainer.run()
    assert not (out / ".lock").exists()
    assert trainer.run()


def test_best_alone_goes_on(dataset, out, monkeypatch):
    stop_at(monkeypatch, 2)
    with pytest.raises(Stopped):
        Trainer(CONFIG, dataset, out, **QUIET).run()
    (out / "last.npz").rename(out / "best.npz")
    Trainer.resume(out / "best.npz", dataset, **QUIET).run()
    assert (out / "last.npz").exists()


def test_a_run_that_fails_releases_its_folder(dataset, out):
    wild = dataclasses.replace(CONFIG, lr=1000.0, clip_norm=0.0, optimizer="sgd", warmup_epochs=0)
    with pytest.raises(NonFiniteError):
        Trainer(dataclasses.replace(wild, epochs=50), dataset, out, **QUIET).run()
    assert not (out / ".lock").exists()


def test_a_comparison_holds_its_folder(dataset, out):
    comparison = Comparison(["mixer_pico"], Budget("epochs", 1), CONFIG, dataset, out, **QUIET)
    with (
        lock(out / ".lock", "the comparison"),
        pytest.raises(InUseError, match="the comparison in"),
    ):
        comparison.run()
    assert not out.exists()


def test_another_comparison_that_came_first_is_noticed(dataset, out):
    first, second = (
        Comparison(["mixer_pico"], Budget("epochs", epochs), CONFIG, dataset, out, **QUIET)
        for epochs in (1, 2)
    )
    first.run()
    with pytest.raises(CheckpointError, match="holds a comparison with budget"):
        second.run()


def test_a_run_that_goes_on_with_other_arithmetic_says_so(dataset, out, monkeypatch):
    stop_at(monkeypatch, 2)
    with pytest.raises(Stopped):
        Trainer(CONFIG, dataset, out, **QUIET).run()
    Trainer.resume(out / "last.npz", dataset, **QUIET)  # here, without a word
    here = Machine.here()
    elsewhere = dataclasses.replace(here, blas="openblas 0.3 Nehalem")
    monkeypatch.setattr(Machine, "here", lambda device="cpu": elsewhere)
    words = f"goes on with other arithmetic .blas openblas 0.3 Nehalem, not {here.blas}.: from here"
    with pytest.warns(Note, match=words):
        trainer = Trainer.resume(out / "last.npz", dataset, **QUIET)
    trainer.run()
    assert checkpoint.load(out / "last.npz").header.machine == elsewhere
