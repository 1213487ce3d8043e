"""What the options of a run come to, counted by hand."""

import pytest

from tinymixer.train.config import Config


def test_the_learning_rate_rises_in_the_warm_up_and_falls_to_its_final_share():
    """2.5 epochs of 4 steps are 10 steps. The first 6 warm up, by 0.7/7 each."""
    config = Config(epochs=2.5, lr=0.7, lr_final=0.2, warmup_epochs=1.5, schedule="linear")
    assert config.steps(4) == 10
    found = [config.learning_rate(step, 4) for step in range(11)]
    expected = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.56, 0.42, 0.28, 0.14]
    assert found == pytest.approx(expected, rel=1e-12)
