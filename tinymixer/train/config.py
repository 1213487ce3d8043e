"""What decides a training run, in one frozen object."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from tinymixer import data, fast, models, optim
from tinymixer.backend import Array, device_of
from tinymixer.errors import TinymixerError
from tinymixer.fast.gpu.products import PRECISIONS
from tinymixer.nn import Module
from tinymixer.train.tasks import TASKS


@dataclass(frozen=True)
class Config:
    """Everything that decides the trained weights: two runs of one Config end in the same bits.

    model, model_options   a name of `list_models()` and changes to its options
    task                   "classify" images or "segment" them, which is to classify their pixels
    dataset                a name of `data.NAMES`; train_size, test_size: images used, None for all
    epochs                 passes over the training images; 2.5 stops half way through the third
    batch_size             images per update; micro_batch: those computed together
    lr                     the learning rate at its highest, reached after warmup_epochs
    lr_final               the share of lr that is left at the end
    schedule, optimizer    keys of optim.SCHEDULES and of OPTIMIZERS
    clip_norm              the most that the gradient's norm may be; 0: no limit
    ema                    decay per update of the averaged weights; 0: none are kept
    precision              of matrix products on a GPU, see fast.gpu.products; a CPU knows only fp32

    Raises TinymixerError for options out of range.
    """

    model: str = "mixer_pico"
    model_options: dict[str, Any] = field(default_factory=dict)
    task: str = "classify"
    dataset: str = "cifar10"
    train_size: int | None = None
    test_size: int | None = None
    epochs: float = 10
    batch_size: int = 64
    micro_batch: int = 16
    optimizer: str = "adamw"
    lr: float = 4e-3
    lr_final: float = 0.01
    schedule: str = "cosine"
    warmup_epochs: float = 0.5
    weight_decay: float = 0.05
    momentum: float = 0.9
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    ema: float = 0.0
    augment: data.Augment = field(default_factory=data.Augment)
    seed: int = 0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        for option in fields(self):
            kinds: dict[Any, Any] = {float: float | int, dict[str, Any]: dict}
            kind = kinds.get(option.type, option.type)
            if not isinstance(getattr(self, option.name), kind):
                expected = getattr(option.type, "__name__", option.type)
                raise _error(option.name, getattr(self, option.name), str(expected))
        for names, low, high in (
            (("epochs",), 1e-9, 1e9),
            (("batch_size", "micro_batch"), 1, 2**31),
            (("lr",), 1e-12, 1e3),
            (("lr_final", "label_smoothing"), 0, 1),
            (("momentum", "ema"), 0, 1 - 1e-9),
            (("warmup_epochs", "weight_decay", "clip_norm"), 0, 1e9),
            (("seed",), 0, 2**64 - 1),
        ):
            for name in names:
                if not low <= getattr(self, name) <= high:
                    raise _error(name, getattr(self, name), f"{low} to {high}")
        for name, known in (
            ("model", models.list_models()),
            ("task", TASKS),
            ("dataset", data.NAMES),
            ("optimizer", OPTIMIZERS),
            ("schedule", optim.SCHEDULES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                raise _error(name, getattr(self, name), _choice(known))
        if TASKS[self.task].pixels and self.augment.mixes:
            raise TinymixerError(
                "mixup and cutmix mix the classes of whole images, which --task segment has not; "
                "leave them out"
            )

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "Config":
        """The Config that `dataclasses.asdict` made `options` of."""
        return cls(**{**options, "augment": data.Augment(**options["augment"])})

    def plain(self) -> dict[str, Any]:
        """The options as a file gives them back: JSON knows no tuples."""
        return json.loads(json.dumps(asdict(self)))

    def load_dataset(self, data_dir: str | None = None, *, download: bool = False) -> data.Dataset:
        """The data set that is trained on. Raises DataError where it is not to be had."""
        return data.load(
            self.dataset,
            data_dir,
            download=download,
            train_size=self.train_size,
            test_size=self.test_size,
            pixels=TASKS[self.task].pixels,
        )

    def build_model(self, num_classes: int, rng: np.random.Generator) -> Module:
        """The model, freshly initialised. Raises TinymixerError where its options do not fit."""
        if "num_classes" in self.model_options:
            raise TinymixerError(
                f"model {self.model}: the data set decides num_classes; leave out "
                f"num_classes={self.model_options['num_classes']!r}"
            )
        try:
            model = models.create_model(self.model, num_classes, rng=rng, **self.model_options)
            return TASKS[self.task].model(model, num_classes, rng)
        except (ValueError, TypeError) as error:
            changes = f" with {self.model_options}" if self.model_options else ""
            raise TinymixerError(f"model {self.model}{changes}: {error}") from error

    def build_optimizer(self, decay: Array) -> optim.Optimizer:
        """The optimizer of flat weights that feel weight decay as far as `decay` (N,) says."""
        return OPTIMIZERS[self.optimizer](self, decay)


OPTIMIZERS: dict[str, Callable[[Config, Array], optim.Optimizer]] = {
    "adamw": lambda c, decay: fast.chosen(optim.AdamW, device_of(decay))(
        decay, weight_decay=c.weight_decay
    ),
    "sgd": lambda c, decay: optim.SGD(decay, weight_decay=c.weight_decay, momentum=c.momentum),
}


# What `tinymixer train` does unless told otherwise: on a data set, and then for a task.
RECIPES: dict[str, dict[str, Any]] = {
    "cifar10": {"augment": data.Augment(crop_padding=4, flip="alternating")},
    "cifar100": {"augment": data.Augment(crop_padding=4, flip="alternating")},
    "shapes": {"augment": data.Augment(crop_padding=2), "epochs": 6},
}
TASK_RECIPES: dict[str, dict[str, Any]] = {
    "segment": {"model": "raft_mlp_nano", "label_smoothing": 0.0},
}


def recipe(dataset: str, task: str) -> Config:
    """The options for a data set and a task that are not Config's own. One unknown is refused."""
    options = RECIPES.get(dataset, {}) | TASK_RECIPES.get(task, {})
    return Config(dataset=dataset, task=task, **options)


def _error(name: str, value: Any, expected: str) -> TinymixerError:
    return TinymixerError(f"training option {name}={value!r}: expected {expected}")


def _choice(names: Iterable[str]) -> str:
    return " or ".join(names)
