"""A run on a GPU is the run on the CPU, and little crosses over. Shown on the stand-in for CuPy."""

import dataclasses
import sys
from collections import Counter

import cuda_on_cpu
import cupy_stand_in as cp
import numpy as np
import pytest
import small_runs
from small_runs import SYSTEMS, arrays, assert_same, images_for, segmenting, small, trained

from tinymixer import cli, data, engine
from tinymixer.backend import device_of, to_numpy, why_no_gpu
from tinymixer.data.draws import permutation
from tinymixer.errors import NonFiniteError, Note
from tinymixer.fast import gpu
from tinymixer.nn import mixture
from tinymixer.train import checkpoint
from tinymixer.train import trainer as trainer_module
from tinymixer.train.step import TrainingStep
from tinymixer.train.stopping import Stopped
from tinymixer.train.trainer import Trainer


@pytest.fixture(autouse=True)
def no_twins_and_a_stand_in(request, monkeypatch):
    """The clear operations on both sides, so that both compute the same sums in the same order."""
    if request.node.get_closest_marker("gpu"):
        return
    monkeypatch.setattr(engine, "twins", {})
    monkeypatch.setitem(mixture.ASKED, "gpu", True)
    monkeypatch.setitem(sys.modules, "cupy", cp)


TWINS = engine.twins
DRAWING = data.Augment, data.draws.rng_key, data.draws.generator_from
RUNS = {name: small(name) for name in SYSTEMS} | {
    "a segmenter": segmenting(),
    "momentum": small("mixer_pico", optimizer="sgd", ema=0.0, augment=data.Augment()),
}
MUON = small("mixer_pico", optimizer="muon", augment=data.Augment())


@pytest.mark.parametrize("config", RUNS.values(), ids=RUNS)
def test_a_run_on_a_gpu_ends_in_the_bits_of_the_one_on_the_cpu(config):
    on_gpu = trained(config, "gpu")
    assert_same(on_gpu, trained(config, "cpu"))
    held = arrays(on_gpu) | {
        "weights": on_gpu.flat.weights,
        "healthy": on_gpu.own_step.healthy,
    }
    held |= {name: getattr(on_gpu.dataset, name) for name in data.dataset._ARRAYS}
    assert {name for name, array in held.items() if device_of(array) != "gpu"} == set()


def test_images_are_held_back_where_they_are():
    config = small("mixer_pico", val_size=5, augment=data.Augment())
    on_gpu = trained(config, "gpu")
    assert device_of(on_gpu.split.test_images) == "gpu"
    assert_same(on_gpu, trained(config, "cpu"))


def test_a_run_with_muon_on_a_gpu_ends_close_to_the_one_on_the_cpu():
    """Not in the same bits: NumPy computes X Xᵀ by a routine of its own, which sums differently."""
    on_gpu, on_cpu = trained(MUON, "gpu"), trained(MUON, "cpu")
    assert {device_of(array) for array in arrays(on_gpu).values()} == {"gpu"}
    # five steps of 2 * 4e-3 * 0.2 √max(m, n) along directions that differ by some 1e-6
    np.testing.assert_allclose(
        to_numpy(on_gpu.flat.weights), on_cpu.flat.weights, rtol=0, atol=1e-6
    )


@pytest.fixture
def own_draws(monkeypatch):
    """Augmentation and dropout by kernels of our own, which are to give the CPU's bits."""
    if missing := cuda_on_cpu.why_not():
        pytest.skip(missing)
    drawing = {key: twin for key, twin in TWINS.items() if key[0] in DRAWING}
    monkeypatch.setattr(engine, "twins", drawing)


