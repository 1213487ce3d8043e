"""The table of twins: every entry is compared with its reference, at every option."""

from inspect import signature

import numpy as np
import pytest
from twin_cases import ON_CPU, ON_GPU, PLAIN, options_of

from tinymixer import engine, fast, ops
from tinymixer.engine import Function, Tensor, Twin, chosen
from tinymixer.fast import cpu


def compared(reference, device):
    """The options that a twin is compared with its reference at, by name, as often as it is."""
    if not (isinstance(reference, type) and issubclass(reference, Function)):
        return PLAIN[reference] if device == "gpu" else []
    cases = {"cpu": ON_CPU, "gpu": ON_GPU}[device]
    bind = signature(reference).bind_partial
    return [bind(*given).arguments for function, given, _ in cases if function is reference]


def gaps(twins):
    """What is not compared, in words."""
    for reference, device in twins:
        found = compared(reference, device)
        if not found:
            yield f"{reference.__name__} on the {device}"
        for name, default in options_of(reference).items():
            if all(given.get(name, default) == default for given in found):
                yield f"{name} of {reference.__name__} on the {device}"


def test_every_twin_is_compared_at_another_value_than_the_default_of_every_option():
    assert len(engine.twins) > 15
    assert list(gaps(engine.twins)) == []


def test_a_twin_or_an_option_without_a_comparison_is_found():
    class Scaled(ops.LayerNorm):
        def __init__(self, eps=1e-6, scale=1.0):
            super().__init__(eps)

    found = list(gaps({(Scaled, "cpu"): Twin(Scaled), (ops.ReLU, "gpu"): Twin(ops.ReLU)}))
    expected = ["Scaled on the cpu", "eps of Scaled on the cpu", "scale of Scaled on the cpu"]
    assert found == [*expected, "ReLU on the gpu"]


def test_a_twin_of_a_function_is_a_subclass_that_is_never_made():
    """It runs on nodes of the Function itself, so neither super() nor a method of its own works."""
    for (reference, _), (code, _) in engine.twins.items():
        if isinstance(reference, type) and issubclass(reference, Function):
            assert code.__base__ is reference
            assert set(vars(code)) <= {"forward", "backward", "__doc__", "__module__"} | {
                "__firstlineno__",
                "__static_attributes__",
            }


def test_the_choice_is_made_before_it_runs_and_once():
    def doubled(x):
        return 2 * x

    twins = {(abs, "cpu"): Twin(doubled, lambda x: x > 1), (abs, "gpu"): Twin(doubled)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "twins", twins)
        assert chosen(abs, "cpu", 1) is abs
        assert chosen(abs, "cpu", 2) is doubled
        assert chosen(abs, "gpu") is doubled
        assert chosen(len, "cpu") is len
    assert chosen(abs, "cpu", 2) is abs


def test_a_node_stays_what_its_caller_made_and_says_what_computed_it():
    x = Tensor(np.ones((2, 3), np.float32))
    op = ops.GELU()
    y = op(x)
    assert y.creator is op
    assert type(op) is ops.GELU
    assert op.implementation is cpu.FastGELU
    assert ops.GELU()(Tensor(np.ones((2, 3)))).creator.implementation is ops.GELU


def test_reference_ops_turns_twins_off_and_back_on():
    registered = dict(engine.twins)
    x = Tensor(np.ones((2, 3), np.float32))

    def computes():
        return ops.GELU()(x).creator.implementation

    assert computes() is cpu.FastGELU
    with fast.reference_ops(), fast.reference_ops():
        assert computes() is ops.GELU
    assert engine.twins == registered
    with pytest.raises(KeyError), fast.reference_ops():
        raise KeyError
    assert engine.twins == registered


def test_what_was_recorded_by_a_twin_is_walked_by_it_within_reference_ops():
    x = Tensor(np.linspace(-2, 2, 7, dtype=np.float32))
    outside, inside = {}, {}
    ops.GELU()(x).sum().backward(into=outside)
    y = ops.GELU()(x).sum()
    with fast.reference_ops():
        y.backward(into=inside)
    np.testing.assert_array_equal(inside[x], outside[x])
