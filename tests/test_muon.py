"""Muon: the orthogonalisation against a singular value decomposition, the step against a loop."""

import numpy as np
import pytest

from tinymixer import nn, optim
from tinymixer.models import create_model
from tinymixer.optim.muon import Muon, orthogonalised
from tinymixer.train.parallel import FlatParameters, places_of

# a bias, a wide matrix, a norm, two tall ones side by side, another wide one, a head: 62 weights
PLACES = [(3, (3, 5)), (20, (5, 2)), (30, (5, 2)), (42, (3, 5))]
N = 62


def random_matrix(rng, m, n, singular_values):
    U, V = (np.linalg.qr(rng.standard_normal((k, len(singular_values))))[0] for k in (m, n))
    return U * singular_values @ V.T


@pytest.mark.parametrize("shape", [(7, 7), (5, 13), (13, 5), (1, 11), (64, 17)])
def test_the_iteration_keeps_directions_and_makes_singular_values_alike(shape):
    rng = np.random.default_rng(1)
    G = random_matrix(rng, *shape, np.linspace(1, 0.05, min(shape)))
    found = orthogonalised(G)
    singular_values = np.linalg.svd(found, compute_uv=False)
    # the polynomial maps what is between 0.01 and 1 of the norm into this band in five steps
    assert singular_values.min() > 0.65
    assert singular_values.max() < 1.25
    # In the basis of the directions of G the result is diagonal: they are kept exactly.
    u, _, vt = np.linalg.svd(G, full_matrices=False)
    inside = u.T @ found @ vt.T
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-12)


def test_the_iteration_is_the_polynomial_of_each_singular_value():
    """Five rounds of a s + b s³ + c s⁵, from s over the norm of all: by hand, for one matrix."""
    rng = np.random.default_rng(2)
    s = np.array([3.0, 1.0, 0.2])
    G = random_matrix(rng, 5, 11, s)
    expected = s / np.sqrt((s**2).sum())
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = np.linalg.svd(orthogonalised(G), compute_uv=False)
    np.testing.assert_allclose(np.sort(found)[-3:], np.sort(expected), rtol=1e-12)


def test_turning_the_gradient_turns_the_update():
    """Q G R gives Q orthogonalised(G) R for orthogonal Q and R; a scale gives no change at all."""
    rng = np.random.default_rng(3)
    G = rng.standard_normal((5, 7))
    Q, R = (np.linalg.qr(rng.standard_normal((k, k)))[0] for k in (5, 7))
    np.testing.assert_allclose(orthogonalised(Q @ G @ R), Q @ orthogonalised(G) @ R, atol=1e-12)
    np.testing.assert_allclose(orthogonalised(G.T), orthogonalised(G).T, atol=1e-12)
    for scale in (1e-150, 2.0**-30, 1e150):
        np.testing.assert_allclose(orthogonalised(scale * G), orthogonalised(G), atol=1e-12)


def test_tiny_float32_gradients_are_orthogonalised_and_zeros_stay():
    G = np.random.default_rng(4).standard_normal((3, 5)).astype(np.float32)
    np.testing.assert_allclose(orthogonalised(G * np.float32(1e-28)), orthogonalised(G), atol=1e-5)
    np.testing.assert_array_equal(orthogonalised(np.zeros((2, 3, 5), np.float32)), 0)


def test_muon_follows_its_formula():
    rng = np.random.default_rng(5)
    weights, decay = rng.standard_normal(N), (rng.random(N) < 0.5).astype(float)
    gradients = [rng.standard_normal(N) for _ in range(3)]
    lr, momentum, rate, weight_decay = 0.01, 0.9, 3.0, 0.3
    optimizer = Muon(decay, PLACES, momentum=momentum, rate=rate, weight_decay=weight_decay)
    beside = optim.AdamW(decay, weight_decay=weight_decay)
    expected, v, as_adamw = weights.copy(), np.zeros(N), weights.copy()
    hidden = np.zeros(N, bool)
    for t, g in enumerate(gradients):
        v = momentum * v + g
        for start, (m, n) in PLACES:
            at = slice(start, start + m * n)
            hidden[at] = True
            U = (g + momentum * v)[at].reshape(m, n)
            along = orthogonalised(U).ravel() * 0.2 * max(m, n) ** 0.5
            expected[at] -= rate * lr * (along + weight_decay * decay[at] * expected[at])
        beside.step(as_adamw, g, lr, t)
        optimizer.step(weights, g, lr, t)
    np.testing.assert_allclose(weights[hidden], expected[hidden], rtol=1e-12)
    np.testing.assert_allclose(weights[~hidden], as_adamw[~hidden], rtol=1e-12)


