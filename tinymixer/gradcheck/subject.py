"""Floor 2. What is checked: a forward on arrays, its backward, and the names of its inputs."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import numpy as np

from tinymixer.backend import Array
from tinymixer.engine import Function, Tensor, enable_grad, no_grad
from tinymixer.gradcheck.contract import (
    NotATensor,
    NothingToCheck,
    as_tuple,
    broken_if_it_raises,
    check_gradients,
    output,
    widened,
)
from tinymixer.gradcheck.numeric import Path


@dataclass(frozen=True)
class Subject:
    """y = forward(*arrays), and backward(w, arrays), which claims to be d<w, y>/d(array) for each.

    variable maps the position of each input that gets a gradient to its name. Floats are float64,
    unless the forward computes in float32 only.
    """

    name: str
    arrays: Sequence[Array]
    variable: Mapping[int, str]
    forward: Callable[..., Array]
    backward: Callable[[Array, Sequence[Array]], Mapping[int, Array]]
    dtype: Any = np.float64

    def path(self, direction: Mapping[int, Array], dtype: Any = None) -> Path:
        """t -> y with t * direction[i] added to input i; NaN where the forward raises."""
        dtype = dtype or self.dtype
        arrays = [x.astype(dtype, copy=False) if x.dtype.kind == "f" else x for x in self.arrays]
        moves = {i: v.astype(dtype, copy=False) for i, v in direction.items()}

        def at(t: complex) -> Array:
            t = t if isinstance(t, complex) else dtype(t)
            moved = [
                np.asarray(x + t * moves[i]) if i in moves else x for i, x in enumerate(arrays)
            ]
            try:
                return self.forward(*moved)
            except NothingToCheck:  # outside of the domain
                return np.full(np.shape(self.forward(*self.arrays)), np.nan)

        return at

    def at_nan(self, direction: Mapping[int, Array]) -> Array:
        """y with NaN for the elements that a direction moves: what does not turn NaN is not moved.

        But for the few functions that pass over NaN, and for choices.
        """
        arrays = [
            np.where(direction[i] != 0, np.nan, x).astype(x.dtype) if i in direction else x
            for i, x in enumerate(self.arrays)
        ]
        return self.forward(*arrays)

    def random_direction(self, rng: np.random.Generator, only: int | None = None) -> dict:
        """Random moves of input `only`, or of all; together about as large as one input."""
        chosen = self.variable if only is None else [only]
        return {
            i: rng.standard_normal(self.arrays[i].shape) * (self.typical(i) / np.sqrt(len(chosen)))
            for i in chosen
        }

    def typical(self, i: int) -> float:
        """The root mean square of the elements of input i; 1 if they are all zero."""
        x = self.arrays[i].astype(np.float64)
        return (float(np.sqrt(np.mean(x * x))) if x.size else 1.0) or 1.0


def input_names(f: Callable, count: int) -> list[str]:
    """The parameters' names if f takes exactly `count`, otherwise input 0, input 1, ..."""
    try:
        parameters = signature(f).parameters.values()
    except (TypeError, ValueError):  # of a builtin
        parameters = {}.values()
    positional = [p for p in parameters if p.kind == Parameter.POSITIONAL_OR_KEYWORD]
    required = [p for p in positional if p.default is Parameter.empty]
    if len(parameters) == len(positional) and len(required) <= count <= len(positional):
        return [p.name for p in positional[:count]]
    return [f"input {i}" for i in range(count)]


def of_function(
    op: Function,
    *arrays: Array,
    constants: Collection[str] = (),
    contract: bool = True,
    dtype: Any = np.float64,
) -> Subject:
    """A hand-written Function on raw arrays; `constants` names the inputs that get no gradient.

    With contract=False its backward may write into dy and differ from call to call.
    """
    if isinstance(op, type):
        raise NothingToCheck(
            f"{op.__name__} is a class; give an instance with its options: {op.__name__}(...)"
        )
    inputs = tuple(widened(x, dtype) for x in arrays)
    names = input_names(op.forward, len(inputs))
    if unknown := set(constants) - set(names):
        raise NothingToCheck(
            f"there is no input {', '.join(sorted(unknown))}; the inputs are {', '.join(names)}"
        )
    variable = {
        i: name
        for i, (name, x) in enumerate(zip(names, inputs, strict=True))
        if x.dtype.kind == "f" and name not in constants
    }

    def forward(*arrays: Array) -> Array:
        with broken_if_it_raises("forward"):
            return output(copy.copy(op).forward(*arrays))

    def backward(w: Array, arrays: Sequence[Array] = inputs) -> dict[int, Array]:
        node, dy = copy.copy(op), w.copy()
        dy.flags.writeable = not contract
        with broken_if_it_raises("forward"):
            node.forward(*arrays)
        with broken_if_it_raises("backward"):
            gradients = as_tuple(node.backward(dy))
            again = as_tuple(node.backward(dy)) if contract else gradients
        check_gradients(gradients, again, names, arrays, variable)
        return {i: gradients[i] for i in variable}

    return Subject(type(op).__name__, inputs, variable, forward, backward, dtype)


