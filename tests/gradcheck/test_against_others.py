"""The functions that gradient checkers are compared on, and what each checker says to some."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from against_others import CHECKERS, RIGHT, WRONG, answer
from common_functions import ERRORS, FAMILIES, KINDS, SEED, Example, draw, with_error

SAVED = Path(__file__).with_name("against_others.json")
OTHERS = [name for name in CHECKERS if name != "tinymixer"]


def family(name):
    return next(family for family in FAMILIES if family.name == name)


@pytest.mark.parametrize("error", ["", "× 2, one element", "a term is missing", "wrong axis"])
def test_tinymixer_tells_right_from_wrong(error):
    of = family("LayerNorm")
    rng = np.random.default_rng(0)
    inputs = of.draw(rng)
    example = with_error(of, inputs, error, rng) if error else Example(of, inputs, of.backward)
    assert answer("tinymixer", example) == (WRONG if error else RIGHT)


@pytest.mark.parametrize("name", ["√x", "x + x³", "relu", "log Σ exp"])
def test_tinymixer_sees_a_millionth_in_one_element(name):
    of, rng = family(name), np.random.default_rng(1)
    inputs = of.draw(rng)
    assert answer("tinymixer", Example(of, inputs, of.backward)) == RIGHT
    wrong = with_error(of, inputs, "× (1 + 1e-6), one element", rng)
    assert answer("tinymixer", wrong) == WRONG


@pytest.mark.filterwarnings("ignore")  # of the other libraries' own code
@pytest.mark.parametrize("checker", OTHERS)
def test_the_others_get_the_same_formulas(checker):
    """Near 1, without a kink, every checker tells a right gradient from one that is doubled."""
    pytest.importorskip(checker, reason=f"{checker} is not installed")
    rng = np.random.default_rng(2)
    for name in ("tanh", "LayerNorm", "softmax", "x W"):
        of = family(name)
        inputs = of.draw(rng)
        assert answer(checker, Example(of, inputs, of.backward)) == RIGHT, name
        assert answer(checker, with_error(of, inputs, "× 2, all elements", rng)) == WRONG, name


def test_a_planted_error_changes_the_gradient():
    rng = np.random.default_rng(3)
    for example in draw():
        y = example.family.forward(np, *example.inputs)
        dy = rng.standard_normal(np.shape(y))
        right = example.family.backward(np, dy, *example.inputs)
        claimed = example.backward(np, dy, *example.inputs)
        change = max(
            float(np.max(np.abs(a - b)[b != 0] / np.abs(b[b != 0]), initial=0))
            for a, b in zip(map(np.asarray, claimed), map(np.asarray, right), strict=True)
        )
        # The smallest error is a factor of 1 + 1e-6 in one element.
        assert change > 0.99e-6 if example.error else change == 0, example.family.name


def test_the_draw_is_balanced_and_saved_with_its_seed():
    examples = list(draw())
    assert len(examples) == 200
    right = Counter(example.family.kind for example in examples if not example.error)
    assert right == dict.fromkeys(KINDS, 10)
    errors = Counter(example.error for example in examples if example.error)
    assert max(errors.values()) - min(errors[error] for error in ERRORS) <= 1
    saved = json.loads(SAVED.read_text("utf-8"))
    assert (saved["seed"], saved["functions"]) == (SEED, 200)
    assert saved["errors"] == {error: errors[error] for error in ERRORS}
    for counts in saved["checkers"].values():
        assert counts["misses"] == sum(counts["misses_by_error"].values())
