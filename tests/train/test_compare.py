"""Comparing models: the budget is kept, what is done is not done again, and nothing is mixed up."""

import dataclasses
import json
import signal

import numpy as np
import pytest
import small_runs
from PIL import Image

from tinymixer import data
from tinymixer.errors import CheckpointError, TinymixerError
from tinymixer.models import create_model
from tinymixer.summary import summarise
from tinymixer.train import checkpoint, trainer
from tinymixer.train.compare import Budget, Comparison, Result, table
from tinymixer.train.config import Config
from tinymixer.train.records import EpochFigures
from tinymixer.train.step import TrainingStep
from tinymixer.train.stopping import Stopped
from tinymixer.train.trainer import Trainer

MODELS = ["mixer_pico", "mixer_nano"]  # 4 and 8 blocks of the same tiny width
CONFIG = Config(
    model_options={"hidden_dim": 8, "tokens_mlp_dim": 5, "channels_mlp_dim": 11},
    batch_size=32,  # three steps an epoch
    lr=0.01,
)


@pytest.fixture(scope="module")
def dataset():
    return data.load("shapes", train_size=72, test_size=24)


@pytest.fixture
def comparison(dataset, tmp_path):
    def make(unit="epochs", amount=2, models=MODELS, config=CONFIG, train_size=72, **options):
        options = {"workers": 1, "quiet": True} | options
        images = data.load("shapes", train_size=train_size, test_size=24)
        return Comparison(models, Budget(unit, amount), config, images, tmp_path / "c", **options)

    return make


@pytest.fixture
def steps(monkeypatch):
    """The model of every training step that is made from now on."""
    made, right = [], TrainingStep.__call__

    def counted(step, *arguments, **options):
        made.append(step.config.model)
        return right(step, *arguments, **options)

    monkeypatch.setattr(TrainingStep, "__call__", counted)
    return made


def macs_of(model):
    return summarise(create_model(model, **CONFIG.model_options)).multiply_accumulates


def test_each_model_gets_an_ordinary_run_of_its_own(comparison, dataset, tmp_path):
    results = comparison().run()
    assert [result.model for result in results] == MODELS
    for result in results:
        config = dataclasses.replace(CONFIG, model=result.model, epochs=2, warmup_epochs=0.2)
        alone = Trainer(config, dataset, workers=1, quiet=True)
        accuracies = [figures.test_accuracy for figures in alone.run()]
        assert result.scores.tolist() == accuracies
        saved = checkpoint.load(tmp_path / "c" / result.model / "last.npz")
        assert saved.header.config == config
        assert result.parameters == alone.model.num_parameters()
        assert result.macs == macs_of(result.model)


def test_it_leaves_a_table_and_two_pictures(comparison, tmp_path):
    made = comparison()
    results = made.run()
    text = (tmp_path / "c" / "comparison.md").read_text()
    assert text == f"{made.statement()}\n\n{table(results)}\n"
    assert "2 epochs for each model" in text
    assert "shapes, 72 training and 24 test images" in text
    assert "1 worker, cpu" in text
    for name in ("macs", "seconds"):
        with Image.open(tmp_path / "c" / f"accuracy-{name}.png") as picture:
            assert min(picture.size) > 300


def test_the_table_says_what_was_spent_and_what_came_of_it():
    other = dict.fromkeys(("train_loss", "train_accuracy", "test_loss", "lr", "images_per_s"), 0.0)
    history = [
        EpochFigures(epoch=1, seconds=3.0, test_accuracy=0.75, **other),
        EpochFigures(epoch=1.5, seconds=1.0, test_accuracy=0.5, **other),
    ]
    result = Result("mixer_pico", 1234, 5678, 1000, history)
    assert result.spent_seconds.tolist() == [3, 4]
    assert result.spent_macs.tolist() == [3 * 5678 * 1000, 3 * 5678 * 1500]
    head, rule, row = table([result]).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["mixer_pico", "1,234", "5,678", "1.50", "4.0", "375", "50.00%"]
    assert head.endswith(" test accuracy |")
    assert len(head) == len(rule) == len(row)


def test_multiply_accumulates_buy_less_of_a_larger_model(comparison):
    per_image = [macs_of(model) for model in MODELS]
    budget = 3 * per_image[1] * 72 * 5 / 3  # five steps of the larger one
    small, large = comparison("macs", budget).run()
    assert large.epochs[-1] == 5 / 3
    steps = round(3 * 5 / 3 * per_image[1] / per_image[0])
    assert small.epochs[-1] == pytest.approx(steps / 3)
    assert small.spent_macs[-1] == pytest.approx(budget, rel=0.5 / steps)


def test_the_learning_rate_ends_with_the_budget(comparison):
    for result in comparison("epochs", 4 / 3).run():
        assert result.history[-1].lr == pytest.approx(CONFIG.lr * CONFIG.lr_final, rel=1e-12)


def test_seconds_become_epochs_by_the_speed_of_the_run_itself(comparison, monkeypatch, tmp_path):
    seconds = {"mixer_pico": 1, "mixer_nano": 2}  # that a step of each takes
    monkeypatch.setattr(Trainer, "_clock", lambda run: run.steps_done * seconds[run.config.model])
    small, large = comparison("seconds", 60).run()
    assert small.epochs[-1] == 58 / 3  # steps of three an epoch: 60 s less what is kept free
    assert large.epochs[-1] == 29 / 3
    saved = checkpoint.load(tmp_path / "c" / "mixer_nano" / "last.npz").header.config
    alone = {"model": "mixer_nano", "epochs": 29 / 3, "minutes": 1.0, "schedule": "trapezoid"}
    assert saved == dataclasses.replace(CONFIG, **alone)