def of_composition(f: Callable[..., Any], *arrays: Array, dtype: Any = np.float64) -> Subject:
    """Anything composed of Functions: floating arrays reach f as Tensors, others as they are.

    f returns a Tensor, or several in a tuple, whose gradients then are added up.
    """
    inputs = tuple(widened(x, dtype) for x in arrays)
    names = input_names(f, len(inputs))
    variable = {i: names[i] for i, x in enumerate(inputs) if x.dtype.kind == "f"}

    def evaluate(arrays: Sequence[Array]) -> tuple[list[Tensor], list]:
        given = [Tensor(x) if i in variable else x for i, x in enumerate(arrays)]
        y = f(*given)
        outputs = list(y) if isinstance(y, tuple | list) and y else [y]
        for part in outputs:
            if not isinstance(part, Tensor):
                raise NotATensor(
                    "gradcheck: expected the function to return a Tensor, got "
                    f"{type(part).__name__}. Compute with Tensors all the way: no .data and no "
                    "numpy functions on them"
                )
        return outputs, given

    def forward(*arrays: Array) -> Array:
        with no_grad(), broken_if_it_raises("forward"):
            outputs, _ = evaluate(arrays)
        if len(outputs) == 1:
            return output(outputs[0].data)
        return np.concatenate([y.data.reshape(-1) for y in outputs])

    def backward(w: Array, arrays: Sequence[Array] = inputs) -> dict[int, Array]:
        with enable_grad(), broken_if_it_raises("backward"):
            outputs, given = evaluate(arrays)
            if len(outputs) == 1:
                outputs[0].backward(w)
            else:
                ends = np.cumsum([y.size for y in outputs])[:-1]
                parts = zip(outputs, np.split(w, ends), strict=True)
                first, *others = ((y * v.reshape(y.shape)).sum() for y, v in parts)
                for other in others:
                    first = first + other
                first.backward()
        return {i: _or_zero(given[i]) for i in variable}

    name = getattr(f, "__name__", type(f).__name__)
    return Subject(name, inputs, variable, forward, backward, dtype)


def of_model(
    model: Any,
    batch: Array,
    rng: np.random.Generator,
    call: Callable[[Any, Array], Tensor] = lambda model, x: model(x),
    twice: bool = False,
) -> Subject:
    """A model's output as a function of its parameters, all moved off their initial values.

    At initialisation a model hides bugs: behind a head of zeros every other gradient is zero. So
    each parameter of a copy gets noise, as large as half its own size (0.1 where it is zero).
    With `twice` the gradient is what two backward calls add up to, halved.
    """
    model, batch = copy.deepcopy(model), widened(batch)
    names, parameters = zip(*model.named_parameters(), strict=True)
    for p in parameters:
        p.data = widened(p.data)
        size = np.sqrt(np.mean(p.data * p.data)) or 0.2
        p.data = p.data + 0.5 * size * rng.standard_normal(p.shape)
    inputs = [p.data for p in parameters]

    def forward(*arrays: Array) -> Array:
        for p, x in zip(parameters, arrays, strict=True):
            p.data = x
        with no_grad(), broken_if_it_raises("forward"):
            return call(model, batch).data

    def backward(w: Array, arrays: Sequence[Array] = inputs) -> dict[int, Array]:
        for p, x in zip(parameters, arrays, strict=True):
            p.data, p.grad = x, None
        with enable_grad(), broken_if_it_raises("backward"):
            call(model, batch).backward(w)
            if twice:
                call(model, batch).backward(w)
        return {i: _or_zero(p) / (2 if twice else 1) for i, p in enumerate(parameters)}

    return Subject(type(model).__name__, inputs, dict(enumerate(names)), forward, backward)


def _or_zero(leaf: Tensor) -> Array:
    """The gradient; 0 for a leaf that the walk never came to, as nothing depends on it."""
    return np.zeros_like(leaf.data) if leaf.grad is None else leaf.grad
