"""A run ends in the same bits, however it is spread over workers and wherever it is cut."""

import json
import re
import shutil
import signal
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import stop_at, untimed

from tinymixer import data
from tinymixer.engine import no_grad
from tinymixer.errors import CheckpointError, NonFiniteError, TinymixerError
from tinymixer.train import checkpoint, run_folder
from tinymixer.train import figures as pictures
from tinymixer.train import trainer as trainer_module
from tinymixer.train.evaluation import log_probabilities
from tinymixer.train.parallel import Workers, micro_batches
from tinymixer.train.records import EpochFigures, Progress
from tinymixer.train.step import TrainingStep
from tinymixer.train.stopping import Stopped
from tinymixer.train.trainer import Trainer


def bits(trainer):
    """Everything a run ends in, as bytes."""
    arrays = [trainer.flat.weights, trainer.average, *trainer.optimizer.state.values()]
    return b"".join(array.tobytes() for array in arrays if array is not None)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(config, dataset):
    trainer = Trainer(config, dataset, workers=1, quiet=True)
    trainer.run()
    return trainer


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_the_number_of_workers_changes_no_bit(config, dataset, uninterrupted, workers):
    trainer = Trainer(config, dataset, workers=workers, quiet=True)
    trainer.run()
    assert bits(trainer) == bits(uninterrupted)


def test_no_micro_batch_draws_what_another_drew(config, dataset, monkeypatch):
    keys, right = [], TrainingStep.loss

    def noted(step, images, targets, key):
        keys.append(tuple(key))
        return right(step, images, targets, key)

    monkeypatch.setattr(TrainingStep, "loss", noted)
    trainer = Trainer(config, dataset, workers=2, quiet=True)
    trainer.run()
    batches = micro_batches(np.arange(len(dataset.train_images)), config.batch_size)
    pieces = [piece for batch in batches for piece in micro_batches(batch, config.micro_batch)]
    assert len(keys) == len(set(keys)) == config.epochs * len(pieces)


@pytest.mark.parametrize("steps", range(1, 7))
def test_a_run_stopped_at_any_step_resumes_to_the_same_bits(
    config, dataset, uninterrupted, tmp_path, monkeypatch, steps
):
    stop_at(monkeypatch, steps)
    with pytest.raises(Stopped, match="SIGTERM"):
        Trainer(config, dataset, tmp_path, workers=2, quiet=True).run()
    resumed = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    assert 3 * resumed.epoch + resumed.step == steps
    history = resumed.run()
    assert bits(resumed) == bits(uninterrupted)
    assert untimed(history) == untimed(uninterrupted.history)


def test_a_run_with_muon_ends_in_the_same_bits_too(config, dataset, tmp_path, monkeypatch):
    """On two workers at once, and stopped on two and resumed on one."""
    config = replace(config, optimizer="muon")
    expected = Trainer(config, dataset, workers=1, quiet=True)
    expected.run()
    whole = Trainer(config, dataset, workers=2, quiet=True)
    whole.run()
    assert bits(whole) == bits(expected)
    stop_at(monkeypatch, 4)
    with pytest.raises(Stopped, match="SIGTERM"):
        Trainer(config, dataset, tmp_path, workers=2, quiet=True).run()
    resumed = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    resumed.run()
    assert bits(resumed) == bits(expected)


@pytest.mark.parametrize(("every", "expected"), [(0.0, [1, 2, 3, 4]), (1e9, [1, 4])])
def test_curves_are_drawn_every_few_seconds_and_at_the_end(
    every, expected, changed, dataset, tmp_path, monkeypatch
):
    drawn, config = [], changed(epochs=4)
    monkeypatch.setattr(run_folder, "DRAW_EVERY", every)
    monkeypatch.setattr(pictures, "curves", lambda history: drawn.append(len(history)))
    monkeypatch.setattr(pictures, "save", lambda figure, path: None)
    whole = Trainer(config, dataset, tmp_path / "whole", workers=1, quiet=True)
    whole.run()
    assert drawn == expected
    drawn.clear()
    stop_at(monkeypatch, 2 * whole.steps_per_epoch + 1)  # in the third epoch
    with pytest.raises(Stopped):
        Trainer(config, dataset, tmp_path / "stopped", workers=1, quiet=True).run()
    assert drawn == [1, 2]


def test_a_run_leaves_its_files(config, dataset, tmp_path):
    """And no best.npz: which epoch is best is not for the test images to say."""
    trainer = Trainer(config, dataset, tmp_path, workers=1, quiet=True)
    history = trainer.run()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"last.npz", "config.json", "metrics.jsonl", "curves.png"}
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [EpochFigures.from_json(json.loads(line)) for line in lines] == history
    assert [figures.epoch for figures in history] == [1, 2]
    assert trainer.best is None


