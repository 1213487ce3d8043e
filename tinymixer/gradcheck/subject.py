"""Floor 2. What is checked: a forward on arrays, its backward, and the names of its inputs."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import numpy as np

from tinymixer.backend import Array
from tinymixer.engine import Function, Tensor, enable_grad, no_grad
from tinymixer.gradcheck.numeric import Path


class BrokenContract(Exception):
    """A rule of a Function is not kept, whatever the numbers."""


@dataclass(frozen=True)
class Subject:
    """y = forward(*arrays), and backward(w), which claims to be d<w, y>/d(array) for each.

    variable maps the position of each input that gets a gradient to its name. Floats are float64.
    """

    name: str
    arrays: Sequence[Array]
    variable: Mapping[int, str]
    forward: Callable[..., Array]
    backward: Callable[[Array], Mapping[int, Array]]

    def path(self, direction: Mapping[int, Array], dtype: Any = np.float64) -> Path:
        """t -> y with t * direction[i] added to input i."""
        arrays = [x.astype(dtype) if x.dtype.kind == "f" else x for x in self.arrays]
        moves = {i: v.astype(dtype) for i, v in direction.items()}

        def at(t: complex) -> Array:
            t = t if isinstance(t, complex) else dtype(t)
            moved = [x + t * moves[i] if i in moves else x for i, x in enumerate(arrays)]
            return self.forward(*moved)

        return at

    def random_direction(self, rng: np.random.Generator, only: int | None = None) -> dict:
        """Random moves of input `only`, or of all; together about as large as one input."""
        chosen = self.variable if only is None else [only]
        sizes = {i: np.sqrt(np.mean(self.arrays[i] ** 2)) or 1.0 for i in chosen}
        return {
            i: rng.standard_normal(self.arrays[i].shape) * (size / np.sqrt(len(sizes)))
            for i, size in sizes.items()
        }


def widened(x: Any) -> Array:
    """A read-only copy of x; in float64 if floating, the only precision that proves anything."""
    x = np.array(x)
    x = x.astype(np.float64) if x.dtype.kind == "f" else x
    x.flags.writeable = False
    return x


@contextmanager
def writing_is_a_breach() -> Iterator[None]:
    """Turn NumPy's refusal to write into a read-only array into the rule that it breaks."""
    try:
        yield
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise BrokenContract(
            "forward or backward writes into an array that it was given, which others may still "
            "need: compute into a new one"
        ) from error


def input_names(f: Callable, count: int) -> list[str]:
    """The parameters' names if f takes exactly `count`, otherwise input 0, input 1, ..."""
    parameters = signature(f).parameters.values()
    if len(parameters) == count and all(
        p.kind == Parameter.POSITIONAL_OR_KEYWORD for p in parameters
    ):
        return [p.name for p in parameters]
    return [f"input {i}" for i in range(count)]


def of_function(
    op: Function, *arrays: Array, constants: Collection[str] = (), contract: bool = True
) -> Subject:
    """A hand-written Function on raw arrays; `constants` names the inputs that get no gradient.

    With contract=False its backward may write into dy and differ from call to call.
    """
    arrays = tuple(widened(x) for x in arrays)
    names = input_names(op.forward, len(arrays))
    variable = {
        i: name
        for i, (name, x) in enumerate(zip(names, arrays, strict=True))
        if x.dtype.kind == "f" and name not in constants
    }

    def forward(*arrays: Array) -> Array:
        return copy.copy(op).forward(*arrays)

    def backward(w: Array) -> dict[int, Array]:
        node, dy = copy.copy(op), w.copy()
        dy.flags.writeable = not contract
        node.forward(*arrays)
        gradients = _as_tuple(node.backward(dy))
        again = _as_tuple(node.backward(dy)) if contract else gradients
        _check_contract(gradients, again, names, arrays, variable)
        return {i: gradients[i] for i in variable}

    return Subject(type(op).__name__, arrays, variable, forward, backward)


def _as_tuple(gradients: Any) -> tuple:
    return gradients if isinstance(gradients, tuple) else (gradients,)


