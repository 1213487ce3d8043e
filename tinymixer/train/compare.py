"""Several models, the same data, the same budget for each: which one learns most from it?

A budget buys a model so many epochs, and its learning-rate schedule spans exactly these. With N
training images:

    epochs     the same number for all
    macs       epochs = macs / (3 m N), m the multiply-accumulates of one image forward: backward
               makes two products, one for dx and one for dW, of each that forward makes
    seconds    as many as they hold by the speed of the run's first third, with the schedule
               "trapezoid", see Config.decided

So each run is an ordinary one: its config.json says all of it, and on one machine it resumes bit
for bit, which no schedule by the clock could. The drawback: if the speed of the machine changes,
the training takes more or less than its budget of seconds. The table shows the seconds that it
took.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinymixer import data, nn
from tinymixer.errors import CheckpointError, TinymixerError, counted
from tinymixer.files import lock, write_atomically
from tinymixer.summary import summarise
from tinymixer.train import report
from tinymixer.train.config import Config
from tinymixer.train.parallel import Workers
from tinymixer.train.records import EpochFigures
from tinymixer.train.tasks import TASKS
from tinymixer.train.trainer import Trainer

UNITS = ("epochs", "seconds", "macs")
PRODUCTS = 3  # of a training step for each of a forward: itself, dx and dW
WARMUP_SHARE = 0.1  # of the epochs, at most


@dataclass(frozen=True)
class Budget:
    """What each model may spend on its training: an amount of one of UNITS.

    Raises TinymixerError for an amount that buys nothing.
    """

    unit: str
    amount: float

    def __post_init__(self) -> None:
        if self.unit not in UNITS or not 0 < self.amount < math.inf:
            raise TinymixerError(
                f"a budget of {self.amount:g} {self.unit}: expected a number above 0 of "
                f"{' or '.join(UNITS)}"
            )

    def __str__(self) -> str:
        names = {"seconds": "s of training", "macs": "multiply-accumulates of training"}
        return f"{self.amount:.12g} {names.get(self.unit, self.unit)}"


@dataclass(frozen=True)
class Result:
    """A model's run: a row of the table, and a line in each figure."""

    model: str
    parameters: int
    macs: int  # multiply-accumulates of one image, forward
    images: int  # of one epoch
    history: Sequence[EpochFigures]
    score: str = "accuracy"  # or "iou"
    flipped: float | None = None  # the test score of the last weights with mirror images, see TTA

    @property
    def validated(self) -> bool:
        return self.history[-1].val_loss is not None

    @property
    def scores(self) -> np.ndarray:
        """The accuracy, or what else the task goes by, after each epoch: on validation images if
        there are some, else on the test images."""
        return self._column(f"{'val' if self.validated else 'test'}_{self.score}")

    @property
    def epochs(self) -> np.ndarray:
        """Those done when each score was measured; so are the next two."""
        return self._column("epoch")

    @property
    def spent_seconds(self) -> np.ndarray:
        return self._column("seconds").cumsum()

    @property
    def spent_macs(self) -> np.ndarray:
        return PRODUCTS * self.macs * self.images * self.epochs

    def _column(self, name: str) -> np.ndarray:
        return np.array([getattr(row, name) for row in self.history], float)

    def cells(self) -> list[str]:
        seconds = self.spent_seconds[-1]
        return [
            self.model,
            f"{self.parameters:,}",
            f"{self.macs:,}",
            f"{self.epochs[-1]:.2f}",
            f"{seconds:,.1f}",
            f"{self.images * self.epochs[-1] / seconds:,.0f}",
            f"{getattr(self.history[-1], f'test_{self.score}'):.2%}",
            *([] if self.flipped is None else [f"{self.flipped:.2%}"]),
            *([f"{self.scores.max():.2%}"] if self.validated else []),
        ]


HEADINGS = ["model", "parameters", "mult.-acc./image", "epochs", "seconds", "images/s"]


