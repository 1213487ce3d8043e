"""What an option of a model may be: its type says it, where the system declares the option.

    @checked
    def __init__(self, *, patch_size: Size, dropout: Rate = 0.0, rng: nn.Rng): ...

An option that is not checked cannot exist: `checked` refuses to define a system with one. Sizes
have upper bounds, so that a number out of proportion is refused before anything is allocated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from inspect import signature
from numbers import Integral, Real
from typing import Annotated, Any, ParamSpec, get_args, get_type_hints

from tinymixer.ops.gelu import FORMS

Options = ParamSpec("Options")

NO_OPTIONS = ("self", "backbone", "rng")


@dataclass(frozen=True)
class Kind:
    """What a value has to be: in words, and as a test of it."""

    words: str
    fits: Callable[[Any], bool]


def whole(low: int, high: int) -> Kind:
    return Kind(
        f"a whole number from {low:,} to {high:,}",
        lambda x: isinstance(x, Integral) and not isinstance(x, bool) and low <= int(x) <= high,
    )


def number(words: str, fits: Callable[[Any], bool]) -> Kind:
    return Kind(words, lambda x: isinstance(x, Real) and not isinstance(x, bool) and fits(x))


def one_of(*names: str) -> Kind:
    return Kind(" or ".join(map(repr, names)), lambda x: isinstance(x, str) and x in names)


def optional(kind: Kind) -> Kind:
    return Kind(f"{kind.words}, or None", lambda x: x is None or kind.fits(x))


def several(kind: Kind, low: int = 1, high: int = 16) -> Callable[[Any], bool]:
    """The test for a sequence of `low` to `high` values, each of this kind; text is refused."""
    return lambda x: (
        isinstance(x, Sequence)
        and not isinstance(x, str | bytes)
        and low <= len(x) <= high
        and all(map(kind.fits, x))
    )


def per_stage(kind: Kind) -> Kind:
    return Kind(f"a tuple of 1 to 16 entries, one a stage, each {kind.words}", several(kind))


SIZE = whole(1, 65_536)
SIDE = whole(1, 4_096)
DEPTH = whole(1, 1_000)
POSITION = whole(-1_000, 1_000)
ABOVE_0 = number("a number above 0, at most 1,000", lambda x: 0 < x <= 1000)

Size = Annotated[int, SIZE]
Channels = Annotated[int, whole(1, 1_024)]
Sizes = Annotated[Sequence[int], per_stage(SIZE)]
Depth = Annotated[int, DEPTH]
Depths = Annotated[Sequence[int], per_stage(DEPTH)]
Dilations = Annotated[Sequence[int], per_stage(whole(0, 65_536))]
OddSize = Annotated[
    int, Kind("an odd whole number from 1 to 65,535", lambda x: SIZE.fits(x) and x % 2 == 1)
]
ImageSize = Annotated[
    int | tuple[int, int],
    Kind(
        f"a side or (height, width), in pixels, each {SIDE.words}",
        lambda x: SIDE.fits(x) or several(SIDE, 2, 2)(x),
    ),
]
Window = Annotated[
    tuple[int, int, int],
    Kind(
        f"(kernel, stride, padding), each {SIDE.words}, the padding also 0",
        lambda x: several(whole(0, 4_096), 3, 3)(x) and min(x[:2]) > 0,
    ),
]
Kernels = Annotated[
    Sequence[Sequence[int]] | None,
    optional(per_stage(Kind("a tuple of 1 to 16 window sizes", several(SIDE)))),
]
Blocks = Annotated[
    int | Sequence[int],
    Kind(
        "how many blocks, or a list of their positions, in whole numbers",
        lambda x: POSITION.fits(x) or several(POSITION, 0, 1_000)(x),
    ),
]
Experts = Annotated[int, whole(1, 1_000)]
Ratio = Annotated[float, ABOVE_0]
WholeRatio = Annotated[int, whole(1, 1_000)]
Epsilon = Annotated[float, number("a number above 0, at most 1", lambda x: 0 < x <= 1)]
Std = Annotated[float, ABOVE_0]
StdOrNone = Annotated[float | None, optional(ABOVE_0)]
CapacityFactor = Annotated[float | None, optional(ABOVE_0)]
Rate = Annotated[float, number("a number in [0, 1)", lambda x: 0 <= x < 1)]
Momentum = Annotated[float, number("a number from 0 to 1", lambda x: 0 <= x <= 1)]
LossWeight = Annotated[float, number("a number from 0 to 1,000", lambda x: 0 <= x <= 1000)]
Flag = Annotated[bool, Kind("True or False", lambda x: isinstance(x, bool))]
Gelu = Annotated[str, one_of(*FORMS)]


@cache
def kinds_of(system: Callable[..., Any]) -> dict[str, Kind]:
    """The kind of each option of a system. Raises TypeError for an option without one."""
    init = getattr(system, "__init__", system) if isinstance(system, type) else system
    types = get_type_hints(init, include_extras=True)
    kinds = {}
    for name in signature(system).parameters:
        if name in NO_OPTIONS:
            continue
        found = [kind for kind in get_args(types.get(name)) if isinstance(kind, Kind)]
        if not found:
            raise TypeError(
                f"{init.__qualname__}: nothing checks the option {name}; give it a type of "
                "models.options, such as Size or Rate"
            )
        kinds[name] = found[0]
    return kinds


def check(system: str, kinds: Mapping[str, Kind], options: Mapping[str, Any]) -> None:
    """Raise ValueError for the first option that is not of its kind."""
    for name, kind in kinds.items():
        if name in options and not kind.fits(options[name]):
            raise ValueError(f"{system}: {name}={shown(options[name])}: expected {kind.words}")


def shown(value: Any) -> str:
    """`value` for a message: on one line, and not longer than that."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else text[:97] + "..."


def checked(init: Callable[Options, None]) -> Callable[Options, None]:
    """Decorates the `__init__` of a system: its options are checked before anything is built."""
    kinds, names = kinds_of(init), list(signature(init).parameters)

    @wraps(init)
    def checking(*args: Options.args, **options: Options.kwargs) -> None:
        check(type(args[0]).__name__, kinds, dict(zip(names, args, strict=False)) | options)
        init(*args, **options)

    return checking