def test_a_finished_run_resumes_to_nothing_more(config, dataset, uninterrupted, tmp_path):
    Trainer(config, dataset, tmp_path, workers=1, quiet=True).run()
    again = Trainer.resume(tmp_path / "last.npz", dataset, quiet=True)
    assert again.run() == again.history
    assert bits(again) == bits(uninterrupted)


def test_a_checkpoint_holds_the_averaged_weights_for_use(config, dataset, tmp_path):
    trainer = Trainer(config, dataset, tmp_path, workers=1, quiet=True)
    trainer.run()
    model, saved = checkpoint.load_model(tmp_path / "last.npz")
    for name, average in trainer.flat.named(trainer.average).items():
        np.testing.assert_array_equal(model.state()[name], average)
    with Workers(1) as workers:
        log_p = log_probabilities(model, dataset.test_images, dataset.mean, dataset.std, workers)
    accuracy = (log_p.argmax(1) == dataset.test_labels).mean()
    assert accuracy == saved.header.history[-1].test_accuracy
    loss = -np.take_along_axis(log_p, dataset.test_labels[:, None], 1).mean(dtype=float)
    # A float32 sum of 24 images: 24 roundings of 6e-8 at most.
    assert loss == pytest.approx(saved.header.history[-1].test_loss, rel=2e-6)
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-5)


def test_no_run_is_written_over_by_a_new_one(config, dataset, changed, tmp_path):
    first = Trainer(config, dataset, tmp_path, workers=1, quiet=True)
    second = Trainer(changed(seed=4), dataset, tmp_path, workers=1, quiet=True)
    first.run()
    saved = contents(tmp_path)
    for another in (second, Trainer(config, dataset, tmp_path, workers=1, quiet=True)):
        with pytest.raises(CheckpointError, match=r"holds a run already; --resume .*last\.npz"):
            another.run()
    assert contents(tmp_path) == saved
    (tmp_path / "last.npz").rename(tmp_path / "best.npz")
    with pytest.raises(CheckpointError, match=r"holds a run already; --resume .*best\.npz"):
        second.run()


def test_a_run_goes_on_from_its_latest_checkpoint_or_in_another_folder(
    config, dataset, uninterrupted, tmp_path
):
    Trainer(config, dataset, tmp_path / "a", workers=1, quiet=True).run()
    shutil.copy(tmp_path / "a" / "last.npz", tmp_path / "a" / "best.npz")
    saved = contents(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"best\.npz cannot go on beside .*last\.npz"):
        Trainer.resume(tmp_path / "a" / "best.npz", dataset)
    assert contents(tmp_path / "a") == saved

    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "best.npz").write_bytes(saved["best.npz"])
    resumed = Trainer.resume(tmp_path / "b" / "best.npz", dataset, workers=1, quiet=True)
    resumed.run()
    assert bits(resumed) == bits(uninterrupted)


def test_a_resumed_run_saves_nothing_before_its_first_step(
    config, dataset, uninterrupted, tmp_path, monkeypatch
):
    stop_at(monkeypatch, 4)
    with pytest.raises(Stopped):
        Trainer(config, dataset, tmp_path, workers=1, quiet=True).run()
    monkeypatch.undo()
    saved = (tmp_path / "last.npz").read_bytes()

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingStep, "__call__", killed)
    resumed = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    monkeypatch.setattr(checkpoint, "save", None)
    with pytest.raises(KeyboardInterrupt):
        resumed.run()
    monkeypatch.undo()
    assert (tmp_path / "last.npz").read_bytes() == saved
    resumed.run()
    assert bits(resumed) == bits(uninterrupted)


def test_a_stopped_run_goes_on_without_being_read_again(
    config, dataset, uninterrupted, tmp_path, monkeypatch
):
    stop_at(monkeypatch, 2)
    trainer = Trainer(config, dataset, tmp_path, workers=1, quiet=True)
    with pytest.raises(Stopped):
        trainer.run()
    trainer.run()
    assert bits(trainer) == bits(uninterrupted)


def stop_in_the_evaluation(monkeypatch):
    """A signal to stop comes when there is no step left that could hear it."""
    right = trainer_module.measure

    def measure(*args):
        signal.raise_signal(signal.SIGINT)
        return right(*args)

    monkeypatch.setattr(trainer_module, "measure", measure)