@pytest.mark.parametrize("name", ["mixer_pico", "a segmenter", "sparse_mlp_nano"])
def test_so_does_a_run_that_draws_on_the_gpu(name, own_draws):
    assert_same(trained(RUNS[name], "gpu"), trained(RUNS[name], "cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("config", RUNS.values(), ids=RUNS)
def test_a_run_on_a_real_gpu_goes_the_same_way(config):
    """Weights without a gradient follow its rounding errors, and the loss does not feel them."""
    if missing := why_no_gpu():
        pytest.skip(missing)
    on_gpu, on_cpu = trained(config, "gpu"), trained(config, "cpu")
    for figures, expected in zip(on_gpu.history, on_cpu.history, strict=True):
        for name in ("train_loss", "test_loss"):
            assert getattr(figures, name) == pytest.approx(getattr(expected, name), abs=0.02)


def test_pixels_stay_bytes_on_the_device():
    dataset = images_for(small("mixer_pico")).to("gpu")
    assert dataset.train_images.dtype == dataset.test_images.dtype == np.uint8
    assert dataset.fingerprint == images_for(small("mixer_pico")).fingerprint
    assert dataset.to("gpu") is dataset


@pytest.fixture
def crossings(monkeypatch):
    """How often something crossed: "in", "out", or as one number, for which a device is waited."""
    seen, asarray = Counter(), cp.asarray

    def counted(x, *args):
        seen["in"] += not isinstance(x, cp.ndarray)
        return asarray(x, *args)

    def counting(name, kind):
        method = getattr(cp.ndarray, name)

        def through(array):
            seen[kind] += 1
            return method(array)

        monkeypatch.setattr(cp.ndarray, name, through)

    monkeypatch.setattr(cp, "asarray", counted)
    counting("get", "out")
    for name in ("item", "__bool__", "__int__", "__float__"):
        counting(name, "number")
    return seen


def without_a_policy(config):
    """As arrays, AutoAugment asks which images share a fate; its kernel does not."""
    augment = dataclasses.replace(config.augment, auto_augment="none")
    return dataclasses.replace(config, augment=augment)


def calm(model, **changes):
    """Nothing is dropped, and a batch is computed as a whole."""
    config = small(model, **{"micro_batch": 8, **changes})
    options = {name: value for name, value in config.model_options.items() if "drop" not in name}
    return dataclasses.replace(config, model_options=options)


# Nothing is asked of a step, not even its loss. The plain operations do, for each micro-batch: the
# loss of classes looks at the lowest and the highest of them, that of pixels counts those that have
# a class, routing to experts asks how many go to each. Their random masks and noise are drawn on
# the host: 4 for dropout and 3 for paths in two blocks of a Mixer, 3 for paths in each of the
# segmenter's four, 4 for routing in Sparse-MLP.
CROSSINGS = {
    "probabilities": (calm("mixer_pico"), {}),
    "three micro-batches": (calm("mixer_pico", micro_batch=3), {}),
    "classes": (calm("mixer_pico", augment=data.Augment(flip="random")), {"number": 2}),
    "pixels": (dataclasses.replace(segmenting(), micro_batch=8), {"number": 3, "in": 12}),
    "dropping": (small("mixer_pico", micro_batch=8), {"in": 7}),
    "as": (calm("as_mlp_nano"), {}),
    "hire": (calm("hire_mlp_nano"), {}),
    "vip": (calm("vip_nano"), {}),
    "sparse": (calm("sparse_mlp_nano"), {"number": 2, "out": 2, "in": 4}),
    "raft": (calm("raft_mlp_nano"), {}),
}
CROSSINGS = {name: (without_a_policy(run), n) for name, (run, n) in CROSSINGS.items()}


@pytest.mark.parametrize(("config", "expected"), CROSSINGS.values(), ids=CROSSINGS)
def test_what_crosses_in_a_warm_step(config, expected, crossings):
    trainer = Trainer(config, images_for(config), device="gpu", quiet=True)
    order = cp.asarray(permutation(0, 0, 20))
    with trainer.workers:
        trainer.training_step(order[:8], 0, 0, number=0, lr=0.01)
        crossings.clear()
        trainer.training_step(order[8:16], 0, 1, number=1, lr=0.01)
    assert +crossings == Counter(expected)


def test_masks_that_are_drawn_on_the_gpu_cross_nowhere(own_draws, crossings):
    test_what_crosses_in_a_warm_step(small("mixer_pico", micro_batch=8), {}, crossings)


@pytest.fixture
def as_on_a_gpu(own_draws, monkeypatch):
    """All that is fast there, and nothing asked."""
    monkeypatch.setattr(engine, "twins", TWINS)
    monkeypatch.setitem(mixture.ASKED, "gpu", False)


@pytest.mark.parametrize("config", [*RUNS.values(), MUON], ids=[*RUNS, "muon"])
def test_nothing_crosses_in_a_warm_step_as_a_gpu_does_it(config, as_on_a_gpu, crossings):
    """With everything random switched on, in two micro-batches."""
    test_what_crosses_in_a_warm_step(config, {}, crossings)


@pytest.mark.parametrize("config", RUNS.values(), ids=RUNS)
def test_every_product_of_matrices_is_one_of_two_in_the_named_precision(
    config, as_on_a_gpu, monkeypatch
):
    by_name, by_themselves = [], []
    product, matmul = gpu.ops.product, cp.ndarray.__matmul__

    def named(A, B, *dtype):
        by_name.append((A.ndim, B.ndim))
        with monkeypatch.context() as within:
            within.setattr(cp.ndarray, "__matmul__", matmul)
            return product(A, B, *dtype)

    def by_itself(A, B):
        if max(A.ndim, B.ndim) > 1:  # the square of a norm is a sum
            by_themselves.append((A.shape, B.shape))
        return matmul(A, B)

    monkeypatch.setattr(gpu.ops, "product", named)
    monkeypatch.setattr(cp.ndarray, "__matmul__", by_itself)
    trainer = Trainer(config, images_for(config), device="gpu", quiet=True)
    with trainer.workers:
        trainer.training_step(cp.asarray(np.arange(8)), 0, 0, number=0, lr=0.01)
    assert set(by_name) == {(2, 2)}
    assert by_themselves == []


def test_figures_are_read_together(crossings, monkeypatch):
    """Of three steps, and of two at the end of an epoch. Its order comes by a door that adds.

    Three steps have nine figures, so a table of where they lie comes in first.
    """
    monkeypatch.setitem(trainer_module.READ_EVERY, "gpu", 3)
    config = without_a_policy(calm("mixer_pico", batch_size=4))  # 20 images
    trainer = Trainer(config, images_for(config), device="gpu", quiet=True)
    with trainer.workers:
        crossings.clear()
        trainer._train_epoch()
    assert +crossings == Counter({"in": 2, "number": 1, "out": 2})
    assert_same(trained(config, "gpu"), trained(config, "cpu"))


SPOILT = {  # a loss that is not finite, and one whose gradient is not
    "loss": lambda loss: loss * float("nan"),
    "gradient": lambda loss: loss + (loss * 0.0).sqrt(),
}


@pytest.mark.parametrize("model", ["mixer_pico", "hire_mlp_nano"])
@pytest.mark.parametrize("what", SPOILT)
def test_what_went_wrong_some_steps_ago_is_told_as_on_the_cpu(model, what, monkeypatch):
    """A GPU has done two more steps before the figures are read; they have changed nothing."""
    config = calm(model, batch_size=4)
    inputs_of, loss_of, done, said, ended = TrainingStep.inputs, TrainingStep.loss, [], [], []

    def noted(training_step, indices, epoch, step, g):
        done.append(step)
        return inputs_of(training_step, indices, epoch, step, g)

    def spoilt(training_step, *inputs):
        loss, correct = loss_of(training_step, *inputs)
        return (SPOILT[what](loss) if done[-1] == 2 else loss), correct

    monkeypatch.setattr(TrainingStep, "inputs", noted)
    monkeypatch.setattr(TrainingStep, "loss", spoilt)
    for device in ("cpu", "gpu"):
        trainer = Trainer(config, images_for(config), device=device, workers=1, quiet=True)
        with pytest.raises(NonFiniteError) as raised:
            trainer.run()
        said.append(str(raised.value))
        ended.append(to_numpy(trainer.flat.weights))
    assert "epoch 1, step 3" in said[0]
    assert said[0] == said[1]
    np.testing.assert_array_equal(*ended)
    # The step is computed once more to see where it goes wrong.
    assert done == [0, 1, 2, 2, *range(5), 2]


@pytest.mark.parametrize("stop_after", [2, 4])
@pytest.mark.parametrize(("first", "then"), [("gpu", "cpu"), ("cpu", "gpu")])
def test_a_run_goes_on_on_the_other_device(first, then, stop_after, tmp_path, monkeypatch):
    config = small("mixer_pico")
    small_runs.stop_at(monkeypatch, stop_after)
    with pytest.raises(Stopped):
        trained(config, first, out=tmp_path)
    dataset = images_for(config)
    with pytest.warns(Note, match=r"goes on with other arithmetic \(gpu "):
        resumed = Trainer.resume(tmp_path / "last.npz", dataset, device=then, workers=1, quiet=True)
    assert {device_of(array) for array in arrays(resumed).values()} == {then}
    resumed.run()
    assert_same(resumed, trained(config, "cpu"))


TINY = [
    *(f"--set={name}={value}" for name, value in SYSTEMS["mixer_pico"].items()),
    *("--dataset=shapes", "--train-size=20", "--test-size=9", "--batch-size=8", "--quiet"),
]


@pytest.mark.filterwarnings("default::tinymixer.errors.Note")  # of the other arithmetic
def test_the_commands_train_resume_and_judge_on_either_device(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--device=gpu", "--out=run", "--epochs=1", *TINY]) == 0
    config = checkpoint.load(tmp_path / "run/last.npz").header.config
    assert config.micro_batch == 8  # the whole batch: a GPU has no small cache to fit
    for device in ("cpu", "gpu"):
        assert cli.main(["train", "--resume=run", f"--device={device}", "--quiet"]) == 0
    capsys.readouterr()
    said = []
    for device in ("cpu", "gpu"):
        assert cli.main(["eval", "--run=run", f"--device={device}"]) == 0
        picture = str(tmp_path / "run/confusion.png")
        assert cli.main(["predict", picture, "--run=run", f"--device={device}"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_fewer_bits_on_a_gpu_train_other_weights_and_are_given_back():
    exact, tf32 = (trained(calm("mixer_pico", precision=p), "gpu") for p in ("fp32", "tf32"))
    away = np.abs(to_numpy(tf32.flat.weights) - to_numpy(exact.flat.weights)).max()
    assert 0 < away < 0.02  # a few steps of at most lr = 4e-3 each
    assert trained(calm("mixer_pico", precision="tf32"), "cpu").finished  # which knows only fp32
    assert_same(trained(calm("mixer_pico"), "gpu"), exact)
