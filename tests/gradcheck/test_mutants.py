"""The planted bugs: each is caught, and it is the bug that is caught."""

from dataclasses import replace

import pytest

from tinymixer import ops
from tinymixer.engine import Tensor
from tinymixer.gradcheck import CASES, mutants
from tinymixer.gradcheck.subject import of_function


def test_there_are_at_least_sixty_planted_bugs():
    different = {(m.op, m.where, m.old, m.new) for m in mutants.MUTANTS}
    assert len(different) == len(mutants.MUTANTS) >= 60


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: f"{m.op.__name__}: {m.bug}")
def test_every_planted_bug_is_caught(mutant):
    assert mutants.catchers(mutant, mutants.OURS)


def test_no_habit_raises_a_false_alarm():
    """A habit that failed right gradients too would seem to catch every bug."""
    for case in CASES:
        subject = of_function(case.op, *case.arrays, constants=case.constants)
        for name, passes in mutants.HABITS.items():
            assert passes(subject), f"{name} on {case.name}"


@pytest.mark.parametrize(
    "mutant",
    {(m.op, m.where): replace(m, new=m.old) for m in mutants.MUTANTS}.values(),
    ids=lambda m: f"{m.op.__name__}: {(m.where or m.op).__name__}",
)
def test_planting_nothing_is_not_caught(mutant):
    """It is the bug that is caught, not the planting of it."""
    assert mutants.catchers(mutant, mutants.OURS) == []


def test_a_mutant_whose_text_has_gone_is_an_error():
    with pytest.raises(ValueError, match="Bring the mutant up to date"):
        mutants.plant(mutants.Mutant(ops.GELU, "none", "not in there", ""))


def test_planting_leaves_the_healthy_code_alone():
    before = Tensor.backward
    with mutants.subjects(next(m for m in mutants.MUTANTS if m.op is Tensor)):
        assert Tensor.backward is not before
    assert Tensor.backward is before
