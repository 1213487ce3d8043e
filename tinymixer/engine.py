"""Floor 1. The tape: Tensor, Function, no_grad.

Calling a Function on Tensors computes `y = forward(x, ...)` and remembers, in the Function itself,
what `backward` will need. Since every node is made after its inputs, the order in which nodes were
made is already a topological order, and `Tensor.backward` walks it once, newest first.

A Tensor is something to differentiate by. Whatever should not get a gradient (images, labels,
masks) stays a plain array.

There is no double backward: `backward` works on raw arrays, which leave no trace.
"""

import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from inspect import signature
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from tinymixer.backend import Array, array_module, device_of

_order = count()  # of creation; the only thing that all tapes share
_state = threading.local()  # .recording: each thread turns its own tape off

# (Function, device) -> a faster subclass with the same contract; filled by `tinymixer.fast`.
twins: dict[tuple[type["Function"], str], type["Function"]] = {}


@contextmanager
def no_grad() -> Iterator[None]:
    """Within it, Functions compute and record nothing: nothing is kept for a backward."""
    before = recording()
    _state.recording = False
    try:
        yield
    finally:
        _state.recording = before


@contextmanager
def enable_grad() -> Iterator[None]:
    """Within it, Functions are recorded, also where a `no_grad` is around it."""
    before = recording()
    _state.recording = True
    try:
        yield
    finally:
        _state.recording = before


def recording() -> bool:
    """Whether Functions called now, in this thread, are recorded."""
    return getattr(_state, "recording", True)


