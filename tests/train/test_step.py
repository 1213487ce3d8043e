"""One step: what it changes, what it leaves alone, and that every option has a part in it."""

import dataclasses

import numpy as np
import pytest
from small_runs import SYSTEMS, images_for, small, trained

from tinymixer import data, nn, ops
from tinymixer.data.draws import Stream, generator
from tinymixer.train.config import Config
from tinymixer.train.parallel import Workers, micro_batches
from tinymixer.train.step import TrainingStep


def step_of(config, workers=1, **options):
    dataset = images_for(config)
    model = config.build_model(dataset.num_classes, generator(config.seed, Stream.INIT))
    return TrainingStep(config, model, dataset, Workers(workers), **options)


def shake(step):
    """A head that starts at zero lets no gradient through."""
    noise = np.random.default_rng(0).standard_normal(step.flat.weights.size)
    step.flat.weights += (0.05 * noise).astype(np.float32)


def state(step):
    arrays = step.model.state() | step.optimizer.state | {"average": step.average}
    return {name: np.copy(array) for name, array in arrays.items()}


def one(step, batch=None, number=0, lr=0.01):
    with step.workers:
        return step(np.arange(8) if batch is None else batch, 0, 0, number=number, lr=lr)


@pytest.mark.parametrize("model", SYSTEMS)
def test_a_step_changes_all_weights_moments_and_averages(model):
    step = step_of(small(model))
    shake(step)
    before = state(step)
    figures = one(step)
    assert figures.sizes == [5, 3]
    assert step.healthy
    for name, array in state(step).items():
        assert (array != before[name]).any(), name


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("broken", ["loss", "gradient", "loss alone"])
def test_a_step_that_is_not_finite_changes_nothing_and_nor_do_those_after_it(optimizer, broken):
    step = step_of(small("hire_mlp_nano", optimizer=optimizer, momentum=0.5))
    one(step)
    before = state(step)
    if broken == "loss":
        object.__setattr__(step.dataset, "mean", (1e30, 0, 0))  # which no Dataset is made with
        object.__setattr__(step.dataset, "std", (1e-30, 1.0, 1.0))
    elif broken == "gradient":
        step.flat.gather = lambda gradients: np.full_like(step.flat.weights, np.inf)
    else:  # a loss that overflows, where its gradient does not
        right = step.loss
        step.loss = lambda *inputs: (right(*inputs)[0] + np.inf, 0)
    assert np.isfinite(one(step, number=1).norm) == (broken == "loss alone")
    assert not step.healthy
    mended = step_of(step.config)
    step.dataset = mended.dataset
    step.flat.__dict__.pop("gather", None)
    step.__dict__.pop("loss", None)
    one(step, number=2)
    for name, array in state(step).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_without_draws_nothing_is_dropped():
    config = small("mixer_pico", augment=data.Augment())
    step = step_of(config, drops=False)
    images, targets = step.inputs(np.arange(8), 0, 0, 0)
    loss, correct = step.loss(images, targets)
    logits = step.model(data.normalise(images, step.dataset.mean, step.dataset.std))
    expected = ops.SoftmaxCrossEntropy(config.label_smoothing)(logits, targets)
    assert loss.item() == expected.item()
    assert correct == (logits.data.argmax(1) == targets).sum()


def test_the_gradient_is_that_of_the_mean_loss_of_the_whole_batch():
    """In float64: micro-batches of 5 and 3 images, against one tape over 8 and another order."""
    config = small("mixer_pico", augment=data.Augment(), micro_batch=5)
    step = step_of(config, drops=False)
    shake(step)
    pieces = micro_batches(np.arange(8), 5)
    with step.workers:
        gradient, losses, correct, updates = step.gradient(pieces, 0, 0)
    assert updates == []
    assert len(losses) == len(correct) == 2
    model = step.model.astype(np.float64)
    images = data.normalise(step.dataset.train_images[:8], step.dataset.mean, step.dataset.std)
    loss = ops.SoftmaxCrossEntropy(config.label_smoothing)(
        model(images.astype(np.float64)), step.dataset.train_labels[:8]
    )
    loss.backward()
    expected = np.concatenate([p.grad.ravel() for p in model.parameters()])
    # Float32 through two blocks: some hundred roundings of 6e-8 of the largest element each.
    np.testing.assert_allclose(gradient, expected, atol=1e-5 * np.abs(expected).max())
    assert np.average(losses, weights=[5, 3]) == pytest.approx(loss.item(), rel=1e-6)