def test_a_stop_after_the_last_step_is_heard_too(changed, dataset, tmp_path, monkeypatch):
    stop_in_the_evaluation(monkeypatch)
    trainer = Trainer(changed(epochs=1), dataset, tmp_path, workers=1, quiet=True)
    with pytest.raises(Stopped, match="SIGINT"):
        trainer.run()
    again = Trainer.resume(tmp_path / "last.npz", dataset, quiet=True)
    assert again.finished
    assert again.run() == trainer.history


def test_a_signal_that_is_ignored_stays_so(config, dataset, monkeypatch):
    stop_in_the_evaluation(monkeypatch)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup does for another one
    try:
        assert len(Trainer(config, dataset, workers=1, quiet=True).run()) == config.epochs
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_saves_when_its_time_has_come_and_then_waits_again(
    changed, dataset, tmp_path, monkeypatch
):
    """Nine steps of 25 seconds each, saved after the third: more than 60 seconds."""
    seconds, saved, right = [0.0], [], TrainingStep.__call__

    def slow(step, *arguments, **options):
        seconds[0] += 25
        return right(step, *arguments, **options)

    clock = SimpleNamespace(monotonic=lambda: seconds[0], perf_counter=time.perf_counter)
    monkeypatch.setattr(trainer_module, "time", clock)
    monkeypatch.setattr(run_folder.RunFolder, "report", lambda *_, **__: None)  # no pictures
    monkeypatch.setattr(TrainingStep, "__call__", slow)
    monkeypatch.setattr(checkpoint, "save", lambda path, header, *_: saved.append(header.step))
    Trainer(changed(epochs=1, batch_size=8), dataset, tmp_path, workers=1, quiet=True).run()
    assert saved == [0, 3, 6, 9, 0]  # where it begins, and where it ends


def test_the_best_epoch_is_the_first_of_the_highest_figure_on_validation_images(
    changed, dataset, tmp_path, monkeypatch
):
    correct = iter([3, 7, 5, 7, 1])

    def measure(*arguments):
        n = next(correct)
        return 1.0, np.array([[n, 10 - n], [0, 0]])

    monkeypatch.setattr(trainer_module, "measure", measure)
    monkeypatch.setattr(run_folder.RunFolder, "report", lambda *_, **__: None)  # no pictures
    trainer = Trainer(changed(epochs=4, val_size=8), dataset, tmp_path, workers=1, quiet=True)
    history = trainer.run()
    assert [figures.val_accuracy for figures in history] == [0.3, 0.7, 0.5, 0.7]
    assert [figures.test_accuracy for figures in history] == [None, None, None, 0.1]
    assert trainer.best is history[1]
    assert checkpoint.load(tmp_path / "best.npz").header.epoch == 2


def test_a_run_killed_between_best_and_last_does_its_epoch_again(
    changed, dataset, tmp_path, monkeypatch
):
    config = changed(val_size=8)
    uninterrupted = Trainer(config, dataset, workers=1, quiet=True)
    uninterrupted.run()
    right = checkpoint.save

    def killed_after_the_best(path, *arguments):
        right(path, *arguments)
        if path.name == "best.npz":
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", killed_after_the_best)
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, dataset, tmp_path, workers=1, quiet=True).run()
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "best.npz").header.epoch == 1
    resumed = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    assert resumed.epoch == 0
    resumed.run()
    assert bits(resumed) == bits(uninterrupted)


def test_figures_of_training_are_means_over_the_images_seen(changed, dataset, monkeypatch):
    """The second epoch sees 64 of 72 images; the last micro-batch of a batch is a smaller one."""
    steps, right = [], TrainingStep.__call__

    def noted(step, *arguments, **options):
        steps.append(right(step, *arguments, **options))
        return steps[-1]

    monkeypatch.setattr(TrainingStep, "__call__", noted)
    history = Trainer(changed(epochs=5 / 3), dataset, workers=1, quiet=True).run()
    for figures, done, images in zip(history, (steps[:3], steps[3:]), (72, 64), strict=True):
        losses = sum(float(x) * n for s in done for x, n in zip(s.losses, s.sizes, strict=True))
        correct = sum(int(x) for s in done for x in s.correct)
        assert figures.train_loss == pytest.approx(losses / images, rel=1e-12)
        assert figures.train_accuracy == pytest.approx(correct / images, rel=1e-12)
        assert figures.images_per_s == pytest.approx(images / figures.seconds, rel=1e-12)


