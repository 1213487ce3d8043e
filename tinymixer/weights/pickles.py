"""Pickles, read without running anything.

A pickle is a program: "push this, call that". Python's own reader looks up the classes and
functions that it names and calls them, so that a file can do anything. This one looks up nothing
and calls nothing. It returns numbers, texts and containers as they are, and for everything else
what the pickle says: the name of a class or function, and its arguments.

Work and memory are bounded, whatever the pickle says: so many bytes, so many steps. A dictionary
keeps only the entries whose key is a text, or a number or None, which become texts.
"""

import pickletools
from dataclasses import dataclass, field
from typing import IO, Any, cast

MOST_BYTES = 2**24
MOST_STEPS = 2**19  # a checkpoint of the largest model here, with its optimizer, takes a third


@dataclass(frozen=True)
class Name:
    """A class or function, "module.name", which is never looked up."""

    path: str


@dataclass(eq=False)
class Made:
    """What calling `name` with `arguments` would have made, and the entries it got like a dict."""

    name: str
    arguments: tuple[Any, ...]
    entries: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Outside:
    """What the pickle says is kept elsewhere in the file."""

    where: Any


def read_pickle(file: IO[bytes]) -> tuple[Any, list[Any]]:
    """What the next pickle in `file` says, and all that it says is kept elsewhere.

    Raises ValueError for one that is damaged or too long.
    """
    machine, bounded = _Machine(), cast(IO[bytes], _Bounded(file))
    try:
        for i, (opcode, argument, _) in enumerate(pickletools.genops(bounded)):
            if i >= MOST_STEPS:
                raise ValueError(f"its pickle takes more than {MOST_STEPS:,} steps")
            if opcode.name == "STOP":
                return machine.stack.pop(), machine.outside
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("its pickle is damaged") from error
    raise ValueError("its pickle has no end")


class _Bounded:
    """The next MOST_BYTES bytes of `file`; to read more raises ValueError."""

    def __init__(self, file: IO[bytes]):
        self._file, self._left = file, MOST_BYTES

    def read(self, n: int) -> bytes:
        return self._count(self._file.read(n) if n <= self._left else b"", n > self._left)

    def readline(self) -> bytes:
        return self._count(self._file.readline(self._left + 1))

    def tell(self) -> int:
        return MOST_BYTES - self._left

    def _count(self, found: bytes, over: bool = False) -> bytes:
        self._left -= len(found)
        if over or self._left < 0:
            raise ValueError(f"its pickle has more than {MOST_BYTES:,} bytes")
        return found


VALUES = {  # steps that push their argument
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack, its marks and the memo of the language of pickles: see Python's `pickletools`."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.outside: list[Any] = []

    def step(self, name: str, argument: Any) -> None:
        stack, pop = self.stack, self.stack.pop
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memoize(len(self.memo) if name == "MEMOIZE" else argument)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "POP":
            pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("EMPTY_LIST", "EMPTY_SET"):
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("LIST", "FROZENSET"):
            stack.append(self._since_mark())
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name == "DICT":
            entries = self._since_mark()
            stack.append({})
            self._set(entries)
        elif name == "APPEND":
            self._extend([pop()])
        elif name in ("APPENDS", "ADDITEMS"):
            self._extend(self._since_mark())
        elif name == "SETITEM":
            value, key = pop(), pop()
            self._set([key, value])
        elif name == "SETITEMS":
            self._set(self._since_mark())
        elif name == "GLOBAL":
            stack.append(Name(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = pop(), pop()
            stack.append(Name(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = pop(), pop()
            stack.append(_made(called, arguments))
        elif name == "NEWOBJ_EX":
            _, arguments, called = pop(), pop(), pop()
            stack.append(_made(called, arguments))
        elif name == "OBJ":
            called, *arguments = self._since_mark()
            stack.append(_made(called, tuple(arguments)))
        elif name == "INST":
            stack.append(_made(Name(argument.replace(" ", ".", 1)), tuple(self._since_mark())))
        elif name == "BUILD":
            pop()  # the state of an object, of which there is none here
        elif name in ("PERSID", "BINPERSID"):
            self.outside.append(argument if name == "PERSID" else pop())
            stack.append(Outside(self.outside[-1]))
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its pickle has the step {name}, which no checkpoint needs")

    def _memoize(self, index: int) -> None:
        if index >= 2**32:  # of the binary forms, the largest there is
            raise ValueError("its pickle has a number of the memo that is too large")
        self.memo[index] = self.stack[-1]

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _extend(self, items: list[Any]) -> None:
        """Add to the list on the stack; what a class of its own would hold is not kept."""
        target = self.stack[-1]
        if isinstance(target, list):
            target += items
        elif not isinstance(target, Made):
            raise ValueError("its pickle is damaged")

    def _set(self, pairs: list[Any]) -> None:
        """Set the entries, key and value in turn, of the dictionary on the stack."""
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Made) else target
        if not isinstance(entries, dict) or len(pairs) % 2:
            raise ValueError("its pickle is damaged")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(key, str):
                entries[key] = value
            elif key is None or (isinstance(key, int | float) and abs(key) < 2**63):
                entries[str(key)] = value


def _made(called: Any, arguments: Any) -> Made:
    """As if called. A class that is kept elsewhere is found among the words that say where."""
    if not isinstance(arguments, tuple):
        raise ValueError("its pickle is damaged")
    where = called.where if isinstance(called, Outside) else (called,)
    names = [x.path for x in where if isinstance(x, Name)] if isinstance(where, tuple) else []
    return Made(names[0] if names else "a class without a name", arguments)
