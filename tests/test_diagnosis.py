"""Where a loss that is not finite comes from."""

import numpy as np
import pytest

from tinymixer import create_model, engine
from tinymixer.diagnosis import first_non_finite
from tinymixer.engine import Tensor
from tinymixer.ops import SoftmaxCrossEntropy


@pytest.fixture(autouse=True)
def _reference_operations(monkeypatch):
    """Faster twins may overflow elsewhere; the clear code is tested."""
    monkeypatch.setattr(engine, "twins", {})


@pytest.fixture
def model():
    return create_model("mixer_pico", num_blocks=2)


def loss_of(model, images=None):
    images = np.ones((2, 32, 32, 3), np.float32) if images is None else images
    return SoftmaxCrossEntropy()(model(images), np.array([0, 1]))


def test_finite_is_none(model):
    assert first_non_finite(model, loss_of(model)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_parameter_is_named(model, value):
    model.blocks[1].token_mlp.W2.data[3, 4] = value
    with np.errstate(invalid="ignore"):
        assert first_non_finite(model, loss_of(model)) == "blocks.1.token_mlp.W2"


def test_the_first_layer_that_overflows_is_named(model):
    model.blocks[1].channel_mlp.W1.data[...] = 3e38
    with np.errstate(all="ignore"):
        assert first_non_finite(model, loss_of(model)) == "blocks.1.channel_mlp"


def test_a_function_without_parameters_is_named_by_what_came_before(model):
    embed, mlp = model.patch_embed.linear, model.blocks[0].token_mlp
    for layer_W, layer_b, value in (
        (embed.W, embed.b, 2.0**120),  # equal in all channels: LayerNorm makes it zero
        (mlp.W2, mlp.b2, np.finfo(np.float32).max),  # finite as well; their sum is not
    ):
        layer_W.data[...] = 0
        layer_b.data[...] = value
    with np.errstate(all="ignore"):
        assert first_non_finite(model, loss_of(model)) == "Add after blocks.0.token_mlp"


def test_images_that_are_not_finite_show_in_the_first_layer(model):
    images = np.full((2, 32, 32, 3), np.nan, np.float32)
    assert first_non_finite(model, loss_of(model, images)) == "patch_embed.linear"
    loss = SoftmaxCrossEntropy()(model(Tensor(images)), np.array([0, 1]))
    assert first_non_finite(model, loss) == "Patchify after the images"


def test_a_tape_that_was_walked_says_so(model):
    loss = loss_of(model)
    loss.backward()
    with pytest.raises(RuntimeError, match="walked before"):
        first_non_finite(model, loss)
