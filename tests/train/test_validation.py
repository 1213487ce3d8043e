"""Validation images: which they are, that nothing is trained on them, and what is measured when."""

import dataclasses

import numpy as np
import pytest

from tinymixer import data
from tinymixer.errors import TinymixerError
from tinymixer.train import checkpoint
from tinymixer.train.trainer import Trainer
from tinymixer.train.validation import held_back


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("tinymixer.train.run_folder.RunFolder.report", lambda *_, **__: None)


def numbered(labels, name="mine"):
    """Images of which each says its number in its pixels."""
    labels = np.asarray(labels)
    images = np.zeros((len(labels), 4, 4, 3), np.uint8)
    images[..., 0] = np.arange(len(labels))[:, None, None]
    names = tuple(map(str, range(int(labels.max()) + 1)))
    return data.Dataset(
        name, images, labels, images[:1], labels[:1], names, (50.0,) * 3, (30.0,) * 3
    )


def numbers(images):
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 30, 89])
def test_each_image_is_trained_on_or_held_back_with_its_label(count):
    dataset = numbered(np.arange(90) % 3)
    split = held_back(dataset, count)
    held, kept = numbers(split.test_images), numbers(split.train_images)
    assert len(held) == count
    assert sorted(held + kept) == list(range(90))
    for images, labels in ((held, split.test_labels), (kept, split.train_labels)):
        assert images == sorted(images)  # in their order
        assert labels.tolist() == [i % 3 for i in images]


def test_of_each_class_the_same_share_is_held_back_also_where_classes_come_one_after_another():
    """As in a folder for each class: the last images would be all of one."""
    sizes = [100, 60, 20]
    dataset = numbered(np.repeat(np.arange(3), sizes))
    for count in (18, 45, 90):
        held = np.bincount(held_back(dataset, count).test_labels, minlength=3)
        assert abs(held - np.array(sizes) * count / 180).max() <= 1


def test_more_held_back_are_the_same_and_others():
    dataset = numbered(np.arange(60) % 4)
    few, many = (set(numbers(held_back(dataset, n).test_images)) for n in (8, 20))
    assert few < many
    assert few != set(range(52, 60))  # drawn, not counted from the end


def test_pixels_are_held_back_by_the_image():
    dataset = data.load("shapes", train_size=20, test_size=4, pixels=True)
    split = held_back(dataset, 5)
    assert (len(split.train_labels), len(split.test_labels)) == (15, 5)


@pytest.mark.parametrize("count", [72, 100])
def test_something_has_to_be_left_to_train_on(count, changed, dataset):
    with pytest.raises(TinymixerError, match=f"--val-size {count}: shapes has 72 training images"):
        Trainer(changed(val_size=count), dataset, quiet=True)


def test_a_run_is_that_on_the_images_left_and_measured_on_the_others(changed, dataset):
    """But for the random numbers, which are drawn by an image's place among those trained on."""
    split = held_back(dataset, 20)
    expected = Trainer(changed(), split, workers=1, quiet=True)
    expected.run()
    trainer = Trainer(changed(val_size=20), dataset, workers=1, quiet=True)
    history = trainer.run()
    np.testing.assert_array_equal(trainer.flat.weights, expected.flat.weights)
    for found, row in zip(history, expected.history, strict=True):
        assert (found.val_loss, found.val_accuracy) == (row.test_loss, row.test_accuracy)
        assert found.train_loss == row.train_loss
    assert [row.test_loss is None for row in history] == [True, False]
    assert history[-1].test_accuracy == trainer.test()


def test_seeds_are_measured_on_the_same_images(changed, dataset):
    one, other = (
        Trainer(changed(val_size=20, seed=seed), dataset, workers=1, quiet=True) for seed in (1, 2)
    )
    np.testing.assert_array_equal(one.split.test_images, other.split.test_images)
    assert (one.flat.weights != other.flat.weights).any()


def test_a_stopped_run_holds_back_the_same_images(changed, dataset, tmp_path, stop_after_two):
    config = changed(val_size=20)
    whole = Trainer(config, dataset, workers=1, quiet=True)
    whole.run()
    with stop_after_two():
        Trainer(config, dataset, tmp_path, workers=1, quiet=True).run()
    resumed = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    resumed.run()
    np.testing.assert_array_equal(resumed.flat.weights, whole.flat.weights)
    record = checkpoint.load(tmp_path / "last.npz").header.dataset
    assert (record.train_images, record.fingerprint) == (72, dataset.fingerprint)  # of the whole


@pytest.fixture
def stop_after_two(monkeypatch):
    import small_runs

    from tinymixer.train.stopping import Stopped

    def stopping():
        small_runs.stop_at(monkeypatch, 2)
        return pytest.raises(Stopped)

    return stopping


def test_the_test_images_are_not_looked_at_before_the_end(changed, dataset, monkeypatch):
    from tinymixer.train import trainer as trainer_module

    seen, right = [], trainer_module.measure

    def measure(task, model, images, *arguments):
        seen.append(len(images.test_images))
        return right(task, model, images, *arguments)

    monkeypatch.setattr(trainer_module, "measure", measure)
    Trainer(changed(val_size=20, epochs=3), dataset, workers=1, quiet=True).run()
    assert seen == [20, 20, 20, 24]


def test_without_validation_images_a_run_is_what_it_was(config, dataset):
    trainer = Trainer(config, dataset, workers=1, quiet=True)
    assert trainer.split is trainer.dataset
    assert dataclasses.replace(config, val_size=0) == config
