"""Safe unpickling: only containers, numbers and text; other objects become opaque placeholders.

The standard library's unpickler calls what a file names and sets attributes as a file says, so each
name let through may open a way to others (`f.__globals__`, `__setstate__`, `__reduce__`). This
interpreter imports nothing and calls only the functions that its caller gives it, which check their
arguments.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_KEY = 2**31  # of integers as keys of a dict, so that no file can make them collide


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or a function in a pickle; it is never imported."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class OpaqueObject:
    """An object of an unknown class: the class, and the state it would have been given."""

    kind: Global
    state: Any = None


# Makes an object from the arguments in a pickle. Raises ValueError for invalid ones.
Constructor = Callable[[tuple[Any, ...]], Any]


def unpickle(
    data: bytes,
    constructors: Mapping[Global, Constructor],
    load_persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The object that a pickle of any protocol describes.

    Sets become lists. Entries of dicts whose key is neither text nor a small integer are left out,
    and so are the items and attributes of objects other than lists, dicts and OpaqueObjects.

    Args:
        constructors: constructors of known classes; objects of all others become `OpaqueObject`.
        load_persistent: returns the object that a persistent ID stands for.

    Raises:
        ValueError: for a damaged pickle, and for what no pickle of data holds (the extension
            registry, out-of-band buffers, calls of what is neither a class nor a function).
    """
    interpreter = _Interpreter(constructors, load_persistent)
    for opcode, argument, _ in pickletools.genops(data):
        interpreter.step(opcode.name, argument)
    return interpreter.result()


class _Interpreter:
    """A stack machine that executes the opcodes of a pickle."""

    def __init__(
        self,
        constructors: Mapping[Global, Constructor],
        load_persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.constructors = constructors
        self.load_persistent = load_persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stack under each mark
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute one opcode."""
        if name in _LITERALS:
            self.push(argument)
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name in _EMPTY:
            self.push(_EMPTY[name]())
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, argument)
        elif name not in _FRAMING:
            raise ValueError(f"opcode {name} does not belong in a pickle of data")

    def result(self) -> Any:
        """The object that is left on the stack at the end."""
        if len(self.stack) != 1 or self.below:
            raise ValueError("the pickle does not end with one object")
        return self.stack[0]

    def push(self, x: Any) -> None:
        self.stack.append(x)

    def pop(self) -> Any:
        return self.pop_last(1)[0]

    def pop_last(self, count: int) -> list[Any]:
        """The last objects on the stack, the topmost last."""
        if len(self.stack) < count:
            raise ValueError("an opcode of the pickle lacks operands")
        last = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return last

    def top(self) -> Any:
        if not self.stack:
            raise ValueError("an opcode of the pickle lacks an operand")
        return self.stack[-1]

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """The objects above the last mark."""
        if not self.below:
            raise ValueError("an opcode of the pickle lacks a mark")
        above = self.stack
        self.stack = self.below.pop()
        return above

    def pop_or_unmark(self, _: Any) -> None:
        if self.stack or not self.below:
            self.pop()
        else:
            self.pop_mark()

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"the pickle refers to object {index}, which it does not define")
        self.push(self.memo[index])

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, OpaqueObject):
            raise ValueError(f"the pickle appends to an object of type {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        """Set items of the dict on top; `items` is key, value, key, value, ..."""
        target = self.top()
        if len(items) % 2:
            raise ValueError("the pickle holds a key without a value")
        if isinstance(target, dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((key, value) for key, value in pairs if _is_key(key))
        elif not isinstance(target, OpaqueObject):
            raise ValueError(f"the pickle sets items of an object of type {type(target).__name__}")

    def make_dict(self, items: list[Any]) -> None:
        self.push({})
        self.set_items(items)

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("the pickle names a class by something other than text")
        self.push(Global(module, name))

    def find_in_line(self, line: str) -> Global:
        module, _, name = line.partition(" ")
        return Global(module, name)

    def call(self, kind: Any, arguments: Any) -> None:
        """Make an object of a class, or of what a function returns."""
        if isinstance(kind, OpaqueObject):
            kind = kind.kind
            known = None
        elif isinstance(kind, Global):
            known = self.constructors.get(kind)
        else:
            raise ValueError(f"the pickle calls an object of type {type(kind).__name__}")
        if not isinstance(arguments, tuple):
            raise ValueError(
                f"the pickle calls {kind.module}.{kind.name} without a tuple of arguments"
            )
        self.push(known(arguments) if known else OpaqueObject(kind))

    def call_above_mark(self, _: Any) -> None:
        kind, *arguments = self.pop_mark() or [None]
        self.call(kind, tuple(arguments))

    def build(self, _: Any) -> None:
        target, state = self.pop_last(2)
        if isinstance(target, OpaqueObject):
            target.state = state
        self.push(target)

    def persistent(self, name: Any) -> None:
        if self.load_persistent is None:
            raise ValueError("the pickle refers to external objects")
        self.push(self.load_persistent(name))


def _is_key(x: Any) -> bool:
    return type(x) is str or (type(x) is int and abs(x) < MAX_KEY)


_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
}
_FRAMING = {"PROTO", "FRAME", "STOP"}
_OPERATIONS: dict[str, Callable[[_Interpreter, Any], object]] = {
    "MARK": _Interpreter.mark,
    "POP": _Interpreter.pop_or_unmark,
    "POP_MARK": lambda self, _: self.pop_mark(),
    "DUP": lambda self, _: self.push(self.top()),
    "PUT": _Interpreter.put,
    "BINPUT": _Interpreter.put,
    "LONG_BINPUT": _Interpreter.put,
    "MEMOIZE": _Interpreter.memoize,
    "GET": _Interpreter.get,
    "BINGET": _Interpreter.get,
    "LONG_BINGET": _Interpreter.get,
    "TUPLE": lambda self, _: self.push(tuple(self.pop_mark())),
    "TUPLE1": lambda self, _: self.push(tuple(self.pop_last(1))),
    "TUPLE2": lambda self, _: self.push(tuple(self.pop_last(2))),
    "TUPLE3": lambda self, _: self.push(tuple(self.pop_last(3))),
    "LIST": lambda self, _: self.push(self.pop_mark()),
    "FROZENSET": lambda self, _: self.push(self.pop_mark()),
    "DICT": lambda self, _: self.make_dict(self.pop_mark()),
    "APPEND": lambda self, _: self.append(self.pop_last(1)),
    "APPENDS": lambda self, _: self.append(self.pop_mark()),
    "ADDITEMS": lambda self, _: self.append(self.pop_mark()),
    "SETITEM": lambda self, _: self.set_items(self.pop_last(2)),
    "SETITEMS": lambda self, _: self.set_items(self.pop_mark()),
    "GLOBAL": lambda self, line: self.push(self.find_in_line(line)),
    "STACK_GLOBAL": lambda self, _: self.find(*self.pop_last(2)),
    "REDUCE": lambda self, _: self.call(*self.pop_last(2)),
    "NEWOBJ": lambda self, _: self.call(*self.pop_last(2)),
    "NEWOBJ_EX": lambda self, _: self.call(*self.pop_last(3)[:2]),
    "OBJ": _Interpreter.call_above_mark,
    "INST": lambda self, line: self.call(self.find_in_line(line), tuple(self.pop_mark())),
    "BUILD": _Interpreter.build,
    "PERSID": _Interpreter.persistent,
    "BINPERSID": lambda self, _: self.persistent(self.pop()),
}
