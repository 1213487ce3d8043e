"""Training: a loop whose every random number is looked up, so that it can stop and go on anywhere.

    images -> augment -> normalise -> model -> loss -> backward -> one sum -> optimizer

The order of the images, their augmentation and the dropped paths are functions of (seed, epoch,
step, image or micro-batch). Nothing else varies: a run that was stopped at any moment goes on from
its last checkpoint to the same weights, bit for bit, on any number of workers.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tinymixer import data, fast, optim
from tinymixer.backend import (
    Array,
    array_module,
    device_of,
    numbers,
    precision,
    to_device,
    to_numpy,
)
from tinymixer.data.draws import Stream, generator, permutation
from tinymixer.engine import Tensor, no_grad
from tinymixer.errors import CheckpointError, NonFiniteError, TinymixerError
from tinymixer.files import write_atomically
from tinymixer.nn import Module
from tinymixer.summary import first_non_finite
from tinymixer.train import checkpoint, figures, metrics
from tinymixer.train.config import Config
from tinymixer.train.parallel import FlatParameters, GradientSum, Workers, batch_gradient, cut
from tinymixer.train.tasks import TASKS, Classification

EVAL_BATCH = {"cpu": 64, "gpu": 1024}  # images that a worker evaluates at once
NOTHING = {"loss": 0.0, "correct": 0, "images": 0, "seconds": 0.0}  # sums, at an epoch's start


class Stopped(Exception):
    """A signal, by its number, asked the run in `folder` to stop; its position is saved."""

    def __init__(self, number: int, folder: Path | None):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal, self.folder = number, folder


class Trainer:
    """A run of a Config on a data set: `Trainer(config, dataset).run()`.

    Where the run stands is (epoch, step): both count from 0, and `step` is the next one to do
    within the epoch. Given `out`, a folder, the run leaves there

        last.npz, best.npz   checkpoints: the latest, and the one with the best test figure
        config.json          the Config
        metrics.jsonl        one line of figures per epoch
        curves.png           the same as a picture

    and `Trainer.resume(out / "last.npz", dataset)` goes on where it stopped. save_every is in
    seconds; the end of an epoch and a signal to stop save as well.

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
        self._stop_signal = 0
        self._saved_at = -math.inf
        try:
            with no_grad():
                first = self.dataset.train_images[:1]
                self.model(data.normalise(first, dataset.mean, dataset.std))
        except ValueError as error:
            raise TinymixerError(f"model {config.model} on {dataset.name}: {error}") from error

    @classmethod
    def resume(cls, path: Path, dataset: data.Dataset, **options: Any) -> "Trainer":
        """The run that wrote the checkpoint `path`, as it was then.

        Raises CheckpointError if the file is damaged or was trained on other data.
        """
        saved = checkpoint.load(path)
        header = saved.header
        if header["dataset"]["fingerprint"] != dataset.fingerprint:
            raise CheckpointError(
                f"{path} was trained on other data: {header['dataset']['name']} with fingerprint "
                f"{header['dataset']['fingerprint'][:12]}, not {dataset.name} with "
                f"{dataset.fingerprint[:12]}. Resume with the data set it began with"
            )
        try:
            trainer = cls(Config.from_dict(header["config"]), dataset, path.parent, **options)
            trainer.model.load_state(saved.weights)
            if trainer.average is not None:
                averages = trainer.flat.named(trainer.average)
                for name, view in averages.items():
                    view[...] = array_module(view).asarray(saved.ema[name])
            for name, array in trainer.optimizer.state.items():
                array[...] = array_module(array).asarray(saved.optimizer[name])
            trainer.epoch, trainer.step = header["position"]
            trainer.history, trainer._so_far = header["history"], header["so_far"]
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} does not fit its own configuration: {error}") from error
        return trainer

    def run(self) -> list[dict[str, Any]]:
        """Train to the end of the last epoch; the history, one dict of figures per epoch.

        Raises Stopped after SIGINT or SIGTERM, once the position is saved, and NonFiniteError
        when the loss or its gradient is no longer finite.
        """
        products = precision(self.config.precision, self.device)
        with self.workers, self._until_signalled(), products:
            self._save("last")
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
            while self.step < self.steps_per_epoch and self._steps_done() < self.steps:
                start = time.perf_counter()
                first = self.step * self.config.batch_size
                loss, correct, images = self._train_step(order[first:][: self.config.batch_size])
                self._so_far["loss"] += loss
                self._so_far["correct"] += correct
                self._so_far["images"] += images
                self._so_far["seconds"] += time.perf_counter() - start
                self.step += 1
                bar.update(images)
                bar.set_postfix(loss=f"{self._so_far['loss'] / self._so_far['images']:.3f}")
                if self._stop_signal:
                    self._save("last")
                    raise Stopped(self._stop_signal, self.out)
                if time.monotonic() - self._saved_at > self.save_every:
                    self._save("last")

    def _train_step(self, batch: Array) -> tuple[float, float, int]:
        """One update from the images at indices `batch`: sum of losses, number right, images."""
        pieces = cut(batch, self.config.micro_batch)
        done = batch_gradient(self._loss, pieces, self.flat, self._gradients, self.workers)
        for g, (loss, _) in enumerate(done):
            if not math.isfinite(loss):
                raise self._non_finite(f"the loss is {loss}", self._culprit(g, pieces[g]))
        gradients = self._gradients.total
        norm = optim.clip_by_global_norm(gradients, self.config.clip_norm)
        if not math.isfinite(norm):
            xp = array_module(gradients)
            names = [n for n, g in self.flat.named(gradients).items() if not xp.isfinite(g).all()]
            raise self._non_finite(
                f"the gradient's norm is {norm}", f"the gradient of {names[0]}" if names else None
            )
        rate, step = self._learning_rate(), self._steps_done()
        self.optimizer.step_and_average(
            self.flat.weights, gradients, rate, step, self.average, self.config.ema
        )
        total = math.fsum(loss * len(piece) for (loss, _), piece in zip(done, pieces, strict=True))
        return total, sum(numbers([hits for _, hits in done])), len(batch)

    def _loss(self, g: int, indices: Array) -> tuple[Tensor, Array]:
        """The mean loss of micro-batch g, and how many of its images are answered right."""
        config, dataset = self.config, self.dataset
        images, targets = self.augment(
            dataset.train_images,
            dataset.train_labels,
            indices,
            epoch=self.epoch,
            seed=config.seed,
            num_classes=dataset.num_classes,
        )
        place = self.epoch, self.step, g
        rng = fast.generator(self.flat.weights, config.seed, Stream.DROPOUT, *place)
        logits = self.model(data.normalise(images, dataset.mean, dataset.std), rng=rng)
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
            print(_line(figures_of_epoch), flush=True)

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

    def _save(self, name: str) -> None:
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
        ema = self.flat.named(self.average) if self.average is not None else {}
        checkpoint.save(
            self.out / f"{name}.npz", header, self.model.state(), ema, self.optimizer.state
        )
        self._saved_at = time.monotonic()

    def _report(self) -> None:
        """Bring the files that people read up to the history."""
        if self.out is None:
            return
        lines = "".join(json.dumps(figures_of_epoch) + "\n" for figures_of_epoch in self.history)
        config = json.dumps(asdict(self.config), indent=2) + "\n"
        for name, text in (("metrics.jsonl", lines), ("config.json", config)):
            write_atomically(self.out / name, text.encode())
        if self.history:
            figures.save(figures.curves(self.history), self.out / "curves.png")

    def _culprit(self, g: int, indices: Array) -> str | None:
        """The first layer of micro-batch g whose output is not finite."""
        with np.errstate(all="ignore"):
            return first_non_finite(self.model, self._loss(g, indices)[0])

    def _non_finite(self, what: str, where: str | None) -> NonFiniteError:
        saved = f"The last good checkpoint is {self.out / 'last.npz'}. " if self.out else ""
        return NonFiniteError(
            f"epoch {self.epoch + 1}, step {self.step + 1}: {what}"
            f"{f'; first to blame: {where}' if where else ''}. {saved}Try a lower --lr, a longer "
            "--warmup-epochs or a smaller --clip-norm"
        )

    @contextmanager
    def _until_signalled(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask once for a clean stop; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: Any) -> None:
            self._stop_signal = number
            signal.signal(number, before[number])

        before = {int(n): signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for n, handler in before.items():
                signal.signal(n, handler)


def _line(figures_of_epoch: dict[str, Any]) -> str:
    line = (
        "epoch {epoch:3g}   train loss {train_loss:.3f}  accuracy {train_accuracy:6.2%}   "
        "test loss {test_loss:.3f}  accuracy {test_accuracy:6.2%}   "
    )
    if "test_iou" in figures_of_epoch:
        line += "mean IoU {test_iou:6.2%}   "
    return (line + "{seconds:.0f} s, {images_per_s:.0f} images/s").format(**figures_of_epoch)


def measure(
    task: Classification, model: Module, dataset: data.Dataset, workers: Workers
) -> tuple[float, np.ndarray]:
    """The mean loss on the test images, in nats, and their confusion matrix (K, K), true by row.

    What is counted are images, or pixels that have a class.
    """

    def of_batch(batch: tuple[Array, Array]) -> tuple[float, np.ndarray]:
        images, labels = batch
        log_p = _log_softmax(model, images, dataset.mean, dataset.std)
        wanted = task.beside_logits(to_numpy(labels))
        counted = wanted != (-1 if task.ignore is None else task.ignore)
        log_p, wanted = log_p[counted], wanted[counted]  # (n, K), (n,)
        matrix = metrics.confusion_matrix(wanted, log_p.argmax(1), dataset.num_classes)
        return float(log_p[np.arange(len(wanted)), wanted].sum()), matrix

    images, labels = (_to_evaluate(model, x) for x in (dataset.test_images, dataset.test_labels))
    done = workers.map(of_batch, zip(images, labels, strict=True))
    matrix = np.sum([matrix for _, matrix in done], axis=0)
    return -math.fsum(log_p for log_p, _ in done) / int(matrix.sum()), matrix


def log_probabilities(
    model: Module,
    images: Array,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    workers: Workers,
) -> np.ndarray:
    """log p (N, K), natural, for images uint8 (N, H, W, 3); mean and std in pixel units."""
    batches = _to_evaluate(model, images)
    return np.concatenate(workers.map(lambda batch: _log_softmax(model, batch, mean, std), batches))


def segments(
    model: Module,
    images: Array,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> np.ndarray:
    """The most probable class of each pixel, (N, H, W), for images uint8 (N, H, W, 3)."""
    return _log_softmax(model, images, mean, std).argmax(-1).transpose(2, 0, 1)


def _to_evaluate(model: Module, x: Array) -> list[Array]:
    """x (N, ...) in pieces of as many images as are evaluated at once where the model is."""
    return cut(x, EVAL_BATCH[device_of(model.parameters()[0].data)])


def _log_softmax(
    model: Module, images: Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray:
    """log p, natural, of what the model answers: (B, K) or (H, W, B, K)."""
    xp = array_module(model.parameters()[0].data)
    with no_grad():
        logits = to_numpy(model(data.normalise(xp.asarray(images), mean, std)).data)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
