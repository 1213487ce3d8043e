"""Small models that the gradient check is tried on."""

import numpy as np
import pytest
from examples import D_S, C, normal

from tinymixer.models import HireMLP, MLPMixer


@pytest.fixture
def tiny_model():
    return MLPMixer(
        image_size=(8, 12),
        patch_size=4,
        hidden_dim=C,
        num_blocks=2,
        tokens_mlp_dim=D_S,
        channels_mlp_dim=13,
        num_classes=3,
        rng=np.random.default_rng(0),
    )


@pytest.fixture
def tiny_hire(hire_images):
    model = HireMLP(
        image_size=(13, 12),
        dims=(4, 5),
        depths=(1, 2),
        pixels=(2, 3),
        strides=(1, 2),
        dilations=(1, 2),
        stem=(3, 2, 1),
        num_classes=3,
        init_std=0.5,
        rng=np.random.default_rng(0),
    )
    for _ in range(30):
        model(hire_images.astype(np.float32), np.random.default_rng(0))  # to have statistics
    return model


@pytest.fixture
def images():
    return normal(2, 8, 12, 3)


@pytest.fixture
def hire_images():
    return normal(3, 13, 12, 3)  # several: in training, one alone is the mean of its batch