def _check_contract(
    first: tuple, again: tuple, names: list[str], arrays: Sequence[Array], variable: Mapping
) -> None:
    if len(first) != len(arrays):
        raise BrokenContract(
            f"backward returns {len(first)} gradients for {len(arrays)} inputs; return one each, "
            "None for a constant"
        )
    for i, (name, x, dx, same) in enumerate(zip(names, arrays, first, again, strict=True)):
        if i not in variable and dx is not None:
            raise BrokenContract(f"d{name} should be None: {name} is a constant")
        if i not in variable:
            continue
        if dx is None:
            raise BrokenContract(f"d{name} is None, yet y depends on {name}; is it a constant?")
        if dx.shape != x.shape or dx.dtype != x.dtype:
            hint = ""
            if dx.shape == x.shape[::-1]:
                hint = ": transposed"
            elif dx.size > x.size:
                hint = ": a sum over the axes along which it was broadcast is missing"
            raise BrokenContract(
                f"d{name} is {dx.dtype} {dx.shape}; expected {x.dtype} {x.shape}, like {name} "
                f"itself{hint}"
            )
        if not np.array_equal(dx, same, equal_nan=True):
            raise BrokenContract(
                f"a second backward(dy) gives another d{name}: the first one changed what forward "
                "saved, or backward draws random numbers"
            )


def of_composition(f: Callable[..., Tensor], *arrays: Array) -> Subject:
    """Anything composed of Functions: floating arrays reach f as Tensors, others as they are."""
    arrays = tuple(widened(x) for x in arrays)
    names = input_names(f, len(arrays))
    variable = {i: names[i] for i, x in enumerate(arrays) if x.dtype.kind == "f"}

    def evaluate(arrays: Sequence[Array]) -> tuple[Tensor, list]:
        inputs = [Tensor(x) if i in variable else x for i, x in enumerate(arrays)]
        y = f(*inputs)
        if not isinstance(y, Tensor):
            raise TypeError(
                f"gradcheck: expected the function to return a Tensor, got {type(y).__name__}. "
                "Compute with Tensors all the way: no .data and no numpy functions on them"
            )
        return y, inputs

    def forward(*arrays: Array) -> Array:
        with no_grad():
            return evaluate(arrays)[0].data

    def backward(w: Array) -> dict[int, Array]:
        with enable_grad():
            y, inputs = evaluate(arrays)
            y.backward(w)
        return {i: _or_zero(inputs[i]) for i in variable}

    return Subject(getattr(f, "__name__", type(f).__name__), arrays, variable, forward, backward)


def of_model(
    model: Any,
    batch: Array,
    rng: np.random.Generator,
    call: Callable[[Any, Array], Tensor] = lambda model, x: model(x),
) -> Subject:
    """A model's output as a function of its parameters, all moved off their initial values.

    At initialisation a model hides bugs: behind a head of zeros every other gradient is zero. So
    each parameter of a copy gets noise, as large as half its own size (0.1 where it is zero).
    """
    model, batch = copy.deepcopy(model), widened(batch)
    names, parameters = zip(*model.named_parameters(), strict=True)
    for p in parameters:
        p.data = widened(p.data)
        size = np.sqrt(np.mean(p.data * p.data)) or 0.2
        p.data = p.data + 0.5 * size * rng.standard_normal(p.shape)
    arrays = [p.data for p in parameters]

    def forward(*arrays: Array) -> Array:
        for p, x in zip(parameters, arrays, strict=True):
            p.data = x
        with no_grad():
            return call(model, batch).data

    def backward(w: Array) -> dict[int, Array]:
        for p, x in zip(parameters, arrays, strict=True):
            p.data, p.grad = x, None
        with enable_grad():
            call(model, batch).backward(w)
        return {i: _or_zero(p) for i, p in enumerate(parameters)}

    return Subject(type(model).__name__, arrays, dict(enumerate(names)), forward, backward)


def _or_zero(leaf: Tensor) -> Array:
    """The gradient; 0 for a leaf that the walk never came to, as nothing depends on it."""
    return np.zeros_like(leaf.data) if leaf.grad is None else leaf.grad
