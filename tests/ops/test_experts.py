"""Routing: who goes where, and how the answers come back."""

import math

import composed
import numpy as np
import pytest
from checks import B, C, S, assert_close, assert_same_as_composed, by_tape, normal

from tinymixer.backend import to_numpy
from tinymixer.engine import Tensor
from tinymixer.ops import Combine, Dispatch, Softmax
from tinymixer.ops.experts import by_expert, expert_capacity, goes_to, top_k, within_capacity

ROWS = np.array([5, 0, 3])
ORDER = np.array([0, 2, 3, 6, 2, 5, 3])  # of four, two and one rows; rows 1 and 4 have no expert


# --- decisions ---

P = np.array(
    [
        [0.10, 0.60, 0.30],
        [0.25, 0.50, 0.25],  # a tie for the second place
        [0.40, 0.20, 0.40],  # a tie for the first
        [0.00, 0.00, 1.00],
    ]
)


def test_the_largest_first_and_ties_to_the_lower_number(device):
    choice = top_k(device.asarray(P), 2)
    np.testing.assert_array_equal(to_numpy(choice), [[1, 2], [1, 0], [0, 2], [2, 0]])
    np.testing.assert_array_equal(to_numpy(top_k(device.asarray(P), 1)), [[1], [1], [0], [2]])


def test_only_the_real_part_decides():
    np.testing.assert_array_equal(top_k(P + 1j * P[::-1], 2), top_k(P, 2))


def test_among_many_equals_the_lowest_numbers():
    """A sort that is not stable begins to mix equals where there are more than 16."""
    np.testing.assert_array_equal(top_k(np.full((2, 100), 0.01), 3), [[0, 1, 2]] * 2)


def test_rows_by_expert(device):
    choice = device.asarray(np.array([[1, 2], [1, 0], [0, 2], [2, 0]]))
    kept = device.asarray(np.array([[1, 1], [1, 1], [0, 1], [1, 0]], bool))
    order, rows = by_expert(choice, kept, 4)
    assert [to_numpy(r).tolist() for r in rows] == [[1], [0, 1], [0, 2, 3], []]
    np.testing.assert_array_equal(to_numpy(order), [1, 0, 1, 0, 2, 3])


@pytest.mark.parametrize("room", [3, 4])
def test_parts_of_one_length_begin_with_the_rows_by_expert(device, room):
    """All other rows follow, in order; how many come need not be known."""
    choice = device.asarray(np.array([[1, 2], [1, 0], [0, 2], [2, 0]]))
    kept = device.asarray(np.array([[1, 1], [1, 1], [0, 1], [1, 0]], bool))
    order, rows = by_expert(choice, kept, 4, room)
    expected = np.array([[1, 0, 2, 3], [0, 1, 2, 3], [0, 2, 3, 1], [0, 1, 2, 3]])[:, :room]
    assert [to_numpy(r).tolist() for r in rows] == expected.tolist()
    np.testing.assert_array_equal(to_numpy(order), expected.reshape(-1))
    goes = [[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    np.testing.assert_array_equal(to_numpy(goes_to(choice, kept, 4)), np.array(goes, bool))


@pytest.mark.parametrize(
    ("N", "E", "K", "factor", "expected"),
    [
        (8, 4, 1, 1.0, 4),  # 2, to a multiple of 4
        (64, 4, 2, 1.0, 32),
        (64, 4, 2, 1.05, 36),  # 33.6 -> 34 -> 36
        (100, 8, 1, 1.05, 16),  # 13.125 -> 14 -> 16
        (100, 8, 1, 4, 52),
    ],
)
def test_the_capacity_is_the_fair_share_times_a_factor_to_a_multiple_of_4(
    N, E, K, factor, expected
):
    assert expert_capacity(N, E, K, factor) == expected


CHOICE = np.array([[0, 1], [0, 1], [1, 0], [0, 2]])


@pytest.mark.parametrize(
    ("capacity", "priority", "expected"),
    [
        (9, None, [[1, 1], [1, 1], [1, 1], [1, 1]]),
        # First choices: 0, 0, 1, 0; then the second ones: 1, 1, 0, 2.
        (2, None, [[1, 1], [1, 0], [1, 0], [0, 1]]),
        (1, None, [[1, 0], [0, 0], [1, 0], [0, 1]]),
        # The queue is row 3, 1, 0, 2.
        (2, [0.5, 0.6, 0.4, 0.9], [[0, 0], [1, 1], [1, 0], [1, 1]]),
        (2, [0.5, 0.5, 0.5, 0.5], [[1, 1], [1, 0], [1, 0], [0, 1]]),  # equals: in order
        (0, None, [[0, 0]] * 4),
    ],
)
def test_who_finds_room(device, capacity, priority, expected):
    priority = None if priority is None else device.asarray(np.array(priority))
    kept = within_capacity(device.asarray(CHOICE), 3, capacity, priority)
    np.testing.assert_array_equal(to_numpy(kept), np.array(expected, bool))


def served_one_by_one(choice, E, capacity, order):
    """The same queue, by a loop over everyone in it."""
    free, kept = [capacity] * E, np.zeros(choice.shape, bool)
    for k in range(choice.shape[1]):
        for n in order:
            kept[n, k] = free[choice[n, k]] > 0
            free[choice[n, k]] -= 1
    return kept


@pytest.mark.parametrize("capacity", [1, 4, 20, 60])
def test_the_queue_is_that_of_a_loop(capacity, rng):
    p = rng.random((101, 5))
    choice, best = top_k(p, 3), p.max(1)
    for priority, order in ((None, range(101)), (best, np.argsort(-best))):
        kept = within_capacity(choice, 5, capacity, priority)
        np.testing.assert_array_equal(kept, served_one_by_one(choice, 5, capacity, order))
        asked = [int((choice == e).sum()) for e in range(5)]
        served = [len(rows) for rows in by_expert(choice, kept, 5)[1]]
        assert served == [min(capacity, n) for n in asked]


# --- there and back ---


@pytest.mark.parametrize("rows", [ROWS, np.zeros(0, int)], ids=["three", "none"])
def test_dispatch_is_its_composition(device, rows, rng):
    assert_same_as_composed(device, Dispatch(), composed.dispatch, normal(rng, (S, C)), [rows])


@pytest.mark.parametrize("counts", [(4, 2, 1), (0, 4, 3)], ids=str)
def test_combine_is_its_composition(device, counts, rng):
    arrays = normal(rng, (S, B), *((n, C) for n in counts))
    assert_same_as_composed(device, Combine(), composed.combine, arrays, [ORDER])


def test_columns_are_rows_lying_down(device, rng):
    x, p, *answers = (
        device.asarray(x) for x in normal(rng, (S, C), (S, B), (4, C), (2, C), (1, C))
    )
    rows, order = device.asarray(ROWS), device.asarray(ORDER)
    assert_close(Dispatch(axis=1).forward(x.T, rows).T, Dispatch().forward(x, rows), within=0)
    y = Combine(axis=1).forward(p, *(a.T for a in answers), order)
    assert_close(y.T, Combine().forward(p, *answers, order), within=0)


def test_combine_by_hand():
    p = np.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]])
    y = Combine().forward(p, np.array([[4.0], [8.0]]), np.array([[100.0]]), np.array([0, 2, 2]))
    np.testing.assert_array_equal(y, [[3], [0], [0.25 * 8 + 0.75 * 100]])


