"""A mixture of experts: who is routed where, noise, capacity, and gradients."""

import math

import numpy as np
import pytest
from checks import assert_close

from tinymixer import Tensor, nn, ops
from tinymixer.backend import device_of, to_numpy
from tinymixer.gradcheck import check
from tinymixer.nn.mixture import ASKED, MixtureOfExperts, Routing
from tinymixer.ops.experts import expert_capacity

NONE = Routing(
    noisy=False,
    loss_weight=0.01,
    capacity_factor=None,
    eval_capacity_factor=None,
    prioritised=False,
)


def mixture(rng, tokens, E=4, K=2, D=6, hidden_dim=5, **changes):
    routing = Routing(**vars(NONE) | changes)
    made = MixtureOfExperts(
        D, (E, K, hidden_dim), tokens=tokens, gelu="erf", routing=routing, rng=rng
    )
    return made.astype(np.float64)


def test_one_expert_is_an_mlp_without_a_gate(rng):
    made = MixtureOfExperts(6, (1, 1, 5), tokens=False, gelu="erf", routing=NONE, rng=rng)
    x = Tensor(rng.standard_normal((4, 2, 6)).astype(np.float32))
    assert [name for name, _ in made.named_parameters()] == [
        f"experts.0.{name}" for name in ("W1", "b1", "W2", "b2")
    ]
    np.testing.assert_array_equal(made(x).data, made.experts[0](x).data)


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "channels"])
def test_every_row_is_the_weighted_sum_of_its_experts(tokens, rng):
    made = mixture(rng, tokens)
    x = rng.standard_normal((6, 3, 6))
    y = made(Tensor(x)).data
    rows, answers = (a.reshape(6, -1).T if tokens else a.reshape(-1, 6) for a in (x, y))
    for row, answer in zip(rows, answers, strict=True):
        z = made.gate.data @ row if tokens else row @ made.gate.data
        p = np.exp(z) / np.exp(z).sum()
        chosen = sorted(range(4), key=lambda e: -p[e])[:2]
        expected = 0.0
        for e in chosen:
            W1, b1, W2, b2 = (parameter.data for parameter in made.experts[e].parameters())
            if tokens:
                W1, W2 = W1.T, W2.T
            expected = expected + p[e] * (ops.GELU("erf").forward(row @ W1 + b1) @ W2 + b2)
        assert_close(answer, expected)


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "channels"])
def test_equal_logits_go_to_the_first_experts(tokens, rng):
    made = mixture(rng, tokens)
    made.gate.data[...] = 0
    x = Tensor(rng.standard_normal((6, 3, 6)))
    both = made.experts[0](x).data + made.experts[1](x).data
    assert_close(made(x).data, both / 4)  # p is 1/4 each, and not shared out anew


def test_noise_is_drawn_in_training_only_and_only_when_on(rng):
    x = Tensor(rng.standard_normal((6, 3, 6)))
    for noisy in (False, True):
        made = mixture(np.random.default_rng(1), False, noisy=noisy)
        generator = np.random.default_rng(2)
        before = generator.bit_generator.state
        trained = made(x, generator).data
        assert (generator.bit_generator.state != before) == noisy
        assert np.array_equal(trained, made(x).data) != noisy


def test_the_noise_has_standard_deviation_one_over_E(rng):
    made = mixture(rng, False, E=8)
    noise = made._noise(Tensor(np.zeros((20_000, 8), np.float32)), rng)
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1 / 8, rel=0.01)
    assert abs(noise.mean()) < 0.01 / 8


def test_the_noise_is_normal(rng):
    """So are its shares beyond 0, 1, 2 and 3 deviations, each within four of its own deviations."""
    noise = mixture(rng, False)._noise(Tensor(np.zeros((250_000, 4))), rng) * 4
    for deviations in (0, 1, 2, 3, -1, -2, -3):
        share = 0.5 * math.erfc(deviations / math.sqrt(2))
        off = abs((noise > deviations).mean() - share)
        assert off < 4 * math.sqrt(share * (1 - share) / noise.size), deviations
    assert np.isfinite(noise).all()


def test_the_noise_is_finite_at_both_ends_of_what_is_drawn(rng):
    class Ends:
        def random(self, shape, dtype):
            return np.array([0, 1 - 2**-24], dtype)

    noise = mixture(rng, False)._noise(Tensor(np.zeros(2)), Ends()) * 4
    np.testing.assert_allclose(noise, [0, math.sqrt(2 * 24 * math.log(2))], rtol=1e-6)