def test_what_is_finished_is_not_done_again(comparison, steps):
    before = comparison().run()
    assert steps == 6 * ["mixer_pico"] + 6 * ["mixer_nano"]
    steps.clear()
    assert comparison().run() == before
    assert steps == []
    again = comparison(models=["mixer_nano_slim", *MODELS]).run()
    assert steps == 6 * ["mixer_nano_slim"]
    assert again[1:] == before


@pytest.mark.parametrize(
    "stop_at", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 6, 7, 11))]
)
@pytest.mark.parametrize("budget", [("epochs", 2), ("seconds", 6)])
def test_a_stopped_comparison_goes_on_to_the_same_results(
    comparison, monkeypatch, tmp_path, stop_at, budget
):
    monkeypatch.setattr(Trainer, "_clock", lambda run: float(run.steps_done))
    whole = comparison(*budget).run()
    (tmp_path / "c").rename(tmp_path / "whole")
    small_runs.stop_at(monkeypatch, stop_at, signal.SIGINT)
    with pytest.raises(Stopped, match="SIGINT"):
        comparison(*budget).run()
    results = comparison(*budget).run()
    for cut, uncut in zip(results, whole, strict=True):
        assert cut.scores.tolist() == uncut.scores.tolist()
        one, other = (
            checkpoint.load(tmp_path / folder / cut.model / "last.npz").weights
            for folder in ("c", "whole")
        )
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_stop_in_the_last_evaluation_of_a_model_begins_no_other(comparison, steps, monkeypatch):
    right = trainer.measure

    def measure(*args):
        signal.raise_signal(signal.SIGINT)
        return right(*args)

    monkeypatch.setattr(trainer, "measure", measure)
    with pytest.raises(Stopped, match="SIGINT"):
        comparison(amount=1).run()
    assert steps == 3 * ["mixer_pico"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"amount": 3}, "budget='2 epochs', not '3 epochs'"),
        ({"unit": "seconds"}, "budget='2 epochs', not '2 s of training'"),
        ({"config": dataclasses.replace(CONFIG, lr=0.02)}, "lr=0.01, not 0.02"),
        ({"train_size": 71}, "train_size=72, not 71"),
        ({"workers": 2}, "workers=1, not 2"),
    ],
)
def test_another_comparison_in_the_same_folder_is_refused(comparison, steps, changes, named):
    comparison(models=MODELS[:1], amount=2).run()
    steps.clear()
    with pytest.raises(CheckpointError, match=named):
        comparison(**changes)
    assert steps == []


def test_other_data_are_refused(comparison, dataset):
    made = comparison(models=MODELS[:1])
    made.run()
    other = data.load("shapes", train_size=72, test_size=24, seed=1)
    with pytest.raises(CheckpointError, match="fingerprint="):
        Comparison(MODELS, made.budget, CONFIG, other, made.out, workers=1)


def test_a_foreign_run_in_a_folder_is_refused(comparison, dataset, tmp_path):
    config = dataclasses.replace(CONFIG, seed=9, epochs=1)
    Trainer(config, dataset, tmp_path / "c" / "mixer_nano", workers=1, quiet=True).run()
    with pytest.raises(CheckpointError, match="mixer_nano holds a run with other options"):
        comparison().run()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"lr": 0.01'])
def test_a_damaged_comparison_is_named(comparison, tmp_path, text):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "comparison.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"comparison\.json is not what a comparison writes"):
        comparison()


@pytest.mark.parametrize("amount", [0, -1, float("nan"), float("inf")])
def test_a_budget_that_buys_nothing_is_refused(amount):
    with pytest.raises(TinymixerError, match="expected a number above 0"):
        Budget("seconds", amount)


def test_a_budget_of_less_than_a_step_is_refused(comparison, steps):
    with pytest.raises(TinymixerError, match="does not buy mixer_pico one step of 32 images"):
        comparison("macs", 1000).run()
    assert steps == []


@pytest.mark.parametrize(
    ("models", "options", "named"),
    [
        (["mixer_pico", "mixer_xxl"], {}, "mixer_xxl"),
        (["mixer_pico"], {"depth": 3}, "no option 'depth'"),
        (["mixer_pico"], {"image_size": 64}, r"mixer_pico on shapes: .*\(B, 64, 64, 3\)"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_first(comparison, models, options, named, tmp_path):
    with pytest.raises(TinymixerError, match=named):
        comparison(models=models, config=dataclasses.replace(CONFIG, model_options=options))
    assert not (tmp_path / "c").exists()


def test_a_gpu_is_fed_by_one_worker_and_that_is_what_it_says(comparison):
    made = comparison(workers=None, device="gpu")  # nothing is computed there yet
    assert made.workers == 1
    assert made.statement().endswith("1 worker, gpu.")


def test_the_settings_are_there_to_read(comparison, tmp_path):
    comparison(models=MODELS[:1]).run()
    common = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert common["budget"] == "2 epochs"
    assert common["lr"] == 0.01
    assert "model" not in common
