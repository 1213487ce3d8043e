"""Training: a loop whose every random number is looked up, so that it can stop and go on anywhere.

    images -> augment -> normalise -> model -> loss -> backward -> one sum -> optimizer

The order of the images, their augmentation and the dropped paths are functions of (seed, epoch,
step, image or micro-batch). Nothing else varies: a run that was stopped at any moment goes on from
its last checkpoint to the same weights, bit for bit, on any number of workers.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tinymixer import data, fast, optim
from tinymixer.backend import (
    Array,
    Replay,
    array_module,
    precision,
    read_scalars,
    to_device,
)
from tinymixer.data.draws import Stream, generator, permutation
from tinymixer.diagnosis import first_non_finite
from tinymixer.engine import Tensor, enable_grad, no_grad
from tinymixer.errors import CheckpointError, NonFiniteError, TinymixerError
from tinymixer.train import checkpoint, report
from tinymixer.train.config import Config
from tinymixer.train.evaluation import measure
from tinymixer.train.parallel import FlatParameters, GradientSum, Workers, batch_gradient, cut
from tinymixer.train.stopping import Stopped, StopSignal
from tinymixer.train.tasks import TASKS

READ_EVERY = {"cpu": 1, "gpu": 32}  # steps: to ask a GPU for a loss is to wait for it
NOTHING = {"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0}  # sums, at an epoch's start


@dataclass(frozen=True)
class Step:
    """A step that is done, and figures of it that are still where they were computed."""

    number: int
    batch: Array  # indices
    losses: Sequence[Array]  # of each micro-batch: its mean loss,
    hits: Sequence[Array]  # and how many of its images are answered right
    norm: Array  # of the gradient, before clipping


class Trainer:
    """A run of a Config on a data set: `Trainer(config, dataset).run()`.

    Where the run stands is (epoch, step): both count from 0, and `step` is the next one to do
    within the epoch. Given `out`, a folder, the run leaves there

        last.npz, best.npz   checkpoints: the latest, and the one with the best test figure
        config.json          the Config
        metrics.jsonl        one line of figures per epoch
        curves.png           the same as a picture

    and `Trainer.resume(out / "last.npz", dataset)` goes on where it stopped. save_every is in
    seconds; the end of an epoch and a signal to stop save as well. A run never writes over another
    one's checkpoints. With `graph`, on a GPU, a step is recorded and replayed if it can be, with
    the same bits.

    Raises TinymixerError for a model that cannot take the images of the data set.
    """

    def __init__(
        self,
        config: Config,
        dataset: data.Dataset,
        out: Path | None = None,
        *,
        workers: int | None = None,
        device: str = "cpu",
        save_every: float = 60.0,
        quiet: bool = False,
        graph: bool = False,
    ):
        self.config, self.dataset, self.out = config, dataset.to(device), out
        self.device = device
        self.task = TASKS[config.task]
        self.augment = fast.augment(config.augment, device)
        self.save_every, self.quiet = save_every, quiet
        self.model = config.build_model(dataset.num_classes, generator(config.seed, Stream.INIT))
        self.flat = FlatParameters(self.model.to(device))
        self.optimizer = config.build_optimizer(self.flat.decay_mask())
        self.average = self.flat.weights.copy() if config.ema else None
        self.steps_per_epoch = -(-len(dataset.train_images) // config.batch_size)
        self.steps = max(1, round(config.epochs * self.steps_per_epoch))  # in all
        self.epoch, self.step = 0, 0
        self.history: list[dict[str, Any]] = []
        self._so_far: dict[str, Any] = dict(NOTHING)  # of this epoch
        self._gradients = GradientSum(self.flat.weights)
        self.workers = Workers.of_this_machine(workers, device)
        self._read_every, self._unread = READ_EVERY[device], list[Step]()
        self._replay = Replay(self._say_why_not) if graph else None
        self._stop = StopSignal()
        self._owns_folder = False  # whether the checkpoints in `out` are this run's
        self._saved_at = time.monotonic()
        try:
            with no_grad():
                first = self.dataset.train_images[:1]
                self.model(data.normalise(first, dataset.mean, dataset.std))
        except ValueError as error:
            raise TinymixerError(f"model {config.model} on {dataset.name}: {error}") from error

    @classmethod
    def resume(cls, path: Path, dataset: data.Dataset, **options: Any) -> "Trainer":
        """The run that wrote the checkpoint `path`, as it was then.

        Raises CheckpointError if the file is damaged or was trained on other data, and for another
        one than last.npz beside a last.npz: where the run is by now must not be lost.
        """
        saved, last = checkpoint.load(path), path.with_name("last.npz")
        header = saved.header
        if path.name != last.name and last.exists():
            raise CheckpointError(
                f"{path} cannot go on beside {last}, which it would write over; resume {last}, or "
                f"copy {path.name} to a folder of its own and resume it there"
            )
        if header["dataset"]["fingerprint"] != dataset.fingerprint:
            raise CheckpointError(
                f"{path} was trained on other data: {header['dataset']['name']} with fingerprint "
                f"{header['dataset']['fingerprint'][:12]}, not {dataset.name} with "
                f"{dataset.fingerprint[:12]}. Resume with the data set it began with"
            )
        with saved.fitting():
            trainer = cls(saved.config, dataset, path.parent, **options)
            trainer.model.load_state(saved.weights)
            _copy("ema", saved.ema, trainer._averages())
            _copy("optimizer", saved.optimizer, trainer.optimizer.state)
            trainer.epoch, trainer.step = header["position"]
            trainer.history, trainer._so_far = header["history"], header["so_far"]
            begun = trainer.step * saved.config.batch_size
            if header["so_far"]["images"] != min(begun, len(dataset.train_images)):
                raise ValueError(f"{header['so_far']['images']} images are no {trainer.step} steps")
        trainer._owns_folder = True
        return trainer

    def run(self) -> list[dict[str, Any]]:
        """Train to the end of the last epoch; the history, one dict of figures per epoch.

        Raises Stopped after SIGINT or SIGTERM, once the position is saved, even if that is the end;
        NonFiniteError when the loss or its gradient is no longer finite; and CheckpointError,
        before the first step, if `out` holds another run.
        """
        products = precision(self.config.precision, self.device)
        with self.workers, self._stop.heard(self.out), products:
            if not self._owns_folder:
                self._take_folder()
            self._report()
            while not self.finished:
                self._train_epoch()
                self._finish_epoch()
        return self.history

    @property
    def finished(self) -> bool:
        """Whether the last epoch, which may be a part of one, is trained and evaluated."""
        return self.epoch * self.steps_per_epoch >= self.steps

    def _steps_done(self) -> int:
        return self.epoch * self.steps_per_epoch + self.step

    def _train_epoch(self) -> None:
        images = len(self.dataset.train_images)
        order = to_device(permutation(self.config.seed, self.epoch, images), self.device)
        with tqdm(
            desc=f"epoch {self.epoch + 1}/{self.config.epochs:g}",
            total=len(order),
            initial=self._so_far["images"],
            unit=" images",
            leave=False,
            disable=self.quiet or None,  # None: only where there is a terminal
        ) as bar:
            while self.step < self.steps_per_epoch and not self._trained:
                start = time.perf_counter()
                batch = order[self.step * self.config.batch_size :][: self.config.batch_size]
                self._train_step(batch)
                self.step += 1
                stop = self._stop.number
                saves = stop or time.monotonic() - self._saved_at > self.save_every
                if saves or self.step == self.steps_per_epoch or self._trained:
                    self._read()
                self._so_far["seconds"] += time.perf_counter() - start
                bar.update(len(batch))
                if self._so_far["images"]:
                    bar.set_postfix(loss=f"{self._so_far['loss'] / self._so_far['images']:.3f}")
                if saves:
                    self._save("last")
                if stop:
                    raise Stopped(stop, self.out)

    @property
    def _trained(self) -> bool:
        return self._steps_done() >= self.steps

    def _train_step(self, batch: Array) -> None:
        """One update from the images at indices `batch`."""
        if self._read_every > 1 and not self._unread:
            self._known_good = [array.copy() for array in self._changing()]
        pieces = cut(batch, self.config.micro_batch)
        done = batch_gradient(
            self._loss,
            pieces,
            self.flat,
            self._gradients,
            self.workers,
            inputs_of=self._inputs,
            replay=self._replay,
        )
        norm = optim.clip_by_global_norm(self._gradients.total, self.config.clip_norm)
        losses, hits = zip(*done, strict=True)
        self._unread.append(Step(self.step, batch, losses, hits, norm))
        if len(self._unread) >= self._read_every:
            self._read()
        self.optimizer.step_and_average(
            self.flat.weights,
            self._gradients.total,
            self._learning_rate(),
            self._steps_done(),
            self.average,
            self.config.ema,
        )

    def _changing(self) -> list[Array]:
        """All arrays that a step changes."""
        arrays = [*self.model.state().values(), *self.optimizer.state.values()]
        return arrays if self.average is None else [*arrays, self.average]

    def _read(self) -> None:
        """Add up the figures of the steps done since the last time, in one copy from the device.

        Raises NonFiniteError where one is not finite. If updates were done with it, those steps
        are done again, one by one, from where all was well.
        """
        if not self._unread:
            return
        steps, self._unread = self._unread, []
        figures = iter(read_scalars([x for s in steps for x in (*s.losses, *s.hits, s.norm)]))
        for step in steps:
            pieces = cut(step.batch, self.config.micro_batch)
            losses, hits = [next(figures) for _ in pieces], [next(figures) for _ in pieces]
            norm = next(figures)
            if not all(map(math.isfinite, (*losses, norm))):
                if self._read_every > 1:
                    self._repeat(steps)
                raise self._non_finite(pieces, losses, norm)
            sizes = map(len, pieces)
            sums = (loss * size for loss, size in zip(losses, sizes, strict=True))
            self._so_far["loss"] += math.fsum(sums)
            self._so_far["correct"] += sum(hits)
            self._so_far["images"] += len(step.batch)

    def _repeat(self, steps: Sequence[Step]) -> None:
        self._read_every = 1
        for array, good in zip(self._changing(), self._known_good, strict=True):
            array[...] = good
        for step in steps:
            self.step = step.number
            self._train_step(step.batch)

    def _inputs(self, g: int, indices: Array) -> tuple[Array, ...]:
        """Micro-batch g, the images at `indices`: as they are to be learned now, and their targets;
        and the key of the numbers that are drawn for it."""
        seed, dataset = self.config.seed, self.dataset
        images, targets = self.augment(
            dataset.train_images,
            dataset.train_labels,
            indices,
            epoch=self.epoch,
            seed=seed,
            num_classes=dataset.num_classes,
        )
        position = self.epoch, self.step, g
        return images, targets, fast.rng_key(self.flat.weights, seed, Stream.DROPOUT, *position)

    def _loss(self, images: Array, targets: Array, key: Array) -> tuple[Tensor, Array]:
        """The mean loss of a micro-batch, and how many of its images are answered right."""
        config, dataset, rng = self.config, self.dataset, fast.generator_from(key)
        pixels = fast.pixels(self.model, images, dataset.mean, dataset.std)
        logits = self.model(pixels, rng=rng)
        loss = self.task.loss(logits, targets, config.label_smoothing)
        return loss, self.task.right(logits.data, targets)

    def _learning_rate(self) -> float:
        config = self.config
        return optim.learning_rate(
            self._steps_done(),
            base=config.lr,
            final=config.lr * config.lr_final,
            warmup=round(config.warmup_epochs * self.steps_per_epoch),
            total=self.steps,
            schedule=config.schedule,
        )

    def _finish_epoch(self) -> None:
        """Evaluate, note the figures, save."""
        so_far, cut_short = self._so_far, self.step < self.steps_per_epoch
        with self._averaged_weights():
            test_loss, matrix = measure(self.task, self.model, self.dataset, self.workers)
        figures_of_epoch = {
            "epoch": self._steps_done() / self.steps_per_epoch if cut_short else self.epoch + 1,
            "train_loss": so_far["loss"] / so_far["images"],
            "train_accuracy": so_far["correct"] / so_far["images"],
            "test_loss": test_loss,
            **self.task.scores(matrix),
            "lr": self._learning_rate(),
            "seconds": so_far["seconds"],
            "images_per_s": so_far["images"] / so_far["seconds"],
        }
        metric = self.task.metric
        best_before = max((figures[metric] for figures in self.history), default=-1.0)
        self.history.append(figures_of_epoch)
        self._so_far = dict(NOTHING)
        self.epoch, self.step = self.epoch + 1, 0
        if figures_of_epoch[metric] > best_before:
            self._save("best")  # before "last": if cut off between, the epoch is done again
        self._save("last")
        self._report()
        if not self.quiet:
            report.say(report.line(figures_of_epoch))

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Within it the model has the averaged weights, if a run keeps them."""
        if self.average is None:
            yield
            return
        trained = self.flat.weights.copy()
        self.flat.weights[...] = self.average
        try:
            yield
        finally:
            self.flat.weights[...] = trained

    def _averages(self) -> dict[str, Array]:
        """The averaged weights by name, if a run keeps them."""
        return {} if self.average is None else self.flat.named(self.average)

    def _take_folder(self) -> None:
        """Save where the run begins. A run that goes on does not: what is saved is as good."""
        if self.out is not None:
            checkpoint.require_unused(self.out)
        self._save("last")
        self._owns_folder = True

    def _save(self, name: str) -> None:
        self._saved_at = time.monotonic()
        if self.out is None:
            return
        header = {
            "config": asdict(self.config),
            "dataset": {
                "name": self.dataset.name,
                "fingerprint": self.dataset.fingerprint,
                "class_names": self.dataset.class_names,
                "mean": self.dataset.mean,
                "std": self.dataset.std,
            },
            "position": (self.epoch, self.step),
            "history": self.history,
            "so_far": self._so_far,
            "versions": {"numpy": np.__version__},
        }
        checkpoint.save(
            self.out / f"{name}.npz",
            header,
            self.model.state(),
            self._averages(),
            self.optimizer.state,
        )

    def _report(self) -> None:
        if self.out is not None:
            report.write(self.out, self.config, self.history)

    def _say_why_not(self, why_not: str) -> None:
        if not self.quiet:
            tqdm.write(f"no graph, launch by launch instead: {why_not}")

    def _non_finite(
        self, pieces: Sequence[Array], losses: Sequence[float], norm: float
    ) -> NonFiniteError:
        """What to raise for a step whose update is not done yet."""
        bad = [g for g, loss in enumerate(losses) if not math.isfinite(loss)]
        where: str | None = None
        if bad:
            what = f"the loss is {losses[bad[0]]}"
            with np.errstate(all="ignore"), enable_grad():
                loss, _ = self._loss(*self._inputs(bad[0], pieces[bad[0]]))
                where = first_non_finite(self.model, loss)
        else:
            what, xp = f"the gradient's norm is {norm}", array_module(self.flat.weights)
            for name, gradient in reversed(self.flat.named(self._gradients.total).items()):
                if not xp.isfinite(gradient).all():
                    where = f"the gradient of {name}"
        clipping = "a smaller --clip-norm" if self.config.clip_norm else "--clip-norm 1"
        saved = f"The last good checkpoint is {self.out / 'last.npz'}. " if self.out else ""
        return NonFiniteError(
            f"epoch {self.epoch + 1}, step {self.step + 1}: {what}"
            f"{f'; first to blame: {where}' if where else ''}. {saved}Try a lower --lr, a longer "
            f"--warmup-epochs or {clipping}"
        )


def _copy(group: str, saved: Mapping[str, np.ndarray], own: Mapping[str, Array]) -> None:
    """Copy saved arrays into those of the same names.

    Raises ValueError, and changes nothing, unless names and shapes are the same: an array of one
    number would fill all of another.
    """
    for name in sorted(saved.keys() | own.keys()):
        found, expected = (x[name].shape if name in x else "nothing" for x in (saved, own))
        if found != expected:
            raise ValueError(f"{group}/{name} is {found}, expected {expected}")
    for name, array in own.items():
        array[...] = array_module(array).asarray(saved[name])
