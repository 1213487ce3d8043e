"""Statistics of a model, layer by layer: the outputs, the weights, and the gradient.

A layer is here a block of the model, or what lies between two blocks: an embedding, the last
normalisation, the head. Its output is the last Tensor on the tape before the next layer begins.
"""

import re
from dataclasses import dataclass

import numpy as np

from tinymixer.backend import Array, array_module, to_numpy
from tinymixer.engine import Tensor, enable_grad, tensors_below
from tinymixer.nn import Module, layer_names, layer_of
from tinymixer.train.step import TrainingStep

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)  # of an output's numbers
MOST_NUMBERS = 2**20  # of an output that are looked at, evenly spread


@dataclass(frozen=True)
class LayerFigures:
    """Of one layer: QUANTILES of its output, and root mean squares of its weights and gradient."""

    name: str
    output: tuple[float, ...]
    weights: float
    gradient: float  # of the mean loss of the batch, with respect to the weights


def layer_figures(step: TrainingStep, indices: Array, epoch: int) -> list[LayerFigures]:
    """Every layer of the model, in order of computation, on the training images at `indices` (B,).

    They are augmented as in that epoch; nothing is dropped, and no weight changes.
    """
    images, targets = step.inputs(indices, epoch, 0, 0)[:2]
    with enable_grad():
        loss, _ = step.loss(images, targets)
        outputs = _outputs(step.model, loss)
        gradients: dict[Tensor, Array] = {}
        loss.backward(into=gradients)
    weights = _rms_by_layer(step.flat.named(step.flat.weights))
    gradient = _rms_by_layer(step.flat.named(step.flat.gather(gradients)))
    return [
        LayerFigures(name, _quantiles(x), weights[name], gradient[name])
        for name, x in outputs.items()
    ]


def layer_name(path: str) -> str:
    """The layer of a Parameter or a part of a model, by its path.

    stages.1.blocks.0.mlp.W1  ->  stages.1.blocks.0;  stages.1.merge.linear.W  ->  stages.1.merge
    """
    found = re.match(r".*?\bblocks\.\d+|(?:\w+\.)*?\w+\.\d+\.[a-z_]\w*|\w+", path)
    return found[0] if found else path


def _outputs(model: Module, loss: Tensor) -> dict[str, Array]:
    """The last Tensor of each layer: Functions without parameters belong to the layer before."""
    names, layer, found = layer_names(model), "", {}
    for y in tensors_below(loss):
        if path := layer_of(y.creator, names):
            layer = layer_name(path)
        if layer and y is not loss:
            found[layer] = y.data
    return found


def _quantiles(x: Array) -> tuple[float, ...]:
    flat = x.reshape(-1)
    some = to_numpy(flat[:: -(-flat.size // MOST_NUMBERS)])
    return tuple(np.quantile(some, QUANTILES).tolist())


def _rms_by_layer(arrays: dict[str, Array]) -> dict[str, float]:
    sums: dict[str, tuple[float, int]] = {}
    for path, x in arrays.items():
        squares, count = sums.get(layer_name(path), (0.0, 0))
        more = float((x * x).sum(dtype=array_module(x).float64))
        sums[layer_name(path)] = squares + more, count + x.size
    return {name: (squares / count) ** 0.5 for name, (squares, count) in sums.items()}
