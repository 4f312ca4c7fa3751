"""What unpickling would cost, told before it is done by running its operations on sizes alone.

A few hundred bytes of pickle can ask for anything: a tuple of itself twice, forty times over, as
the key of a dictionary takes 2⁴⁰ steps to hash; `_codecs.encode` called on its own result doubles
a string with every call; a tensor that is called makes memory. So the file's operations are first
carried out on records that know what a value is and how many leaves it would have if nothing in it
were shared, and the sum of what hashing and calling would look at is bounded. What torch's
unpickler does not know, or a saved network does not need, is refused here too.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from shrinkc.compiler.load.allowlist import PLAIN, is_plain
from shrinkc.compiler.support.text import shown

MAX_OPERATIONS = 1_000_000  # a pickled ViT-L has about 50,000
MAX_LEAVES = 1 << 24  # of one value, if nothing in it were shared
MAX_KEY = 10_000  # leaves of what is hashed at once
MAX_WORK = 1 << 26  # leaves and characters that hashing and calls look at, in all
SPREAD = (1 << 61) - 1  # Python's hash of a whole number is its remainder
MAX_DEPTH = 500  # of values within values; unpickled ones are walked by recursive functions

# What a saved network calls, of what torch's unpickler would call. All else is recorded only.
_CALLED = PLAIN - {"torch.Tensor", "torch.nn.parameter.Parameter"}
_TENSORS = frozenset(name for name in _CALLED if name.startswith("torch._utils."))
_ENCODINGS = ("latin1", "latin-1")  # pickle's way of writing bytes in protocol 2
_ORDERED = "collections.OrderedDict"


class CostError(Exception):
    """Too much, or nothing that torch.save writes."""


class OtherProtocolError(Exception):
    """Operations of another pickle protocol."""


@dataclass(eq=False, slots=True)
class _Value:
    """One value of the pickle.

    leaves  of it as a tree
    depth   of the tree
    text    of a string; of a global its name
    number  of a whole number
    alike   parts whose hash can be chosen: large numbers, and tuples, as −1 and −2 have the same
    kind    str, global, list, dict, tuple, other; or the name of what made it
    items   of a tuple; of a dictionary its keys and values in turn
    """

    kind: str = "other"
    leaves: int = 1
    depth: int = 1
    text: str | None = None
    number: int | None = None
    alike: int = 0
    items: list[_Value] = field(default_factory=list["_Value"])

    def take(self, others: list[_Value]) -> None:
        self.leaves += sum(other.leaves for other in others)
        self.alike += sum(other.alike for other in others)
        self.depth = max([self.depth, *(other.depth + 1 for other in others)])
        if self.leaves > MAX_LEAVES or self.depth > MAX_DEPTH:
            raise CostError("values within values without end")


_MARK = _Value("mark")
_ATOMS = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1"),
    *("SHORT_BINSTRING", "EMPTY_TUPLE", "EMPTY_SET"),
}
_EMPTY = {"EMPTY_LIST": "list", "EMPTY_DICT": "dict"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OTHER_PROTOCOLS = {"FRAME", "STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"}


@dataclass(frozen=True)
class Survey:
    """names  every global that the pickles name, as `module.name`
    holds  what the object is made by, under ""; of a dictionary, key → what makes its value
    storages  key → (type, how many numbers)
    end    of the pickles, in the file
    """

    names: frozenset[str]
    holds: Mapping[str, str]
    storages: Mapping[str, tuple[str, int]]
    end: int


def survey(stream: IO[bytes], pickles: int = 1, place: int = 0, size: int = 1 << 50) -> Survey:
    """What so many pickles of a file of `size` bytes name, and what the one at `place` holds.

    Raises CostError where loading would take too long, too much memory or what no saved network
    needs; OtherProtocolError; ValueError, IndexError, UnicodeDecodeError, OverflowError where the
    bytes are no pickle.
    """
    names, holds = set[str](), dict[str, str]()
    storages: dict[str, tuple[str, int]] = {}
    for number in range(pickles):
        run = _Run(size)
        for operation, argument, _ in pickletools.genops(stream):
            run.step(operation.name, argument)
        names |= run.names
        holds = run.holds if number == place else holds
        storages |= run.storages
    return Survey(frozenset(names), holds, storages, stream.tell())


class _Run:
    """One pickle on records. The stack and its marks are as in torch's unpickler."""

    def __init__(self, size: int) -> None:
        self.names, self.holds = set[str](), dict[str, str]()
        self.storages: dict[str, tuple[str, int]] = {}
        self._size = size
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}
        self._count = self._work = self._alike = 0
        self._other: dict[str, Callable[[], None]] = {
            "MARK": lambda: self._stack.append(_MARK),
            "TUPLE": lambda: self._tuple(self._marked()),
            "APPEND": lambda: self._append([self._stack.pop()]),
            "APPENDS": lambda: self._append(self._marked()),
            "SETITEM": lambda: self._set([self._stack.pop(-2), self._stack.pop()]),
            "SETITEMS": lambda: self._set(self._marked()),
            "REDUCE": lambda: self._call(_CALLED),
            "NEWOBJ": lambda: self._call({_ORDERED}),
            "BUILD": self._build,
            "BINPERSID": self._storage,
            "STOP": self._stop,
            "PROTO": lambda: None,
        }

    def step(self, name: str, argument: Any) -> None:
        self._count += 1
        if self._count > MAX_OPERATIONS:
            raise CostError(f"more than {MAX_OPERATIONS:,} operations")
        if name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise ValueError("a value that was never stored")
            self._stack.append(self._memo[argument])
        elif name == "BINUNICODE":
            self._stack.append(_Value("str", text=argument))
        elif name == "GLOBAL":
            text = str(argument).replace(" ", ".")
            self.names.add(text)
            self._stack.append(_Value("global", text=text))
        elif name in _ATOMS:
            number = argument if type(argument) is int else None
            large = number is not None and abs(number) >= SPREAD
            self._stack.append(_Value(number=number, alike=int(large)))
        elif name in _EMPTY:
            self._stack.append(_Value(_EMPTY[name]))
        elif name in _TUPLES:
            count = _TUPLES[name]
            items = self._stack[-count:]
            del self._stack[-count:]
            self._tuple(items)
        elif name in self._other:
            self._other[name]()
        elif name in _OTHER_PROTOCOLS:
            raise OtherProtocolError(name)
        else:
            raise CostError(f"the operation {name}")

    def _stop(self) -> None:
        top = self._stack.pop()
        pairs = zip(top.items[::2], top.items[1::2], strict=False)
        self.holds = {key.text: value.kind for key, value in pairs if key.text is not None}
        if not self.holds:
            self.holds = {"": top.kind}

    def _marked(self) -> list[_Value]:
        """What lies above the last mark."""
        items: list[_Value] = []
        while (top := self._stack.pop()) is not _MARK:
            items.append(top)
        return items[::-1]

    def _tuple(self, items: list[_Value]) -> None:
        made = _Value("tuple", alike=1, items=items)
        made.take(items)
        self._stack.append(made)

    def _append(self, items: list[_Value]) -> None:
        self._stack[-1].take(items)

    def _set(self, items: list[_Value]) -> None:
        keys = items[::2]
        for key in keys:
            self._hash(key)
        target = self._stack[-1]
        target.take(items)
        target.items += items

    def _hash(self, key: _Value) -> None:
        if key.leaves > MAX_KEY:
            raise CostError("a key of many thousand parts")
        self._alike += key.alike
        met = 4 * self._alike if key.alike else 0  # others that it may be compared with
        self._look_at(key.leaves * (1 + met))

    def _look_at(self, leaves: int) -> None:
        self._work += leaves
        if self._work > MAX_WORK:
            raise CostError("more work than any saved network takes")

    def _call(self, called: frozenset[str] | set[str]) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        name = function.text
        if function.kind != "global" or name is None or args.kind not in ("tuple", "other"):
            raise CostError("a call of what is no name")
        if is_plain(name):
            if name not in called:
                raise CostError(f"a call of {shown(name)}")
            self._check_args(name, args)
        made = _Value(name)
        made.take([args])
        self._stack.append(made)

    def _check_args(self, name: str, args: _Value) -> None:
        self._look_at(args.leaves + 4 * args.alike**2)
        first = args.items[0] if args.items else _Value()
        if name == "_codecs.encode":
            texts = [item.text for item in args.items if item.kind == "str"]
            if len(args.items) != 2 or len(texts) != 2 or texts[1] not in _ENCODINGS:
                raise CostError("a call of _codecs.encode on something else than text")
            self._look_at(len(texts[0] or ""))
        elif name == "torch._tensor._rebuild_from_type_v2" and (
            first.kind != "global" or first.text not in _TENSORS
        ):
            raise CostError("a tensor that is made by something else")

    def _build(self) -> None:
        """Sets an object's state: only of what is recorded, and what torch adds to a state dict."""
        state, target = self._stack.pop(), self._stack[-1]
        added = {key.text for key in state.items[::2]} if state.kind == "dict" else {None}
        if target.kind == _ORDERED:
            if not added <= {"_metadata"}:
                raise CostError("a dictionary with attributes of its own")
        elif "." not in target.kind or is_plain(target.kind):
            raise CostError("a state for what has none")
        target.take([state])

    def _storage(self) -> None:
        """A tensor's numbers, found by a short tuple."""
        key = self._stack.pop()
        if key.kind != "tuple" or key.leaves > 50 or (key.items and key.items[0].text is None):
            raise CostError("a storage that is named by no tuple")
        if any(item.number is not None and item.number > self._size for item in key.items[4:5]):
            raise ValueError("more numbers than the file has bytes")
        if len(key.items) > 4 and key.items[1].text and key.items[2].text is not None:
            self.storages[key.items[2].text] = key.items[1].text, key.items[4].number or 0
        whole = [item.text for item in key.items[:1]] == ["module"]  # before PyTorch 1.6: a class
        self._stack.append(key.items[1] if whole else _Value("storage"))
