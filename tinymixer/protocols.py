"""Floor 1. The Python operators that a Tensor has, and those that it refuses.

The operators are Functions: `ops.primitives` sets each beside its primitive. A protocol that a
Tensor would follow only in part raises an error that says what to do instead.

A Tensor has a length and items, so it has iteration: over its first axis, each item recorded. Two
Tensors are equal if they are the same one, since gradients are kept by Tensor in dictionaries.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from tinymixer.backend import Array, array_module, device_of

if TYPE_CHECKING:
    from tinymixer.engine import Tensor


Operator = Any  # Callable[..., Tensor]


class SetByOps:
    """An operator that `ops` sets on Tensor, beside its primitive. The first use loads them all.

    So `from tinymixer.engine import Tensor` is enough to compute with Tensors.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, tensor: Any, kind: type) -> Any:
        import_module("tinymixer.ops")
        return self if tensor is None else getattr(tensor, self.name)


def refused(message: str) -> Callable[..., Any]:
    """A method that raises TypeError with this sentence."""

    def refuse(self: Any, *args: Any, **options: Any) -> Any:
        raise TypeError(message)

    return refuse


AS_NUMBER = refused(
    "a Tensor is not turned into a number by itself, since the tape would lose it: write x.item() "
    "for the number"
)
ORDER = refused(
    "Tensors are not compared: a comparison has no gradient. Compare the numbers: x.data > 0"
)
STEPS = refused(
    "Tensors are not rounded, nor divided with a remainder: the gradient would be 0 almost "
    "everywhere. Use the numbers: np.floor(x.data)"
)
BITS = refused(
    "a Tensor holds no truth values or bits: combine masks as arrays, (x.data > 0) & mask"
)
IN_PLACE = refused(
    "Tensors do not change in place (+=, -=, ...): a recorded Function may still need the old "
    "values. Write x = x + y"
)


def as_array(data: Any) -> Array:
    """Numbers, lists and arrays as the array that a Tensor holds."""
    if isinstance(data, Protocols | np.ma.MaskedArray):
        raise TypeError(
            f"Tensor: got a {type(data).__name__}; expected an array. Use it as it is, or its .data"
        )
    try:
        return array_module(data).asarray(data)
    except ValueError:  # rows of different lengths
        raise ValueError(
            "Tensor: expected numbers, or rows of numbers that are all as long; the lists given "
            "do not make an array"
        ) from None


def described(x: Any) -> str:
    """Shape, dtype and device of an array or a number."""
    return f"{np.shape(x)} {getattr(x, 'dtype', type(x).__name__)} on the {device_of(x)}"


class Protocols:
    __slots__ = ()
    __array_ufunc__ = None  # array + Tensor asks Tensor.__radd__, not NumPy

    data: Any
    creator: Any

    # What a Tensor has ----------------------------------------------------------------------------

    __add__: Operator = SetByOps()
    __radd__: Operator = SetByOps()
    __sub__: Operator = SetByOps()
    __rsub__: Operator = SetByOps()
    __mul__: Operator = SetByOps()
    __rmul__: Operator = SetByOps()
    __truediv__: Operator = SetByOps()
    __rtruediv__: Operator = SetByOps()
    __matmul__: Operator = SetByOps()
    __rmatmul__: Operator = SetByOps()
    __pow__: Operator = SetByOps()  # with a number as the exponent
    __neg__: Operator = SetByOps()
    __getitem__: Operator = SetByOps()
    exp: Operator = SetByOps()
    log: Operator = SetByOps()
    sqrt: Operator = SetByOps()
    tanh: Operator = SetByOps()
    sum: Operator = SetByOps()  # (axis=None, keepdims=False)
    mean: Operator = SetByOps()  # (axis=None, keepdims=False)
    reshape: Operator = SetByOps()  # (*shape)
    transpose: Operator = SetByOps()  # (*axes), reversed if none is given

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

    def item(self) -> float:
        """The value of a one-element Tensor as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"item: expected a Tensor of one number, got shape {self.data.shape}")
        return self.data.item()

    def __repr__(self) -> str:
        maker = f", made by {type(self.creator).__name__}" if self.creator else ""
        return f"{type(self).__name__}({self.data}, dtype={self.dtype}{maker})"

    def __len__(self) -> int:
        if not self.data.ndim:
            raise TypeError("a scalar Tensor has no length and no items: use it as it is")
        return len(self.data)

    def __iter__(self) -> "Iterator[Tensor]":
        return (self[i] for i in range(len(self)))

    def __pos__(self) -> Any:
        return self

    def __eq__(self, other: Any) -> bool:
        """Whether they are the same Tensor. Raises TypeError for numbers and arrays."""
        numbers = isinstance(other, int | float | complex | list) or hasattr(other, "dtype")
        if numbers and not isinstance(other, Protocols):
            ORDER(self)
        return self is other

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __format__(self, layout: str) -> str:
        if layout:
            raise TypeError(
                f"a Tensor has no format {layout!r}: format its number, "
                f"f'{{x.item():{layout}}}', or the array x.data"
            )
        return str(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A leaf is copied and pickled with its array and its gradient."""
        if self.creator is not None:
            raise TypeError(
                "a recorded Tensor is not copied or pickled: the copy would share its tape. Copy "
                "the numbers, x.data.copy(), or a leaf"
            )
        return super().__reduce_ex__(protocol)

    # What is refused ------------------------------------------------------------------------------

    __array__ = refused(
        "NumPy would not record what it does to a Tensor: give it the .data, or use the Tensor's "
        "own methods, such as x.sum()"
    )
    __array_function__ = __array__

    __setitem__ = __delitem__ = refused(
        "Tensors are not assigned to in place: a recorded Function may still need the old "
        "values for its backward. Build a new Tensor, or change .data outside of any tape"
    )
    __iadd__ = __isub__ = __imul__ = __itruediv__ = __imatmul__ = __ifloordiv__ = IN_PLACE
    __imod__ = __ipow__ = __iand__ = __ior__ = __ixor__ = __ilshift__ = __irshift__ = IN_PLACE

    __bool__ = refused(
        "a Tensor is neither true nor false: decide by its number, `if x.item() > 0:`, or by its "
        "array, `if (x.data > 0).all():`"
    )
    __contains__ = refused("a Tensor is not searched: search its numbers, `(x.data == y).any()`")
    __lt__ = __le__ = __gt__ = __ge__ = ORDER
    __float__ = __int__ = __complex__ = __index__ = AS_NUMBER
    __bytes__ = refused("a Tensor is not turned into bytes: write x.data.tobytes()")
    __round__ = __trunc__ = __floor__ = __ceil__ = STEPS
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = STEPS
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = BITS
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = BITS
    __abs__ = refused("there is no abs of a Tensor: write x * np.sign(x.data)")
    __rpow__ = refused("a Tensor cannot be an exponent: for a ** x write (x * math.log(a)).exp()")
