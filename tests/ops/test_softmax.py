"""Softmax."""

import composed
import numpy as np
from checks import B, C, S, assert_close, assert_same_as_composed, normal

from tinymixer.ops import Softmax


def test_softmax_is_its_composition(device, rng):
    assert_same_as_composed(device, Softmax(), composed.softmax, normal(rng, (S, B, C)))


def test_shares_add_up_to_one_and_their_gradients_to_zero(device, rng):
    z, dp = (device.asarray(x) for x in normal(rng, (S, C), (S, C)))
    op = Softmax()
    assert_close(op.forward(z).sum(-1), np.ones(S))
    assert float((op.backward(dp).sum(-1) ** 2).sum()) < 1e-30


def test_by_hand():
    p = Softmax().forward(np.log([[1.0, 2.0, 5.0]]))
    assert_close(p, np.array([[0.125, 0.25, 0.625]]))


def test_large_numbers_do_not_overflow():
    p = Softmax().forward(np.array([[1e4, 0.0, 1e4]], np.float32))
    np.testing.assert_array_equal(p, [[0.5, 0, 0.5]])
