"""The trainer is the plain loop made fast: with whole batches, both end in the same bits."""

import dataclasses

import numpy as np
import pytest
from small_runs import SYSTEMS, images_for, small

from tinymixer import data, optim
from tinymixer.fast import reference_ops
from tinymixer.train.parallel import Workers
from tinymixer.train.plain import train_plain
from tinymixer.train.trainer import Trainer


def whole_batches(model, **changes):
    """Two epochs, everything active: clipping, decay, warm-up, averages."""
    options = {
        "epochs": 2,
        "batch_size": 8,
        "micro_batch": 8,
        "lr": 0.02,
        "warmup_epochs": 0.5,
        "weight_decay": 0.3,
        "clip_norm": 0.05,
        "ema": 0.7,
    }
    return small(model, **options | changes)


def plain(config, dataset):
    with Workers(1):  # as the trainer: one thread for BLAS, so that a product's sums have one order
        return train_plain(config, dataset, quiet=True)


def trained(config, dataset):
    """The trainer's weights by name, averaged if the run averages, and its buffers."""
    trainer = Trainer(config, dataset, workers=1, quiet=True)
    trainer.run()
    averages = {} if trainer.average is None else trainer.flat.named(trainer.average)
    return trainer.model.state() | averages


def assert_same_bits(found, model):
    expected = model.state()
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("seed", [3, 2**63])
@pytest.mark.parametrize("model", SYSTEMS)
def test_the_trainer_ends_in_the_weights_of_the_plain_loop(model, seed):
    config = whole_batches(model, seed=seed)
    dataset = images_for(config, 23)
    assert_same_bits(trained(config, dataset), plain(config, dataset))


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.0},
        {"clip_norm": 0.0},
        {"weight_decay": 0.0},
        {"schedule": "linear", "lr_final": 0.5},
        {"schedule": "constant", "warmup_epochs": 0.0},
        {"label_smoothing": 0.3},
        {"epochs": 5 / 3},
        {"augment": data.Augment()},
    ],
    ids=str,
)
def test_and_with_other_options(changes):
    config = whole_batches("mixer_pico", **changes)
    dataset = images_for(config, 23)
    assert_same_bits(trained(config, dataset), plain(config, dataset))


def test_and_with_the_operations_of_the_lessons():
    config = whole_batches("mixer_pico")
    dataset = images_for(config, 23)
    with reference_ops():
        assert_same_bits(trained(config, dataset), plain(config, dataset))


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        # An update that restarts AdamW's bias correction in each epoch, and one that decays late.
        ("step", lambda step: step % 3),
        ("lr", lambda lr: lr * (1 + 1e-6)),
    ],
)
def test_a_trainer_that_differs_a_little_is_found(monkeypatch, name, broken):
    config = whole_batches("mixer_pico")
    dataset = images_for(config, 23)
    update = optim.AdamW.step

    def changed(self, weights, gradients, lr, step, *rest):
        options = {"lr": lr, "step": step}
        options[name] = broken(options[name])
        update(self, weights, gradients, options["lr"], options["step"], *rest)

    expected = plain(config, dataset)
    monkeypatch.setattr(optim.AdamW, "step", changed)
    with pytest.raises(AssertionError):
        assert_same_bits(trained(config, dataset), expected)


def test_the_plain_loop_learns_its_images_by_heart(capsys):
    config = dataclasses.replace(
        whole_batches("mixer_pico", epochs=50, clip_norm=1.0, ema=0.0),
        augment=data.Augment(),
        model_options=SYSTEMS["mixer_pico"] | {"dropout": 0.0},
        weight_decay=0.0,
        label_smoothing=0.0,
    )
    train_plain(config, images_for(config, 16))
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 2 * config.epochs  # the first and the last step of each epoch
    assert losses[0] == pytest.approx(np.log(10), abs=0.01)  # a new head says each class alike
    assert max(losses[-2:]) < 0.5
