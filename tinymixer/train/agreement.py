"""Is a step right? Its loss and gradients, or logits, beside those of the plain operations."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymixer import data, fast, ops
from tinymixer.backend import Array, device_of, read_scalars, to_device, to_numpy
from tinymixer.engine import Tensor, no_grad
from tinymixer.errors import TinymixerError
from tinymixer.nn import Module, Rng
from tinymixer.train.config import Config
from tinymixer.train.parallel import Workers, micro_batches
from tinymixer.train.step import TrainingStep

# Two float32 computations of one gradient differ by rounding: sums in another order, another
# exponential. Compared with float64, the plain operations have some error, and a right step has
# about as much (1.4 times at most, so far). Where that error happens to be zero, as it can be for a
# loss, a few roundings of the whole are allowed. A wrong term, sign or axis makes an error 1000
# times larger. Products in tf32 or bf16, which the plain operations do not use, have a larger error
# of their own.
TIMES_THE_PLAIN_ERROR = 8
ROUNDINGS, ROUNDING = 16, {"fp32": 2.0**-23, "tf32": 2.0**-11, "bf16": 2.0**-8}
IMAGES, TOGETHER = 3, 2  # one micro-batch of two and one of one


def check_step(
    model: Module, dataset: data.Dataset, config: Config, workers: Workers, *, infer: bool = False
) -> float:
    """Compare a training step's loss and gradients, or inference's logits, with the plain ones.

    On the first images of `dataset`: as the step computes them, cut into micro-batches, with
    whatever twins are in use; and all at once on a single tape, in float32, and in float64 by
    NumPy. Nothing is drawn for that, as an image's share must not depend on the others.

    Returns the largest error that is left, as a share of what is allowed. Raises TinymixerError if
    that is more than 1.
    """
    images = data.normalise(dataset.train_images[:IMAGES], dataset.mean, dataset.std)
    few = images, dataset.train_labels[:IMAGES]
    if infer:
        found = _inferred(model, *few, workers)
    else:
        found = _trained(model, dataset, config, workers)
    with fast.reference_ops():
        plain = _at_once(model, *few, np.float32, infer)
        on_the_host = copy.deepcopy(model).to("cpu").astype(np.float64)
        exact = _at_once(on_the_host, *few, np.float64, infer)
    worst, rounding = 0.0, ROUNDINGS * ROUNDING[config.precision]
    for name, expected in exact.items():
        size = float(np.linalg.norm(expected))
        plain_error = float(np.linalg.norm(plain[name] - expected))
        allowed = TIMES_THE_PLAIN_ERROR * plain_error + rounding * size
        error = float(np.linalg.norm(found[name] - expected))
        if not error <= allowed:  # NaN too
            raise TinymixerError(
                f"{name} is off by {error / (size or 1):.1e} of its norm, where float32 allows "
                f"{allowed / (size or 1):.1e}: this step is wrong and is not timed. "
                "--reference times the operations without their twins"
            )
        worst = max(worst, error / allowed if allowed else 0.0)
    return worst


def evaluate(model: Module, images: Array, labels: Array, dtype: Any = np.float32) -> Any:
    """(loss, logits) of normalised images, with nothing recorded."""
    with no_grad():
        loss, logits = loss_of(model, images, labels, dtype)
    return loss.data, logits.data


def loss_of(
    model: Module, images: Array, labels: Array, dtype: Any = np.float32, rng: Rng | None = None
) -> tuple[Tensor, Tensor]:
    """(mean loss, logits) of normalised images, computed where the model is, in precision dtype."""
    device = device_of(next(model.named_parameters())[1].data)
    logits = model(to_device(images, device).astype(dtype, copy=False), rng=rng)
    return ops.SoftmaxCrossEntropy()(logits, to_device(labels, device)), logits


def mean_loss(losses: Sequence[Array], pieces: Sequence[Array]) -> float:
    """The mean loss of a batch from those of its micro-batches."""
    return float(np.average(read_scalars(losses), weights=[len(piece) for piece in pieces]))


def _inferred(
    model: Module, images: Array, labels: Array, workers: Workers
) -> dict[str, np.ndarray]:
    pieces = micro_batches(images, TOGETHER), micro_batches(labels, TOGETHER)
    done = workers.map(lambda piece: evaluate(model, *piece), list(zip(*pieces, strict=True)))
    losses, logits = zip(*done, strict=True)
    loss = np.asarray(mean_loss(losses, pieces[1]))
    return {"the loss": loss, "the logits": np.concatenate([to_numpy(x) for x in logits])}


def _trained(
    model: Module, dataset: data.Dataset, config: Config, workers: Workers
) -> dict[str, np.ndarray]:
    step = TrainingStep(config, copy.deepcopy(model), dataset, workers, drops=False)
    indices = step.flat.xp.arange(min(IMAGES, len(dataset.train_images)))
    pieces = micro_batches(indices, TOGETHER)
    gradient, losses, *_ = step.gradient(pieces, 0, 0)
    loss = np.asarray(mean_loss(losses, pieces))
    return {"the loss": loss, **_named(step.flat.named(to_numpy(gradient)))}


def _at_once(
    model: Module, images: Array, labels: Array, dtype: Any, infer: bool
) -> dict[str, np.ndarray]:
    """The loss, and logits or gradients by name, from one tape of `model`."""
    if infer:
        loss, logits = evaluate(model, images, labels, dtype)
        return {"the loss": to_numpy(loss), "the logits": to_numpy(logits)}
    sink: dict[Tensor, Array] = {}
    mean, _ = loss_of(model, images, labels, dtype)
    mean.backward(into=sink)
    nothing = np.zeros((), dtype)
    gradients = {name: to_numpy(sink.get(p, nothing)) for name, p in model.named_parameters()}
    return {"the loss": to_numpy(mean.data), **_named(gradients)}


def _named(gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"the gradient of {name}": gradient for name, gradient in gradients.items()}