@pytest.mark.parametrize("K", [1, 2, 3])
def test_a_mixture_is_what_computing_every_expert_and_leaving_out_the_rest_would_be(device, K, rng):
    """y and all gradients, those of the gate too."""

    def gated(x, Wg):
        p = Softmax()(x @ Wg)
        return p, top_k(p.data, K)

    def sparse(x, Wg, *experts):
        p, choice = gated(x, Wg)
        order, rows = by_expert(choice, choice >= 0, B)
        answers = [(Dispatch()(x, r) @ W).tanh() for r, W in zip(rows, experts, strict=True)]
        return Combine()(p, *answers, order)

    def dense(x, Wg, *experts):
        p, choice = gated(x, Wg)
        chosen = (choice[:, :, None] == device.arange(B)).sum(1).astype(np.float64)
        return sum((p * chosen)[:, e : e + 1] * (x @ W).tanh() for e, W in enumerate(experts))

    arrays = [device.asarray(x) for x in normal(rng, (S, C), (C, B), *[(C, C)] * B)]
    dy = device.asarray(rng.standard_normal((S, C)))
    y, gradients = by_tape(sparse, dy, *arrays)
    y_dense, gradients_dense = by_tape(dense, dy, *arrays)
    assert_close(y, y_dense)
    for dx, dx_dense in zip(gradients, gradients_dense, strict=True):
        assert_close(dx, dx_dense)


def test_by_hand_as_many_experts_as_one_likes_get_a_gradient():
    E = 40
    op = Combine()
    op.forward(np.full((E, E), 0.5), *np.ones((E, 1, 3)), np.arange(E))
    dp, *gradients, _ = op.backward(np.ones((E, 3)))
    np.testing.assert_array_equal(dp, 3 * np.eye(E))
    assert [da.tolist() for da in gradients] == [[[0.5] * 3]] * E


def test_an_expert_with_no_rows_is_no_trouble():
    p, none = Tensor(np.ones((2, 2))), Tensor(np.zeros((0, 3)))
    y = Combine()(p, Tensor(np.ones((2, 3))), none, np.array([0, 1]))
    y.backward(np.ones((2, 3)))
    assert none.grad.shape == (0, 3)
    np.testing.assert_array_equal(p.grad, [[3, 0], [3, 0]])


def test_the_capacity_of_a_billion_rows_is_exact():
    assert expert_capacity(10**9, 8, 2, 1.0) == 250_000_000
    assert isinstance(expert_capacity(7, 3, 2, math.pi), int)
