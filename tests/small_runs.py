"""Runs of all six systems, small enough for tests, and whether two of them ended alike."""

import dataclasses
import signal

import numpy as np

from tinymixer import data
from tinymixer.backend import to_numpy
from tinymixer.train.config import Config
from tinymixer.train.step import TrainingStep
from tinymixer.train.tasks import TASKS
from tinymixer.train.trainer import Trainer

SYSTEMS = {
    "mixer_pico": {
        "hidden_dim": 8,
        "num_blocks": 2,
        "tokens_mlp_dim": 5,
        "channels_mlp_dim": 11,
        "dropout": 0.1,
    },
    "as_mlp_nano": {"hidden_dim": 10, "depths": (1, 1)},
    "hire_mlp_nano": {"dims": (8, 10, 12), "depths": (1, 1, 1)},
    "vip_nano": {"dims": (16, 32), "depths": (1, 1)},
    "sparse_mlp_nano": {
        "num_blocks": 2,
        "sparse_blocks": 1,
        "hidden_dim": 8,
        "tokens_mlp_dim": 5,
        "channels_mlp_dim": 11,
        "sparse_tokens": 12,
        "sparse_dim": 6,
        "token_expert_dim": 7,
        "channel_expert_dim": 9,
    },
    "raft_mlp_nano": {"dims": (4, 6, 8, 10), "depths": (1, 1, 1, 1)},
}


def small(model, **changes):
    """A run of five steps, with everything random switched on."""
    config = Config(
        model=model,
        model_options=SYSTEMS[model] | {"drop_path_rate": 0.2},
        epochs=5 / 3,
        batch_size=8,
        micro_batch=5,
        ema=0.9,
        augment=data.Augment(
            crop_padding=2,
            flip="random",
            auto_augment="cifar10",
            cutout=4,
            random_erasing=0.5,
            mixup=0.4,
            cutmix=1.0,
        ),
        seed=3,
    )
    return dataclasses.replace(config, **changes)


def segmenting():
    return small(
        "raft_mlp_nano",
        task="segment",
        augment=data.Augment(
            crop_padding=3, padding="zero", flip="alternating", auto_augment="cifar10", cutout=4
        ),
    )


def images_for(config, train_size=20, test_size=9):
    """Batches of 8, 8 and 4, which micro-batches of 5 do not divide."""
    pixels = TASKS[config.task].pixels
    return data.load("shapes", train_size=train_size, test_size=test_size, pixels=pixels)


def trained(config, device, dataset=None, **options):
    options = {"workers": 1, "quiet": True} | options
    trainer = Trainer(config, dataset or images_for(config), device=device, **options)
    trainer.run()
    return trainer


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """A signal to stop comes as this training step, counted from 1 from now on, begins."""
    right, left = TrainingStep.__call__, [step]

    def counted(training_step, *arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(number)
        return right(training_step, *arguments, **options)

    monkeypatch.setattr(TrainingStep, "__call__", counted)


def arrays(trainer):
    """Everything that a run ends in."""
    named = trainer.model.state() | trainer.optimizer.state
    return named | ({"average": trainer.average} if trainer.average is not None else {})


def assert_same(trainer, expected):
    found, wanted = arrays(trainer), arrays(expected)
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(to_numpy(array), to_numpy(wanted[name]), err_msg=name)
    assert untimed(trainer.history) == untimed(expected.history)


def untimed(history):
    """The figures of each epoch, but for how long it took."""
    return [dataclasses.replace(figures, seconds=0.0, images_per_s=0.0) for figures in history]


def saved(run):
    """The bytes of every array of the last checkpoint in the folder `run`."""
    with np.load(run / "last.npz") as file:
        return {name: file[name].tobytes() for name in file.files if name != "header"}
