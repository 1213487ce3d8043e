"""A frozen backbone: nothing moves it, whatever trains, and resuming knows of it."""

import dataclasses
import signal

import numpy as np
import pytest
from small_runs import (
    SYSTEMS,
    arrays,
    assert_same,
    images_for,
    segmenting,
    small,
    stop_at,
    trained,
)

from tinymixer.data.draws import Stream, generator
from tinymixer.nn import BatchNorm
from tinymixer.train import load_model
from tinymixer.train.stopping import Stopped
from tinymixer.train.trainer import Trainer

RUNS = {name: small(name, freeze="backbone") for name in SYSTEMS}
RUNS["muon"] = small("mixer_pico", freeze="backbone", optimizer="muon")
RUNS["segmenting"] = dataclasses.replace(segmenting(), freeze="backbone")


def is_backbone(name, config):
    return name.startswith("backbone.") if config.task == "segment" else name[:5] != "head."


def fresh(config):
    dataset = images_for(config)
    model = config.build_model(dataset.num_classes, generator(config.seed, Stream.INIT))
    return {name: array.copy() for name, array in model.state().items()}


@pytest.mark.parametrize("config", RUNS.values(), ids=RUNS)
def test_only_what_is_not_frozen_moves_and_running_statistics_stay(config):
    trainer, begun = trained(config, "cpu"), fresh(config)
    moved = {name for name, x in trainer.model.state().items() if (x != begun[name]).any()}
    assert moved == {name for name in begun if not is_backbone(name, config)}
    assert moved == set(trainer.model.learned_parameters())
    assert trainer.average.size == sum(begun[name].size for name in moved)


def test_a_backbone_that_learns_moves_and_its_running_statistics_too():
    config = small("hire_mlp_nano")
    trainer, begun = trained(config, "cpu"), fresh(config)
    still = [name for name, x in trainer.model.state().items() if (x == begun[name]).all()]
    assert still == []


def test_a_frozen_backbone_is_as_in_evaluation_and_is_not_differentiated():
    config = RUNS["hire_mlp_nano"]
    trainer = Trainer(config, images_for(config), workers=1, quiet=True)
    step, model = trainer.training_step, trainer.model
    norms = [x for x in vars(model).values() if isinstance(x, BatchNorm)]
    images, targets = step.inputs(np.arange(4), 0, 0, 0)  # without a key of random numbers
    loss, _ = step.loss(images, targets)
    gradients = {}
    loss.backward(into=gradients)
    assert {id(x) for x in gradients} == {id(x) for x in model.learned_parameters().values()}
    assert norms
    assert all((norm.running_mean.data == 0).all() for norm in norms)


@pytest.mark.parametrize("name", ["hire_mlp_nano", "segmenting", "muon"])
def test_the_bits_are_the_same_for_any_workers_and_after_a_stop(name, tmp_path, monkeypatch):
    config = RUNS[name]
    dataset = images_for(config)
    whole = trained(config, "cpu")
    assert_same(trained(config, "cpu", workers=2), whole)
    stop_at(monkeypatch, 4, signal.SIGTERM)
    stopped = Trainer(config, dataset, tmp_path / "run", workers=2, quiet=True)
    with pytest.raises(Stopped):
        stopped.run()
    resumed = Trainer.resume(tmp_path / "run" / "last.npz", dataset, workers=1, quiet=True)
    resumed.run()
    assert_same(resumed, whole)
    model, _ = load_model(tmp_path / "run" / "last.npz")  # averaged where an average is kept
    begun = fresh(config)
    for name, array in model.state().items():
        if is_backbone(name, config):
            np.testing.assert_array_equal(array, begun[name])
    assert set(arrays(whole)) > set(begun)
