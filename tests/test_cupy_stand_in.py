"""The stand-in catches what CuPy would refuse, and lets through what CuPy can do."""

import sys
from inspect import getsource
from textwrap import dedent

import cupy_stand_in as cp
import numpy as np
import pytest
from small_runs import assert_same, segmenting, small, trained

from tinymixer import backend, data, engine, nn, ops
from tinymixer.data import augment, autoaugment, draws
from tinymixer.data.augment import Augment
from tinymixer.nn import MixtureOfExperts
from tinymixer.train import evaluation
from tinymixer.train.parallel import FlatParameters
from tinymixer.train.step import TrainingStep


@pytest.fixture
def on_device():
    return cp.asarray(np.arange(6.0).reshape(2, 3))


@pytest.fixture
def on_host():
    return np.arange(6.0).reshape(2, 3)


def assign_to_host(d, h):
    h[:] = d


def assign_to_device(d, h):
    d[:] = h


def add_in_place_to_device(d, h):
    d += h


def add_in_place_to_host(d, h):
    h += d


def assign_host_row(d, h):
    d[0] = h[0]


MIXINGS = {
    "operand on the right": lambda d, h: d + h,
    "operand on the left": lambda d, h: h + d,
    "0-d NumPy array": lambda d, h: d * np.array(2.0),
    "in place, on the device": add_in_place_to_device,
    "in place, on the host": add_in_place_to_host,
    "matrix product from the right": lambda d, h: d @ h.T,
    "matrix product from the left": lambda d, h: h.T @ d,
    "division": lambda d, h: h / d,
    "comparison": lambda d, h: d > h,
    "np.concatenate": lambda d, h: np.concatenate([d, h]),
    "stack with a host array": lambda d, h: cp.stack([d, h]),
    "np.where": lambda d, h: np.where(d > 0, d, h),
    "np.einsum": lambda d, h: np.einsum("ij,ij->i", d, h),
    "where with a host condition": lambda d, h: cp.where(h > 0, d, 0.0),
    "where with a host branch": lambda d, h: cp.where(d > 0, d, h),
    "device function, host array": lambda d, h: cp.exp(h),
    "np.asarray": lambda d, h: np.asarray(d),
    "np.array of a list": lambda d, h: np.array([d, d]),
    "float64 copy": lambda d, h: np.float64(d),
    "assignment to the host": assign_to_host,
    "assignment to the device": assign_to_device,
    "assignment of a host row": assign_host_row,
    "host index on the device": lambda d, h: d[np.array([0, 1])],
    "host mask on the device": lambda d, h: d[h > 2],
    "host index in a tuple": lambda d, h: d[:, np.array([0, 1])],
    "device index on the host": lambda d, h: h[cp.asarray(np.array([0, 1]))],
    "out= on the host": lambda d, h: np.exp(d, out=h),
    "out= on the device": lambda d, h: np.exp(h, out=d),
    "add.at with a host index": lambda d, h: cp.add.at(d, np.array([0]), 1.0),
    "add.at with host values": lambda d, h: cp.add.at(d, 0, h[0]),
    "ufunc.reduce": lambda d, h: np.add.reduce(d),
    "np.mean": lambda d, h: np.mean(d),
}


@pytest.mark.parametrize("mix", MIXINGS.values(), ids=MIXINGS)
def test_mixing_with_numpy_is_caught(mix, on_device, on_host):
    with pytest.raises((TypeError, IndexError)):
        mix(on_device, on_host)


