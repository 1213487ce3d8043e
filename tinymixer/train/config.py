"""What decides a training run, in one frozen object."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tinymixer import data, fast, models, nn, optim
from tinymixer.backend import Array, device_of, to_numpy
from tinymixer.errors import TinymixerError
from tinymixer.fast.gpu.products import PRECISIONS
from tinymixer.models.options import shown
from tinymixer.optim.muon import Muon, Place
from tinymixer.options import Between, OneOf, check_options, option
from tinymixer.train.tasks import TASKS

# Each makes an optimizer of flat weights from their decay (N,) and the places of hidden matrices.
OPTIMIZERS: dict[str, Callable[["Config", Array, Sequence[Place]], optim.Optimizer]] = {
    "adamw": lambda c, decay, _: _adamw(decay)(decay, weight_decay=c.weight_decay),
    "muon": lambda c, decay, places: Muon(
        decay,
        places,
        weight_decay=c.weight_decay,
        adamw=_adamw(decay),
        gather=fast.chosen(optim.gather, device_of(decay), decay),
    ),
    "sgd": lambda c, decay, _: optim.SGD(decay, weight_decay=c.weight_decay, momentum=c.momentum),
}
# The usual learning rate of each; of another it is that of Config.
RATES = {"adamw": 4e-3, "muon": 8e-3}


def _adamw(decay: Array) -> Callable[..., optim.Optimizer]:
    return fast.chosen(optim.AdamW, device_of(decay))


BATCH = Between(1, 2**31)  # images
SHARE, DECAY = Between(0, 1), Between(0, 1 - 1e-9)  # what decays by 1 would never change
AMOUNT = Between(0, 10**9)
FREEZES = ("none", "backbone")
# What minutes bring with them: an open end, and a warm-up that is over soon in a short run too.
OPEN_END: dict[str, Any] = {"epochs": 0.0, "schedule": "trapezoid", "warmup_epochs": 0.25}
DECIDED, SPARE = 0.35, 0.03  # shares of the minutes: when their epochs are decided; kept free


@dataclass(frozen=True)
class Config:
    """What decides the trained weights besides the data set: with the same of both, two runs end in
    the same bits, on machines whose processors and BLAS compute alike, see machine.py.

    model_options are changes to the options of `model`; `build_model` checks them. With epochs=0
    and the schedule "trapezoid", `minutes` decide how many epochs there are, see `decided`; with a
    number of epochs, minutes only say where that number came from.
    Raises TinymixerError for options out of range.
    """

    model: str = option("mixer_pico", OneOf(models.MODELS), "model to train")
    model_options: dict[str, Any] = field(default_factory=dict)
    task: str = option("classify", OneOf(TASKS), "classify images, or segment them pixel by pixel")
    val_size: int = option(
        0, Between(0, 2**31), "training images held back: on them each epoch is measured; 0: none"
    )
    epochs: float = option(
        10, Between(1e-9, 10**9, or_zero=True), "passes over the training images; may be 2.5"
    )
    minutes: float = option(
        0,
        Between(0, 10**6),
        "train for about so many minutes: as many epochs as they hold, by a trapezoid schedule",
    )
    batch_size: int = option(64, BATCH, "images for each update of the weights")
    micro_batch: int = option(16, BATCH, "images of a batch computed together")
    optimizer: str = option("adamw", OneOf(OPTIMIZERS), "rule that updates the weights")
    lr: float = option(4e-3, Between(1e-12, 1000), "learning rate after the warm-up, its highest")
    lr_final: float = option(0.01, SHARE, "share of --lr that is left at the end, 0 to 1")
    schedule: str = option("cosine", OneOf(optim.SCHEDULES), "how the learning rate falls")
    warmup_epochs: float = option(0.5, AMOUNT, "epochs in which the learning rate rises to --lr")
    weight_decay: float = option(0.05, AMOUNT, "how strongly an update pulls the weights towards 0")
    momentum: float = option(0.9, DECAY, "share of the last update that sgd keeps, 0 to 1")
    clip_norm: float = option(1.0, AMOUNT, "gradients are scaled down to this norm; 0: never")
    label_smoothing: float = option(0.1, SHARE, "share of each target spread over all classes")
    ema: float = option(0.0, DECAY, "decay of averaged weights, which are then tested; 0: none")
    augment: data.Augment = field(default_factory=data.Augment)
    whiten: int = option(
        0,
        Between(0, 2**31),
        "training images that decide how patches are whitened at the start; 0: not whitened",
    )
    seed: int = option(0, Between(0, 2**64 - 1), "seed of all random numbers of the run")
    precision: str = option("fp32", OneOf(PRECISIONS), "number format of matrix products on a GPU")
    freeze: str = option(
        "none", OneOf(FREEZES), "what stays as it begins: backbone, all but the head"
    )
    begun_from: str = ""  # the file that the weights were first, and its digest: for the reader

    def __post_init__(self) -> None:
        check_options(self, "training option")
        if not self.epochs and not self.minutes:
            raise TinymixerError("training option epochs=0: expected more, unless minutes decide")
        if not self.epochs and self.schedule != "trapezoid":
            raise TinymixerError(
                f"training option minutes={self.minutes:g}: expected schedule='trapezoid', not "
                f"{self.schedule!r}, which asks from the beginning how many epochs there will be"
            )
        if TASKS[self.task].pixels and self.augment.mixes:
            raise TinymixerError(
                "mixup and cutmix mix the classes of whole images, but --task segment learns the "
                "classes of pixels; leave them out"
            )

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "Config":
        """The Config that `dataclasses.asdict` made `options` of."""
        return cls(**{**options, "augment": data.Augment(**options["augment"])})

    def plain(self) -> dict[str, Any]:
        """The options as a file gives them back: JSON has no tuples."""
        return json.loads(json.dumps(asdict(self)))

    def steps_per_epoch(self, train_images: int) -> int:
        """How many batches the training images make that are not held back."""
        return -(-(train_images - self.val_size) // self.batch_size)

    def steps(self, steps_per_epoch: int) -> int:
        """How many steps the run takes in all; no end, while that is open."""
        return max(1, round(self.epochs * steps_per_epoch)) if self.epochs else sys.maxsize

    def decided(self, steps_done: int, steps_per_epoch: int, seconds: float) -> "Config":
        """With as many epochs as the minutes hold, if `seconds` of them are enough to tell.

        That is after a third of them, by how many steps were done. The learning rate has been the
        highest until then, whatever the end. So the run ends in the bits of one begun with these
        epochs; if the machine slows down afterwards, it ends later.
        """
        if self.epochs or seconds <= DECIDED * 60 * self.minutes:
            return self
        fitting = round(steps_done * (1 - SPARE) * 60 * self.minutes / seconds)
        steps = max(fitting, math.ceil(steps_done / optim.HELD))
        return replace(self, epochs=steps / steps_per_epoch)

    def learning_rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0 over the whole run."""
        return optim.learning_rate(
            step,
            base=self.lr,
            final=self.lr * self.lr_final,
            warmup=round(self.warmup_epochs * steps_per_epoch),
            total=self.steps(steps_per_epoch),
            schedule=self.schedule,
        )

    def model_for(self, dataset: data.Dataset, rng: np.random.Generator) -> nn.Module:
        """The model, freshly initialised, for the images and classes of a data set.

        With `whiten`, its first embedding knows the data set's first images, see nn.whiten. Raises
        TinymixerError for a model that cannot take them.
        """
        _, height, width, channels = dataset.train_images.shape
        model = self.build_model(dataset.num_classes, rng, channels, (height, width))
        if self.whiten and not nn.undrawn(rng):
            images = to_numpy(dataset.train_images[: self.whiten])
            try:
                with threadpool_limits(1, user_api="blas"):  # its sums have other bits with more
                    nn.whiten(model, data.normalise(images, dataset.mean, dataset.std))
            except ValueError as error:
                raise TinymixerError(f"model {self.model} on {dataset.name}: {error}") from error
        return model

    def build_model(
        self,
        num_classes: int,
        rng: np.random.Generator,
        channels: int = 3,
        image_size: tuple[int, int] | None = None,
    ) -> nn.Module:
        """The model, freshly initialised, for as many classes and such images as a data set has.

        An image_size in model_options comes before that of the data set, and None is the model's
        own. Raises TinymixerError for options that do not fit it.
        """
        for name in ("num_classes", "channels"):
            if name in self.model_options:
                raise TinymixerError(
                    f"model {self.model}: the data set decides {name}; leave out "
                    f"{name}={self.model_options[name]!r}"
                )
        size = {} if image_size is None else {"image_size": image_size}
        options = {**size, **self.model_options, "channels": channels}
        try:
            model = models.create_model(self.model, num_classes, rng=rng, **options)
            model = TASKS[self.task].model(model, num_classes, rng)
        except (ValueError, TypeError) as error:
            changes = ", ".join(f"{name}={shown(x)}" for name, x in self.model_options.items())
            of = f"{self.model} with {changes}" if changes else self.model
            raise TinymixerError(f"model {of}: {error}") from error
        model.frozen = self.freeze == "backbone"
        return model

    def build_optimizer(self, decay: Array, places: Sequence[Place] = ()) -> optim.Optimizer:
        """The optimizer of N flat weights; decay (N,): the share of weight decay each feels.

        places are those of the hidden matrices, see `parallel.places_of`.
        """
        return OPTIMIZERS[self.optimizer](self, decay, places)


