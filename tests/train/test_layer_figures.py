"""What is told of each layer is what is there, for every system."""

import numpy as np
import pytest
from small_runs import SYSTEMS, images_for, segmenting, small

from tinymixer.data.draws import Stream, generator
from tinymixer.train.layers import QUANTILES, layer_figures, layer_name
from tinymixer.train.parallel import Workers
from tinymixer.train.step import TrainingStep


def step_of(config):
    model = config.build_model(10 + (config.task == "segment"), generator(3, Stream.INIT))
    for parameter in model.parameters():  # heads start at zero, and would stop every gradient
        parameter.data = parameter.data + np.float32(0.01)
    return TrainingStep(config, model, images_for(config), Workers(1), drops=False)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_layer_of_every_system_is_there_in_order(name):
    step = step_of(small(name))
    found = layer_figures(step, np.arange(6), epoch=1)
    names = [row.name for row in found]
    expected = list(dict.fromkeys(layer_name(path) for path in step.flat.parameters))
    assert sorted(names) == sorted(expected)
    assert names[-1] == "head"
    blocks = [x for x in names if "blocks" in x]
    assert blocks == [x for x in expected if "blocks" in x]
    assert len(blocks) >= 2
    for row in found:
        assert row.weights > 0
        assert row.gradient > 0
        assert list(row.output) == sorted(row.output)


def test_segmentation_has_layers_too():
    names = [row.name for row in layer_figures(step_of(segmenting()), np.arange(4), epoch=0)]
    assert sum("blocks" in name for name in names) == 4


def test_the_numbers_are_those_of_the_model_by_hand():
    step = step_of(small("mixer_pico"))
    found = {row.name: row for row in layer_figures(step, np.arange(5), epoch=0)}
    images, targets = step.inputs(np.arange(5), 0, 0, 0)
    loss, _ = step.loss(images, targets)
    loss.backward()
    model = step.model
    mean, std = (np.array(x, np.float32) for x in (step.dataset.mean, step.dataset.std))
    x = model.blocks[0](model.patch_embed((images - mean) / std)).data
    np.testing.assert_allclose(found["blocks.0"].output, np.quantile(x, QUANTILES), rtol=1e-4)
    block = model.blocks[1].parameters()
    for row, arrays in (
        (found["blocks.1"].weights, [p.data for p in block]),
        (found["blocks.1"].gradient, [p.grad for p in block]),
    ):
        flat = np.concatenate([x.ravel() for x in arrays])
        np.testing.assert_allclose(row, np.sqrt(np.mean(flat.astype(float) ** 2)), rtol=1e-5)


def test_nothing_in_the_model_changes():
    step = step_of(small("hire_mlp_nano"))
    before = {name: x.copy() for name, x in step.model.state().items()}
    layer_figures(step, np.arange(5), epoch=0)
    for name, x in step.model.state().items():
        np.testing.assert_array_equal(x, before[name], err_msg=name)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("patch_embed.linear.W", "patch_embed"),
        ("blocks.11.token_mlp.W1", "blocks.11"),
        ("stages.1.blocks.0.mlp.W1", "stages.1.blocks.0"),
        ("stages.1.merge.linear.W", "stages.1.merge"),
        ("backbone.levels.2.embed.norms.0.gamma", "backbone.levels.2.embed"),
        ("head.W", "head"),
    ],
)
def test_a_path_names_its_layer(path, name):
    assert layer_name(path) == name
