"""The token-mixing and the channel-mixing MLP."""

import composed
import numpy as np
import pytest
from checks import D_C, D_S, B, C, S, assert_close, assert_same_as_composed, normal

from tinymixer.ops import GELU, ChannelLinear, ChannelMLP, TokenLinear, TokenMLP

TOKEN_SHAPES = [(S, B, C), (D_S, S), (D_S,), (S, D_S), (S,)]
CHANNEL_SHAPES = [(S, B, C), (C, D_C), (D_C,), (D_C, C), (C,)]


def small(rng, shapes):
    """Arrays that keep the hidden values within reach of the power series."""
    return [0.5 * a for a in normal(rng, *shapes)]


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_token_mlp_is_its_composition(device, form, rng):
    same = lambda *arrays: composed.token_mlp(*arrays, form)  # noqa: E731
    assert_same_as_composed(device, TokenMLP(form), same, small(rng, TOKEN_SHAPES))


@pytest.mark.parametrize("form", ["tanh", "erf"])
@pytest.mark.parametrize("lead", [(B,), (S, B), (2, S, B)], ids=str)
def test_channel_mlp_is_its_composition(device, form, lead, rng):
    same = lambda *arrays: composed.channel_mlp(*arrays, form)  # noqa: E731
    shapes = [(*lead, C), *CHANNEL_SHAPES[1:]]
    assert_same_as_composed(device, ChannelMLP(form), same, small(rng, shapes))


def test_an_mlp_is_linear_gelu_linear(rng):
    x, W1, b1, W2, b2 = normal(rng, *TOKEN_SHAPES)
    hidden = GELU().forward(TokenLinear().forward(x, W1, b1))
    assert_close(TokenMLP().forward(x, W1, b1, W2, b2), TokenLinear().forward(hidden, W2, b2))
    x, W1, b1, W2, b2 = normal(rng, *CHANNEL_SHAPES)
    hidden = GELU().forward(ChannelLinear().forward(x, W1, b1))
    assert_close(ChannelMLP().forward(x, W1, b1, W2, b2), ChannelLinear().forward(hidden, W2, b2))


def test_the_channel_mlp_is_the_token_mlp_of_the_transposed(device, rng):
    x, W1, b1, W2, b2 = [device.asarray(a) for a in normal(rng, *CHANNEL_SHAPES)]
    turned = TokenMLP().forward(x.transpose(2, 0, 1), W1.T, b1, W2.T, b2)
    assert_close(ChannelMLP().forward(x, W1, b1, W2, b2), turned.transpose(1, 2, 0))


def test_another_number_of_tokens_or_channels_is_refused(device):
    token = [device.zeros(shape) for shape in TOKEN_SHAPES]
    with pytest.raises(
        ValueError, match=r"TokenMLP: W1 is \(11, 7\); .*S = 6, as in x .*resize the images"
    ):
        TokenMLP()(token[0][1:], *token[1:])
    channel = [device.zeros(shape) for shape in CHANNEL_SHAPES]
    with pytest.raises(
        ValueError, match=r"ChannelMLP: W1 is \(5, 13\); .*C = 4, as in x.*last axis"
    ):
        ChannelMLP()(channel[0][..., 1:], *channel[1:])


def test_multiply_accumulates_count_every_product():
    arrays = [np.zeros(shape) for shape in TOKEN_SHAPES]
    assert TokenMLP().multiply_accumulates(*arrays) == 2 * B * C * S * D_S
    arrays = [np.zeros(shape) for shape in CHANNEL_SHAPES]
    assert ChannelMLP().multiply_accumulates(*arrays) == 2 * S * B * C * D_C