class Tensor:
    """An array, its gradient, and the Function that made it (None for a leaf).

    Operators (`+ - * / @`, slicing, `reshape`, `sum`, ...) are Functions of `ops.primitives`.
    """

    __slots__ = ("__weakref__", "creator", "data", "grad")
    __array_ufunc__ = None  # array + Tensor asks Tensor.__radd__, not NumPy

    def __init__(self, data: Any, creator: "Function | None" = None):
        if isinstance(data, Tensor):
            raise TypeError(
                "Tensor: got a Tensor; expected an array. Use it as it is, or its .data"
            )
        self.data: Array = array_module(data).asarray(data)
        if self.data.dtype.kind not in "fc":
            raise TypeError(
                f"Tensor: expected real numbers to differentiate by, got {self.data.dtype}. Leave "
                "labels, indices and masks plain arrays, or convert: data.astype(np.float32)"
            )
        self.grad: Array | None = None
        self.creator: Any = creator

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    def __len__(self) -> int:
        return len(self.data)

    def item(self) -> float:
        """The value of a one-element Tensor as a Python number."""
        return self.data.item()

    def __repr__(self) -> str:
        maker = f", made by {type(self.creator).__name__}" if self.creator else ""
        return f"{type(self).__name__}({self.data}, dtype={self.dtype}{maker})"

    def __array__(self, *args: Any, **kwargs: Any) -> Array:
        raise TypeError("NumPy would not record what it does to a Tensor: give it the .data")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(
            "Tensors are not assigned to in place: a recorded Function may still need the old "
            "values for its backward. Build a new Tensor, or change .data outside of any tape"
        )

    def _no_augmented(self, other: Any) -> "Tensor":
        raise TypeError(
            "Tensors do not change in place (+=, -=, ...): a recorded Function may still need the "
            "old values. Write x = x + y"
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __imatmul__ = _no_augmented

    if TYPE_CHECKING:  # these are Functions: ops.primitives defines and installs them

        def __add__(self, y: Any) -> "Tensor": ...
        def __radd__(self, x: Any) -> "Tensor": ...
        def __sub__(self, y: Any) -> "Tensor": ...
        def __rsub__(self, x: Any) -> "Tensor": ...
        def __mul__(self, y: Any) -> "Tensor": ...
        def __rmul__(self, x: Any) -> "Tensor": ...
        def __truediv__(self, y: Any) -> "Tensor": ...
        def __rtruediv__(self, x: Any) -> "Tensor": ...
        def __matmul__(self, y: Any) -> "Tensor": ...
        def __rmatmul__(self, x: Any) -> "Tensor": ...
        def __neg__(self) -> "Tensor": ...
        def __getitem__(self, key: Any) -> "Tensor": ...
        def exp(self) -> "Tensor": ...
        def log(self) -> "Tensor": ...
        def sqrt(self) -> "Tensor": ...
        def tanh(self) -> "Tensor": ...
        def sum(self, axis: Any = None, keepdims: bool = False) -> "Tensor": ...
        def mean(self, axis: Any = None, keepdims: bool = False) -> "Tensor": ...
        def reshape(self, *shape: int) -> "Tensor": ...
        def transpose(self, *axes: int) -> "Tensor": ...

    def backward(
        self, dy: Array | None = None, into: MutableMapping["Tensor", Array] | None = None
    ) -> None:
        """Add d(self . dy)/d(leaf) to the gradient of every leaf that self was computed from.

        dy is the gradient of the loss by self, 1 if self is a scalar. Gradients are added to
        `leaf.grad`, or, given `into`, to `into[leaf]`: with a mapping each, several threads can
        differentiate through the same weights; what it holds may be views and shared arrays. What
        was saved for backward is released on the way, so a tape is walked once.

        Raises RuntimeError when walked twice and for what `no_grad` left unrecorded, ValueError
        when dy or a gradient that a Function returns has not the shape and dtype of what it is the
        gradient of.
        """
        if self.creator is None and not recording():
            raise RuntimeError(
                "backward: nothing is recorded under no_grad; compute the loss outside of it"
            )
        xp = array_module(self.data)
        if dy is None:
            if self.size != 1:
                raise ValueError(
                    f"backward: expected a scalar such as a loss, got shape {self.shape}. Give dy, "
                    "the gradient of your loss by this Tensor"
                )
            dy = xp.ones(self.shape, self.dtype)
        if _kind(dy) != _kind(self.data):
            raise ValueError(f"backward: expected dy of {_kind(self.data)}, got {_kind(dy)}")
        pending = {self: dy}  # gradients that still wait for contributions
        tape = tensors_below(self)
        while tape:
            y = tape.pop()
            node, dy = y.creator, pending.pop(y, None)
            inputs = node.inputs
            gradients = node.backward(dy) if dy is not None else (None,) * len(inputs)
            node.inputs = node.saved = None  # what it kept can go now
            for x, dx in zip(inputs, node._checked(gradients, inputs), strict=True):
                if x is not None and dx is not None:
                    pending[x] = pending[x] + dx if x in pending else dx
        for leaf, dx in pending.items():
            if into is None:
                # A copy: dx may be a view, or the gradient of another leaf too.
                leaf.grad = dx.copy() if leaf.grad is None else leaf.grad + dx
            else:
                into[leaf] = into[leaf] + dx if leaf in into else dx


def _kind(x: Any) -> str:
    """Shape, dtype and place of an array or a number."""
    return f"{np.shape(x)} {getattr(x, 'dtype', type(x).__name__)} on the {device_of(x)}"


def tensors_below(root: Tensor) -> list[Tensor]:
    """The Tensors that a Function made on the way to root, root included, oldest first.

    Raises RuntimeError if `backward` has walked, and so released, a part of them.
    """
    found, to_visit = set(), [root]
    while to_visit:
        y = to_visit.pop()
        if y.creator is None or y in found:
            continue
        if y.creator.inputs is None:
            raise RuntimeError(
                f"backward: {type(y.creator).__name__} was walked before and has released what it "
                "saved. Compute the loss again, or add up the losses and walk once"
            )
        found.add(y)
        to_visit.extend(x for x in y.creator.inputs if x is not None)
    return sorted(found, key=lambda y: y.creator.order)


class Function:
    """A differentiable operation, and the node of the tape that one use of it leaves.

    A subclass defines, on raw arrays, `forward(*arrays) -> y` and `backward(dy) -> (dx, ...)`, one
    gradient per input of forward, None where there is none (a single one needs no tuple). Options
    go to the constructor. forward keeps what backward reads with `self.save(...)`; neither ever
    writes into what it is given.

    Called on Tensors it records itself: `y = LayerNorm()(x, gamma, beta)`. Called by hand it is
    its own reference: `op.forward(x, gamma, beta)`, then `op.backward(dy)`.
    """

    saved: Any = None
    inputs: Any = None  # the recorded ones; None for plain arrays
    order: Any = None  # of creation, once on the tape
    needs: tuple[bool, ...] = (True,) * 1000  # of which inputs backward is asked for a gradient

    def forward(self, *arrays: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def backward(self, dy: Array) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no backward")

    def multiply_accumulates(self, *arrays: Array) -> int:
        """How many products of two inputs one forward adds up; only linear maps have any."""
        return 0

    def save(self, *arrays: Any) -> None:
        """Keep for backward; released as soon as the walk has passed."""
        self.saved = arrays

    def __call__(self, *inputs: Any) -> Tensor:
        if self.order is not None:
            raise RuntimeError(
                f"{type(self).__name__} is on the tape already: an instance is one node. Make a "
                f"new one for each use, {type(self).__name__}(...)(x)"
            )
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        self.__class__ = twins.get((type(self), self._device(arrays)), type(self))
        tensors = tuple(x if isinstance(x, Tensor) and recording() else None for x in inputs)
        self.needs = tuple(x is not None for x in tensors)
        y = self.forward(*arrays)
        if not any(self.needs):
            self.saved, self.needs = None, Function.needs
            return Tensor(y)
        self.inputs, self.order = tensors, next(_order)
        return Tensor(y, self)

    def _device(self, arrays: list[Any]) -> str:
        """The one device of all arrays; plain numbers, also NumPy's, are at home on both."""
        if all(type(x) is np.ndarray for x in arrays):
            return "cpu"  # the usual answer, ten times as fast
        numbers = (int, float, complex, np.generic)
        devices = [None if isinstance(x, numbers) else device_of(x) for x in arrays]
        found = [d for d in devices if d]
        if len(set(found)) > 1:
            names = list(signature(type(self).forward).parameters)[1:]
            odd = next(i for i, d in enumerate(devices) if d and d != found[0])
            raise TypeError(
                f"{type(self).__name__}: argument {names[min(odd, len(names) - 1)]!r} is on the "
                f"{devices[odd]}, the ones before it on the {found[0]}. Move it first: "
                f"tinymixer.backend.to_device(x, {found[0]!r})"
            )
        return found[0] if found else "cpu"

    def _checked(self, gradients: Any, inputs: tuple) -> tuple:
        """backward's answer as a tuple of one gradient per input, each as its input is."""
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        if len(gradients) != len(inputs):
            raise ValueError(
                f"{type(self).__name__}.backward returned {len(gradients)} gradients for "
                f"{len(inputs)} inputs; expected one each, None where there is none"
            )
        for i, (x, dx) in enumerate(zip(inputs, gradients, strict=True)):
            if x is None or dx is None:
                continue
            if dx.shape != x.shape or dx.dtype != x.dtype:
                mixed = f". If forward mixed the two types, convert before: x.astype('{x.dtype}')"
                raise ValueError(
                    f"{type(self).__name__}.backward: the gradient of input {i} is {dx.dtype} "
                    f"{dx.shape}; expected {x.dtype} {x.shape}, like the input itself"
                    f"{mixed if dx.shape == x.shape else ''}"
                )
        return gradients
