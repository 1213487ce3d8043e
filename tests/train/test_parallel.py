"""The cut, the tree of sums and the workers: the same bits, whatever is computed where and when."""

import contextlib
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_runs import images_for, small
from threadpoolctl import threadpool_info

from tinymixer.engine import no_grad
from tinymixer.models import create_model
from tinymixer.train.parallel import FlatParameters, GradientSum, Workers, micro_batches
from tinymixer.train.step import TrainingStep


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
    orders = itertools.islice(itertools.permutations(range(leaves)), 24)
    for order in [*orders, *(rng.permutation(leaves) for _ in range(24))]:
        gradient_sum = GradientSum(leaves)
        for leaf in order:
            assert gradient_sum.total is None
            gradient_sum.add(int(leaf), arrays[leaf].copy())
        np.testing.assert_array_equal(gradient_sum.total, expected)


def test_two_siblings_that_arrive_at_once_are_both_in_the_sum():
    """Each looks for the other, and waits for it there: one at a time may look, or both miss."""
    gradient_sum = GradientSum(2)
    begin, both_look = threading.Barrier(2, timeout=60), threading.Barrier(2)

    class Waiting(dict):
        def pop(self, *args):
            found = super().pop(*args)
            with contextlib.suppress(threading.BrokenBarrierError):
                both_look.wait(0.2)
            return found

    def add(leaf):
        begin.wait()
        gradient_sum.add(leaf, np.full(3, 1.0 + leaf))

    gradient_sum.waiting = Waiting()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, range(2)))
    np.testing.assert_array_equal(gradient_sum.total, np.full(3, 3.0))


def test_few_arrays_wait_at_a_time():
    gradient_sum, most = GradientSum(64), 0
    for leaf in range(64):
        gradient_sum.add(leaf, np.zeros(3))
        most = max(most, len(gradient_sum.waiting))
    assert most <= 6  # one for each level of the tree


def test_micro_batches_follow_one_another_and_the_last_may_be_smaller():
    assert [piece.tolist() for piece in micro_batches(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [len(piece) for piece in micro_batches(np.arange(6), 8)] == [6]


def gradient(workers):
    config = small("mixer_pico")
    step = TrainingStep(config, small_mixer(), images_for(config), Workers(workers))
    with step.workers:
        return step.gradient(micro_batches(np.arange(20), 3), 0, 0)[0]


def test_gradients_are_recorded_also_under_no_grad_for_any_number_of_workers():
    expected = gradient(1)
    assert expected.any()
    for workers in (1, 2):
        with no_grad():
            found = gradient(workers)
        np.testing.assert_array_equal(found, expected)


def test_a_parameter_that_nothing_depends_on_has_gradient_zero():
    flat = FlatParameters(small_mixer())
    assert flat.gather({}).shape == flat.weights.shape
    assert not flat.gather({}).any()


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


def test_another_thread_may_hold_blas_to_one_thread_afterwards():
    def threads_of_blas():
        with Workers(1):
            return {x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"}

    assert threads_of_blas() == {1}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(threads_of_blas).result() == {1}