MUON: dict[str, Any] = {"optimizer": "muon", "lr": RATES["muon"]}

# Defaults of `tinymixer train` that are not those of Config: for a data set, then for a task.
RECIPES: dict[str, dict[str, Any]] = {
    "cifar10": {
        "augment": data.Augment(crop_padding=4, flip="alternating"),
        "whiten": 2000,
        **MUON,
    },
    "cifar100": {"augment": data.Augment(crop_padding=4, flip="alternating"), **MUON},
    "mnist": {"augment": data.Augment(crop_padding=2)},  # a mirrored 7 is not a 7
    "fashion_mnist": {"augment": data.Augment(crop_padding=2, flip="alternating")},
    "kmnist": {"augment": data.Augment(crop_padding=2)},
    "folder": {"augment": data.Augment(crop_padding=2)},
    "shapes": {
        "augment": data.Augment(crop_padding=2),
        "epochs": 2.75,
        "warmup_epochs": 0.25,
        **MUON,
    },
}
TASK_RECIPES: dict[str, dict[str, Any]] = {
    "segment": {
        "model": "raft_mlp_nano",
        "label_smoothing": 0.0,
        "epochs": 6,
        "warmup_epochs": 0.5,
        "optimizer": "adamw",
        "lr": RATES["adamw"],
    },
}


def recipe(kind: str, task: str) -> Config:
    """The default Config for a data set and a task, with which every option can be replaced.

    kind is the name of a data set, or "folder" or "npz": the `kind` of a Source. Raises
    TinymixerError for an unknown task.
    """
    options = RECIPES.get(kind, {}) | TASK_RECIPES.get(task, {})
    return Config(task=task, **options)
