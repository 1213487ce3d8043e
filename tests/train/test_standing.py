"""Where a run stands: how much is done, how much is left, and which epoch was the best."""

from dataclasses import replace

import pytest
from small_runs import images_for, small

from tinymixer.train.records import DatasetRecord, EpochFigures, Progress
from tinymixer.train.standing import Standing

CONFIG = small("mixer_pico", epochs=1.5, val_size=4)


@pytest.fixture
def standing():
    return Standing(CONFIG, DatasetRecord.of(images_for(CONFIG)))


def figures(epoch, accuracy):
    progress = Progress(loss=8.0, correct=2.0, images=4, seconds=2.0)
    measured = {"val_loss": 1.0, "val_accuracy": accuracy}
    return EpochFigures.of(epoch, progress, lr=0.1, **measured)


def test_a_run_begins_with_all_its_steps_before_it(standing):
    per_epoch = CONFIG.steps_per_epoch(standing.record.train_images)
    assert (standing.epoch, standing.steps_done) == (0, 0)
    assert standing.steps == round(1.5 * per_epoch)
    assert not standing.at_end
    assert not standing.finished


def test_a_whole_epoch_is_a_whole_number_and_the_last_may_be_a_part(standing):
    standing.step = standing.steps_per_epoch
    assert standing.at_end
    assert standing.epochs_done == 1
    assert isinstance(standing.epochs_done, int)  # a line of metrics.jsonl says 1, not 1.0
    standing.history.append(figures(1, 0.5))
    standing.step = standing.steps - standing.steps_per_epoch
    assert standing.at_end
    assert standing.epochs_done == standing.steps / standing.steps_per_epoch
    assert not standing.finished  # until it is evaluated
    standing.history.append(figures(standing.epochs_done, 0.5))
    assert standing.finished


def test_the_best_epoch_is_the_first_of_the_highest_on_validation_images(standing):
    assert standing.best is None
    standing.history += [figures(1, 0.25), figures(2, 0.75), figures(3, 0.75)]
    assert standing.best is standing.history[1]
    standing.history = [replace(row, val_accuracy=None) for row in standing.history]
    assert standing.best is None


def test_the_rate_is_that_of_the_next_step_and_minutes_decide_once(standing):
    open_end = replace(CONFIG, epochs=0.0, minutes=1.0, schedule="trapezoid", warmup_epochs=0.0)
    run = Standing(open_end, standing.record)
    run.step = 2
    assert run.learning_rate() == open_end.lr
    assert not run.decide(20.0)  # 35 % of a minute are 21 seconds
    assert run.decide(25.0)
    assert run.steps == 5  # 2 steps are at most the share of it that keeps its rate
    assert not run.decide(30.0)


def test_what_a_checkpoint_says_leads_back(standing):
    standing.history, standing.step = [figures(1, 0.5)], 1
    standing.progress = Progress(images=8)
    other = Standing(CONFIG, standing.record)
    other.stand_at(standing.header(None))
    assert vars(other) == vars(standing)
