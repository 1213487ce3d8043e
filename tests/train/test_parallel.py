"""The cut, the tree of sums and the workers: same bits, whoever computes what and when."""

import itertools

import numpy as np
import pytest

from tinymixer import nn, ops
from tinymixer.engine import no_grad
from tinymixer.models import create_model
from tinymixer.train.parallel import FlatParameters, GradientSum, Workers, batch_gradient, cut


def small_mixer():
    return create_model(
        "mixer_pico", hidden_dim=8, num_blocks=2, tokens_mlp_dim=5, channels_mlp_dim=11
    )


def test_parameters_become_views_of_one_array():
    model = small_mixer()
    before = {name: array.copy() for name, array in model.state().items()}
    flat = FlatParameters(model)
    assert flat.weights.size == model.num_parameters()
    for name, array in model.state().items():
        np.testing.assert_array_equal(array, before[name])
    flat.weights[:] = 7
    assert all((array == 7).all() for array in model.state().values())


def test_weight_decay_spares_vectors():
    flat = FlatParameters(small_mixer())
    for name, mask in flat.named(flat.decay_mask()).items():
        assert (mask == (mask.ndim >= 2)).all(), name


def tree(arrays):
    """The sum as the tree defines it: level by level, the odd one moves up."""
    while len(arrays) > 1:
        pairs = [arrays[i : i + 2] for i in range(0, len(arrays), 2)]
        arrays = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return arrays[0]


@pytest.mark.parametrize("leaves", range(1, 14))
def test_the_sum_has_the_same_bits_in_every_order_of_arrival(leaves):
    rng = np.random.default_rng(leaves)
    arrays = (rng.standard_normal((leaves, 50)) * 10.0 ** rng.integers(-4, 4, (leaves, 1))).astype(
        np.float32
    )
    expected = tree(list(arrays))
    gradient_sum = GradientSum(arrays[0])
    orders = itertools.islice(itertools.permutations(range(leaves)), 24)
    for order in [*orders, *(rng.permutation(leaves) for _ in range(24))]:
        gradient_sum.start(leaves)
        for leaf in order:
            buffer = gradient_sum.buffer()
            buffer[:] = arrays[leaf]
            gradient_sum.add(int(leaf), buffer)
        np.testing.assert_array_equal(gradient_sum.total, expected)


def test_buffers_are_few_and_used_again():
    gradient_sum = GradientSum(np.zeros(3))
    seen = set()
    for _ in range(5):
        gradient_sum.start(64)
        for leaf in range(64):
            buffer = gradient_sum.buffer()
            seen.add(id(buffer))
            gradient_sum.add(leaf, buffer)
    assert len(seen) <= 1 + 6  # the one in work and one for each level of the tree


def gradient(model, images, labels, micro_batch, workers):
    flat = FlatParameters(model)
    total = GradientSum(flat.weights)

    def loss_of(g, piece):
        return ops.SoftmaxCrossEntropy()(model(images[piece]), labels[piece]), g

    pieces = cut(np.arange(len(images)), micro_batch)
    with Workers(workers) as pool:
        done = batch_gradient(loss_of, pieces, flat, total, pool)
    assert [beside for _, beside in done] == list(range(len(pieces)))
    return total.total


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch():
    rng = np.random.default_rng(0)
    model = small_mixer().astype(np.float64)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.1 * rng.standard_normal(parameter.shape)
    images, labels = rng.standard_normal((13, 32, 32, 3)), rng.integers(0, 10, 13)
    ops.SoftmaxCrossEntropy()(model(images), labels).backward()
    whole = np.concatenate([p.grad.ravel() for p in model.parameters()])
    for workers in (1, 3):
        cut_up = gradient(model, images, labels, 4, workers)
        # Float64 sums of 13 images in another order: some 13 rounding errors of 1e-16 each.
        np.testing.assert_allclose(cut_up, whole, rtol=1e-12, atol=1e-14)


def test_gradients_are_recorded_also_under_no_grad_for_any_number_of_workers():
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((5, 32, 32, 3), np.float32), rng.integers(0, 10, 5)
    expected = gradient(small_mixer(), images, labels, 2, 1)
    assert expected.any()
    for workers in (1, 2):
        with no_grad():
            found = gradient(small_mixer(), images, labels, 2, workers)
        np.testing.assert_array_equal(found, expected)


def test_a_parameter_that_nothing_depends_on_has_gradient_zero():
    flat = FlatParameters(small_mixer())
    out = np.full_like(flat.weights, 3)
    flat.gather({}, out)
    assert not out.any()


def test_an_error_in_a_worker_reaches_the_caller():
    def fail(item):
        if item == 3:
            raise ValueError("item 3")
        return item

    for count in (1, 2):
        with Workers(count) as workers:
            assert workers.map(abs, range(5)) == list(range(5))
            with pytest.raises(ValueError, match="item 3"):
                workers.map(fail, range(5))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_that_is_not_finite_is_returned(workers):
    model = small_mixer()
    flat = FlatParameters(model)

    def loss_of(g, piece):
        loss = ops.SoftmaxCrossEntropy()(model(images[piece]), piece % 10)
        return (loss * np.float32(np.inf) if g == 1 else loss), None

    images = np.zeros((6, 32, 32, 3), np.float32)
    with Workers(workers) as pool:
        done = batch_gradient(loss_of, cut(np.arange(6), 2), flat, GradientSum(flat.weights), pool)
    assert np.isfinite([loss for loss, _ in done]).tolist() == [True, False, True]


class WithAuxiliary(nn.Module):
    """A norm with running statistics, a head, and a loss beside the output."""

    def __init__(self):
        self.norm = nn.BatchNorm(3)
        self.head = nn.ChannelLinear(3, 5, rng=np.random.default_rng(0))

    def forward(self, images, rng=None):
        x = self.norm(nn.grid(images), rng)
        nn.add_loss((x * x).mean() * 0.5)
        return self.head(x.mean(axis=(0, 1)))


def after_one_step(workers):
    model = WithAuxiliary()
    flat = FlatParameters(model)
    gradients = GradientSum(flat.weights)
    rng = np.random.default_rng(1)
    images, labels = rng.standard_normal((22, 4, 4, 3), dtype=np.float32), np.arange(22) % 5

    def loss(g, piece):
        return ops.SoftmaxCrossEntropy()(model(images[piece], rng=rng), labels[piece]), None

    with Workers(workers) as pool:
        done = batch_gradient(loss, cut(np.arange(22), 5), flat, gradients, pool)
    return done, gradients.total, model.state()


def test_auxiliary_losses_reach_the_loss_and_do_not_depend_on_the_workers():
    done, gradient, state = after_one_step(1)
    # x is normalised, so the loss beside the output is 0.5; a new head gives about log 5 and more
    assert all(loss > 0.5 + 1.0 for loss, _ in done)
    assert state["norm.running_mean"].all()
    for workers in (2, 3):
        again = after_one_step(workers)
        np.testing.assert_array_equal(again[1], gradient)
        for name, array in state.items():
            np.testing.assert_array_equal(again[2][name], array)
