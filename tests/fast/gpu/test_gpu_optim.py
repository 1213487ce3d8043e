"""The optimizer on a GPU, and without one."""

import numpy as np
import pytest
from checks import assert_close_32
from on_device import assert_same, on
from twin_cases import ADAMW, options_of

from tinymixer import engine, optim
from tinymixer.backend import to_numpy
from tinymixer.engine import chosen
from tinymixer.fast import gpu
from tinymixer.fast.gpu import kernels
from tinymixer.optim.muon import Muon
from tinymixer.train import Config


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("n", [1, 255, 1031])
@pytest.mark.parametrize("options", ADAMW, ids=str)
def test_adamw_follows_the_plain_lines(cupy, options, n, averaged):
    rng = np.random.default_rng(n)
    weights, decay = rng.standard_normal(n), rng.integers(0, 2, n).astype(float)
    plain = optim.AdamW(decay, **options)
    fused = chosen(optim.AdamW, "gpu")(cupy.asarray(decay.astype(np.float32)), **options)
    w, average = cupy.asarray(weights.astype(np.float32)), weights.copy() if averaged else None
    a = cupy.asarray(weights.astype(np.float32)) if averaged else None
    for step in range(5):
        g = rng.standard_normal(n)
        plain.step(weights, g, 0.01, step, True, average, 0.9)
        placed = on(cupy, [g.astype(np.float32)])[0]
        fused.step(w, placed, 0.01, step, True, a, 0.9)
    got = [w, fused.state["m"], fused.state["v"]]
    assert_close_32(got, [weights, plain.state["m"], plain.state["v"]])
    if averaged:
        assert_close_32([a], [average])


@pytest.mark.parametrize("option", options_of(optim.AdamW))
def test_an_optimizer_that_ignores_an_option_is_caught(cupy, monkeypatch, option):
    class Ignores(gpu.AdamW):
        def __init__(self, decay, **options):
            super().__init__(decay, **{**options, option: options_of(optim.AdamW)[option]})

    monkeypatch.setitem(engine.twins, (optim.AdamW, "gpu"), engine.Twin(Ignores))

    def all_agree():
        for options in ADAMW:
            test_adamw_follows_the_plain_lines(cupy, options, 1031, False)

    with pytest.raises(AssertionError):
        all_agree()


def test_the_trainer_takes_it_where_the_weights_are(cupy):
    decay = np.ones(3, np.float32)
    assert type(Config().build_optimizer(decay)) is optim.AdamW
    assert type(Config().build_optimizer(cupy.asarray(decay))) is gpu.AdamW


def test_muon_takes_all_matrices_at_once(cupy, monkeypatch):
    """A launch for each of weights and gradients, within the matrices and outside, and of AdamW."""
    rng = np.random.default_rng(0)
    places = [(5, (3, 7)), (26, (7, 2)), (47, (3, 7))]
    weights, decay = rng.standard_normal(70), rng.integers(0, 2, 70).astype(float)
    plain = Muon(decay, places, weight_decay=0.05)
    config = Config(optimizer="muon", weight_decay=0.05)
    ours = config.build_optimizer(cupy.asarray(decay.astype(np.float32)), places)
    w, launched, launch = cupy.asarray(weights.astype(np.float32)), [], kernels.launch
    monkeypatch.setattr(
        kernels, "launch", lambda name, *a: launched.append(name) or launch(name, *a)
    )
    for step in range(2):
        g = rng.standard_normal(70)
        plain.step(weights, g, 0.01, step)
        ours.step(w, on(cupy, [g.astype(np.float32)])[0], 0.01, step)
    # 0.2 √7 of a direction, twice 0.01: some 1e-6 of it by rounding
    np.testing.assert_allclose(to_numpy(w), weights, rtol=0, atol=1e-6)
    assert launched == ["gather", "gather", "adamw", "gather", "gather"] * 2


def gather(out, gradients, starts):
    chosen(optim.gather, "gpu", out)(out, gradients, starts)


SHAPES = [(3, 5), (), (1,), (4099,), (0, 2), (2, 3, 4)]


@pytest.mark.parametrize("count", [1, 6, 128, 129, 300])
def test_gradients_are_gathered_in_one_launch_for_each_128(cupy, monkeypatch, count):
    rng = np.random.default_rng(count)
    arrays = [rng.standard_normal(SHAPES[i % len(SHAPES)], np.float32) for i in range(count)]
    starts = np.cumsum([0, *(a.size for a in arrays)])
    expected = np.concatenate([a.ravel() for a in arrays])
    given = on(cupy, arrays)
    for i in range(2, count, 5):  # what no gradient came to
        given[i], expected[starts[i] : starts[i + 1]] = None, 0
    given[0] = given[0].T.copy().T  # the same numbers in another order
    launched, launch = [], kernels.launch
    monkeypatch.setattr(
        kernels, "launch", lambda name, *a: launched.append(name) or launch(name, *a)
    )
    out = cupy.full(starts[-1], 7, np.float32)
    gather(out, given, starts)
    assert_same([out], [expected])
    assert launched == ["gather"] * -(-count // 128)


def test_gradients_of_other_types_are_gathered_one_by_one(cupy):
    out = cupy.full(5, 7.0)
    gather(out, [cupy.ones((2, 1)), None], np.array([0, 2, 5]))
    assert_same([out], [np.array([1.0, 1, 0, 0, 0])])
