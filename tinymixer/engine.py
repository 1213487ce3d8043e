"""Floor 1. The tape: Tensor, Function, no_grad.

Calling a Function on Tensors computes `y = forward(x, ...)` and remembers, in the Function itself,
what `backward` will need. Since every node is made after its inputs, the order in which nodes were
made is already a topological order, and `Tensor.backward` walks it once, newest first.

A Tensor is something to differentiate with respect to. Whatever should not get a gradient (images,
labels, masks) stays a plain array.

There is no double backward: `backward` works on raw arrays, which leave no trace.
"""

import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from tinymixer.backend import Array, array_module, common_device
from tinymixer.errors import counted
from tinymixer.options import require
from tinymixer.protocols import Protocols, as_array, described
from tinymixer.shapes import check_shapes, seen

_order = count()  # of creation; the only thing that all tapes share
_state = threading.local()  # .recording: each thread turns its own tape off


class Tensor(Protocols):
    """An array, its gradient, and the Function that made it (None for a leaf).

    Operators (`+ - * / @`, slicing, `reshape`, `sum`, ...) are Functions of `ops.primitives`.
    """

    __slots__ = ("__weakref__", "creator", "data", "grad")

    def __init__(self, data: Any, creator: "Function | None" = None):
        if type(data) is not np.ndarray:
            data = np.asarray(data) if isinstance(data, np.generic) else as_array(data)
        if data.dtype.kind not in "fc":
            raise TypeError(
                f"Tensor: expected real numbers to differentiate by, got {data.dtype}. Leave "
                "labels, indices and masks plain arrays, or convert: data.astype(np.float32)"
            )
        self.data: Array = data
        self.grad: Array | None = None
        self.creator: Any = creator

    def backward(
        self, dy: Array | None = None, into: MutableMapping["Tensor", Array] | None = None
    ) -> None:
        """Add d(self . dy)/d(leaf) to the gradient of every leaf that self was computed from.

        dy is the gradient of the loss with respect to self, 1 if self is a scalar. Gradients are
        added to `leaf.grad`, or, given `into`, to `into[leaf]`: with a mapping each, several
        threads can differentiate through the same weights; what it holds may be views and shared
        arrays. What was saved for backward is released on the way, so a tape is walked once.

        Raises RuntimeError when walked twice and for what `no_grad` left unrecorded, ValueError
        when dy, or a gradient that a Function returns, does not have the shape and dtype of its
        value. Also RuntimeError if the data of a leaf has changed since forward used it: backward
        would read the new numbers. This is not checked on a GPU.
        """
        pending = {self: checked_start(self, dy)}  # gradients that still wait for contributions
        tape = tensors_below(self)
        require_unchanged_leaves(tape)
        while tape:
            y = tape.pop()
            node, dy = y.creator, pending.pop(y, None)
            inputs, backward = node.inputs, node.implementation.backward
            gradients = backward(node, dy) if dy is not None else (None,) * len(inputs)
            node.inputs = node.saved = node.leaves = None  # what it kept can go now
            for x, dx in checked_gradients(node, inputs, gradients):
                pending[x] = pending[x] + dx if x in pending else dx
        for leaf, dx in pending.items():
            if into is None:
                # A copy: dx may be a view, or the gradient of another leaf too.
                leaf.grad = dx.copy() if leaf.grad is None else leaf.grad + dx
            else:
                into[leaf] = into[leaf] + dx if leaf in into else dx


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


class AllNeeded:
    """`needs` of a Function that is used by hand: every gradient."""

    def __getitem__(self, i: int) -> bool:
        return True


