"""Floor 1. What Python asks of a Tensor: the operators that it has, and what it refuses.

The operators are Functions: `ops.primitives` sets each beside its primitive. A protocol that a
Tensor would follow only in part is refused in a sentence that says what to do instead.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tinymixer.engine import Tensor

Operator = Callable[..., "Tensor"]


class Protocols:
    __slots__ = ()
    __array_ufunc__ = None  # array + Tensor asks Tensor.__radd__, not NumPy

    __add__: Operator
    __radd__: Operator
    __sub__: Operator
    __rsub__: Operator
    __mul__: Operator
    __rmul__: Operator
    __truediv__: Operator
    __rtruediv__: Operator
    __matmul__: Operator
    __rmatmul__: Operator
    __neg__: Operator
    __getitem__: Operator
    exp: Operator
    log: Operator
    sqrt: Operator
    tanh: Operator
    sum: Operator  # (axis=None, keepdims=False)
    mean: Operator  # (axis=None, keepdims=False)
    reshape: Operator  # (*shape)
    transpose: Operator  # (*axes), reversed if none is given

    # What is refused ------------------------------------------------------------------------------

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("NumPy would not record what it does to a Tensor: give it the .data")

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise TypeError(
            "Tensors are not assigned to in place: a recorded Function may still need the old "
            "values for its backward. Build a new Tensor, or change .data outside of any tape"
        )

    def _no_augmented(self, other: Any) -> Any:
        raise TypeError(
            "Tensors do not change in place (+=, -=, ...): a recorded Function may still need the "
            "old values. Write x = x + y"
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __imatmul__ = _no_augmented
