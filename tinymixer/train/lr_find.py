"""A range test: how does the loss fall while the learning rate rises from tiny to far too high?

    rates r[i] = low (high / low)^(i / (n - 1)), i = 0..n-1, one training step at each
    loss l[i] of the batch of step i, before its update
    smoothed s[i] = Σ_j β^(i-j) l[j] / Σ_j β^(i-j), j = 0..i, with β = 0.9
    it ends early at the first step whose s is not finite, or more than twice the lowest
    suggested: a tenth of the rate at which s is lowest; nothing if s fell by less than 1 %

Below that rate the loss still falls; above it, it soon rises. A tenth of it is well on the safe
side, and is what the schedule may rise to. Every step is one of training, with its augmentation,
clipping and optimizer, on the images in the order of training: so the figures have the same bits
for any number of workers.

Source: Smith 2017, "Cyclical learning rates for training neural networks", arXiv 1506.01186,
section 3.3; a tenth of it is what is usually taken.
"""

import math
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from tinymixer import data
from tinymixer.backend import read_scalars, to_device
from tinymixer.data.draws import Stream, generator, permutation
from tinymixer.errors import TinymixerError, counted
from tinymixer.fast.gpu.products import precision
from tinymixer.train.config import Config
from tinymixer.train.parallel import Workers
from tinymixer.train.step import TrainingStep
from tinymixer.train.validation import held_back

SMOOTHING = 0.9  # β
DIVERGED = 2.0  # times the lowest smoothed loss
SAFETY = 10.0  # below the rate of the lowest loss
FALL = 0.01  # of the first loss: less does not show that it learns


@dataclass(frozen=True)
class RangeTest:
    """What a range test found: rates, losses in nats and smoothed losses (n,)."""

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool

    @property
    def lowest(self) -> int:
        """The step at which the smoothed loss is lowest."""
        return int(np.nanargmin(self.smoothed))

    @property
    def suggested(self) -> float | None:
        """A learning rate to train with; None if the loss did not fall."""
        if self.smoothed[self.lowest] > (1 - FALL) * self.smoothed[0]:
            return None
        return float(self.rates[self.lowest] / SAFETY)

    def __str__(self) -> str:
        """The suggestion and its reason, in a line."""
        loss, rate = self.smoothed[self.lowest], self.rates[self.lowest]
        if self.suggested is None:
            return (
                f"no suggestion: in {counted(len(self.rates), 'step')} the loss fell from "
                f"{self.smoothed[0]:.3f} to {loss:.3f} only; take more --steps, or begin at a "
                "higher --low"
            )
        end = f"; from {self.rates[-1]:.2g} on it diverged" if self.diverged else ""
        return (
            f"try --lr {self.suggested:.2g}: a tenth of {rate:.2g}, where the smoothed loss was "
            f"lowest, {loss:.3f}{end}"
        )


def range_test(
    config: Config,
    dataset: data.Dataset,
    *,
    low: float = 1e-5,
    high: float = 1.0,
    steps: int = 200,
    workers: int | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> RangeTest:
    """Train a fresh model of `config` for at most `steps` steps, at rates from low to high.

    Nothing is saved. config's own learning rate and schedule do not matter. Raises TinymixerError
    for rates or steps that make no test, and where the first loss is not finite.
    """
    if not (0 < low < high < math.inf and steps >= 10):
        raise TinymixerError(
            f"a range test from {low:g} to {high:g} in {counted(steps, 'step')}: "
            f"expected two rates above 0, "
            "the lower one first, and at least 10 steps"
        )
    dataset = dataset.to(device)
    if config.val_size:
        dataset = held_back(dataset, config.val_size)
    model = config.build_model(dataset.num_classes, generator(config.seed, Stream.INIT))
    rates = np.geomspace(low, high, steps)
    losses: list[float] = []
    smoothed: list[float] = []
    with (
        Workers.of_this_machine(workers, device) as pool,
        precision(config.precision, device),
        tqdm(total=steps, unit=" steps", leave=False, disable=quiet or None) as bar,
    ):
        step = TrainingStep(config, model.to(device), dataset, pool)
        per_epoch = -(-len(dataset.train_images) // config.batch_size)
        for number, lr in enumerate(rates.tolist()):
            epoch, place = divmod(number, per_epoch)
            if place == 0:
                order = permutation(config.seed, epoch, len(dataset.train_images))
            batch = to_device(order[place * config.batch_size :][: config.batch_size], device)
            found = step(batch, epoch, place, number=number, lr=lr)
            means = zip(read_scalars(list(found.losses)), found.sizes, strict=True)
            losses.append(math.fsum(loss * size for loss, size in means) / len(batch))
            smoothed.append(_average(losses))
            bar.update()
            if not smoothed[-1] <= DIVERGED * min(smoothed):  # NaN is not either
                break
    if not math.isfinite(losses[0]):
        raise TinymixerError(
            f"the first loss of {config.model} is {losses[0]}, before any learning; look at its "
            "options"
        )
    return RangeTest(
        rates[: len(losses)],
        np.array(losses),
        np.array(smoothed),
        diverged=not smoothed[-1] <= DIVERGED * min(smoothed),
    )


def _average(losses: list[float]) -> float:
    """The mean of the losses, each weighing SMOOTHING times the one after it."""
    weights = SMOOTHING ** np.arange(len(losses))[::-1]
    return float(np.average(losses, weights=weights))
