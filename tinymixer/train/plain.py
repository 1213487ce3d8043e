"""The whole training loop in one function, as one would write it first. Begin here.

    images -> model -> loss -> backpropagation -> clip -> AdamW -> weights, again and again

No workers, no checkpoints. `Trainer` is this loop made fast and safe: where its micro-batch is the
whole batch, it ends in the same weights, bit for bit.
"""

from typing import Any

import numpy as np

from tinymixer import data, ops
from tinymixer.data.draws import Stream, generator, permutation
from tinymixer.nn import Module, auxiliary
from tinymixer.train.config import Config

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of AdamW


def train_plain(config: Config, dataset: data.Dataset, *, quiet: bool = False) -> Module:
    """Train config.model on the images of `dataset` with AdamW.

    Returns the model with its last weights, or with their moving average if config.ema is above 0.
    """
    model = config.model_for(dataset, generator(config.seed, Stream.INIT))
    parameters = model.parameters()
    m, v, average = ([np.copy(p.data) * keep for p in parameters] for keep in (0, 0, 1))
    images, labels = dataset.train_images, dataset.train_labels
    steps_per_epoch = -(-len(images) // config.batch_size)

    for step in range(config.steps(steps_per_epoch)):
        # A batch of images, augmented anew in each epoch: x (B, H, W, 3), targets (B,) or (B, K).
        epoch, i = divmod(step, steps_per_epoch)
        order = permutation(config.seed, epoch, len(images))
        batch = order[i * config.batch_size :][: config.batch_size]
        drawn = {"epoch": epoch, "seed": config.seed, "num_classes": dataset.num_classes}
        x, targets = config.augment(images, labels, batch, **drawn)
        x = data.normalise(x, dataset.mean, dataset.std)

        # Forward, and backpropagation. Some models add losses or follow running means.
        with auxiliary() as extra:
            logits = model(x, rng=generator(config.seed, Stream.DROPOUT, epoch, i, 0))
        loss = ops.SoftmaxCrossEntropy(config.label_smoothing)(logits, targets)
        loss = sum(extra.losses, start=loss)
        gradients: dict[Any, np.ndarray] = {}
        loss.backward(into=gradients)
        for update, arrays in extra.updates:
            update(*arrays)

        # Clip the norm of the gradient over all weights, then AdamW.
        flat = np.concatenate([gradients[p].ravel() for p in parameters])
        norm, most = float(np.sqrt(flat @ flat)), config.clip_norm
        lr, t = config.learning_rate(step, steps_per_epoch), step + 1
        for j, p in enumerate(parameters):
            g = gradients[p] * np.float32(most / max(norm, most) if most else 1)
            m[j] += (1 - BETA1) * (g - m[j])
            v[j] += (1 - BETA2) * (g * g - v[j])
            p.data -= lr * (m[j] / (1 - BETA1**t) / (np.sqrt(v[j] / (1 - BETA2**t)) + EPS))
            if p.ndim >= 2:  # weight decay, of matrices only
                p.data -= lr * config.weight_decay * p.data
            average[j] += (1 - config.ema) * (p.data - average[j])

        if not quiet and (i == 0 or i == steps_per_epoch - 1):
            print(f"epoch {epoch + 1}  step {i + 1:4}  loss {loss.item():.3f}", flush=True)

    for p, a in zip(parameters, average, strict=True):
        p.data = a if config.ema else p.data
    return model
