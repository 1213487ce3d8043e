"""Ranks, shown by threads: the same bits for any number of them, and one failure ends all."""

import dataclasses
import threading

import numpy as np
import pytest
from small_runs import assert_same, images_for, segmenting, small, trained
from test_parallel import tree

from tinymixer.errors import NonFiniteError, TinymixerError
from tinymixer.train.machine import Machine
from tinymixer.train.parallel import GradientSum, Workers
from tinymixer.train.ranks import ALONE, RankError, Threads, require_alike, run_threads
from tinymixer.train.trainer import Trainer


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("leaves", range(1, 12))
def test_the_sum_over_ranks_has_the_bits_of_the_tree(size, leaves):
    rng = np.random.default_rng(leaves)
    for N in (1, 3, 50):  # fewer numbers than ranks, too
        arrays = (
            rng.standard_normal((leaves, N)) * 10.0 ** rng.integers(-4, 4, (leaves, 1))
        ).astype(np.float32)

        def total(ranks, arrays=arrays):
            mine = GradientSum(leaves)
            for leaf in ranks.share(leaves):
                mine.add(leaf, arrays[leaf].copy())
            return mine.over(ranks, arrays[0])

        expected = tree(list(arrays))
        for found in run_threads(size, total):
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == np.float32


def test_every_item_is_the_share_of_one_rank():
    for size in range(1, 9):
        for count in range(12):
            shares = run_threads(size, lambda ranks, count=count: ranks.share(count))
            assert [i for share in shares for i in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_arrives_is_named_and_in_the_order_of_the_ranks():
    def sent(ranks):
        parts = [{(ranks.rank, to): np.full(to, ranks.rank)} for to in range(ranks.size)]
        return ranks.exchange(parts)

    for rank, received in enumerate(run_threads(3, sent)):
        assert [list(part) for part in received] == [[(source, rank)] for source in range(3)]
        for source, part in enumerate(received):
            np.testing.assert_array_equal(part[source, rank], np.full(rank, source))
    assert ALONE.exchange([{"x": 1}]) == [{"x": 1}]


def test_workers_of_all_ranks_share_the_items_and_all_know_the_results():
    def squares(ranks):
        with Workers(2, ranks) as workers:
            mine = []
            found = workers.map(lambda x: mine.append(x) or x * x, range(7))
            return found, sorted(mine)

    results = run_threads(3, squares)
    assert all(found == [x * x for x in range(7)] for found, _ in results)
    assert sorted(x for _, mine in results for x in mine) == list(range(7))


def train_on(ranks, config, workers=1, **options):
    trainer = Trainer(
        config, images_for(config), workers=workers, quiet=True, ranks=ranks, **options
    )
    trainer.run()
    return trainer


@pytest.mark.parametrize(("size", "workers"), [(2, 1), (3, 2), (7, 1)])
@pytest.mark.parametrize("model", ["mixer_pico", "sparse_mlp_nano", "hire_mlp_nano"])
def test_a_run_ends_in_the_same_bits_on_any_number_of_ranks(model, size, workers):
    """Augmentation, dropout, averaged weights and running statistics included; there are two
    micro-batches a step, so of 7 ranks most have none.
    """
    config = dataclasses.replace(small(model), optimizer="muon")
    expected = trained(config, "cpu")
    for trainer in run_threads(size, lambda ranks: train_on(ranks, config, workers)):
        assert_same(trainer, expected)


def test_segmentation_ends_in_the_same_bits_on_two_ranks():
    expected = trained(segmenting(), "cpu")
    for trainer in run_threads(2, lambda ranks: train_on(ranks, segmenting())):
        assert_same(trainer, expected)


def test_only_the_first_rank_writes(tmp_path):
    def with_folder(ranks):
        return train_on(ranks, small("mixer_pico"), out=tmp_path / str(ranks.rank))

    run_threads(2, with_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_a_stop_that_one_rank_hears_stops_all_at_the_same_step():
    def interrupted(ranks):
        trainer = Trainer(
            small("mixer_pico"), images_for(small("mixer_pico")), workers=1, quiet=True, ranks=ranks
        )
        step = trainer.training_step

        def counted(*arguments, number, **options):
            if ranks.rank == 1 and number == 2:
                trainer._stop.number = 15
            return type(step).__call__(step, *arguments, number=number, **options)

        trainer.training_step = counted
        with pytest.raises(Exception, match="stopped by SIGTERM"):
            trainer.run()
        return trainer.steps_done

    assert run_threads(3, interrupted) == [3, 3, 3]


def failures(size, f):
    """What each rank raises."""
    errors = [None] * size

    def caught(ranks):
        try:
            with ranks:
                f(ranks)
        except Exception as error:
            errors[ranks.rank] = error

    run_threads(size, caught)
    return errors


@pytest.mark.parametrize("moment", ["before", "in a gather", "in an exchange", "at the end"])
def test_what_one_rank_raises_ends_all_with_its_message(moment):
    def fails(ranks):
        if ranks.rank == 2 and moment == "before":
            raise TinymixerError("a file is missing; find it")
        ranks.gather(1)
        if ranks.rank == 2 and moment == "in a gather":
            raise TinymixerError("a file is missing; find it")
        ranks.gather(2)
        if ranks.rank == 2 and moment == "in an exchange":
            raise TinymixerError("a file is missing; find it")
        ranks.exchange([{}] * ranks.size)
        if ranks.rank == 2 and moment == "at the end":
            raise TinymixerError("a file is missing; find it")

    first, second, third = failures(3, fails)
    assert str(third) == "a file is missing; find it"
    for error in (first, second):
        assert isinstance(error, RankError)
        assert str(error) == "process 3 of 3: a file is missing; find it"


def test_what_all_raise_is_each_ones_own():
    def fails(ranks):
        ranks.gather(0)
        raise NonFiniteError(f"the loss of rank {ranks.rank}")

    assert [str(error) for error in failures(2, fails)] == [
        "the loss of rank 0",
        "the loss of rank 1",
    ]


def test_a_bug_of_one_rank_is_told_with_its_traceback():
    def fails(ranks):
        if ranks.rank == 1:
            [].pop()
        ranks.gather(0)

    first, _ = failures(2, fails)
    assert "in fails" in str(first)
    assert "IndexError: pop from empty list" in str(first)


@pytest.mark.parametrize("name", ["options", "data", "weights"])
def test_ranks_that_would_do_other_things_are_refused(name):
    def mixed(ranks):
        config = small("mixer_pico")
        if ranks.rank == 1 and name == "options":
            config = dataclasses.replace(config, lr=1e-5)
        images = images_for(config, train_size=20 + (ranks.rank == 1 and name == "data"))
        trainer = Trainer(config, images, workers=1, quiet=True, ranks=ranks)
        if ranks.rank == 1 and name == "weights":
            trainer.flat.weights[3] += 1
        trainer.run()

    with pytest.raises(TinymixerError, match=f"process 2 has other {name} than process 1: .*same"):
        run_threads(2, mixed)


def test_other_arithmetic_is_told_and_no_reason_to_stop():
    def mixed(ranks):
        machine = dataclasses.replace(Machine.here(), vectors=f"of rank {ranks.rank}")
        require_alike(ranks, {"options": "all"}, machine)

    with pytest.warns(match="vectors of rank 1, not of rank 0.*the bits of the weights depend"):
        run_threads(2, mixed)


@pytest.mark.parametrize("calls", [(2, 1), (1, 2, 2), (0, 1)])
def test_a_rank_that_makes_a_call_less_ends_all(calls):
    def f(ranks):
        for _ in range(calls[ranks.rank]):
            ranks.gather("here")

    with pytest.raises(RankError, match=r"process \d of \d (has ended|goes on), but process \d"):
        run_threads(len(calls), f)


def test_a_failure_is_told_before_who_left():
    def f(ranks):
        if ranks.rank == 0:
            ranks.gather("here")
            ranks.gather("here")
        if ranks.rank == 1:
            ranks.gather("here")
        if ranks.rank == 2:
            ranks.gather("here")
            raise TinymixerError("the disk is full")

    said = []

    def listening(ranks):
        try:
            with ranks:
                f(ranks)
        except RankError as error:
            said.append(str(error))
        except TinymixerError:
            pass

    table, barrier = [None] * 3, threading.Barrier(3)
    run = [
        threading.Thread(target=listening, args=(Threads(rank, 3, table, barrier),))
        for rank in range(3)
    ]
    for thread in run:
        thread.start()
    for thread in run:
        thread.join()
    assert said == ["process 3 of 3: the disk is full"] * 2