@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize("factor", [None, 0.7, 9.0])
@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "channels"])
def test_experts_that_do_not_ask_how_many_come_answer_the_same(
    device, tokens, factor, prioritised, rng, monkeypatch
):
    """y and all gradients, of rows without an expert too: they are computed and count for nothing.

    The noise, and with it all choices, are those of one generator.
    """
    limit = {"capacity_factor": factor, "prioritised": prioritised}
    made = mixture(rng, tokens, noisy=True, **limit).to(device_of(device.zeros(1)))
    x, dy = (device.asarray(a) for a in rng.standard_normal((2, 6, 5, 6)))
    found, taken = [], []
    dispatch = ops.Dispatch.forward
    monkeypatch.setattr(
        ops.Dispatch,
        "forward",
        lambda op, x, rows: taken.append(len(rows)) or dispatch(op, x, rows),
    )
    for asked in (True, False):
        monkeypatch.setitem(ASKED, device_of(x), asked)
        leaf, gradients = Tensor(x), {}
        y = made(leaf, np.random.default_rng(5))
        y.backward(dy, into=gradients)
        found.append([y.data, *(gradients[leaf_] for leaf_ in (leaf, *made.parameters()))])
    for asked, not_asked in zip(*found, strict=True):
        assert_close(asked, not_asked)
    room = {None: 30, 0.7: 12, 9.0: 30}[factor]  # 0.7 * 2 * 30 / 4 = 10.5, to a multiple of 4
    assert taken[4:] == [room] * 4
    assert sum(taken[:4]) == 60 if factor != 0.7 else max(taken[:4]) <= 12


# --- capacity ---


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "channels"])
@pytest.mark.parametrize("prioritised", [False, True])
def test_rows_that_find_no_room_get_0(device, tokens, prioritised, rng):
    """All 20 rows want expert 0, which takes 8 of them: 20/4 * 1.5 = 7.5."""
    made = mixture(rng, tokens, K=1, D=5, capacity_factor=1.5, prioritised=prioritised)
    made.gate.data[...] = 0
    x = rng.standard_normal((5, 4, 5))
    (made.gate.data[:1] if tokens else made.gate.data.T[:1])[...] = 1
    x += 10 - x.mean(0 if tokens else 2, keepdims=True)  # z is 50 for expert 0, and 0
    strength = rng.permutation(20) / 20  # now 50 and some more
    x += strength.reshape(4, 5) if tokens else strength.reshape(5, 4, 1)
    made = made.to(device_of(device.zeros(1)))
    x = Tensor(device.asarray(x / 30))
    generator = np.random.default_rng(0)
    y, unlimited = made(x, generator), made(x)
    rows = [to_numpy(made.rows(Tensor(a.data)).data) for a in (y, unlimited)]
    rows = [a.T if tokens else a for a in rows]
    served = [bool(row.any()) for row in rows[0]]
    expected = strength >= np.sort(strength)[-8] if prioritised else np.arange(20) < 8
    assert served == expected.tolist()
    np.testing.assert_array_equal(rows[0][expected], rows[1][expected])
    y.backward(device.asarray(np.ones(y.shape)))
    logits_moved = to_numpy(made.gate.grad)
    assert logits_moved.any()


def test_training_and_evaluation_have_their_own_capacity(rng):
    x = Tensor(rng.standard_normal((6, 50, 6)))
    tight = {"capacity_factor": 0.5, "eval_capacity_factor": None}
    for factors, train_is_less in ((tight, True), ({"eval_capacity_factor": 0.5}, False)):
        made = mixture(np.random.default_rng(3), False, **factors)
        trained, evaluated = ((made(x, r).data != 0).all(-1).sum() for r in (rng, None))
        assert (trained < 300) == train_is_less
        assert (evaluated < 300) == (not train_is_less)


def test_with_room_for_all_nobody_is_dropped(rng):
    x = Tensor(rng.standard_normal((6, 3, 6)))
    made, limited = (
        mixture(np.random.default_rng(3), True, **changes)
        for changes in ({}, {"eval_capacity_factor": 4.0})
    )
    np.testing.assert_array_equal(made(x).data, limited(x).data)
    assert expert_capacity(18, 4, 2, 4.0) >= 18


# --- gradients ---


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "channels"])
@pytest.mark.parametrize("K", [1, 2])
def test_the_gradient_of_a_mixture_and_of_its_losses(tokens, K, rng):
    """Rows far from a tie: a step of the check is 2e-3, and the smallest gap is above 0.05."""
    made = mixture(rng, tokens, E=3, K=K, D=3, hidden_dim=2)
    x = None
    while x is None or smallest_gap(made, x) < 0.05:
        x = rng.standard_normal((3, 2, 3))
    names = [name for name, _ in made.named_parameters()]

    def loss(x, *arrays):
        for name, parameter in zip(names, arrays, strict=True):
            owner = made
            *path, last = name.split(".")
            for step in path:
                owner = owner[int(step)] if step.isdigit() else getattr(owner, step)
            setattr(owner, last, parameter)
        with nn.auxiliary() as extra:
            y = made(x, np.random.default_rng(0))
        return (y * y).sum() + 100.0 * extra.losses[0]

    report = check(loss, x, *(p.data for p in made.parameters()))
    assert not [f for f in report.findings if not f.passed], str(report)
    assert report.worst("differences")
    assert report.worst("complex step")


def smallest_gap(made, x):
    """By how much the K-th best of a row is better than the next, at the least."""
    z = made.logits(made.rows(Tensor(x))).data
    best = -np.sort(-z, axis=1)
    return (best[:, made.K - 1] - best[:, made.K]).min()
