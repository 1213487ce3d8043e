"""What several test files compare with.

Sizes are different primes, so that no two axes can be taken for one another.
"""

import numpy as np

from tinymixer.backend import to_numpy
from tinymixer.engine import Tensor

S, B, C, D_S, D_C, K = 7, 3, 5, 11, 13, 17

# Two correct ways to the same number differ by rounding. A sum of n products is off by at most
# n ε Σ|products|; here n < 100 and a handful of sums follow one another, so 1000 ε is generous,
# and any wrong term, sign or axis is off by 1e-2 or more.
CLOSE = 1000 * np.finfo(np.float64).eps  # 2e-13
CLOSE_32 = 1000 * float(np.finfo(np.float32).eps)  # 1e-4


def assert_close(actual, expected, within=CLOSE, least=0.0, dtype=None):
    """Same shape, and equal within a part of the largest expected value, or of `least` if larger.

    Numbers that are not finite are close to nothing. `dtype` is what `actual` must have, if it is
    given. Lists and tuples are compared item by item, and None equals None alone.
    """
    if isinstance(expected, list | tuple):
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other, within, least, dtype)
    elif expected is None:
        assert actual is None
    else:
        actual, expected = to_numpy(actual), to_numpy(expected)
        assert actual.shape == expected.shape
        assert dtype is None or actual.dtype == dtype
        scale = np.abs(expected).max(initial=least)
        assert np.isfinite(scale)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=within * scale, equal_nan=False)


def assert_close_32(actual, expected, within=1e-5, least=0.0):
    """Float32 beside the truth: some hundred roundings of 6e-8."""
    assert_close(actual, expected, within, least, np.float32)


def normal(rng, *shapes):
    """One float64 array of random normal numbers for each shape."""
    return [np.asarray(rng.standard_normal(shape)) for shape in shapes]


def frozen(device, x):
    """x on the device, read-only where that can be had: who writes into it raises."""
    y = device.asarray(np.array(x))
    host = getattr(y, "_host", y)
    if isinstance(host, np.ndarray):
        host.flags.writeable = False
    return y


def by_hand(function, dy, *arrays):
    """(y, gradients) of a Function used without a tape, each gradient in a tuple."""
    y = function.forward(*arrays)
    gradients = function.backward(dy)
    return y, gradients if isinstance(gradients, tuple) else (gradients,)


def by_tape(composed, dy, *arrays):
    """(y, gradients) of a composition of Tensors, differentiated by the tape."""
    tensors = [Tensor(x) for x in arrays]
    y = composed(*tensors)
    y.backward(dy)
    return y.data, [x.grad for x in tensors]


def assert_same_as_composed(device, function, composed, arrays, constants=(), within=CLOSE):
    """A hand-written Function and the same composed from primitives agree on y and on every dx.

    The cotangent is random: a sum of the outputs would hide every error that a softmax or a
    LayerNorm cancels.
    """
    arrays = [frozen(device, x) for x in arrays]
    constants = [frozen(device, x) for x in constants]
    shape = function.forward(*arrays, *constants).shape
    dy = np.random.default_rng(21).standard_normal(shape).astype(arrays[0].dtype)
    dy = frozen(device, dy)
    y, gradients = by_hand(function, dy, *arrays, *constants)
    expected_y, expected = by_tape(lambda *x: composed(*x, *constants), dy, *arrays)
    assert type(y) is type(expected_y) or y.ndim == 0  # it stayed on the device
    assert_close(y, expected_y, within)
    assert_close(gradients[: len(arrays)], expected, within)
    assert gradients[len(arrays) :] == (None,) * len(constants)


def slopes(f, dy, x, step=1e-5):
    """Central differences of Σ dy f(x) by every element of x, in float64.

    Truncation is about step² = 1e-10 of the third derivative, rounding ε / step = 2e-11 of f.
    """
    slope = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = np.array(x), np.array(x)
        up[i] += step
        down[i] -= step
        slope[i] = (dy * (f(up) - f(down))).sum() / (2 * step)
    return slope


# The shapes of what a Function takes, for the twins of each device.


def gelu_shapes(S, B, C, D_S, D_C):
    return [(S, B, D_C)]


def token_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (D_S, S), (D_S,), (S, D_S), (S,)]


def channel_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (C, D_C), (D_C,), (D_C, C), (C,)]


def norm_shapes(S, B, C, D_S, D_C):
    return [(S, B, C), (C,), (C,)]
