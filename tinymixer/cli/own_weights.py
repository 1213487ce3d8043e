"""Weights of your own on the command line: their model, and the mean and std of its images.

What decides is what the user says; then what the file says of itself, if tinymixer wrote it; then
what is known of the layout in which its model was released.
"""

import argparse
import hashlib
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer.arrays import short
from tinymixer.cli.options import add_set, find_checkpoint
from tinymixer.data import Dataset, Source
from tinymixer.errors import DataError, TinymixerError, counted
from tinymixer.models import MODELS, RaftMLP, VisionPermutator, list_models
from tinymixer.summary import blueprint
from tinymixer.train import checkpoint
from tinymixer.train.config import Config
from tinymixer.train.trainer import Trainer
from tinymixer.weights import (
    Started,
    Weights,
    find_layout,
    known,
    load_state,
    num_classes_in,
    read_weights,
    trained,
)
from tinymixer.weights.known import IMAGENET_MEAN, IMAGENET_STD
from tinymixer.weights.start import require_same_places

USUAL = "mixer_pico-cifar10"  # of those that come with tinymixer
TIED = (RaftMLP, VisionPermutator)  # systems whose weights are for the grid of one image size
Colours = tuple[float, ...]  # of each colour, in pixel units, 0..255


@dataclass(frozen=True)
class About:
    """What is known of a file of weights. class_names, mean and std: None if unknown."""

    model: str
    options: dict[str, Any]  # changes to the model's configuration, but what the data set decides
    layout: str
    num_classes: int | None
    channels: int
    image_size: tuple[int, int]
    class_names: tuple[str, ...] | None
    mean: Colours | None
    std: Colours | None


def about(weights: Weights, name: str | None, given: dict[str, Any], layout: str = "auto") -> About:
    """What the user's `name` and options, the file and its layout say, in this order."""
    said = weights.record
    name = name or said.get("model")
    if name is None:
        raise TinymixerError(
            f"{weights.name} does not say which model it is of; name it with --model, one of "
            f"{', '.join(list_models())}"
        )
    options = said.get("model_options", {})
    if name != said.get("model"):  # another form of GELU is wrong for these weights in any model
        options = {key: x for key, x in options.items() if key == "gelu"}
    options = options | given
    channels = options.pop("channels", len(said.get("mean", "rgb")))
    options.pop("num_classes", None)
    try:
        model: Any = blueprint(name, channels=channels, **options)
    except (ValueError, TypeError) as error:
        raise TinymixerError(str(error)) from error
    require_same_places(model, weights, name)
    layout = find_layout(model, weights) if layout == "auto" else layout
    classes = num_classes_in(weights, model, layout)
    if classes is not None and given.get("num_classes", classes) != classes:
        raise TinymixerError(
            f"{weights.name} is of {counted(classes, 'class')}; leave out "
            f"num_classes={short(given['num_classes'])}"
        )
    facts = known(type(model).__name__, layout, classes)
    if facts and "gelu" not in options:
        options["gelu"] = facts.gelu
    names, mean, std = (said.get(key) for key in ("class_names", "mean", "std"))
    if names is None and classes == 1000:
        names = imagenet_classes().values()
    if mean is None and facts:
        mean, std = facts.mean, facts.std
    return About(
        name,
        options,
        layout,
        classes,
        channels,
        model.image_size,
        None if names is None else tuple(names),
        None if mean is None else tuple(mean),
        None if std is None else tuple(std),
    )


def require_classifier(weights: Weights, cure: str) -> None:
    """Raise TinymixerError for the weights of a segmentation run."""
    if weights.record.get("task") == "segment":
        raise TinymixerError(f"{weights.name} is of a model that segments; {cure}")


def imagenet_classes() -> dict[str, str]:
    """The 1,000 classes of ImageNet in order: WordNet's number of each ("n01440764") and its name.

    Of the words that WordNet lists for a class, the first; "crane" and "maillot", each the first of
    two classes, are told apart. Source: the synsets of ILSVRC 2012.
    """
    text = (files("tinymixer.weights") / "imagenet_classes.txt").read_text()
    return dict(line.split(" ", 1) for line in text.splitlines())


