"""The range test of the learning rate: what it does, and what it suggests."""

import dataclasses

import numpy as np
import pytest
from small_runs import images_for, small

from tinymixer.errors import TinymixerError
from tinymixer.train import lr_find
from tinymixer.train.lr_find import RangeTest, range_test
from tinymixer.train.trainer import Trainer

CONFIG = small("mixer_pico")
QUIET = {"workers": 1, "quiet": True}


@pytest.fixture(scope="module")
def dataset():
    return images_for(CONFIG)


def test_every_step_is_one_of_training(dataset, monkeypatch):
    """At one and the same rate the losses are those of a run's steps."""
    steps = -(-len(dataset.train_images) // CONFIG.batch_size)
    config = dataclasses.replace(CONFIG, epochs=4, lr=1e-3, schedule="constant", warmup_epochs=0)
    trainer = Trainer(config, dataset, **QUIET)
    history = trainer.run()
    monkeypatch.setattr(np, "geomspace", lambda low, high, n: np.full(n, 1e-3))
    found = range_test(config, dataset, steps=4 * steps, **QUIET)
    sizes = np.diff([*range(0, len(dataset.train_images), CONFIG.batch_size), 20])
    epochs = found.losses.reshape(4, steps) @ sizes / sizes.sum()
    np.testing.assert_allclose(epochs, [row.train_loss for row in history], rtol=1e-12)


def test_the_rates_rise_evenly_and_the_figures_are_the_same_on_any_number_of_workers(dataset):
    one, two = (
        range_test(CONFIG, dataset, low=1e-4, high=1e-2, steps=10, workers=n, quiet=True)
        for n in (1, 2)
    )
    np.testing.assert_allclose(one.rates, 1e-4 * 100 ** (np.arange(10) / 9))
    assert one.losses.tobytes() == two.losses.tobytes()
    assert one.smoothed.tobytes() == two.smoothed.tobytes()


def test_the_smoothing_is_the_mean_that_forgets():
    losses = [3.0, 1.0, 2.0]
    assert lr_find._average(losses[:1]) == 3.0
    expected = (0.81 * 3 + 0.9 * 1 + 2) / (0.81 + 0.9 + 1)
    np.testing.assert_allclose(lr_find._average(losses), expected, rtol=1e-14)


def test_it_ends_where_the_loss_diverges(dataset):
    wild = dataclasses.replace(CONFIG, optimizer="sgd", clip_norm=0.0, momentum=0.0)
    found = range_test(wild, dataset, low=1e-3, high=1e4, steps=40, **QUIET)
    assert found.diverged
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 40
    assert "on it diverged" in str(found) or found.suggested is None


def test_a_tenth_of_the_rate_with_the_lowest_loss_is_suggested():
    rates = np.array([1e-3, 1e-2, 1e-1, 1.0])
    found = RangeTest(rates, np.zeros(4), np.array([2.0, 1.5, 1.0, 3.0]), True)
    assert found.suggested == pytest.approx(1e-2)
    assert str(found) == (
        "try --lr 0.01: a tenth of 0.1, where the smoothed loss was lowest, 1.000; from 1 on it "
        "diverged"
    )


def test_where_the_loss_does_not_fall_nothing_is_suggested():
    found = RangeTest(np.array([1e-3, 1e-2]), np.zeros(2), np.array([2.0, 1.99]), False)
    assert found.suggested is None
    assert str(found).startswith("no suggestion: in 2 steps the loss fell from 2.000 to 1.990 only")


def test_a_loss_that_is_not_finite_from_the_start_is_said(dataset, monkeypatch):
    monkeypatch.setattr(lr_find, "read_scalars", lambda scalars: [float("nan")] * len(scalars))
    with pytest.raises(TinymixerError, match="the first loss of mixer_pico is nan"):
        range_test(CONFIG, dataset, steps=10, **QUIET)


@pytest.mark.parametrize(
    "wrong",
    [{"low": 0.0}, {"low": 1.0}, {"high": float("inf")}, {"low": float("nan")}, {"steps": 9}],
)
def test_what_is_no_test_is_refused(dataset, wrong):
    with pytest.raises(TinymixerError, match="expected two rates above 0"):
        range_test(CONFIG, dataset, **wrong)