class WithAuxiliary(nn.Module):
    """A norm with running statistics, a head, and a loss beside the output."""

    def __init__(self):
        self.norm = nn.BatchNorm(3)
        self.head = nn.ChannelLinear(3, 10, rng=np.random.default_rng(0))

    def forward(self, images, rng=None):
        x = self.norm(nn.grid(images), rng)
        nn.add_loss((x * x).mean() * 0.5)
        return self.head(x.mean(axis=(0, 1)))


def after_one_step(workers):
    config = small("mixer_pico")
    step = TrainingStep(config, WithAuxiliary(), images_for(config, 22), Workers(workers))
    figures = one(step, np.arange(22))
    return figures, state(step)


def test_auxiliary_losses_are_added_and_nothing_depends_on_the_workers():
    figures, expected = after_one_step(1)
    # x is normalised, so the loss beside the output is 0.5; a new head gives about log 10
    assert all(loss > 0.5 + 1.5 for loss in figures.losses)
    assert expected["norm.running_mean"].all()
    for workers in (2, 3):
        _, found = after_one_step(workers)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_running_statistics_follow_the_micro_batches_in_their_order():
    config = small("mixer_pico")
    step = TrainingStep(config, WithAuxiliary(), images_for(config, 22), Workers(1))
    expected = np.zeros(3)
    for g, piece in enumerate(micro_batches(np.arange(22), config.micro_batch)):
        images, *_ = step.inputs(piece, 0, 0, g)
        x = data.normalise(images, step.dataset.mean, step.dataset.std)
        expected += step.model.norm.momentum * (x.mean((0, 1, 2), dtype=float) - expected)
    one(step, np.arange(22))
    # Float32 sums of 5120 pixels, pairwise: some ten roundings of 6e-8 each, of numbers below 2.
    np.testing.assert_allclose(step.model.norm.running_mean.data, expected, rtol=0, atol=2e-6)


# Every option decides the weights ----------------------------------------------------------------

BASE = small("mixer_pico", clip_norm=0.05)  # below every norm: clipping is active in each step
CHANGES = {
    "model_options": BASE.model_options | {"dropout": 0.2},
    "val_size": 4,
    "epochs": 2.0,
    "batch_size": 7,
    "micro_batch": 4,
    "optimizer": "sgd",
    "lr": 4.1e-3,
    "lr_final": 0.02,
    "schedule": "linear",
    "warmup_epochs": 1.0,
    "weight_decay": 0.06,
    "momentum": 0.8,
    "clip_norm": 0.04,
    "label_smoothing": 0.2,
    "ema": 0.8,
    "whiten": 8,
    "seed": 4,
}
ELSEWHERE = {
    "model": "decides how many weights there are: tests/models",
    "task": "test_tasks.py",
    "augment": "each of its options below",
    "minutes": "test_minutes.py",
    "precision": "a CPU knows one only: tests/fast/gpu",
    "freeze": "test_freeze.py",
    "begun_from": "is for the reader",
}
AUGMENT = {
    "crop_padding": 3,
    "padding": "zero",
    "flip": "alternating",
    "auto_augment": "none",
    "cutout": 5,
    "random_erasing": 0.9,
    "mixup": 2.0,
    "cutmix": 0.3,
    "mix_probability": 0.5,
}


def ending(config):
    trainer = trained(config, "cpu")
    return np.concatenate([trainer.flat.weights, trainer.average])


@pytest.fixture(scope="module")
def endings():
    """Where the runs end that the changed ones are compared with."""
    return {name: ending(dataclasses.replace(BASE, optimizer=name)) for name in ("adamw", "sgd")}


def test_no_option_is_left_out():
    assert CHANGES.keys() | ELSEWHERE.keys() == {f.name for f in dataclasses.fields(Config)}
    assert AUGMENT.keys() == {f.name for f in dataclasses.fields(data.Augment)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_of_a_run_changes_its_weights(name, endings):
    optimizer = "sgd" if name == "momentum" else "adamw"
    changed = dataclasses.replace(BASE, **{"optimizer": optimizer, name: CHANGES[name]})
    found = ending(changed)
    assert found.shape != endings[optimizer].shape or (found != endings[optimizer]).any()


@pytest.mark.parametrize("name", AUGMENT)
def test_every_option_of_augmentation_changes_the_weights(name, endings):
    augment = dataclasses.replace(BASE.augment, **{name: AUGMENT[name]})
    found = ending(dataclasses.replace(BASE, augment=augment))
    assert (found != endings["adamw"]).any()


def test_the_number_of_test_images_decides_figures_and_no_weight(endings):
    trainer = trained(BASE, "cpu", images_for(BASE, test_size=5))
    assert len(trainer.dataset.test_images) == 5
    found = np.concatenate([trainer.flat.weights, trainer.average])
    np.testing.assert_array_equal(found, endings["adamw"])
