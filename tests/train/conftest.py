"""A run small enough for tests, with everything random switched on."""

import dataclasses

import pytest

from tinymixer import data
from tinymixer.train.config import Config

CONFIG = Config(
    model="mixer_pico",
    model_options={
        "hidden_dim": 8,
        "num_blocks": 2,
        "tokens_mlp_dim": 5,
        "channels_mlp_dim": 11,
        "dropout": 0.1,
        "drop_path_rate": 0.2,
    },
    epochs=2,
    batch_size=32,
    micro_batch=5,
    ema=0.9,
    augment=data.Augment(crop_padding=2, flip="random", cutmix=1.0, cutout=4),
    seed=3,
)


@pytest.fixture(scope="session")
def config():
    return CONFIG


@pytest.fixture(scope="session")
def changed():
    return lambda **changes: dataclasses.replace(CONFIG, **changes)


@pytest.fixture(scope="session")
def dataset():
    """Batches of 32, 32 and 8; micro-batches of 5 do not divide them."""
    return data.load("shapes", train_size=72, test_size=24)
