"""A training step can be followed: few files, and few calls from one to another."""

import step_calls


def test_a_step_runs_through_few_files_and_calls():
    files, calls = step_calls.one_step()
    assert "train/step.py" in files
    assert calls["train/step.py", "optim/__init__.py", "clip_by_global_norm"] == 1
    assert len(files) <= 17
    assert calls.total() <= 150


def test_the_control_of_a_step_goes_down():
    """Apart from the workers, which run what the step gives them, no file calls one above it."""
    _, calls = step_calls.one_step()
    into = {(above, name) for (above, here, name) in calls if here == "train/step.py"}
    assert {above for above, _ in into} == {"train/parallel.py"}