OPERATIONS = {
    "x + x": lambda x: x + x,
    "x - 1": lambda x: x - 1,
    "2.0 * x": lambda x: 2.0 * x,
    "x / NumPy scalar": lambda x: x / np.float64(3),
    "NumPy scalar * x": lambda x: np.float32(3) * x,
    "-x": lambda x: -x,
    "x @ x.T": lambda x: x @ x.T,
    "x > 2": lambda x: x > 2,
    "reshape": lambda x: x.reshape(3, -1),
    "transpose": lambda x: x.transpose(1, 0),
    "swapaxes": lambda x: x.swapaxes(-1, -2),
    "sum to 0-d": lambda x: x.sum(),
    "mean over an axis": lambda x: x.mean(-1, keepdims=True),
    "max": lambda x: x.max(),
    "min": lambda x: x.min(0),
    "astype": lambda x: x.astype(np.float32),
    "real": lambda x: x.real,
    "row": lambda x: x[0],
    "slice": lambda x: x[:, 1:],
    "new axis": lambda x: x[:, None],
    "list as index": lambda x: x[:, [0, 2]],
    "device array as index": lambda x: x[cp.asarray(np.array([1, 0]))],
    "device mask": lambda x: x[x > 2],
    "nonzero": lambda x: cp.nonzero(x > 2)[1],
    "exp": cp.exp,
    "sqrt": cp.sqrt,
    "tanh": cp.tanh,
    "log": lambda x: cp.log(x + 1),
    "where": lambda x: cp.where(x > 2, x, 0),
    "broadcast_to": lambda x: cp.broadcast_to(x, (5, 2, 3)),
    "expand_dims": lambda x: cp.expand_dims(x, (0, 2)),
    "arange": lambda x: x + cp.arange(3),
    "stack": lambda x: cp.stack([x, x], axis=1),
    "pad": lambda x: cp.pad(x, 1),
    "roll": lambda x: cp.roll(x, 1, axis=0),
    "argsort": lambda x: x.argsort(0),
    "ones and zeros": lambda x: x * cp.ones(x.shape, x.dtype) + cp.zeros(x.shape, x.dtype),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_what_cupy_can_do_works_and_stays_on_the_device(operation, on_device):
    assert type(operation(on_device)) is cp.ndarray


def test_the_results_are_numpys(on_device, on_host):
    np.testing.assert_array_equal(
        (2 * on_device @ on_device.T - 1).get(), 2 * on_host @ on_host.T - 1
    )


def test_a_number_of_another_kind_is_refused(on_device):
    with pytest.raises(TypeError, match="use int"):
        on_device <= draws.Stream.CROP  # noqa: B015


def test_assignment_and_add_at_change_the_device_array(on_device):
    on_device[0] = on_device[1]
    on_device[...] = on_device + 1
    cp.add.at(on_device, [0, 0], on_device[1])
    np.testing.assert_array_equal(on_device.get(), [[12, 15, 18], [4, 5, 6]])


def test_both_doors_copy(on_host):
    there = cp.asarray(on_host)
    back = there.get()
    on_host[0, 0] = back[0, 0] = 9
    assert float(there[0, 0]) == 0


def test_the_tiniest_float32_are_0_in_a_kernel():
    tiny = cp.asarray(np.array([1e-39, -1e-39, 2e-38], np.float32))
    np.testing.assert_array_equal((tiny * 1).get(), np.array([0, 0, 2e-38], np.float32))
    np.testing.assert_array_equal((tiny * 2).get(), np.array([0, 0, 4e-38], np.float32))
    tiny *= 0.5
    np.testing.assert_array_equal(tiny.get(), np.zeros(3, np.float32))
    assert float(cp.asarray(np.array(1e-39))) == 1e-39


@pytest.mark.parametrize(
    ("use", "tables"),
    [
        (lambda x: cp.stack([x] * 8), 0),
        (lambda x: cp.stack([x] * 9, axis=1), 1),
        (lambda x: cp.concatenate([x] * 9), 1),
        (lambda x: x[[1, 0]], 1),
        (lambda x: x[:, [1, 0]], 1),
    ],
    ids=["eight arrays", "nine", "nine end to end", "a list of rows", "a list of columns"],
)
def test_what_cupy_looks_up_in_a_table_comes_by_the_door(use, tables, on_device, monkeypatch):
    came, asarray = [], cp.asarray
    monkeypatch.setattr(cp, "asarray", lambda x, *args: came.append(x) or asarray(x, *args))
    use(on_device)
    assert len(came) == tables


def test_a_name_that_tinymixer_does_not_use_is_missing(on_device):
    with pytest.raises(AttributeError):
        cp.einsum  # noqa: B018
    with pytest.raises(AttributeError):
        on_device.dot  # noqa: B018


def test_the_backend_takes_it_for_a_gpu(on_device):
    assert backend.array_module(on_device) is cp
    assert backend.device_of(on_device) == "gpu"


# --- in our own code ---

MIXER, SPARSE, SHIFTING = small("mixer_pico"), small("sparse_mlp_nano"), small("as_mlp_nano")
CLASSES, SEGMENTER = small("mixer_pico", augment=Augment(flip="random")), segmenting()

# What stays on the host: a run in which that matters, and a function with `new` in place of `old`.
SLIPS = {
    "the images": (MIXER, data.Dataset.to, "in _ARRAYS", "in _ARRAYS[1::2]"),
    "the labels": (MIXER, data.Dataset.to, "in _ARRAYS", "in _ARRAYS[::2]"),
    "labels of a test": (MIXER, evaluation.measure, "to_numpy(labels)", "labels"),
    "mean and std": (MIXER, augment.normalise, "_shift(images,", "_shift(0,"),
    "rows of a crop": (MIXER, Augment._crop_and_flip, "xp.arange(height)", "np.arange(height)"),
    "where pixels come from": (MIXER, autoaugment._moved, "maps(images,", "maps(0,"),
    "levels of a table": (MIXER, autoaugment._relevelled, "xp.arange(256)", "np.arange(256)"),
    "sides of holes": (MIXER, Augment._erase, "_erasable(batch,", "_erasable(0,"),
    "noise in holes": (MIXER, draws.noise, "xp.arange(", "np.arange("),
    "random words": (MIXER, draws.draws, "xp.zeros_like(index)", "np.zeros(index.shape, 'u8')"),
    "weights of mixing": (MIXER, Augment._weights, "xp.full(", "np.full("),
    "a dropout mask": (MIXER, nn.layers._dropped, "array_module(x.data).asarray(keep)", "keep"),
    "noise of routing": (SPARSE, MixtureOfExperts._noise, "array_module(z.data)", "np"),
    "gradients of rows": (SPARSE, ops.Dispatch.backward, "array_module(dy)", "np"),
    "shifted lines": (SHIFTING, ops.AxialShift.forward, "array_module(x)", "np"),
    "a border of zeros": (SEGMENTER, ops.Unfold.forward, "xp.zeros(", "np.zeros("),
    "resizing": (SEGMENTER, nn.resize, "_resizing(pixels,", "_resizing(0,"),
    "class numbers": (
        CLASSES,
        ops.SoftmaxCrossEntropy._target_distribution,
        "xp.arange(K)",
        "np.arange(K)",
    ),
    "the decay mask": (
        MIXER,
        FlatParameters.decay_mask,
        "self.xp.zeros_like(self.weights)",
        "np.zeros(self.weights.shape, np.float32)",
    ),
    "the gradient": (
        MIXER,
        FlatParameters.gather,
        "self.xp.empty_like(self.weights)",
        "np.empty(self.weights.shape, np.float32)",
    ),
    "the average": (
        MIXER,
        TrainingStep.__init__,
        "self.flat.weights.copy()",
        "getattr(self.flat.weights, 'get', self.flat.weights.copy)()",
    ),
}


@pytest.mark.parametrize(("config", "function", "old", "new"), SLIPS.values(), ids=SLIPS)
def test_a_slip_in_our_own_code_is_silent_on_numpy_and_caught_by_the_wall(
    config, function, old, new, monkeypatch
):
    monkeypatch.setattr(engine, "twins", {})
    monkeypatch.setitem(sys.modules, "cupy", cp)
    right = trained(config, "cpu")
    source, made = dedent(getsource(function)), dict(function.__globals__)
    assert source.count(old) == 1
    exec("from __future__ import annotations\n" + source.replace(old, new), made)
    monkeypatch.setitem(function.__globals__, "np", np)
    monkeypatch.setattr(function, "__code__", made[function.__name__].__code__)
    assert_same(trained(config, "cpu"), right)
    wall = r"on the cpu|(a|to a) NumPy array|expected (a cupy_stand_in|\d+ numbers)"
    with pytest.raises((TypeError, ValueError), match=wall):
        trained(config, "gpu")


@pytest.mark.gpu
def test_cupy_has_every_name_of_the_stand_in():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    for ours, theirs in ((cp, cupy), (cp.ndarray, cupy.ndarray)):
        names = [name for name in vars(ours) if not name.startswith("_")]
        assert [name for name in names if not hasattr(theirs, name)] == []
