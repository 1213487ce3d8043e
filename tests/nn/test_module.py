"""Parameter, Buffer and Module: names, states and devices."""

import numpy as np
import pytest
from checks import assert_close

from tinymixer import create_model, nn
from tinymixer.backend import array_module, device_of
from tinymixer.engine import Tensor


class Nest(nn.Module):
    """Two levels, a list, a list of Parameters, and attributes that are neither."""

    def __init__(self, rng):
        self.rate, self.note = 0.5, "not a parameter"
        self.last = nn.ChannelLinear(2, 3, rng=rng)
        self.first = nn.Parameter(np.zeros(4))
        self.blocks = [nn.LayerNorm(2), nn.LayerNorm(5)]
        self.scales = [nn.Parameter(np.zeros(1)), 3]
        self.constant = Tensor(np.zeros(7))


def test_parameters_come_in_order_of_definition_with_their_paths(rng):
    nest = Nest(rng)
    assert [(name, p.shape) for name, p in nest.named_parameters()] == [
        ("last.W", (2, 3)),
        ("last.b", (3,)),
        ("first", (4,)),
        ("blocks.0.gamma", (2,)),
        ("blocks.0.beta", (2,)),
        ("blocks.1.gamma", (5,)),
        ("blocks.1.beta", (5,)),
        ("scales.0", (1,)),
    ]
    assert nest.num_parameters() == 6 + 3 + 4 + 4 + 10 + 1
    assert nest.parameters() == [p for _, p in nest.named_parameters()]


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Nothing defines no forward"):
        type("Nothing", (nn.Module,), {})()()


def test_state_is_the_arrays_themselves(rng):
    nest = Nest(rng)
    assert all(
        array is p.data for array, p in zip(nest.state().values(), nest.parameters(), strict=True)
    )


def test_load_state_copies_values_in_the_parameters_precision(device, rng):
    nest = Nest(rng).to(device_of(device.zeros(1)))
    before = nest.state()
    arrays = {name: rng.standard_normal(a.shape) for name, a in before.items()}
    nest.load_state(arrays)
    for name, array in nest.state().items():
        assert array is before[name]  # still the same buffers
        assert array_module(array) is device
        assert_close(array, arrays[name].astype(array.dtype), within=0)


MISFITS = {
    "missing": (lambda a: a.pop("first"), "missing first"),
    "left over": (lambda a: a.update(extra=np.zeros(1)), "left over extra"),
    "shape": (lambda a: a.update(first=np.zeros(5)), r"first is \(5,\), expected \(4,\)"),
    "all": (lambda a: a.clear(), "missing last.W; .*, and 4 more"),
}


@pytest.mark.parametrize(("spoil", "says"), MISFITS.values(), ids=MISFITS)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(spoil, says, rng):
    nest = Nest(rng)
    arrays = {name: rng.standard_normal(a.shape) for name, a in nest.state().items()}
    before = {name: a.copy() for name, a in nest.state().items()}
    spoil(arrays)
    with pytest.raises(
        ValueError, match=rf"these weights do not fit Nest: {says}.*Build the model"
    ):
        nest.load_state(arrays)
    for name, array in nest.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_astype_and_to_move_every_parameter(device, rng):
    nest = Nest(rng).astype(np.float64).to(device_of(device.zeros(1)))
    assert {p.dtype for p in nest.parameters()} == {np.dtype(np.float64)}
    assert {array_module(p.data) for p in nest.parameters()} == {device}


def test_a_buffer_is_state_and_not_learned():
    norm = nn.BatchNorm(3)
    assert [name for name, _ in norm.named_parameters()] == ["gamma", "beta"]
    assert list(norm.state()) == ["gamma", "beta", "running_mean", "running_var"]
    norm.load_state({name: np.full(3, i) for i, name in enumerate(norm.state())})
    assert norm.running_var.data.tolist() == [3.0, 3.0, 3.0]
    assert norm.astype(np.float64).running_mean.data.dtype == np.float64


def test_layer_names():
    model = create_model("mixer_pico", num_blocks=2)
    names = nn.layer_names(model)
    assert len(names) == len(model.parameters())
    assert names[model.blocks[1].token_mlp.b2] == "blocks.1.token_mlp"
    assert names[model.head.W] == "head"
    y = model.head(Tensor(np.ones((1, 64), np.float32)))
    assert nn.layer_of(y.creator, names) == "head"
    assert nn.layer_of((y * y).creator, names) == ""


def test_a_call_is_forward_also_of_a_subclass_that_has_its_own():
    class Twice(nn.Module):
        def forward(self, x):
            return x + x

    class Thrice(Twice):
        def forward(self, x):
            return super().forward(x) + x

    class Named(Thrice):
        pass

    assert [layer()(1) for layer in (Twice, Thrice, Named)] == [2, 3, 3]
