"""Where a run stands: what is done of it and what was found, and how much there is to do."""

from tinymixer.train.config import Config
from tinymixer.train.machine import Machine
from tinymixer.train.records import DatasetRecord, EpochFigures, Header, Progress
from tinymixer.train.tasks import TASKS


class Standing:
    """(epoch, step), both from 0, of a run of `config` on a data set.

    step        the next one to do within the epoch
    steps       of all epochs; more than a run can do while minutes have not decided them
    progress    sums over the steps done of the epoch
    history     figures of the epochs done
    extended    when the run was given another end, see Header
    """

    def __init__(self, config: Config, record: DatasetRecord):
        self.config, self.record, self.task = config, record, TASKS[config.task]
        self.steps_per_epoch = config.steps_per_epoch(record.train_images)
        self.steps = config.steps(self.steps_per_epoch)
        self.step, self.progress = 0, Progress()
        self.history: list[EpochFigures] = []
        self.extended: tuple[tuple[float, float], ...] = ()

    def stand_at(self, header: Header) -> None:
        self.step, self.progress = header.step, header.progress
        self.history, self.extended = list(header.history), header.extended

    def header(self, machine: Machine) -> Header:
        """What a checkpoint says of it."""
        where = self.step, self.progress, tuple(self.history), self.extended
        return Header(self.config, self.record, *where, machine)

    @property
    def epoch(self) -> int:
        """The epoch that the run is in, from 0: as many are done."""
        return len(self.history)

    @property
    def steps_done(self) -> int:
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def epochs_done(self) -> float:
        """A whole number, but where the training ends within an epoch."""
        done = self.steps_done / self.steps_per_epoch
        return int(done) if done.is_integer() else done

    @property
    def at_end(self) -> bool:
        """Whether no step of this epoch is left."""
        return self.step == self.steps_per_epoch or self.steps_done == self.steps

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

    def learning_rate(self) -> float:
        """That of the next step."""
        return self.config.learning_rate(self.steps_done, self.steps_per_epoch)

    def decide(self, seconds: float) -> bool:
        """Whether minutes have decided just now how many epochs there are, see Config.decided."""
        before = self.config
        self.config = before.decided(self.steps_done, self.steps_per_epoch, seconds)
        self.steps = self.config.steps(self.steps_per_epoch)
        return self.config is not before