def test_figures_that_are_read_now_and_then_are_the_same(changed, dataset, monkeypatch):
    """As on a GPU; what is unread when a run ends within an epoch is read then."""
    config = changed(epochs=5 / 3)
    expected = Trainer(config, dataset, workers=1, quiet=True).run()
    monkeypatch.setitem(trainer_module.READ_EVERY, "cpu", 4)
    assert untimed(Trainer(config, dataset, workers=1, quiet=True).run()) == untimed(expected)


@pytest.fixture(scope="module")
def run(config, dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    Trainer(config, dataset, out, workers=1, quiet=True).run()
    return out


def test_a_position_that_does_not_fit_the_images_seen_is_refused(run, dataset, tmp_path):
    saved = checkpoint.load(run / "last.npz")
    header = replace(saved.header, step=2, progress=Progress(images=72))
    checkpoint.save(tmp_path / "x.npz", header, saved.weights, saved.ema, saved.optimizer)
    with pytest.raises(CheckpointError, match="says 2 steps but 72 images"):
        Trainer.resume(tmp_path / "x.npz", dataset)


@pytest.mark.parametrize(
    ("group", "name", "change"),
    [
        ("optimizer", "m", lambda x: x[:1]),
        ("optimizer", "v", lambda x: x[:-1]),
        ("optimizer", "v", None),
        ("ema", "head.W", lambda x: x[:, :1]),
        ("ema", "head.b", lambda x: x[0]),
        ("ema", "head.b", None),
    ],
)
def test_arrays_of_another_shape_are_refused(run, dataset, tmp_path, group, name, change):
    saved = checkpoint.load(run / "last.npz")
    arrays = {g: getattr(saved, g) for g in ("weights", "ema", "optimizer")}
    array = arrays[group].pop(name)
    if change:
        arrays[group][name] = change(array)
    checkpoint.save(tmp_path / "x.npz", saved.header, **arrays)
    found = re.escape(str(change(array).shape if change else "nothing"))
    with pytest.raises(CheckpointError, match=rf"x\.npz .*{group}/{name} is {found}, expected \("):
        Trainer.resume(tmp_path / "x.npz", dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.pop("dataset"), "header has no dataset"),
        (lambda header: header["config"].update(colour="red"), '"colour"'),
        (lambda header: header["config"].pop("augment"), "the digests differ"),
        (lambda header: header["config"].update(epochs=-1), "epochs=-1"),
        (lambda header: header.update(step=[1]), "not a whole tinymixer checkpoint"),
    ],
)
def test_a_damaged_header_is_refused(run, dataset, tmp_path, change, message):
    with np.load(run / "last.npz") as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    change(header)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(CheckpointError, match=rf"x\.npz .*{message}"):
        Trainer.resume(tmp_path / "x.npz", dataset)


def test_other_data_are_refused(config, dataset, changed, tmp_path):
    Trainer(changed(epochs=1), dataset, tmp_path, workers=1, quiet=True).run()
    other = data.load("shapes", train_size=71, test_size=24)
    with pytest.raises(CheckpointError, match="trained on other data"):
        Trainer.resume(tmp_path / "last.npz", other)


@pytest.mark.parametrize("change", [{"train_images": 73}, {"test_images": 1}, {"mean": (1.0,) * 3}])
def test_what_a_file_says_of_the_same_data_has_to_be_right(run, dataset, tmp_path, change):
    saved = checkpoint.load(run / "last.npz")
    header = replace(saved.header, dataset=replace(saved.header.dataset, **change))
    checkpoint.save(tmp_path / "last.npz", header, saved.weights, saved.ema, saved.optimizer)
    with pytest.raises(CheckpointError, match=f"trained on shapes with {next(iter(change))} "):
        Trainer.resume(tmp_path / "last.npz", dataset)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_given_back_after_the_run(config, dataset, number):
    before = signal.getsignal(number)
    Trainer(config, dataset, workers=1, quiet=True).run()
    assert signal.getsignal(number) is before


def test_a_run_outside_the_main_thread_leaves_signals_alone(config, dataset, uninterrupted):
    trainer = Trainer(config, dataset, workers=2, quiet=True)
    thread = threading.Thread(target=trainer.run)
    thread.start()
    thread.join()
    assert bits(trainer) == bits(uninterrupted)


def test_a_loss_that_is_not_finite_names_step_layer_and_checkpoint(config, dataset, tmp_path):
    trainer = Trainer(config, dataset, tmp_path, workers=2, quiet=True)
    trainer.model.blocks[1].channel_mlp.W1.data[...] = np.nan
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 1.*blocks\.1\.channel_mlp\.W1") as e:
        trainer.run()
    assert str(tmp_path / "last.npz") in str(e.value)


