"""GELU in its two forms."""

import math

import composed
import numpy as np
import pytest
from checks import B, C, S, assert_close, assert_same_as_composed, normal, slopes

from tinymixer import engine
from tinymixer.backend import to_numpy
from tinymixer.engine import Tensor
from tinymixer.ops import GELU, ChannelMLP, TokenMLP
from tinymixer.ops.gelu import gelu, gelu_derivative

FORMS = ["tanh", "erf"]


@pytest.mark.parametrize("form", FORMS)
def test_gelu_is_its_composition(device, form, rng):
    (x,) = normal(rng, (S, B, C))
    assert_same_as_composed(device, GELU(form), lambda x: composed.gelu(x, form), [1.5 * x])


@pytest.mark.parametrize("form", FORMS)
def test_the_derivative_is_the_slope(device, form):
    x = np.linspace(-5, 5, 41)
    numerical = slopes(lambda x: gelu(x, form), np.ones(41), x)
    assert_close(gelu_derivative(device.asarray(x), form), numerical, within=1e-9)


def test_erf_form_by_its_formula(device):
    x = np.linspace(-6, 6, 121)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    assert_close(gelu(device.asarray(x), "erf"), np.array(expected))


def test_the_two_forms_differ_by_at_most_5e_4():
    x = np.linspace(-6, 6, 1201)
    difference = np.abs(gelu(x, "tanh") - gelu(x, "erf")).max()
    assert 4e-4 < difference < 5e-4  # as published, and not by accident zero


@pytest.mark.parametrize("form", FORMS)
def test_far_out_it_is_x_or_nothing(device, form):
    x = device.asarray(np.array([-1e3, -40.0, 0.0, 40.0, 1e3], np.float32))
    np.testing.assert_array_equal(to_numpy(gelu(x, form)), [0, 0, 0, 40, 1000])
    np.testing.assert_array_equal(to_numpy(gelu_derivative(x, form)), [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("make", [GELU, TokenMLP, ChannelMLP])
@pytest.mark.parametrize("twins", [True, False])
def test_an_unknown_form_is_an_error(make, twins, monkeypatch):
    if not twins:
        monkeypatch.setattr(engine, "twins", {})
    shapes = [(5, 5)] if make is GELU else [(5, 5), (5, 5), (5,), (5, 5), (5,)]
    x, *weights = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match="form: expected tanh or erf, got 'relu'"):
        make("relu")(Tensor(x), *weights)