class Comparison:
    """Models trained in turn: `Comparison(models, budget, config, dataset, out).run()`.

    config is the recipe of all; its model and epochs do not matter. Each model has the folder of
    an ordinary run, out/MODEL. Beside these lie

        comparison.json        what all runs have in common
        comparison.md          the table
        accuracy-macs.png, accuracy-seconds.png

    Where `out` holds a part of the same comparison already, `run` does the rest. Raises
    TinymixerError for a model that cannot be built, does not take the images or gets no step, and
    CheckpointError where `out` holds another comparison; both before anything is trained.
    """

    def __init__(
        self,
        models: Sequence[str],
        budget: Budget,
        config: Config,
        dataset: data.Dataset,
        out: Path,
        *,
        workers: int | None = None,
        device: str = "cpu",
        quiet: bool = False,
        tta: str = "none",
    ):
        if budget.unit == "seconds":
            config = replace(config, schedule="trapezoid")
        self.models, self.budget, self.config = list(dict.fromkeys(models)), budget, config
        self.dataset, self.out, self.quiet, self.tta = dataset, out, quiet, tta
        self.images = len(dataset.train_images) - config.val_size  # of one epoch
        self.task = TASKS[config.task]
        self.workers = Workers.of_this_machine(workers, device).count
        self.options: dict[str, Any] = {"workers": self.workers, "device": device, "quiet": quiet}
        self.sizes = {model: self._size(model) for model in self.models}
        for model in self.models:
            self._affordable(model)
        self._check_folder()

    def run(self) -> list[Result]:
        """Train what is not trained yet; the results, in order of the models.

        Raises Stopped after SIGINT or SIGTERM: all that was trained is saved. Raises InUseError if
        another process compares in `out`.
        """
        with lock(self.out / ".lock", f"the comparison in {self.out}"):
            self._check_folder()  # again, now that no other process can write to it
            return self._run()

    def _run(self) -> list[Result]:
        write_atomically(
            self.out / "comparison.json", json.dumps(self._common(), indent=2).encode()
        )
        results = []
        for model in self.models:
            trainer = self._trainer(model)
            if not trainer.finished:
                if not self.quiet:
                    epochs = float(f"{trainer.config.epochs:.3g}")
                    held = counted(epochs, "epoch") if epochs else self.budget
                    report.say(f"{model}: {held} -> {trainer.out}")
                trainer.run()
            flipped = None if self.tta == "none" else trainer.test(self.tta)
            run = Result(
                model, *self.sizes[model], self.images, trainer.history, self.task.score, flipped
            )
            results.append(run)
            self._report(results)
        return results

    def statement(self) -> str:
        """What all models were given, in one line."""
        config, dataset = self.config, self.dataset
        threads = counted(self.workers, "worker")
        return (
            f"Budget: {self.budget} for each model. Data: {dataset.name}, "
            f"{self.images:,} training and {counted(len(dataset.test_images), 'test image')}. "
            f"{config.optimizer}, {config.schedule} schedule from {config.lr:g}, batches of "
            f"{config.batch_size}, seed {config.seed}; {threads}, {self.options['device']}."
        )

    def _size(self, model: str) -> tuple[int, int]:
        """The model's parameters, and its multiply-accumulates for one image of the data set."""
        blueprint = replace(self.config, model=model).model_for(self.dataset, nn.BLANK)
        try:
            summary = summarise(blueprint, self.dataset.train_images.shape[1:3])
        except ValueError as error:
            raise TinymixerError(f"model {model} on {self.dataset.name}: {error}") from error
        return blueprint.num_parameters(), summary.multiply_accumulates

    def _common(self) -> dict[str, Any]:
        """What decides the table, except for the models."""
        options = self.config.plain()
        del options["model"], options["epochs"], options["minutes"]
        options = {"budget": str(self.budget), "dataset": self.dataset.name} | options
        for part in ("train", "test"):
            options[f"{part}_size"] = len(getattr(self.dataset, f"{part}_images"))
        options["fingerprint"] = self.dataset.fingerprint
        return options | {"workers": self.workers, "device": self.options["device"]}

    def _check_folder(self) -> None:
        path, common = self.out / "comparison.json", self._common()
        try:
            found = json.loads(path.read_bytes())
            different = [name for name in common if found[name] != common[name]]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is not what a comparison writes; choose another --out"
            ) from error
        if different:
            name = different[0]
            raise CheckpointError(
                f"{self.out} holds a comparison with {name}={found[name]!r}, not {common[name]!r}; "
                "ask for the same again to go on with it, or choose another --out"
            )

    def _trainer(self, model: str) -> Trainer:
        """The run of `model`, where it stands."""
        folder = self.out / model
        if not (folder / "last.npz").exists():
            return Trainer(self._affordable(model), self.dataset, folder, **self.options)
        trainer = Trainer.resume(folder / "last.npz", self.dataset, **self.options)
        expected = self._affordable(model)
        if self.budget.unit == "seconds":  # its epochs are decided within the run
            expected = replace(expected, epochs=trainer.config.epochs)
        if trainer.config.plain() != expected.plain():
            raise CheckpointError(
                f"{folder} holds a run with other options; choose another --out, or move it away"
            )
        return trainer

    def _affordable(self, model: str) -> Config:
        """The common recipe, stretched or squeezed over the epochs that the budget buys."""
        images, amount = self.images, self.budget.amount
        if self.budget.unit == "seconds":
            return replace(self.config, model=model, minutes=amount / 60, epochs=0.0)
        epochs = amount
        if self.budget.unit == "macs":
            epochs = amount / (PRODUCTS * self.sizes[model][1] * images)
        if epochs * images < min(self.config.batch_size, images) / 2:
            raise TinymixerError(
                f"a budget of {self.budget} does not buy {model} one step of "
                f"{self.config.batch_size} images; give more, or make --batch-size smaller"
            )
        warmup = min(self.config.warmup_epochs, WARMUP_SHARE * epochs)
        return replace(self.config, model=model, epochs=epochs, warmup_epochs=warmup)

    def _report(self, results: Sequence[Result]) -> None:
        from tinymixer.train import figures  # only here: matplotlib takes up to a second to import

        text = f"{self.statement()}\n\n{table(results)}\n"
        write_atomically(self.out / "comparison.md", text.encode())
        for name, axis in (
            ("macs", "multiply-accumulates of training"),
            ("seconds", "seconds of training"),
        ):
            lines = {r.model: (getattr(r, f"spent_{name}"), r.scores) for r in results}
            figure = figures.race(
                lines,
                axis,
                f"{self.dataset.name}: {self.budget} each",
                f"{'validation' if results[0].validated else 'test'} {self.task.score_name}",
            )
            figures.save(figure, self.out / f"accuracy-{name}.png")


def table(results: Sequence[Result]) -> str:
    """A row for each model, as Markdown that is aligned to be read as it is."""
    first = results[0]
    name = first.score.replace("iou", "mean IoU")
    headings = [*HEADINGS, f"test {name}"]
    headings += [] if first.flipped is None else [f"test {name}, with flip"]
    headings += [f"best validation {name}"] if first.validated else []
    lines = [headings, *(result.cells() for result in results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = "<" + ">" * (len(widths) - 1)
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        f"| {' | '.join(map('{:{}{}}'.format, line, sides, widths))} |"
        for line in (lines[0], rules, *lines[1:])
    )