class Function:
    """A differentiable operation, and the node of the tape that one use of it leaves.

    A subclass defines, on raw arrays, `forward(*arrays) -> y` and `backward(dy) -> (dx, ...)`, one
    gradient per input of forward, None where there is none (a single one needs no tuple). Options
    are fields of a dataclass or go to a constructor. forward keeps what backward reads in the tuple
    `self.saved`; neither ever writes into what it is given.

    Called on Tensors it records itself: `y = LayerNorm()(x, gamma, beta)`. Called by hand it is
    its own reference: `op.forward(x, gamma, beta)`, then `op.backward(dy)`; nothing looks at the
    shapes then.
    """

    shapes: Any = ""  # what it takes, in a line that each call on the tape enforces: see shapes.py
    cures: Any = ()  # pairs: a letter or an argument of that line, and what to do if it is wrong
    allowed: Any = ()  # pairs: an option, and what it may be besides its default
    saved: Any = None  # what forward keeps for backward; released once the walk has passed
    needs: Any = AllNeeded()  # needs[i]: whether backward is asked for the gradient of input i
    inputs: Any = None  # the recorded ones; None for plain arrays
    leaves: Any = None  # those of them that no Function made, each with the bytes that it held
    order: Any = None  # of creation, once on the tape
    implementation: Any = None  # whose forward ran for this node, and whose backward will

    def __post_init__(self) -> None:
        for name, allowed in self.allowed:
            value, default = getattr(self, name), getattr(type(self), name, self)
            if type(value) is not type(default) or value != default:
                require(f"{type(self).__name__}: {name}", value, allowed)

    def forward(self, *arrays: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def backward(self, dy: Array) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no backward")

    def multiply_accumulates(self, *arrays: Array) -> int:
        """How many products of two inputs one forward adds up; only linear maps have any."""
        return 0

    def __call__(self, *inputs: Any) -> Tensor:
        if self.order is not None:
            raise RuntimeError(
                f"{type(self).__name__} is on the tape already: an instance is one node. Make a "
                f"new one for each use, {type(self).__name__}(...)(x)"
            )
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        on_cpu = all(type(x) is np.ndarray for x in arrays)  # the usual case, ten times as fast
        if self.shapes:
            given = [(np.ndarray, x.shape, x.dtype) if on_cpu else seen(x) for x in arrays]
            check_shapes(type(self).__name__, self.shapes, self.cures, *given)
        device = "cpu" if on_cpu else common_device(arrays, self.forward, type(self).__name__)
        on_tape = recording()
        tensors = tuple(x if on_tape and isinstance(x, Tensor) else None for x in inputs)
        self.needs = tuple(x is not None for x in tensors)
        self.implementation = chosen(type(self), device, *arrays)
        y = self.implementation.forward(self, *arrays)
        if not any(self.needs):
            self.saved, self.needs = None, Function.needs
            return Tensor(y)
        self.inputs, self.order = tensors, next(_order)
        if device == "cpu" and getattr(_state, "guarded", True):
            leaves = (x for x in tensors if x is not None and x.creator is None)
            self.leaves = [(x, x.data.tobytes()) for x in leaves]
        return Tensor(y, self)


# Faster implementations ---------------------------------------------------------------------------


class Twin(NamedTuple):
    """A faster implementation for one kind of device, and what it can be given (None: anything).

    `code` is a subclass of the Function that it stands for, with the same contract, or anything
    called as its reference is.
    """

    code: Any
    takes: Callable[..., bool] | None = None


twins: dict[tuple[Any, str], Twin] = {}  # by (reference, device); filled by `tinymixer.fast`


def chosen(reference: Any, device: str, *arguments: Any) -> Any:
    """What computes `reference(*arguments)` on `device`: its twin if that takes them, or itself."""
    twin, takes = twins.get((reference, device), (reference, None))
    return twin if takes is None or takes(*arguments) else reference


# Whether to record --------------------------------------------------------------------------------


def recording() -> bool:
    """Whether Functions called now, in this thread, are recorded."""
    return getattr(_state, "recording", True)


def no_grad() -> AbstractContextManager[None]:
    """In its `with` block, Functions compute and record nothing: nothing is kept for a backward."""
    return _recording_is(False, True)


def enable_grad(*, guarded: bool = True) -> AbstractContextManager[None]:
    """In its `with` block, Functions are recorded, also where a `no_grad` is around it.

    If `guarded`, a weight that changes between forward and backward is an error: each use of a leaf
    keeps a copy of its numbers. A training step changes none in between and leaves this off.
    """
    return _recording_is(True, guarded)


@contextmanager
def _recording_is(on: bool, guarded: bool) -> Iterator[None]:
    before = recording(), getattr(_state, "guarded", True)
    _state.recording, _state.guarded = on, guarded
    try:
        yield
    finally:
        _state.recording, _state.guarded = before


# Guards -------------------------------------------------------------------------------------------


def checked_start(root: Tensor, dy: Array | None) -> Array:
    """The gradient that a walk starts with."""
    if root.creator is None and not recording():
        what = "backward: nothing is recorded under no_grad; compute the loss outside of it"
        raise RuntimeError(what)
    if dy is None:
        if root.data.size != 1:
            raise ValueError(
                f"backward: expected a scalar such as a loss, got shape {root.shape}. Give dy, "
                "the gradient of your loss by this Tensor"
            )
        return array_module(root.data).ones(root.data.shape, root.data.dtype)
    y = root.data
    if type(dy) is not type(y) or dy.shape != y.shape or dy.dtype != y.dtype:
        raise ValueError(f"backward: expected dy of {described(y)}, got {described(dy)}")
    return dy


def require_unchanged_leaves(tape: list[Tensor]) -> None:
    """Raise RuntimeError if a leaf that the tape uses holds other numbers than when it was used."""
    for y in tape:
        for x, before in y.creator.leaves or ():
            if x.data.tobytes() != before:
                raise RuntimeError(
                    f"backward: the numbers of a {type(x).__name__} {x.shape} changed after "
                    f"{type(y.creator).__name__} used them. Change them after backward"
                )


def checked_gradients(node: Function, inputs: tuple, gradients: Any) -> Iterator[tuple]:
    """The recorded inputs that have a gradient, each with it: of the input's shape and dtype."""
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if len(gradients) != len(inputs):
        raise ValueError(
            f"{type(node).__name__}.backward returned {counted(len(gradients), 'gradient')} for "
            f"{counted(len(inputs), 'input')}; expected one each, None where there is none"
        )
    for i, (x, dx) in enumerate(zip(inputs, gradients, strict=True)):
        if x is None or dx is None:
            continue
        if dx.shape != x.data.shape or dx.dtype != x.data.dtype:
            mixed = f". If forward mixed the two types, convert before: x.astype('{x.dtype}')"
            raise ValueError(
                f"{type(node).__name__}.backward: the gradient of input {i} is {dx.dtype} "
                f"{dx.shape}; expected {x.dtype} {x.shape}, like the input itself"
                f"{mixed if dx.shape == x.shape else ''}"
            )
        yield x, dx