def test_an_update_that_overflows_is_not_saved(changed, dataset, tmp_path):
    """The gradient is finite, but a step of 1e39 is not a float32."""
    trainer = Trainer(changed(epochs=1, ema=0.0), dataset, tmp_path, workers=1, quiet=True)
    update = trainer.optimizer.step

    def overflowing(weights, gradient, lr, number, *rest):
        update(weights, gradient, lr, number, *rest)
        if number == 2:  # the last one of the epoch
            weights[:5] = np.inf

    trainer.optimizer.step = overflowing
    with pytest.raises(NonFiniteError, match="after the last update") as e:
        trainer.run()
    assert str(tmp_path / "last.npz") in str(e.value)
    saved = checkpoint.load(tmp_path / "last.npz")  # which refuses what is not finite
    assert saved.header.history == ()


@pytest.mark.parametrize(
    ("clip_norm", "cure"), [(0.0, "or --clip-norm 1"), (1.0, "or a smaller --clip-norm")]
)
def test_the_cure_for_a_loss_that_is_not_finite_is_one_that_helps(config, dataset, clip_norm, cure):
    trainer = Trainer(replace(config, clip_norm=clip_norm), dataset, workers=1, quiet=True)
    trainer.model.blocks[0].channel_mlp.W2.data[...] = np.nan
    with pytest.raises(NonFiniteError, match=f"{cure}$"):
        trainer.run()


@pytest.mark.parametrize("around", [nullcontext, no_grad])
def test_weights_that_overflow_blame_the_layer_that_overflows(config, dataset, around):
    trainer = Trainer(config, dataset, workers=1, quiet=True)
    trainer.model.blocks[0].channel_mlp.W2.data[...] = 3e38
    with pytest.raises(NonFiniteError, match=r"blame: blocks\.0\.channel_mlp\b"), around():
        trainer.run()


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(
    config, dataset, uninterrupted, tmp_path, monkeypatch
):
    trainer = Trainer(config, dataset, tmp_path, workers=1, quiet=True, save_every=0)
    savez, calls = np.savez, []

    def savez_until_full(file, **arrays):
        calls.append(1)
        if len(calls) > 3:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", savez_until_full)
    with pytest.raises(CheckpointError, match="No space left"):
        trainer.run()
    monkeypatch.undo()
    assert [path.name for path in tmp_path.glob(".*")] == []
    resumed = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    resumed.run()
    assert bits(resumed) == bits(uninterrupted)


def test_a_fraction_of_an_epoch_ends_the_schedule_with_it(changed, dataset, tmp_path):
    """Three steps an epoch: 5/3 of one are five, and a run stopped after four goes on to them."""
    config = changed(epochs=5 / 3)
    whole = Trainer(config, dataset, workers=1, quiet=True)
    history = whole.run()
    assert [figures.epoch for figures in history] == [1, 5 / 3]
    assert history[-1].lr == pytest.approx(config.lr * config.lr_final, rel=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Stopped):
            Trainer(config, dataset, tmp_path, workers=1, quiet=True).run()
    resumed = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    assert not resumed.finished
    resumed.run()
    assert bits(resumed) == bits(whole)
    again = Trainer.resume(tmp_path / "last.npz", dataset, quiet=True)
    assert again.finished
    assert again.history == resumed.history


def test_the_least_training_is_one_step(changed, dataset):
    trainer = Trainer(changed(epochs=0.01), dataset, workers=1, quiet=True)
    assert trainer.steps == 1
    assert [figures.epoch for figures in trainer.run()] == [1 / 3]


def test_data_smaller_than_a_batch_make_one_step(changed):
    few = data.load("shapes", train_size=3, test_size=2)
    trainer = Trainer(changed(epochs=1), few, workers=2, quiet=True)
    trainer.run()
    assert trainer.steps_per_epoch == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"lr": float("nan")},
        {"lr": 0.0},
        {"label_smoothing": 1.5},
        {"ema": 1.0},
        {"seed": -1},
        {"optimizer": "adam"},
        {"schedule": "step"},
        {"model": "mixer_micro"},
    ],
)
def test_options_out_of_range_are_refused(changed, wrong):
    (name,) = wrong
    with pytest.raises(TinymixerError, match=f"training option {name}="):
        changed(**wrong)


def test_a_model_option_that_does_not_exist_is_refused(changed, dataset):
    config = changed(model_options={"colour": "red"})
    with pytest.raises(TinymixerError, match="has no option 'colour'"):
        Trainer(config, dataset)