# tinymixer predict, tinymixer eval ----------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """A model with its weights, what its classes are called, and how it sees colours."""

    model: Any
    class_names: tuple[str, ...]
    mean: Colours
    std: Colours
    out: Path  # folder for results

    @property
    def channels(self) -> int:
        return self.model.channels

    def on(self, given: dict[str, Any], data_dir: str | None) -> tuple[Dataset, np.ndarray | None]:
        """The data set of these fields of a Source, as the model sees it; and where its classes are
        among the model's, None if they are the same.

        Otherwise each has to have the name of one of the model's, or WordNet's number of it. Raises
        DataError if one has not.
        """
        if "dataset" not in given:
            raise DataError("--weights says nothing of a data set; name one, --dataset folder:PATH")
        source = Source(**given)
        if source.kind == "folder" and source.image_size is None:
            source = replace(source, image_size=self.model.image_size[0])
        dataset = source.load(data_dir)
        if len(dataset.mean) != self.model.channels:
            raise DataError(
                f"{dataset.name} has images of "
                f"{counted(len(dataset.mean), 'channel')}, but the model takes "
                f"{self.model.channels}; give it images of its kind"
            )
        dataset = replace(dataset, mean=self.mean, std=self.std)
        names = [_plain(name) for name in dataset.class_names]
        known_names = [_plain(name) for name in self.class_names]
        if names == known_names:
            return dataset, None
        places = {name: k for k, name in enumerate(known_names)}
        numbers = imagenet_classes()
        if self.class_names == tuple(numbers.values()):
            places |= {number: k for k, number in enumerate(numbers)}
        if unknown := [name for name in names if name not in places]:
            raise DataError(
                f"{dataset.name}: its class {unknown[0]!r} is not one of the model's "
                f"{len(known_names):,}, such as {', '.join(self.class_names[:3])}. Give each class "
                "of the data set the name that the model has for it, or train on it with --init"
            )
        return dataset, np.array([places[name] for name in names])


def add_weights(parser: Any) -> None:
    group = parser.add_argument_group("weights instead of a run")
    group.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="published or converted weights of a model, instead of --run; or pretrained ones "
        f"of tinymixer, by name: {', '.join(trained())}",
    )
    group.add_argument(
        "--model", metavar="NAME", help="model that they are of, if the file does not say"
    )
    add_set(group)
    add_key(group)


def add_key(parser: Any) -> None:
    parser.add_argument(
        "--checkpoint-key",
        metavar="KEY",
        help="the model that is meant in a file of several, by its name there, such as teacher",
    )


def load(args: argparse.Namespace) -> Ready | None:
    """The model of --weights; None without. Lines say what was unwrapped and what is assumed."""
    if args.weights is None:
        if args.model or args.set or args.checkpoint_key:
            raise TinymixerError(
                "--model, --set and --checkpoint-key belong to --weights FILE; a run knows its own"
            )
        return None
    if args.run:
        raise TinymixerError("--weights and --run both name a model; give one of them")
    path = find_weights(args.weights)
    with read_weights(path, key=args.checkpoint_key or "") as weights:
        require_classifier(weights, "name its run with --run")
        found = about(weights, args.model, dict(args.set))
        sizes = {"num_classes": found.num_classes, "channels": found.channels}
        try:
            model: Any = blueprint(found.model, **found.options, **sizes)
        except (ValueError, TypeError) as error:  # the file may have no class, or 10**9
            raise TinymixerError(f"{path}: {error}") from error
        load_state(model, weights, found.layout)
    for note in weights.notes:
        print(f"note: {note}")
    mean, std = found.mean, found.std
    if mean is None or std is None:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        print(f"note: {path} does not say how it sees colours; ImageNet's mean and std are taken")
    names = found.class_names or tuple(f"class {k}" for k in range(model.num_classes))
    return Ready(model, names, mean, std, args.out or Path("runs") / path.stem)


def find_weights(given: Path) -> Path:
    """The file that is meant: it, that of a run's folder, or one that comes with tinymixer."""
    by_name = trained().get(str(given))
    return find_checkpoint(given) if by_name is None or given.exists() else by_name


