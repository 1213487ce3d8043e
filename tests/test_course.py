"""What the lessons share: an error within a check becomes a sentence, a run can be watched."""

import numpy as np
import pytest
from small_runs import images_for, small

from tinymixer.course import checking, growing_curve, remember, watch
from tinymixer.errors import NonFiniteError
from tinymixer.train import Trainer


def forgot_return(x):
    x + 1


def said(capsys, check):
    with checking("Exercise 7"):
        check()
    text = capsys.readouterr().out
    assert text.startswith("Exercise 7: ")
    assert text.endswith(("?\n", ".\n"))
    return text


def test_a_check_without_an_error_says_what_it_says(capsys):
    with checking("Exercise 7"):
        print("correct.")
    assert capsys.readouterr().out == "correct.\n"


def test_none_asks_for_a_return(capsys):
    def check():
        answer = forgot_return(np.zeros(3))
        return answer[0]

    assert "is a `return` missing?" in said(capsys, check)


def test_a_wrong_type_is_shown(capsys):
    def check():
        answer = [1, 2]
        return answer[:, None]

    assert "Your answer is of type list: [1, 2]." in said(capsys, check)


def test_a_typo_is_called_one(capsys):
    assert "Is it a typo" in said(capsys, lambda: np.zeros(nummber))  # noqa: F821


def test_an_error_within_the_answer_is_shown(capsys):
    text = said(capsys, lambda: 1 / 0)
    assert "ZeroDivisionError: division by zero." in text
    assert "Look at your answer" in text


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_is_none_of_the_answers_errors(stop):
    with pytest.raises(stop), checking("Exercise 7"):
        raise stop


def test_a_run_that_is_watched_ends_in_the_same_bits():
    config = small("mixer_pico")
    plain, watched = (Trainer(config, images_for(config), workers=1, quiet=True) for _ in "ab")
    plain.run()
    step = watched.training_step
    history = watch(watched)
    assert history is watched.history
    assert watched.training_step is step
    np.testing.assert_array_equal(plain.flat.weights, watched.flat.weights)


def test_a_run_that_is_watched_says_where_it_was_no_longer_finite():
    config = small("mixer_pico", ema=0.9)
    run = Trainer(config, images_for(config), workers=1, quiet=True)
    run.model.patch_embed.linear.W.data[...] = np.nan
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 1: the loss is nan"):
        watch(run)


def test_the_curve_has_each_step_and_the_mean_of_the_last_twenty():
    losses = [2.0] * 30 + [1.0] * 30
    each, mean = growing_curve(losses, 100).axes[0].lines
    assert list(each.get_ydata()) == losses
    assert mean.get_ydata()[29:51] == pytest.approx(np.r_[np.linspace(2, 1, 21), 1])


def test_a_parameter_is_remembered_at_moments_of_its_training():
    config = small("mixer_pico")
    plain, trainer = (Trainer(config, images_for(config), workers=1, quiet=True) for _ in "ab")
    plain.run()
    W1 = trainer.model.blocks[0].token_mlp.W1
    first = W1.data.copy()
    seen = remember(trainer, W1, n=2)
    assert list(seen) == ["before training"]
    watch(trainer)
    steps = trainer.steps
    half = -(-steps // 2)
    assert list(seen)[1:] == [f"after {n} of {steps} steps" for n in (half, steps)]
    before, between, last = seen.values()
    np.testing.assert_array_equal(before, first)
    np.testing.assert_array_equal(last, W1.data)
    assert not np.array_equal(between, last)
    assert not np.shares_memory(last, W1.data)
    np.testing.assert_array_equal(plain.flat.weights, trainer.flat.weights)
