"""A replayed run ends in the bits of the plain one."""

import sys

import cublas_on_cpu
import cuda_on_cpu
import cupy_stand_in
import numpy as np
import pytest
from small_runs import assert_same, images_for, segmenting, small, trained

from tinymixer import backend, cli, engine, nn, ops
from tinymixer.backend import to_device, to_numpy
from tinymixer.data import Augment
from tinymixer.fast.gpu.graphs import Replay
from tinymixer.train.parallel import Workers
from tinymixer.train.step import TrainingStep


@pytest.fixture(autouse=True, params=["stand_in", pytest.param("gpu", marks=pytest.mark.gpu)])
def gpu(request, monkeypatch):
    """CuPy, or what stands in for it and for cuBLAS."""
    if request.param == "gpu":
        if missing := backend.why_no_gpu():
            pytest.skip(missing)
        return
    if missing := cuda_on_cpu.why_not() or cublas_on_cpu.why_not():
        pytest.skip(missing)
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in)
    cublas_on_cpu.put_in_place(monkeypatch)


def whole(model="mixer_pico", **changes):
    """A run in which a micro-batch is a batch. A stand-in takes its time over each token."""
    if model == "mixer_pico":
        config = small(model, **{"micro_batch": 8, "epochs": 3, **changes})  # of 8, 8 and 4 images
        config.model_options["patch_size"] = 16
        return config
    return small(model, epochs=2, batch_size=2, micro_batch=2, **changes)


def images(config):
    return images_for(config) if config.model == "mixer_pico" else images_for(config, 4, 1)


SEGMENTING = {"task": "segment", "augment": segmenting().augment}
RUNS = {
    "mixer_pico": (whole(), 2),
    "three micro-batches": (whole(micro_batch=3), 2),  # 3, 3, 2 and 3, 1: the last size has none
    "classes": (whole(augment=Augment(flip="random")), 2),
    "tf32": (whole(precision="tf32"), 2),
    "bf16": (whole(precision="bf16"), 2),
    "muon": (whole(optimizer="muon"), 2),  # its update is not recorded
    "as_mlp_nano": (whole("as_mlp_nano"), 1),
    "hire_mlp_nano": (whole("hire_mlp_nano"), 1),
    "vip_nano": (whole("vip_nano"), 1),
    "sparse_mlp_nano": (whole("sparse_mlp_nano"), 1),
    "segmenting": (whole("raft_mlp_nano", **SEGMENTING), 1),
}


@pytest.mark.parametrize(("config", "graphs"), RUNS.values(), ids=RUNS)
def test_a_replayed_run_ends_in_the_same_bits(config, graphs):
    replayed = trained(config, "gpu", images(config), graph=True)
    assert replayed.own_step.replay.why_not is None
    assert len(replayed.own_step.replay.nodes()) == graphs
    assert_same(replayed, trained(config, "gpu", images(config)))


def test_a_run_that_cannot_be_replayed_says_so_once_and_ends_in_the_same_bits(monkeypatch, capsys):
    """The plain loss looks at class numbers on the host, to see whether they are in range."""
    monkeypatch.delitem(engine.twins, (ops.SoftmaxCrossEntropy, "gpu"))
    config = whole(augment=Augment(flip="random"))
    capsys.readouterr()
    found = trained(config, "gpu", graph=True, quiet=False)
    assert "capturing" in found.own_step.replay.why_not
    assert capsys.readouterr().out.count("no graph, launch by launch instead: ") == 1
    assert_same(found, trained(config, "gpu"))


class Moving(nn.Module):
    """A norm with running statistics and a head."""

    def __init__(self):
        self.norm = nn.BatchNorm(3)
        self.head = nn.ChannelLinear(3, 10, rng=np.random.default_rng(0))

    def forward(self, images, rng=None):
        return self.head(self.norm(nn.grid(images), rng).mean(axis=(0, 1)))


def after_steps(replay):
    config = small("mixer_pico", augment=Augment())
    dataset = images_for(config, 22).to("gpu")
    step = TrainingStep(config, Moving().to("gpu"), dataset, Workers(1), replay=replay)
    batch = to_device(np.arange(22), "gpu")
    with step.workers:
        for i in range(3):
            step(batch, 0, i, number=i, lr=0.01)
    return [*step.optimizer.state.values(), *step.model.state().values()]


def test_updates_after_the_step_are_those_of_each_micro_batch():
    """Of 5, 5, 5, 5 and 2 images: one graph is launched several times in a step."""
    replay = Replay()
    found, expected = after_steps(replay), after_steps(None)
    assert replay.why_not is None
    assert len(replay.nodes()) == 2
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(to_numpy(x), to_numpy(y))


def test_a_cpu_has_no_graphs(capsys, tmp_path):
    assert cli.main(["train", "--graph", f"--out={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()
