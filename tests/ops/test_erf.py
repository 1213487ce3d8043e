"""erf, for which NumPy has no function, against the one of Python's math module."""

import math

import numpy as np
import pytest
from checks import assert_close

from tinymixer.backend import to_numpy
from tinymixer.ops.erf import SPLIT, erf, normal_cdf, normal_density

GRID = np.concatenate(
    [
        np.linspace(-7, 7, 40_001),
        np.geomspace(1e-300, 7, 5_000),
        np.nextafter(SPLIT, [0, 9]),  # either side of where the two series meet
        [0.0, SPLIT, -SPLIT, 30.0, -30.0, 1e100, -1e18],
    ]
)
exact = np.vectorize(math.erf, otypes=[np.float64])


def test_float64_is_within_two_units_of_the_last_place(device):
    y, expected = to_numpy(erf(device.asarray(GRID))), exact(GRID)
    assert np.abs((y - expected) / np.spacing(np.abs(expected))).max() <= 2


def test_float32_is_within_two_units_of_the_last_place(device):
    x = GRID[np.abs(GRID) < 1e18].astype(np.float32)
    x = x[(x == 0) | (np.abs(x) >= np.finfo(np.float32).tiny)]  # to CuPy, smaller ones are 0
    y, expected = to_numpy(erf(device.asarray(x))), exact(x)
    assert y.dtype == np.float32
    unit = np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
    assert np.abs((y - expected) / unit).max() <= 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(device, dtype):
    x = device.asarray(np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype))
    y = to_numpy(erf(x))
    np.testing.assert_array_equal(y, np.array([0.0, 0.0, 1.0, -1.0, np.nan], dtype))
    np.testing.assert_array_equal(np.signbit(y[:2]), [False, True])


def test_erf_is_odd_to_the_last_bit(device):
    x = device.asarray(GRID)
    np.testing.assert_array_equal(to_numpy(erf(-x)), -to_numpy(erf(x)))


def test_the_complex_step_gives_the_derivative(device):
    x = np.linspace(-6, 6, 1201)
    step = 1e-30  # no difference is taken, so nothing cancels
    derivative = to_numpy(erf(device.asarray(x + 1j * step))).imag / step
    # 40 terms of rounding at most, relative to the largest slope 2/√π
    assert_close(derivative, 2 / math.sqrt(math.pi) * np.exp(-x * x), within=40 * 2.3e-16)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 5)], ids=str)
def test_the_shape_stays(device, shape):
    assert erf(device.zeros(shape)).shape == shape


def test_the_normal_distribution_and_its_density(device):
    x = np.linspace(-5, 5, 101)
    assert_close(normal_cdf(device.asarray(x)), (1 + exact(x / math.sqrt(2))) / 2)
    assert_close(normal_density(device.asarray(x)), np.exp(-x * x / 2) / math.sqrt(2 * math.pi))
