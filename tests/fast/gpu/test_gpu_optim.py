"""The optimizer on a GPU, and without one."""

import numpy as np
import pytest
from on_device import assert_close, on

from tinymixer import optim
from tinymixer.fast import gpu
from tinymixer.train import Config


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("n", [1, 255, 1031])
def test_adamw_follows_the_plain_lines(cupy, n, averaged):
    rng = np.random.default_rng(n)
    weights, decay = rng.standard_normal(n), rng.integers(0, 2, n).astype(float)
    plain = optim.AdamW(decay, weight_decay=0.3)
    fused = gpu.AdamW(cupy.asarray(decay.astype(np.float32)), weight_decay=0.3)
    w, average = cupy.asarray(weights.astype(np.float32)), weights.copy() if averaged else None
    a = cupy.asarray(weights.astype(np.float32)) if averaged else None
    for step in range(5):
        g = rng.standard_normal(n)
        plain.step_and_average(weights, g, 0.01, step, average, 0.9)
        placed = on(cupy, [g.astype(np.float32)])[0]
        if averaged:
            fused.step_and_average(w, placed, 0.01, step, a, 0.9)
        else:
            fused.step(w, placed, 0.01, step)
    got = [w, fused.state["m"], fused.state["v"]]
    assert_close(got, [weights, plain.state["m"], plain.state["v"]])
    if averaged:
        assert_close([a], [average])


def test_the_trainer_takes_it_where_the_weights_are(cupy):
    decay = np.ones(3, np.float32)
    assert type(Config().build_optimizer(decay)) is optim.AdamW
    assert type(Config().build_optimizer(cupy.asarray(decay))) is gpu.AdamW
