"""The error for a step whose loss or gradient is not finite: where it began, and what to try."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinymixer.backend import Array, array_module
from tinymixer.diagnosis import first_non_finite
from tinymixer.engine import enable_grad
from tinymixer.errors import NonFiniteError
from tinymixer.train.parallel import micro_batches
from tinymixer.train.step import TrainingStep


def non_finite_error(
    training_step: TrainingStep,
    batch: Array,
    epoch: int,
    step: int,
    losses: Sequence[float],
    norm: float,
    out: Path | None,
) -> NonFiniteError:
    """The error for a step that found these losses and this norm of the gradient.

    The weights are those that the step began with: it is computed again to see where it went wrong.
    """
    config, flat, where = training_step.config, training_step.flat, ""
    pieces = micro_batches(batch, config.micro_batch)
    with np.errstate(all="ignore"), enable_grad():
        bad = next((g for g, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is not None:
            what = f"the loss is {losses[bad]}"
            inputs = training_step.inputs(pieces[bad], epoch, step, bad)
            loss, _ = training_step.loss(*inputs)
            where = first_non_finite(training_step.model, loss) or ""
        else:
            what, xp = f"the gradient's norm is {norm}", array_module(flat.weights)
            gradient, *_ = training_step.gradient(pieces, epoch, step)
            for name, part in flat.named(gradient).items():
                if not where and not xp.isfinite(part).all():
                    where = f"the gradient of {name}"
    what += f"; first to blame: {where}" if where else ""
    return _error(training_step, what, epoch, step, out)


def spoilt_error(
    training_step: TrainingStep, what: str, epoch: int, step: int, out: Path | None
) -> NonFiniteError:
    """The error for an update, the one before this step, after which `what` is not finite."""
    return _error(training_step, f"{what} no longer finite after the last update", epoch, step, out)


def _error(
    training_step: TrainingStep, what: str, epoch: int, step: int, out: Path | None
) -> NonFiniteError:
    clipping = "a smaller --clip-norm" if training_step.config.clip_norm else "--clip-norm 1"
    return NonFiniteError(
        f"epoch {epoch + 1}, step {step + 1}: {what}. "
        + (f"The last good checkpoint is {out / 'last.npz'}. " if out else "")
        + f"Try a lower --lr, a longer --warmup-epochs or {clipping}"
    )
