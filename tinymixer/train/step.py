"""One training step, from top to bottom: a batch of images changes the weights once.

    batch -> micro-batches 0..G-1
    each:    augment -> normalise -> model -> loss -> backpropagation -> gradient (N,)
    then:    one sum over the micro-batches -> clip -> optimizer -> weights (N,)

A micro-batch is small enough for its activations to stay in the cache, forward and backward; each
worker takes the next one. Everything random is a function of (seed, epoch, step, image or
micro-batch), and the sum has a fixed order. So the weights have the same bits for any number of
workers of one machine; another kind of processor may compute other ones, see machine.py.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from tinymixer import data, fast, nn, optim
from tinymixer.backend import Array, device_of, read_scalars
from tinymixer.data import draws
from tinymixer.data.draws import Stream
from tinymixer.engine import Tensor, enable_grad
from tinymixer.nn import Module, auxiliary
from tinymixer.train.config import Config
from tinymixer.train.parallel import FlatParameters, GradientSum, Workers, micro_batches, places_of
from tinymixer.train.tasks import TASKS

# What is called after the step, see nn.after_step: a layer's path, its method, and the arrays. By
# name, as another rank's layers are not this one's.
Updates = Sequence[tuple[str, str, Sequence[Array]]]


@dataclass(frozen=True)
class StepFigures:
    """What a step found, still where it was computed: reading a number means waiting for a GPU."""

    sizes: Sequence[int]  # images of each micro-batch
    losses: Sequence[Array]  # mean loss of each micro-batch, (), in nats
    correct: Sequence[Array]  # how many of its images are classified correctly, ()
    norm: Array  # of the gradient before clipping, ()

    @staticmethod
    def read(steps: "Sequence[StepFigures]") -> list[tuple[list[float], list[float], float]]:
        """(losses, correct, norm) of each step as numbers, in one copy from the device."""
        scalars = [x for step in steps for x in (*step.losses, *step.correct, step.norm)]
        numbers = iter(read_scalars(scalars))
        return [
            (
                [next(numbers) for _ in step.losses],
                [next(numbers) for _ in step.correct],
                next(numbers),
            )
            for step in steps
        ]


class TrainingStep:
    """`step(batch, ...)` updates the weights of `model` from images of `dataset`, as `config` says.

    flat        the model's weights in one array (N,), changed in place
    optimizer   its state, such as AdamW's moments, changes with them
    average     the averaged weights (N,), or None where config.ema is 0
    healthy     (): false from the first loss or gradient that is not finite. From then on steps
                change nothing: weights, moments and averages stay what they were before it. A GPU
                reads it by itself; reading it here would mean waiting
    replay      on a GPU, repeats all launches of a micro-batch as one, see fast.gpu
    drops       without it nothing is drawn and so nothing is dropped, as in evaluation. Where the
                backbone is frozen nothing is either: what it computes stays what it was, running
                statistics of its norms included
    """

    def __init__(
        self,
        config: Config,
        model: Module,
        dataset: data.Dataset,
        workers: Workers,
        *,
        replay: Callable[..., tuple] | None = None,
        drops: bool = True,
    ):
        self.config, self.model, self.dataset, self.workers = config, model, dataset, workers
        self.replay, self.task = replay, TASKS[config.task]
        self.drops = drops and config.freeze == "none"
        device = device_of(dataset.train_images)
        self.augment = fast.chosen(data.Augment, device)(**vars(config.augment))
        self.rng_key = fast.chosen(draws.rng_key, device)
        self.generator_from = fast.chosen(draws.generator_from, device)
        self.num_classes = dataset.num_classes
        self.flat = FlatParameters(model)
        self.optimizer = config.build_optimizer(self.flat.decay_mask(), places_of(model))
        self.average = self.flat.weights.copy() if config.ema else None
        self.healthy = self.flat.xp.ones((), bool)
        self.layers = dict(model.named_modules())
        self.paths = {layer: path for path, layer in self.layers.items()}

    def __call__(
        self, batch: Array, epoch: int, step: int, *, number: int, lr: float
    ) -> StepFigures:
        """Update the weights from the training images at indices `batch` (B,).

        epoch and step, both from 0, decide what is drawn; number counts the steps of the whole run.
        """
        pieces = micro_batches(batch, self.config.micro_batch)
        gradient, losses, correct, updates = self.gradient(pieces, epoch, step)
        norm = optim.clip_by_global_norm(gradient, self.config.clip_norm)
        xp = self.flat.xp
        self.healthy &= xp.isfinite(xp.stack([norm, *losses])).all()
        with optim.undone_unless(self.healthy, self.flat.buffers):
            for path, update, arrays in updates:  # running statistics, micro-batch by micro-batch
                getattr(self.layers[path], update)(*arrays)
        self.optimizer.step(
            self.flat.weights, gradient, lr, number, self.healthy, self.average, self.config.ema
        )
        return StepFigures([len(piece) for piece in pieces], losses, correct, norm)

    def gradient(
        self, pieces: Sequence[Array], epoch: int, step: int
    ) -> tuple[Array, list[Array], list[Array], Updates]:
        """The gradient (N,) of a batch's mean loss with respect to the weights.

        The batch comes in micro-batches, as the indices of their images. Also returned: the mean
        loss of each, how many of its images are classified correctly, and all updates that the
        model asks for. Where a loss is not finite, the gradient means nothing.
        """
        images, total, flat = sum(map(len, pieces)), GradientSum(len(pieces)), self.flat
        differentiate: Callable[..., tuple] = self.differentiate
        if self.replay is not None:
            differentiate = partial(self.replay, differentiate)

        def micro_batch(g: int) -> tuple[Array, Array, Updates]:
            share = flat.xp.full((), len(pieces[g]) / images, flat.weights.dtype)
            inputs = self.inputs(pieces[g], epoch, step, g)
            loss, correct, updates, gradient = differentiate(share, *inputs)
            total.add(g, gradient)
            return loss, correct, self._by_name(updates)

        found = self.workers.map(micro_batch, range(len(pieces)))
        losses, correct, updates = (list(column) for column in zip(*found, strict=True))
        gradient = total.over(self.workers.ranks, flat.weights)
        return gradient, losses, correct, list(chain(*updates))

    def _by_name(self, updates: Sequence[nn.Update]) -> Updates:
        return [
            (self.paths[update.__self__], update.__name__, arrays)  # type: ignore[attr-defined]
            for update, arrays in updates
        ]

    def inputs(self, indices: Array, epoch: int, step: int, g: int) -> tuple[Array, ...]:
        """What micro-batch g learns from: the images at `indices`, augmented, and their targets;
        and the key of the random numbers that are drawn for it."""
        seed, dataset = self.config.seed, self.dataset
        images, targets = self.augment(
            dataset.train_images,
            dataset.train_labels,
            indices,
            epoch=epoch,
            seed=seed,
            num_classes=self.num_classes,
        )
        if not self.drops:
            return images, targets
        return images, targets, self.rng_key(seed, Stream.DROPOUT, epoch, step, g)

    def loss(self, images: Array, targets: Array, key: Array | None = None) -> tuple[Tensor, Array]:
        """The mean loss of a micro-batch, and how many of its images are classified correctly."""
        rng = None if key is None else self.generator_from(key)
        x = data.normalise(images, self.dataset.mean, self.dataset.std)
        logits = self.model(x, rng=rng)
        loss = self.task.loss(logits, targets, self.config.label_smoothing)
        return loss, self.task.correct(logits.data, targets)

    def differentiate(
        self, share: Array, *inputs: Array
    ) -> tuple[Array, Array, Sequence[nn.Update], Array]:
        """(loss, correct, updates, share of the gradient (N,)) of a micro-batch from its `inputs`.

        A function of these arrays and the weights alone, so that a GPU can repeat it.
        """
        # a loss that overflows is returned, whatever becomes of its gradient
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with quiet, enable_grad(guarded=False), auxiliary() as extra:
            loss, correct = self.loss(*inputs)
            for more in extra.losses:
                loss = loss + more
            gradients: dict[Tensor, Array] = {}
            loss.backward(share, into=gradients)
        return loss.data, correct, tuple(extra.updates), self.flat.gather(gradients)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In its `with` block the model has the averaged weights, if they are kept."""
        if self.average is None:
            yield
            return
        trained = self.flat.weights.copy()
        self.flat.weights[...] = self.average
        try:
            yield
        finally:
            self.flat.weights[...] = trained

    def averages(self) -> dict[str, Array]:
        """The averaged weights by name, if they are kept."""
        return {} if self.average is None else self.flat.named(self.average)
