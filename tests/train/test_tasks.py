"""Two tasks, one trainer: what differs between images and pixels, and that all else holds."""

import dataclasses
import json

import numpy as np
import pytest
import small_runs
from small_runs import untimed

from tinymixer import data
from tinymixer.data import Source
from tinymixer.engine import Tensor
from tinymixer.errors import DataError, TinymixerError
from tinymixer.train import checkpoint, evaluation, metrics
from tinymixer.train.compare import Budget, Comparison, table
from tinymixer.train.config import Config, recipe
from tinymixer.train.evaluation import measure, segments
from tinymixer.train.parallel import Workers
from tinymixer.train.records import EpochFigures
from tinymixer.train.stopping import Stopped
from tinymixer.train.tasks import TASKS
from tinymixer.train.trainer import Trainer

CONFIG = Config(
    task="segment",
    model="raft_mlp_nano",
    model_options={
        "dims": (8, 12),
        "depths": (1, 1),
        "patch_sizes": (4, 2),
        "raft_sizes": (2, 2),
        "kernels": None,
        "drop_path_rate": 0.2,
    },
    epochs=2,
    batch_size=16,
    micro_batch=5,
    ema=0.9,
    augment=data.Augment(crop_padding=3, padding="zero", flip="random", cutout=4),
    seed=3,
)
SEGMENT = TASKS["segment"]


@pytest.fixture(scope="module")
def dataset():
    """Batches of 16, 16 and 8; micro-batches of 5 do not divide them."""
    return data.load("shapes", train_size=40, test_size=15, pixels=True)


def bits(trainer):
    arrays = [trainer.flat.weights, trainer.average, *trainer.optimizer.state.values()]
    return b"".join(array.tobytes() for array in arrays)


@pytest.fixture(scope="module")
def uninterrupted(dataset):
    trainer = Trainer(CONFIG, dataset, workers=1, quiet=True)
    trainer.run()
    return trainer


def test_the_number_of_workers_changes_no_bit(dataset, uninterrupted):
    trainer = Trainer(CONFIG, dataset, workers=3, quiet=True)
    trainer.run()
    assert bits(trainer) == bits(uninterrupted)


@pytest.mark.parametrize("stop_at", [2, 3, 5])
def test_a_stopped_run_resumes_to_the_same_bits(
    dataset, uninterrupted, tmp_path, monkeypatch, stop_at
):
    small_runs.stop_at(monkeypatch, stop_at)
    with pytest.raises(Stopped):
        Trainer(CONFIG, dataset, tmp_path, workers=2, quiet=True).run()
    resumed = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    history = resumed.run()
    assert bits(resumed) == bits(uninterrupted)
    assert untimed(history) == untimed(uninterrupted.history)


def test_a_run_leaves_its_files_and_a_checkpoint_that_segments(dataset, tmp_path):
    trainer = Trainer(CONFIG, dataset, tmp_path, workers=1, quiet=True)
    history = trainer.run()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [EpochFigures.from_json(json.loads(line)) for line in lines] == history
    assert (tmp_path / "curves.png").exists()
    model, saved = checkpoint.load_model(tmp_path / "last.npz")
    images, truth = dataset.test_images, dataset.test_labels
    found = segments(model, images, dataset.mean, dataset.std)
    matrix = metrics.confusion_matrix(truth.ravel(), found.ravel(), 11)
    assert saved.header.history[-1].test_iou == metrics.mean_iou(matrix)
    assert saved.header.history[-1].test_accuracy == (truth == found).mean()


def test_the_best_epoch_is_that_of_the_highest_iou_on_validation_images(dataset, tmp_path):
    config = dataclasses.replace(CONFIG, val_size=8, epochs=3)
    history = Trainer(config, dataset, tmp_path, workers=1, quiet=True).run()
    ious = [figures.val_iou for figures in history]
    assert checkpoint.load(tmp_path / "best.npz").header.epoch == 1 + ious.index(max(ious))
    assert [figures.test_iou is None for figures in history] == [True, True, False]


class Answers:
    """In place of a model: the same logits for whatever images."""

    def __init__(self, logits):
        self.logits = logits

    def parameters(self):
        return [Tensor(self.logits)]

    def __call__(self, images):
        return Tensor(self.logits)


def test_what_has_no_class_is_not_measured(dataset, rng):
    logits = rng.standard_normal((32, 32, 2, 11))
    truth = rng.integers(0, 11, (2, 32, 32)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.3] = data.IGNORED
    few = dataclasses.replace(dataset, test_images=dataset.test_images[:2], test_labels=truth)
    with Workers(1) as workers:
        loss, matrix = measure(SEGMENT, Answers(logits), few, workers)
    at = truth.transpose(1, 2, 0)
    counted = at != data.IGNORED
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_p[counted], at[counted][:, None], -1).mean()
    assert loss == pytest.approx(expected, rel=1e-12)
    assert matrix.sum() == counted.sum()
    assert matrix.trace() == (logits.argmax(-1) == at)[counted].sum()


