"""Functions drawn at random: right ones are never called failed, wrong ones never passed."""

import numpy as np
import pytest
from random_functions import draw

from tinymixer.gradcheck import checks

SOME = 60


def _verdicts(seeds, most):
    right, wrong = [], []
    for seed in seeds:
        a_right_one, a_wrong_one = draw(seed, most)
        with np.errstate(all="ignore"):  # they may overflow
            right.append(a_right_one.check().verdict)
            if a_wrong_one is not None:
                wrong.append(a_wrong_one.check().verdict)
    return right, wrong


def test_some_random_functions(monkeypatch):
    monkeypatch.setattr(checks, "MOST_ELEMENTS", 150)  # more are moved together, and faster
    right, wrong = _verdicts(range(SOME), most=4000)
    assert "failed" not in right
    assert "passed" not in wrong
    assert len(wrong) > 0.8 * SOME
    assert right.count("not decidable here") <= 0.05 * SOME
    assert wrong.count("not decidable here") <= 0.05 * SOME


@pytest.mark.slow
def test_many_random_functions():
    right, wrong = _verdicts(range(1000, 1600), most=100_000)
    assert right.count("failed") <= 1
    assert wrong.count("passed") <= 1
    assert right.count("not decidable here") <= 0.03 * 600
