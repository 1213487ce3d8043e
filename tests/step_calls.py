"""How much of the package one training step runs through: files, and calls from file to file.

    python tests/step_calls.py

A reader follows these calls, so few of them are a step that can be followed. The step is that of
the default recipe, of a Mixer with one block, on two micro-batches.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

import tinymixer
from tinymixer import data
from tinymixer.data.draws import Stream, generator
from tinymixer.train.config import Config
from tinymixer.train.parallel import Workers
from tinymixer.train.step import TrainingStep

PACKAGE = Path(tinymixer.__file__).parent


def calls_of(work):
    """(files of the package that `work()` runs in, calls from one of them to another) of a call."""
    files, calls = set(), Counter()

    def follow(frame, event, argument):
        here = frame.f_code.co_filename
        if event != "call" or not here.startswith(str(PACKAGE)):
            return
        files.add(Path(here).relative_to(PACKAGE).as_posix())
        above = frame.f_back.f_code.co_filename
        if above != here and above.startswith(str(PACKAGE)):
            route = (Path(file).relative_to(PACKAGE).as_posix() for file in (above, here))
            calls[(*route, frame.f_code.co_qualname)] += 1

    sys.setprofile(follow)
    try:
        work()
    finally:
        sys.setprofile(None)
    return files, calls


def one_step():
    """A warm step, to be counted."""
    config = Config(
        model_options={"num_blocks": 1},
        batch_size=16,
        micro_batch=8,
    )
    dataset = data.load("shapes", train_size=16, test_size=1)
    model = config.build_model(dataset.num_classes, generator(0, Stream.INIT))
    step = TrainingStep(config, model, dataset, Workers(1))
    with step.workers:
        step(np.arange(16), 0, 0, number=0, lr=1e-3)
        return calls_of(lambda: step(np.arange(16), 0, 1, number=1, lr=1e-3))


if __name__ == "__main__":
    files, calls = one_step()
    for (above, here, name), count in calls.most_common():
        print(f"{count:4}  {above} -> {here}: {name}")
    print(
        f"{len(files)} files, {calls.total()} calls from file to file: {', '.join(sorted(files))}"
    )