def test_an_unhealthy_step_changes_nothing():
    rng = np.random.default_rng(6)
    weights = rng.standard_normal(N).astype(np.float32)
    optimizer = Muon(np.ones_like(weights), PLACES, weight_decay=0.1)
    optimizer.step(weights, rng.standard_normal(N).astype(np.float32), 0.01, 0)
    before = weights.copy(), {name: array.copy() for name, array in optimizer.state.items()}
    optimizer.step(weights, np.full(N, np.nan, np.float32), 0.01, 1, np.zeros((), bool))
    np.testing.assert_array_equal(weights, before[0])
    for name, array in optimizer.state.items():
        np.testing.assert_array_equal(array, before[1][name])


def test_it_keeps_one_number_for_a_hidden_weight_and_two_for_the_rest():
    optimizer = Muon(np.ones(N), PLACES)
    hidden = sum(m * n for _, (m, n) in PLACES)
    assert {name: array.size for name, array in optimizer.state.items()} == {
        "m": N - hidden,
        "v": N - hidden,
        "momentum": hidden,
    }


def test_without_matrices_it_is_adamw():
    rng = np.random.default_rng(7)
    ours, theirs = (rng.standard_normal(N) for _ in range(2))
    theirs[...] = ours
    muon, adamw = Muon(np.ones(N), [], weight_decay=0.1), optim.AdamW(np.ones(N), weight_decay=0.1)
    for t in range(2):
        g = rng.standard_normal(N)
        muon.step(ours, g, 0.01, t)
        adamw.step(theirs, g, 0.01, t)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("places", [[(50, (5, 3))], [(0, (3, 5)), (14, (2, 2))], [(-1, (2, 2))]])
def test_places_outside_the_weights_or_over_each_other_are_refused(places):
    with pytest.raises(ValueError, match="side by side within the 62 weights"):
        Muon(np.ones(N), places)


# of each system, what is no hidden matrix though it has two axes
OUTSIDE = {
    "mixer_pico": {"patch_embed.linear.W", "head.W"},
    "as_mlp_nano": {"patch_embed.linear.W", "head.W"},
    "hire_mlp_nano": {"stages.0.reduction.convolution.linear.W", "head.W"},
    "vip_nano": {"stages.0.embed.linear.W", "head.W"},
    "sparse_mlp_nano": {
        "patch_embed.linear.W",
        "head.W",
        *(f"blocks.{i}.{kind}_moe.gate" for i in (4, 5) for kind in ("token", "channel")),
    },
    "raft_mlp_nano": {
        "levels.0.embed.scales.0.linear.W",
        "levels.0.embed.scales.1.linear.W",
        "head.W",
    },
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_hidden_matrices_are_known_by_their_role(name):
    model = create_model(name, 10, rng=nn.BLANK)
    hidden = nn.hidden_matrices(model)
    matrices = {name for name, x in model.named_parameters() if x.data.ndim == 2}
    assert matrices - hidden.keys() == OUTSIDE[name]


def test_places_are_where_the_flat_weights_have_the_matrices():
    model = create_model("hire_mlp_nano", 10)
    places, flat = places_of(model), FlatParameters(model).weights
    for (start, shape), matrix in zip(places, nn.hidden_matrices(model).values(), strict=True):
        assert shape == matrix.shape
        np.testing.assert_array_equal(flat[start : start + matrix.size], matrix.data.ravel())
