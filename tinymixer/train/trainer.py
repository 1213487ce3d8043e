"""A run: epochs of training steps, evaluations, and checkpoints from which it goes on.

    order of the images -> train/step.py, step by step -> evaluation -> checkpoint

Every random number is looked up, see step.py, and nothing else varies. So a run that was stopped at
any moment goes on from its last checkpoint to the same weights, bit for bit, on any number of
workers. On another kind of processor or BLAS the last bits differ, see machine.py: a checkpoint
says where it was made, and a run that goes on elsewhere says so.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tinymixer import data
from tinymixer.backend import Array, array_module, read_scalars, to_device
from tinymixer.data.draws import Stream, generator, permutation
from tinymixer.data.folder import keep_apart
from tinymixer.engine import no_grad
from tinymixer.errors import CheckpointError, NonFiniteError, TinymixerError, counted, note
from tinymixer.fast.gpu.graphs import Replay
from tinymixer.fast.gpu.products import precision
from tinymixer.optim import HELD
from tinymixer.train import checkpoint, report
from tinymixer.train.checkpoint import Checkpoint
from tinymixer.train.config import Config
from tinymixer.train.evaluation import measure
from tinymixer.train.machine import Machine
from tinymixer.train.non_finite import non_finite_error, spoilt_error
from tinymixer.train.parallel import Workers
from tinymixer.train.ranks import ALONE, Ranks
from tinymixer.train.records import DatasetRecord, EpochFigures, Header, Progress
from tinymixer.train.run_folder import RunFolder, latest_in
from tinymixer.train.step import StepFigures, TrainingStep
from tinymixer.train.stopping import Stopped, StopSignal
from tinymixer.train.tasks import TASKS
from tinymixer.train.together import together, worth_starting
from tinymixer.train.validation import held_back
from tinymixer.weights import Started, start_from

PLANNED, SPARE = 0.35, 0.03  # shares of the minutes: when their epochs are decided; kept free
READ_EVERY = {"cpu": 1, "gpu": 32}  # steps: reading a loss from a GPU means waiting for it


class Trainer:
    """A run of a Config on a data set: `Trainer(config, dataset).run()`.

    Where the run stands is (epoch, step): both count from 0, and `step` is the next one to do
    within the epoch. Given `out`, a folder, the run leaves there

        last.npz             the latest checkpoint
        best.npz             with val_size: the one with the best figure on validation images
        config.json          the Config, and what it was trained on
        metrics.jsonl        one line of figures per epoch
        curves.png           the same as a picture, which is drawn every few seconds

    and `Trainer.resume(out / "last.npz", dataset)` goes on where it stopped, with `epochs=30` to
    another end: the learning rate then follows the schedule for 30 epochs, so a cosine that had
    come down goes up again, and checkpoints keep when that was.

    With Config.minutes, how many epochs they hold is decided after a third of them, by how many
    steps there were. The learning rate has been the highest until then, whatever the end. So the
    run ends in the bits of one begun with these epochs; if the machine then slows down, it ends
    later.

    What computes: `workers` threads of this process, or `processes` with one thread each, which are
    faster and take a second to start; None for whichever is faster here. `ranks` are those that a
    launcher started, see mpi.py. It changes no bit. split: `held_back` of the data set, if known.

    Nothing is chosen on the test images: the result of a run is the test figure of its last
    weights. save_every is in seconds; the end of an epoch and a signal to stop save as well. A run
    never writes over another one's checkpoints. With `graph`, on a GPU, a step is recorded and
    replayed if it can be, with the same bits.

    Raises TinymixerError for a model that cannot take the images of the data set, and for an `out`
    among the pictures that they come from.
    """

    def __init__(
        self,
        config: Config,
        dataset: data.Dataset,
        out: Path | None = None,
        *,
        workers: int | None = None,
        processes: int | None = 1,
        ranks: Ranks = ALONE,
        device: str = "cpu",
        save_every: float = 60.0,
        quiet: bool = False,
        graph: bool = False,
        split: data.Dataset | None = None,
    ):
        if ranks.rank > 0:  # the first one alone writes and reports
            out, quiet = None, True
        TASKS[config.task].check_labels(dataset)
        if out is not None and dataset.source is not None:
            keep_apart(dataset.source.dataset, out / "curves.png")
        self.config, self.dataset, self.out = config, dataset.to(device), out
        self.record = DatasetRecord.of(self.dataset)
        self.device, self.save_every, self.quiet = device, save_every, quiet
        self.model = config.model_for(dataset, generator(config.seed, Stream.INIT))
        self.workers = Workers.of_this_machine(workers, device)
        self.ranks = ranks
        self.split = split or held_back(self.dataset, config.val_size)
        self.training_step = TrainingStep(
            config,
            self.model.to(device),
            self.split,
            self.workers,
            replay=Replay(self._say_why_not) if graph else None,
        )
        self.flat, self.average = self.training_step.flat, self.training_step.average
        self.optimizer, self.task = self.training_step.optimizer, self.training_step.task
        self.steps_per_epoch = config.steps_per_epoch(len(dataset.train_images))
        self.steps = config.steps(self.steps_per_epoch)  # in all
        self.step, self.progress = 0, Progress()
        self.history: list[EpochFigures] = []
        self.extended: tuple[tuple[float, float], ...] = ()  # see Header
        self.processes = worth_starting(self) if processes is None else processes
        self._unread: list[tuple[Array, StepFigures]] = []  # batches and what their steps found
        self._stop = StopSignal()
        self._folder, self._saved_at = RunFolder(out), time.monotonic()
        self._began, self._seconds_before = self._saved_at, 0.0  # see _clock
        try:
            with no_grad():
                first = self.dataset.train_images[:1]
                self.model(data.normalise(first, dataset.mean, dataset.std))
        except ValueError as error:
            raise TinymixerError(f"model {config.model} on {dataset.name}: {error}") from error

    def start_from(self, source: Any, layout: str = "auto", *, keep_head: bool = True) -> Started:
        """Begin with the weights in `source` instead of fresh ones, as far as they fit.

        See weights.start_from. For before the first step.
        """
        started = start_from(self.model, source, layout, keep_head=keep_head)
        if self.average is not None:
            self.average[...] = self.flat.weights
        return started

    @classmethod
    def resume(
        cls, path: Path, dataset: data.Dataset, *, epochs: float | None = None, **options: Any
    ) -> "Trainer":
        """The run that wrote the checkpoint `path`, as it was then.

        With `epochs` it has another end, whether finished or under way. From here on the learning
        rate is that of the schedule for so many epochs: a cosine that had come down goes up again,
        to where the longer one is at this step. The steps that are done stay as they are. So the
        run ends in the bits of one begun with `epochs` if both had the same learning rates so far:
        with schedule="constant" always, with others while the warm-up lasts.

        Raises CheckpointError if the file is damaged or was trained on other data, and for another
        one than last.npz beside a last.npz: where the run is by now must not be lost.
        """
        latest = latest_in(path.parent)  # before it is read
        saved, last = checkpoint.load(path), path.with_name("last.npz")
        header = saved.header if epochs is None else saved.header.until(epochs)
        if path.name != last.name and last.exists():
            raise CheckpointError(
                f"{path} cannot go on beside {last}, which it would write over; resume {last}, or "
                f"copy {path.name} to a folder of its own and resume it there"
            )
        begun, given = header.dataset, DatasetRecord.of(dataset)
        if begun.fingerprint != given.fingerprint:
            raise CheckpointError(
                f"{path} was trained on other data: {begun.name} with fingerprint "
                f"{begun.fingerprint[:12]}, not {given.name} with {given.fingerprint[:12]}. Resume "
                "with the data set it began with"
            )
        if differs := begun.difference(given, ("class_names", "mean", "std")):
            raise CheckpointError(
                f"{path} was trained on {differs}; resume with the data set it began with"
            )
        with saved.fitting():
            trainer = cls(header.config, dataset, path.parent, **options)
            trainer._go_to(saved, header)
            images = len(trainer.split.train_images)
            trained = min(header.step * header.config.batch_size, images)
            if header.progress.images != trained:
                raise ValueError(
                    f"it says {counted(header.step, 'step')} but "
                    f"{counted(header.progress.images, 'image')}, expected "
                    f"{trained}"
                )
            trainer._folder = RunFolder(trainer.out, latest)
        here = Machine.here(trainer.device)
        if header.machine and here != header.machine:
            differences = "; ".join(here.differences(header.machine))
            note(
                f"the run in {path.parent} goes on with other arithmetic ({differences}): from "
                "here on its bits may differ"
            )
        return trainer

    def _go_to(self, saved: Checkpoint, header: Header) -> None:
        self.model.load_state(saved.weights)
        for own, kept in (
            (self._averages(), saved.ema),
            (self.optimizer.state, saved.optimizer),
        ):
            for name, array in own.items():  # with the names and shapes that load has checked
                array[...] = array_module(array).asarray(kept[name])
        self.step, self.progress = header.step, header.progress
        self.history, self.extended = list(header.history), header.extended

    @property
    def epoch(self) -> int:
        """The epoch that the run is in, from 0: as many are done."""
        return len(self.history)

    @property
    def steps_done(self) -> int:
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def finished(self) -> bool:
        """Whether the last epoch, which may be a part of one, is trained and evaluated."""
        return self.epoch * self.steps_per_epoch >= self.steps

    @property
    def best(self) -> EpochFigures | None:
        """The first epoch of the highest figure on validation images; None without such images."""
        name = f"val_{self.task.score}"
        measured = [row for row in self.history if getattr(row, name) is not None]
        return max(measured, key=lambda row: getattr(row, name), default=None)

    def run(self) -> list[EpochFigures]:
        """Train to the end of the last epoch; the history, one record of figures per epoch.

        Raises Stopped after SIGINT or SIGTERM, once the position is saved, even if that is the end;
        NonFiniteError when the loss or its gradient is no longer finite; and, before the first
        step, InUseError if another process trains in `out` and CheckpointError if another run is
        there.
        """
        self._seconds_before = sum(row.seconds for row in self.history) + self.progress.seconds
        self._began = time.monotonic()
        products = precision(self.config.precision, self.device)
        folder, ranks = self._folder.held(lambda: self._save("last")), together(self, follow)
        with folder, ranks, self.workers, self._stop.heard(self.out), products:
            self._report()
            try:
                while not self.finished:
                    self._train_epoch()
                    self._finish_epoch()
            except Stopped:
                self._folder.draw(self.history)
                raise
        return self.history

    def _clock(self) -> float:
        """Seconds that the run has taken; of the time before a stop, those of training."""
        return self._seconds_before + time.monotonic() - self._began

    def _plan(self, elapsed: float) -> None:
        """Decide how many epochs the minutes hold, at the speed until now."""
        seconds = (1 - SPARE) * 60 * self.config.minutes
        fitting = round(self.steps_done * seconds / elapsed)
        self.steps = max(fitting, math.ceil(self.steps_done / HELD))
        epochs = self.steps / self.steps_per_epoch
        self.config = replace(self.config, epochs=epochs)
        if not self.quiet:
            minutes = counted(self.config.minutes, "minute")
            fit = counted(float(f"{epochs:.4g}"), "epoch")
            report.say(f"{minutes}: {fit}, {elapsed:.0f} s of them done")

    def _learning_rate(self) -> float:
        return self.config.learning_rate(self.steps_done, self.steps_per_epoch)

    def _train_epoch(self) -> None:
        config, images = self.config, len(self.split.train_images)
        order = to_device(permutation(config.seed, self.epoch, images), self.device)
        with tqdm(
            desc=f"epoch {self.epoch + 1}" + (f"/{config.epochs:g}" if config.epochs else ""),
            total=len(order),
            initial=self.progress.images,
            unit=" images",
            leave=False,
            disable=self.quiet or None,  # None: only where there is a terminal
        ) as bar:
            while self.step < self.steps_per_epoch and self.steps_done < self.steps:
                start = time.perf_counter()
                batch = order[self.step * config.batch_size :][: config.batch_size]
                number, lr = self.steps_done, self._learning_rate()
                figures = self.training_step(batch, self.epoch, self.step, number=number, lr=lr)
                self._unread.append((batch, figures))
                self.step += 1
                heard = self.workers.ranks.gather((self._stop.number, self._clock()))
                stop, elapsed = max(number for number, _ in heard), heard[0][1]
                if not self.config.epochs and elapsed > PLANNED * 60 * self.config.minutes:
                    self._plan(elapsed)
                saves = stop or time.monotonic() - self._saved_at > self.save_every
                done = self.step == self.steps_per_epoch or self.steps_done == self.steps
                if saves or done or len(self._unread) == READ_EVERY[self.device]:
                    self._read()
                self.progress = self.progress.plus(seconds=time.perf_counter() - start)
                bar.update(len(batch))
                if self.progress.images:
                    bar.set_postfix(loss=f"{self.progress.loss / self.progress.images:.3f}")
                if saves:
                    self._save("last")
                if stop:
                    raise Stopped(stop, self.out)

    def _read(self) -> None:
        """Add up the figures of the steps done since the last time, in one copy from the device.

        Raises NonFiniteError for the first step in which one is not finite. That step and those
        after it have changed nothing.
        """
        unread, self._unread = self._unread, []
        scalars = [x for _, f in unread for x in (*f.losses, *f.correct, f.norm)]
        numbers = iter(read_scalars(scalars))
        for i, (batch, figures) in enumerate(unread):
            losses = [next(numbers) for _ in figures.losses]
            correct, norm = [next(numbers) for _ in figures.correct], next(numbers)
            if not all(map(math.isfinite, (*losses, norm))):
                self.step -= len(unread) - i
                self.training_step.healthy[...] = True
                where = self.training_step, batch, self.epoch, self.step
                raise non_finite_error(*where, losses, norm, self.out)
            loss = math.fsum(map(math.prod, zip(losses, figures.sizes, strict=True)))
            self.progress = self.progress.plus(loss=loss, correct=sum(correct), images=len(batch))

    def _finish_epoch(self) -> None:
        """Evaluate, note the figures, save."""
        progress, cut_short = self.progress, self.step < self.steps_per_epoch
        figures = EpochFigures(
            epoch=self.steps_done / self.steps_per_epoch if cut_short else self.epoch + 1,
            train_loss=progress.loss / progress.images,
            train_accuracy=progress.correct / progress.images,
            lr=self._learning_rate(),
            seconds=progress.seconds,
            images_per_s=progress.images / progress.seconds,
            **self._measured(),
        )
        self.history.append(figures)
        self.step, self.progress = 0, Progress()
        if self.best is figures:
            self._save("best")  # before "last": if cut off between, the epoch is done again
        self._save("last")
        self._report()
        if not self.quiet:
            report.say(report.line(figures))

    def _measured(self) -> dict[str, float]:
        """What the epoch is judged by: the validation images, and the test images at the end.

        Without validation images it is the test images, of which nothing is chosen.
        """
        parts = {"test": self.dataset}
        if self.config.val_size:
            parts = {"val": self.split} | (parts if self.steps_done >= self.steps else {})
        found: dict[str, float] = {}
        with self._averaged_weights():
            for part, images in parts.items():
                loss, matrix = measure(self.task, self.model, images, self.workers)
                if not math.isfinite(loss):
                    raise self._spoilt(f"the {part} loss is")
                found |= {f"{part}_loss": loss, **self.task.scores(matrix, part)}
        return found

    def test(self, tta: str = "none") -> float:
        """The test figure of the weights as they are, averaged if they are; tta: see evaluation."""
        with self.workers, self._averaged_weights():
            _, matrix = measure(self.task, self.model, self.dataset, self.workers, tta)
        return self.task.scores(matrix)[f"test_{self.task.score}"]

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """In its `with` block the model has the averaged weights, if a run keeps them."""
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

    def position(self) -> Checkpoint:
        """Where the run stands: what a checkpoint keeps, with the arrays themselves, not copies."""
        where = self.step, self.progress, tuple(self.history), self.extended
        header = Header(self.config, self.record, *where, Machine.here(self.device))
        groups = self.model.state(), self._averages(), dict(self.optimizer.state)
        return Checkpoint(self.out or Path(), header, *groups)

    def _save(self, name: str) -> None:
        self._saved_at = time.monotonic()
        if self.out is None:
            return
        position = self.position()
        groups = position.weights, position.ema, position.optimizer
        if self.steps_done and not all(
            array_module(array).isfinite(array).all()
            for group in groups
            for array in group.values()
        ):
            raise self._spoilt("the weights are")
        self._folder.save(name, position.header, groups)

    def _spoilt(self, what: str) -> NonFiniteError:
        return spoilt_error(self.training_step, what, self.epoch, self.step, self.out)

    def _report(self) -> None:
        self._folder.report(self.config, self.record, self.history, last=self.finished)

    def _say_why_not(self, why_not: str) -> None:
        if not self.quiet:
            tqdm.write(f"no graph, launch by launch instead: {why_not}")


def follow(ranks: Ranks, dataset: data.Dataset, split: data.Dataset, position: Checkpoint) -> None:
    """Train from `position` on as another rank of a run that has begun."""
    trainer = Trainer(position.header.config, dataset, workers=1, ranks=ranks, split=split)
    trainer._go_to(position, position.header)
    trainer.run()
