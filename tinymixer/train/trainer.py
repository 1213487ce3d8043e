"""A run: epochs of training steps, evaluations, and checkpoints from which it goes on.

    order of the images -> train/step.py, step by step -> evaluation -> checkpoint

Every random number is looked up, see step.py, and nothing else varies. So a run that was stopped at
any moment goes on from its last checkpoint to the same weights, bit for bit, on any number of
workers. On another kind of processor or BLAS the last bits differ, see machine.py: a checkpoint
says where it was made, and a run that goes on elsewhere says so.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinymixer import data
from tinymixer.backend import Array, array_module, to_device
from tinymixer.data.draws import Stream, generator, permutation
from tinymixer.data.folder import keep_apart
from tinymixer.engine import no_grad
from tinymixer.errors import NonFiniteError, TinymixerError, note
from tinymixer.fast.gpu.graphs import Replay
from tinymixer.fast.gpu.products import precision
from tinymixer.train import checkpoint, report
from tinymixer.train.checkpoint import Checkpoint
from tinymixer.train.config import Config
from tinymixer.train.evaluation import measure
from tinymixer.train.machine import Machine
from tinymixer.train.non_finite import non_finite_error, spoilt_error
from tinymixer.train.parallel import Workers
from tinymixer.train.ranks import ALONE, Ranks
from tinymixer.train.records import DatasetRecord, EpochFigures, Progress
from tinymixer.train.run_folder import RunFolder, latest_in
from tinymixer.train.standing import Standing
from tinymixer.train.step import StepFigures, TrainingStep
from tinymixer.train.stopping import Stopped, StopSignal
from tinymixer.train.tasks import TASKS
from tinymixer.train.together import together, worth_starting
from tinymixer.train.validation import held_back
from tinymixer.weights import Started, start_from

READ_EVERY = {"cpu": 1, "gpu": 32}  # steps: reading a loss from a GPU means waiting for it


class Trainer(Standing):
    """A run of a Config on a data set: `Trainer(config, dataset).run()`.

    Where the run stands, see Standing. Given `out`, a folder, the run leaves there

        last.npz             the latest checkpoint
        best.npz             with val_size: the one with the best figure on validation images
        config.json          the Config, and what it was trained on
        metrics.jsonl        one line of figures per epoch
        curves.png           the same as a picture, which is drawn every few seconds

    and `Trainer.resume(out / "last.npz", dataset)` goes on where it stopped, with `epochs=30` to
    another end.

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
        self.dataset, self.out = dataset.to(device), out
        super().__init__(config, DatasetRecord.of(self.dataset))
        self.device, self.save_every, self.quiet = device, save_every, quiet
        self.split = split or held_back(self.dataset, config.val_size)
        self.model = config.model_for(self.split, generator(config.seed, Stream.INIT))
        self.workers, self.ranks = Workers.of_this_machine(workers, device), ranks
        replay = Replay(self._say_why_not) if graph else None
        self.own_step = TrainingStep(
            config, self.model.to(device), self.split, self.workers, replay=replay
        )
        self.training_step: Callable[..., StepFigures] = self.own_step  # another one may watch it
        self.flat, self.average = self.own_step.flat, self.own_step.average
        self.optimizer = self.own_step.optimizer
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

        Raises CheckpointError if the file is damaged, and as checkpoint.to_resume says.
        """
        latest = latest_in(path.parent)  # before it is read
        saved = checkpoint.to_resume(path, dataset, epochs)
        with saved.fitting():
            trainer = cls(saved.header.config, dataset, path.parent, **options)
            trainer._go_to(saved)
        trainer._folder = RunFolder(trainer.out, latest)
        if differs := Machine.here(trainer.device).compared(saved.header.machine):
            note(f"the run in {path.parent} {differs}")
        return trainer

    def _go_to(self, saved: Checkpoint) -> None:
        self.model.load_state(saved.weights)
        for own, kept in (
            (self.own_step.averages(), saved.ema),
            (self.optimizer.state, saved.optimizer),
        ):
            for name, array in own.items():  # with the names and shapes that load has checked
                array[...] = array_module(array).asarray(kept[name])
        self.stand_at(saved.header)

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

    def _train_epoch(self) -> None:
        config, images = self.config, len(self.split.train_images)
        order = to_device(permutation(config.seed, self.epoch, images), self.device)
        done = self.progress.images
        with report.bar(config, self.epoch, len(order), done, quiet=self.quiet) as bar:
            while not self.at_end:
                start = time.perf_counter()
                batch = order[self.step * config.batch_size :][: config.batch_size]
                number, lr = self.steps_done, self.learning_rate()
                figures = self.training_step(batch, self.epoch, self.step, number=number, lr=lr)
                self._unread.append((batch, figures))
                self.step += 1
                heard = self.workers.ranks.gather((self._stop.number, self._clock()))
                stop, elapsed = max(number for number, _ in heard), heard[0][1]
                if self.decide(elapsed):
                    self._say(report.decided(self.config, elapsed))
                saves = stop or time.monotonic() - self._saved_at > self.save_every
                if saves or self.at_end or len(self._unread) == READ_EVERY[self.device]:
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
        numbers = StepFigures.read([figures for _, figures in unread])
        for i, (losses, correct, norm) in enumerate(numbers):
            batch, figures = unread[i]
            if not all(map(math.isfinite, (*losses, norm))):
                self.step -= len(unread) - i
                self.own_step.healthy[...] = True
                where = self.own_step, batch, self.epoch, self.step
                raise non_finite_error(*where, losses, norm, self.out)
            loss = math.fsum(map(math.prod, zip(losses, figures.sizes, strict=True)))
            self.progress = self.progress.plus(loss=loss, correct=sum(correct), images=len(batch))

    def _finish_epoch(self) -> None:
        """Evaluate, note the figures, save."""
        measured = {"lr": self.learning_rate(), **self._measured()}
        figures = EpochFigures.of(self.epochs_done, self.progress, **measured)
        self.history.append(figures)
        self.step, self.progress = 0, Progress()
        if self.best is figures:
            self._save("best")  # before "last": if cut off between, the epoch is done again
        self._save("last")
        self._report()
        self._say(report.line(figures))

    def _measured(self) -> dict[str, float]:
        """What the epoch is judged by: the validation images, and the test images at the end.

        Without validation images it is the test images, of which nothing is chosen.
        """
        parts = {"test": self.dataset}
        if self.config.val_size:
            parts = {"val": self.split} | (parts if self.steps_done >= self.steps else {})
        found: dict[str, float] = {}
        with self.own_step.averaged():
            for part, images in parts.items():
                loss, matrix = measure(self.task, self.model, images, self.workers)
                if not math.isfinite(loss):
                    raise self._spoilt(f"the {part} loss is")
                found |= {f"{part}_loss": loss, **self.task.scores(matrix, part)}
        return found

    def test(self, tta: str = "none") -> float:
        """The test figure of the weights as they are, averaged if they are; tta: see evaluation."""
        with self.workers, self.own_step.averaged():
            _, matrix = measure(self.task, self.model, self.dataset, self.workers, tta)
        return self.task.scores(matrix)[f"test_{self.task.score}"]

    def position(self) -> Checkpoint:
        """Where the run stands: what a checkpoint keeps, with the arrays themselves, not copies."""
        header = self.header(Machine.here(self.device))
        groups = self.model.state(), self.own_step.averages(), dict(self.optimizer.state)
        return Checkpoint(self.out or Path(), header, *groups)

    def _save(self, name: str) -> None:
        self._saved_at = time.monotonic()
        position = self.position()
        if self.out is not None and self.steps_done and not position.finite:
            raise self._spoilt("the weights are")
        self._folder.save(name, position)

    def _spoilt(self, what: str) -> NonFiniteError:
        return spoilt_error(self.own_step, what, self.epoch, self.step, self.out)

    def _report(self) -> None:
        self._folder.report(self.config, self.record, self.history, last=self.finished)

    def _say(self, text: str) -> None:
        if not self.quiet:
            report.say(text)

    def _say_why_not(self, why_not: str) -> None:
        self._say(f"no graph, launch by launch instead: {why_not}")


def follow(ranks: Ranks, dataset: data.Dataset, split: data.Dataset, position: Checkpoint) -> None:
    """Train from `position` on as another rank of a run that has begun."""
    trainer = Trainer(position.header.config, dataset, workers=1, ranks=ranks, split=split)
    trainer._go_to(position)
    trainer.run()
