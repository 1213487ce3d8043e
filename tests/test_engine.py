"""Floor 1: the tape."""

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from checks import assert_close, normal

from tinymixer import engine, optim
from tinymixer.backend import array_module, device_of
from tinymixer.engine import Function, Tensor, Twin, enable_grad, no_grad, recording
from tinymixer.models import create_model
from tinymixer.ops import SoftmaxCrossEntropy
from tinymixer.ops.primitives import Add, Exp, Multiply


class Returns(Function):
    """y = 2x, with whatever backward is told to answer."""

    def __init__(self, answer):
        self.answer = answer

    def forward(self, x, *more):
        return x * 2

    def backward(self, dy):
        return self.answer(dy)


# --- gradients reach every leaf, in any graph ---


def test_a_diamond_adds_up_both_ways(device):
    x = Tensor(device.asarray(np.array([2.0, -3.0])))
    left, right = x * x, x * 3.0
    (left * right).sum().backward()  # 3x³
    assert_close(x.grad, np.array([36.0, 81.0]))


def test_a_ladder_of_diamonds_is_walked_once_per_node():
    x = Tensor(np.array(1.0))
    y = x
    for _ in range(60):  # 2^60 paths
        y = (y + y) * 0.5
    y.backward()
    assert x.grad == 1.0


def test_a_leaf_used_many_times_gets_the_sum_of_its_gradients(device, rng):
    x, *factors = [device.asarray(a) for a in normal(rng, *[(3, 5)] * 51)]
    leaf = Tensor(x)
    total = sum((leaf * factor for factor in factors), start=Tensor(x * 0.0))
    total.sum().backward()
    assert_close(leaf.grad, sum(factors[1:], start=factors[0]))


def test_two_backwards_from_two_losses_add_up():
    x = Tensor(np.array([1.0, 2.0]))
    (x * 3.0).sum().backward()
    (x * 4.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [7.0, 7.0])


def test_an_unused_output_and_an_unused_leaf_cost_nothing():
    x, unused = Tensor(np.ones(2)), Tensor(np.ones(2))
    _ = x * unused
    (x * 2.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [2.0, 2.0])
    assert unused.grad is None


def test_a_none_gradient_stops_there():
    x = Tensor(np.ones(2))
    Returns(lambda dy: None)(x * 3.0).sum().backward()
    assert x.grad is None


def test_backward_of_a_leaf_is_its_cotangent():
    x = Tensor(np.ones(2))
    x.backward(np.array([3.0, 4.0]))
    np.testing.assert_array_equal(x.grad, [3.0, 4.0])


def test_gradients_of_two_leaves_share_no_memory():
    x, y, dz = Tensor(np.ones(2)), Tensor(np.ones(2)), np.array([3.0, 4.0])
    (x + y).backward(dz)
    x.grad *= 0  # as clipping in place would
    np.testing.assert_array_equal(y.grad, [3.0, 4.0])
    np.testing.assert_array_equal(dz, [3.0, 4.0])


def test_a_gradient_may_be_changed_in_place():
    x = Tensor(np.ones((2, 3)))
    x.sum().backward()  # the adjoint of a sum is a broadcast, which NumPy keeps read-only
    x.grad *= 2


def test_a_chain_of_100_000_operations_needs_no_recursion():
    x = Tensor(np.array(1.0))
    y = x
    for _ in range(100_000):
        y = y + 1.0
    y.backward()
    assert y.item() == 100_001
    assert x.grad == 1


def test_a_chain_of_100_000_operations_is_dropped_without_recursion():
    y = Tensor(np.array(1.0))
    for _ in range(100_000):
        y = y * 1.0
    del y


# --- where gradients go ---


def test_a_sink_takes_the_gradients_instead_of_the_leaves():
    x, sink = Tensor(np.array([1.0, 2.0])), {}
    (x * 3.0).sum().backward(into=sink)
    (x * x).sum().backward(into=sink)
    assert x.grad is None
    np.testing.assert_array_equal(sink[x], [5.0, 7.0])


def test_threads_share_weights_and_keep_their_own_gradients(rng):
    W = Tensor(rng.standard_normal((5, 5)))
    inputs = normal(rng, *[(3, 5)] * 8)
    sinks = [{} for _ in inputs]

    def work(x, sink):
        y = x @ W
        (y * y).sum().backward(into=sink)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, sinks, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert W.grad is None
    for x, sink in zip(inputs, sinks, strict=True):
        assert_close(sink[W], 2 * x.T @ (x @ W.data))


