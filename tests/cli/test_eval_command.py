"""What `tinymixer eval` does, and what it says when it cannot."""

import numpy as np
import pytest
from command_line import call, no_network, refused
from PIL import Image

from tinymixer.train.checkpoint import load_model
from tinymixer.train.evaluation import measure
from tinymixer.train.metrics import class_table
from tinymixer.train.parallel import Workers
from tinymixer.train.tasks import TASKS


def test_eval_tells_classes_apart_and_draws(run, capsys):
    assert call("eval", "--run", run) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ("circle", "arrow", "all"))
    model, saved = load_model(run / "last.npz")
    dataset = saved.header.load_dataset()
    with Workers(1) as workers:
        _, matrix = measure(TASKS["classify"], model, dataset, workers)
    assert (matrix != matrix.T).any()  # rows are what is, columns are what is said
    assert class_table(matrix, dataset.class_names) in table
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(run / name) as picture:
            assert min(picture.size) > 300


def test_weights_of_another_model_are_refused(run, here, capsys):
    with np.load(run / "last.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["weights/head.W"] = arrays["weights/head.W"][:, :7]
    np.savez(run / "last.npz", **arrays)
    refused(capsys, here, ("eval", "--run", run), "head.W")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("eval", "--run", "nowhere", "--out", "new"), "nowhere"),
        (("eval",), "tinymixer train"),
        (("eval", "--run", "nowhere"), "nowhere"),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)