def test_a_batch_without_any_class_measures_nothing(dataset, uninterrupted, monkeypatch):
    monkeypatch.setitem(evaluation.EVAL_BATCH, "cpu", 4)
    labels = dataset.test_labels.copy()
    labels[:4] = data.IGNORED  # the first of four batches
    without = dataclasses.replace(dataset, test_labels=labels)
    rest = dataclasses.replace(
        dataset, test_images=dataset.test_images[4:], test_labels=dataset.test_labels[4:]
    )
    with Workers(1) as workers:
        loss, matrix = measure(SEGMENT, uninterrupted.model, without, workers)
        expected, counts = measure(SEGMENT, uninterrupted.model, rest, workers)
    assert loss == expected
    np.testing.assert_array_equal(matrix, counts)


def test_right_counts_in_parts_of_images():
    logits = np.zeros((2, 2, 3, 4))  # always class 0
    truth = np.zeros((3, 2, 2), np.uint8)
    assert SEGMENT.correct(logits, truth) == 3
    truth[0] = 1
    assert SEGMENT.correct(logits, truth) == pytest.approx(2)
    truth[0] = data.IGNORED
    assert SEGMENT.correct(logits, truth) == 3
    assert SEGMENT.correct(logits, np.full_like(truth, data.IGNORED)) == 0
    assert TASKS["classify"].correct(np.eye(3), np.array([0, 1, 1])) == 2


def test_the_loss_is_that_of_the_pixels(rng):
    logits = rng.standard_normal((2, 4, 3, 5))
    truth = rng.integers(0, 5, (3, 2, 4)).astype(np.uint8)
    truth[1, 0, 2] = data.IGNORED
    losses = [
        np.log(np.exp(logits[i, j, b]).sum()) - logits[i, j, b, truth[b, i, j]]
        for b, i, j in np.ndindex(truth.shape)
        if truth[b, i, j] != data.IGNORED
    ]
    loss = SEGMENT.loss(Tensor(logits), truth, 0.0)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-12)


def test_learning_to_segment_lowers_the_loss(dataset):
    plain = dataclasses.replace(
        CONFIG, epochs=5, lr=0.01, ema=0.0, label_smoothing=0.0, augment=data.Augment()
    )
    history = Trainer(plain, dataset, workers=1, quiet=True).run()
    assert history[0].train_loss > 1.2
    assert history[-1].train_loss < 0.75  # to know the background alone


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_images_of_pixels_are_not_mixed(mixing):
    with pytest.raises(TinymixerError, match="mixup and cutmix mix the classes of whole images"):
        dataclasses.replace(CONFIG, augment=data.Augment(**{mixing: 1.0}))


def test_a_policy_moves_the_classes_of_pixels_along(dataset):
    config = dataclasses.replace(CONFIG, augment=data.Augment(auto_augment="cifar10"), epochs=1)
    trainer = Trainer(config, dataset, workers=1, quiet=True)
    images, targets = trainer.own_step.augment(
        dataset.train_images, dataset.train_labels, np.arange(40), epoch=0, seed=3, num_classes=11
    )
    assert (images[targets == data.IGNORED] == 128).all()
    assert 0 < (targets == data.IGNORED).mean() < 0.2
    assert np.isfinite(trainer.run()[-1].train_loss)


def test_a_model_without_a_pyramid_is_refused(dataset):
    config = dataclasses.replace(CONFIG, model="mixer_pico", model_options={})
    with pytest.raises(TinymixerError, match="mixer_pico: MLPMixer has no maps of several sizes"):
        Trainer(config, dataset)


def test_an_unknown_task_is_refused():
    with pytest.raises(TinymixerError, match="task='detect': expected classify or segment"):
        dataclasses.replace(CONFIG, task="detect")


def test_data_without_pixels_are_refused(dataset):
    with pytest.raises(DataError, match="no labels for pixels"):
        Source("cifar10", pixels=True).load()
    images = data.load("shapes", train_size=4, test_size=2)
    with pytest.raises(DataError, match="shapes has labels for images, but this task"):
        Trainer(CONFIG, images)
    with pytest.raises(DataError, match="shapes has labels for pixels, but this task"):
        Trainer(Config(), dataset)


def test_recipes_are_of_data_and_task():
    assert recipe("shapes", "classify").optimizer == "muon"
    assert recipe("shapes", "segment").optimizer == "adamw"
    assert recipe("shapes", "segment").task == "segment"
    assert recipe("shapes", "segment").label_smoothing == 0


def test_segmenters_are_compared_by_their_iou(dataset, tmp_path):
    budget = Budget("epochs", 1)
    for _ in range(2):  # the second time it is there, its options read from a file
        made = Comparison(
            ["raft_mlp_nano"], budget, CONFIG, dataset, tmp_path, workers=1, quiet=True
        )
        (result,) = made.run()
    assert result.scores.tolist() == [result.history[0].test_iou]
    assert " test mean IoU |" in table([result])