# --- memory ---


class Keeps(Function):
    """y = x + 1, saving an array as large, which it reports to `kept`."""

    def __init__(self, kept):
        self.kept = kept

    def forward(self, x):
        copy = x.copy()
        self.kept.append(weakref.ref(copy))
        self.saved = (copy,)
        return x + 1.0

    def backward(self, dy):
        (copy,) = self.saved
        return dy + 0 * copy


def chain(kept, device=np, length=20):
    y = Tensor(device.zeros(5))
    for _ in range(length):
        y = Keeps(kept)(y)
        kept.append(weakref.ref(y.data))
    return y


@pytest.fixture
def no_collector():
    """Reference counts alone must do: a cycle would keep a whole tape until the next collection."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_the_walk_releases_all_that_was_kept_though_the_loss_lives_on(device):
    kept = []
    y = chain(kept, device)
    assert sum(ref() is not None for ref in kept) == 40
    y.backward(device.ones(5))
    assert sum(ref() is not None for ref in kept) == 1  # y's own


@pytest.mark.usefixtures("no_collector")
def test_the_walk_releases_on_the_way_not_at_the_end():
    kept, alive = [], []

    def count(dy):
        alive.append(sum(ref() is not None for ref in kept))
        return dy

    y = Tensor(np.zeros(5))
    for _ in range(10):
        y = Keeps(kept)(Returns(count)(y))
    y.backward(np.ones(5))
    assert alive == list(range(9, -1, -1))


@pytest.mark.usefixtures("no_collector")
def test_a_tape_never_walked_goes_with_its_last_tensor():
    kept = []
    y = chain(kept)
    del y
    assert [ref() for ref in kept if ref() is not None] == []


@pytest.mark.usefixtures("no_collector")
def test_nothing_is_kept_under_no_grad(device):
    kept = []
    with no_grad():
        y = chain(kept, device)
    assert y.creator is None
    assert sum(ref() is not None for ref in kept) == 1  # y's own


@pytest.mark.usefixtures("no_collector")
def test_nothing_is_kept_where_no_input_is_a_tensor():
    function = Multiply()
    y = function(np.ones(3), np.ones(3))
    assert y.creator is None
    assert function.saved is None


@pytest.mark.usefixtures("no_collector")
def test_training_steps_leave_nothing_but_the_gradients(rng):
    model = create_model("mixer_pico")
    images, labels = rng.standard_normal((4, 32, 32, 3)).astype(np.float32), np.arange(4)
    gradients = 4 * model.num_parameters()  # float32: 4 bytes each

    def step():
        for parameter in model.parameters():
            parameter.grad = None
        loss = SoftmaxCrossEntropy()(model(images), labels)
        during = tracemalloc.get_traced_memory()[0]
        loss.backward()
        return during

    step()  # first use fills caches
    tracemalloc.start()
    during = step()
    after = [(step(), tracemalloc.get_traced_memory()[0])[1] for _ in range(3)]
    tracemalloc.stop()
    assert during > 2 * gradients  # what was saved for backward is far larger
    # Python objects around 50 arrays take some 10 kB; a single activation map would take 65 kB.
    assert all(abs(bytes_ - gradients) < 50_000 for bytes_ in after)


# --- no_grad ---


def test_no_grad_ends_with_its_block_also_by_an_error():
    with no_grad():
        with no_grad():
            assert not recording()
        assert not recording()
    assert recording()
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert recording()


def test_no_grad_is_a_threads_own_business():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(recording()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_enable_grad_records_also_under_no_grad_and_ends_with_its_block():
    with no_grad():
        with enable_grad():
            assert recording()
        assert not recording()
        with pytest.raises(KeyError), enable_grad():
            raise KeyError
        assert not recording()


def test_backward_under_no_grad_of_what_was_not_recorded_is_refused():
    x = Tensor(np.ones(3))
    recorded = x.exp().sum()
    with no_grad():
        with pytest.raises(RuntimeError, match=r"no_grad.*compute the loss outside"):
            x.exp().sum().backward()
        recorded.backward()
    np.testing.assert_array_equal(x.grad, np.exp(np.ones(3)))


def test_a_function_used_under_no_grad_is_as_good_as_new():
    x, y, dz = np.ones(3), np.full(3, 2.0), np.ones(3)
    function = Multiply()
    with no_grad():
        function(Tensor(x), Tensor(y))
    function.forward(x, y)
    for found, expected in zip(function.backward(dz), (y, x), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_constant_gets_no_gradient_and_none_is_computed(device):
    x, constant = Tensor(device.ones(3)), device.ones(3)
    y = x * constant
    assert y.creator.needs == (True, False)
    assert y.creator.backward(device.ones(3))[1] is None


def test_float64_mixed_into_float32_is_told_with_the_cure():
    loss = (Tensor(np.ones(3, np.float32)) * np.ones(3)).sum()
    with pytest.raises(
        ValueError, match=r"float64 .*expected float32 .*convert .*astype\('float32'"
    ):
        loss.backward()


# --- what a Function must answer ---


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda dy: dy[:2], r"Returns.backward: the gradient of input 0 is float64 \(2,\)"),
        (lambda dy: dy.sum(), r"the gradient of input 0 is float64 \(\); expected float64 \(3,\)"),
        (lambda dy: dy.astype(np.float32), r"is float32 \(3,\); expected float64 \(3,\)"),
        (lambda dy: (dy, dy), "Returns.backward returned 2 gradients for 1 input"),
        (lambda dy: (), "Returns.backward returned 0 gradients for 1 input"),
    ],
    ids=["shape", "0-d", "dtype", "too many", "too few"],
)
def test_a_gradient_unlike_its_input_is_refused_with_the_functions_name(device, answer, says):
    y = Returns(answer)(Tensor(device.ones(3)))
    with pytest.raises(ValueError, match=says):
        y.backward(device.ones(3))


def test_a_function_without_forward_or_backward_says_so():
    class Empty(Function):
        pass

    with pytest.raises(NotImplementedError, match="Empty defines no forward"):
        Empty()(Tensor(np.ones(3)))
    with pytest.raises(NotImplementedError, match="Empty defines no backward"):
        Empty().backward(np.ones(3))


# --- what a user may not do ---


def test_a_second_backward_raises_and_says_why():
    x = Tensor(np.ones(3))
    shared = x.exp()
    loss, other = shared.sum(), (shared * 2.0).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match=r"Sum was walked before.*Compute the loss again"):
        loss.backward()
    with pytest.raises(RuntimeError, match="Exp was walked before"):
        other.backward()
    np.testing.assert_array_equal(x.grad, np.exp(np.ones(3)))  # the refused walks changed nothing


def test_a_function_instance_is_one_node():
    function = Exp()
    function(Tensor(np.ones(3)))
    with pytest.raises(RuntimeError, match=r"Exp is on the tape already.*new one for each use"):
        function(Tensor(np.ones(3)))


def test_backward_needs_a_scalar_or_a_fitting_cotangent():
    y = Tensor(np.ones(3)) * 2.0
    with pytest.raises(ValueError, match=r"expected a scalar.*got shape \(3,\)"):
        y.backward()
    with pytest.raises(
        ValueError, match=r"expected dy of \(3,\) float64 on the cpu, got \(2,\) float64"
    ):
        y.backward(np.ones(2))
    with pytest.raises(ValueError, match=r"got \(3,\) float32"):
        y.backward(np.ones(3, np.float32))
    with pytest.raises(
        ValueError, match=r"expected dy of \(3,\) float64 on the cpu, got \(\) float on"
    ):
        y.backward(1.0)


@pytest.mark.parametrize("data", [1, [1, 2], np.arange(3), np.array([True]), np.array(["a"])])
def test_only_real_numbers_become_tensors(data):
    with pytest.raises(TypeError, match="expected real numbers to differentiate by, got"):
        Tensor(data)


def test_a_tensor_of_a_tensor_is_refused():
    with pytest.raises(TypeError, match="got a Tensor; expected an array"):
        Tensor(Tensor(np.ones(2)))


def assign(x):
    x[0] = 1.0


def add(x):
    x += 1.0


def subtract(x):
    x -= 1.0


def multiply(x):
    x *= 2.0


def divide(x):
    x /= 2.0


def matrix_multiply(x):
    x @= x


@pytest.mark.parametrize("change", [assign, add, subtract, multiply, divide, matrix_multiply])
def test_changing_a_tensor_in_place_raises_with_the_reason(change):
    with pytest.raises(TypeError, match=r"in place.*may still need the old values"):
        change(Tensor(np.ones((2, 2))))


@pytest.mark.parametrize(
    "device", ["stand_in", pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True
)
@pytest.mark.parametrize("host", [np.ones(3), np.array(2.0)], ids=["array", "0-d array"])
def test_mixing_devices_names_the_argument_and_the_cure(device, host):
    there = Tensor(device.ones(3))
    message = r"Multiply: argument 'y' is on the cpu.*Move it first: .*to_device\(x, 'gpu'\)"
    with pytest.raises(TypeError, match=message):
        there * Tensor(host)
    with pytest.raises(
        TypeError, match=r"Multiply: argument 'y' is on the gpu.*to_device\(x, 'cpu'\)"
    ):
        Tensor(host) * there
    with pytest.raises(ValueError, match=r"expected dy of .* on the gpu, got .* on the cpu"):
        there.backward(np.ones(3))


def test_plain_numbers_are_at_home_on_every_device(device):
    x = Tensor(device.ones(3))
    y = (2.0 * x + np.float32(1.0)) / 3
    assert array_module(y.data) is device
    assert_close(y.data, np.ones(3))


# --- weights that change between forward and backward ---


def changed_by(name, w, flat):
    if name == "assigned":
        w.data = w.data * 1.5
    elif name == "step of an optimizer":
        optim.SGD(np.ones_like(flat)).step(flat, np.ones_like(flat), 0.1, 0)
    elif name == "one element by one rounding":
        w.data[1, 2] = np.nextafter(w.data[1, 2], 9)
    elif name == "doubled":
        w.data *= 2
    elif name == "turned":
        w.data *= -1
    elif name == "reordered":
        w.data[:] = w.data[::-1].copy()


CHANGES = ["assigned", "step of an optimizer", "one element by one rounding", "doubled", "turned"]


@pytest.mark.parametrize("change", [*CHANGES, "reordered"])
def test_weights_that_changed_since_they_were_used_are_noticed(change, rng):
    flat = rng.standard_normal(12)  # as a model's: each weight is a view
    w, x = Tensor(flat.reshape(3, 4)), Tensor(rng.standard_normal((5, 3)))
    loss = (x @ w).exp().sum()
    changed_by(change, w, flat)
    with pytest.raises(
        RuntimeError, match=r"Tensor \(3, 4\) changed after MatMul used.*after back"
    ):
        loss.backward()
    assert w.grad is None
    assert x.grad is None


def test_weights_that_hold_what_they_held_may_be_walked(rng):
    w = Tensor(rng.standard_normal((3, 4)))
    w.data[0, 0] = np.nan  # which is unlike itself
    loss = (w * w).sum()
    w.data = w.data.copy()
    loss.backward()
    w.data -= 0.1 * w.grad  # after backward anything goes
    y = w * 2.0
    y.data[...] = 0  # no leaf
    y.sum().backward()


# --- twins ---


class TwinExp(Exp):
    pass


def test_a_twin_takes_the_place_of_its_function_on_its_device_only(device, monkeypatch):
    x = Tensor(device.ones(3))
    here = device_of(x.data)
    monkeypatch.setattr(engine, "twins", {(Exp, here): Twin(TwinExp), (Add, here): Twin(Add)})
    assert x.exp().creator.implementation is TwinExp
    monkeypatch.setattr(engine, "twins", {(Exp, "elsewhere"): Twin(TwinExp)})
    assert x.exp().creator.implementation is Exp


# --- what a Tensor tells about itself ---


def test_a_tensor_shows_its_array():
    x = Tensor(np.ones((2, 3), np.float32))
    assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((2, 3), 2, 6, 2, np.float32)
    assert x.sum().item() == 6.0
    assert repr(x.sum()) == "Tensor(6.0, dtype=float32, made by Sum)"
    assert repr(Tensor(1.0)) == "Tensor(1.0, dtype=float64)"


def test_numpy_is_not_let_near_a_tensor_unrecorded():
    with pytest.raises(TypeError, match=r"give it the \.data"):
        np.asarray(Tensor(np.ones(3)))


def test_without_the_guard_no_numbers_are_copied_and_gradients_are_the_same():
    def gradient(guarded):
        x = Tensor(np.array([1.0, -2.0, 3.0]))
        with enable_grad(guarded=guarded):
            y = (x * x).sum()
            copies = list(y.creator.inputs[0].creator.leaves or ())
        y.backward()
        return len(copies), x.grad.tolist()

    assert gradient(guarded=True) == (2, [2.0, -4.0, 6.0])
    assert gradient(guarded=False) == (0, [2.0, -4.0, 6.0])