def among(log_p: np.ndarray, places: np.ndarray) -> np.ndarray:
    """log p (N, k + 1) of the classes at `places` of (N, K), and of the best of all the others."""
    others = np.delete(log_p, places, axis=1)
    best = others.max(1, keepdims=True, initial=-np.inf)
    return np.concatenate([log_p[:, places], best], axis=1)


def _plain(name: str) -> str:
    return name.replace("_", " ")


# tinymixer train --init ---------------------------------------------------------------------------


def add_init(parser: Any) -> None:
    parser.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="weights to start from: published, converted, a run's folder or checkpoint, or "
        f"pretrained ones of tinymixer, by name: {', '.join(trained())}",
    )
    add_key(parser)


@dataclass(frozen=True)
class Init:
    """The file of --init, and what is known of it."""

    path: Path
    about: About
    key: str = ""

    def config(self, config: Config) -> Config:
        """`config` with the model of the weights, and a note of what the run began from."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        kept = self.path.parts[-2:] if self.path.name in checkpoint.NAMES else self.path.parts[-1:]
        return replace(
            config,
            model=self.about.model,
            model_options=self.about.options,
            begun_from=f"{'/'.join(kept)} sha256:{digest.hexdigest()[:16]}",
        )

    def source(self, source: Source) -> Source:
        """`source`, with pictures of a folder in the size that the weights are for."""
        if source.kind == "folder" and source.image_size is None:
            return replace(source, image_size=self.about.image_size[0])
        return source

    def seen(self, dataset: Dataset) -> Dataset:
        """`dataset` with the mean and std that the weights were trained with, if they are known."""
        mean, std = self.about.mean, self.about.std
        if mean is None or std is None:
            return dataset
        colours = len(dataset.mean)
        mean, std = _of_colours(mean, colours), _of_colours(std, colours)
        return replace(dataset, mean=mean, std=std).loaded_from(dataset.source)

    def start(self, trainer: Trainer) -> Started:
        """Give the trainer these weights. Raises TinymixerError if untrained ones stay frozen."""
        same_classes = self.about.class_names in (None, tuple(trainer.dataset.class_names))
        with read_weights(self.path, key=self.key) as weights:
            started = trainer.start_from(weights, self.about.layout, keep_head=same_classes)
        learned = trainer.model.learned_parameters()
        if stuck := [name for name in started.new if name not in learned]:
            raise TinymixerError(
                f"--freeze backbone: {self.path} has no {stuck[0]} "
                f"({counted(len(stuck), 'such array')}), so "
                "it would stay as it is drawn; leave out --freeze, or choose the weights' own model"
            )
        return started


def find_init(args: argparse.Namespace) -> Init | None:
    """What --init names; None without. Lines say what was unwrapped."""
    if args.init is None:
        if getattr(args, "freeze", "none") != "none":
            raise TinymixerError("--freeze keeps weights as they begin; name the file with --init")
        if getattr(args, "checkpoint_key", None):
            raise TinymixerError("--checkpoint-key is of a file of weights; name it with --init")
        return None
    path, key = find_weights(args.init), getattr(args, "checkpoint_key", None) or ""
    given = dict(args.set)
    with read_weights(path, key=key) as weights:
        if getattr(args, "task", "classify") == "classify":
            require_classifier(weights, "start from it with --task segment")
        sizes = {key: given.pop(key) for key in ("num_classes", "channels") if key in given}
        found = about(weights, getattr(args, "model", None), given)
        found.options.update(sizes)  # which the data set decides: they are refused with the others
    for note in weights.notes:
        print(f"note: {note}")
    if "image_size" not in given:  # the model follows the images, unless its weights cannot
        found.options.pop("image_size", None)
        if MODELS[found.model][0] in TIED:
            found.options["image_size"] = list(found.image_size)
    return Init(path, found, key)


def _of_colours(numbers: Colours, colours: int) -> Colours:
    """One number for each colour of other images: grey is a mean of colours, or equal ones."""
    if len(numbers) == colours:
        return numbers
    return (sum(numbers) / len(numbers),) * colours
