"""Linear maps on channels and on tokens."""

import composed
import numpy as np
import pytest
from checks import D_C, D_S, B, C, S, assert_close, assert_same_as_composed, normal

from tinymixer.ops import ChannelLinear, TokenLinear


@pytest.mark.parametrize("lead", [(), (B,), (S, B), (2, S, B)], ids=str)
def test_channel_linear_is_its_composition(device, lead, rng):
    arrays = normal(rng, (*lead, C), (C, D_C), (D_C,))
    assert_same_as_composed(device, ChannelLinear(), composed.channel_linear, arrays)


def test_token_linear_tokens_first_is_the_same_as_batch_first(device, rng):
    arrays = normal(rng, (S, B, C), (D_S, S), (D_S,))
    assert_same_as_composed(device, TokenLinear(), composed.token_linear, arrays)


def test_token_linear_by_its_formula(rng):
    x, W, b = normal(rng, (S, B, C), (D_S, S), (D_S,))
    expected = np.einsum("ds,sbc->dbc", W, x) + b[:, None, None]
    assert_close(TokenLinear().forward(x, W, b), expected)


def test_channel_linear_by_its_formula(rng):
    x, W, b = normal(rng, (S, B, C), (C, D_C), (D_C,))
    assert_close(ChannelLinear().forward(x, W, b), np.einsum("sbc,cd->sbd", x, W) + b)


def test_token_linear_treats_every_channel_of_every_image_alike(rng):
    x, W, b = normal(rng, (S, B, C), (D_S, S), (D_S,))
    whole = TokenLinear().forward(x, W, b)
    alone = TokenLinear().forward(x[:, 1:2, 3:4], W, b)
    assert_close(whole[:, 1:2, 3:4], alone)


def test_token_linear_refuses_another_number_of_tokens(device):
    x, W, b = device.zeros((49, B, C)), device.zeros((D_S, 64)), device.zeros(D_S)
    message = (
        r"TokenLinear: W is \(11, 64\); expected \(D, S\) with S = 49, as in x \(49, 3, 5\).*resize"
    )
    with pytest.raises(ValueError, match=message):
        TokenLinear()(x, W, b)


def test_channel_linear_refuses_another_number_of_channels(device):
    x, W, b = device.zeros((S, B, C)), device.zeros((C + 1, D_C)), device.zeros(D_C)
    with pytest.raises(
        ValueError, match=r"ChannelLinear: W is \(6, 13\); expected \(C, D\) with C = 5.*last axis"
    ):
        ChannelLinear()(x, W, b)


def test_multiply_accumulates_count_every_product():
    x = np.zeros((S, B, C))
    count = TokenLinear().multiply_accumulates(x, np.zeros((D_S, S)), np.zeros(D_S))
    assert count == B * C * S * D_S
    count = ChannelLinear().multiply_accumulates(x, np.zeros((C, D_C)), np.zeros(D_C))
    assert count == S * B * C * D_C
