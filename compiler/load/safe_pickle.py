"""Unpickling a torch.save file without making anything that the file names.

Three walls, each of which alone keeps code from running:

1. The pickle is run on records of sizes alone (`pickle_cost`), which bounds the time and memory
   that it takes and finds the names in it. One that `allowlist` refuses ends the load.
2. `torch.load(weights_only=True)` reads the rest: an unpickler that knows a handful of operations.
   It never sees the real classes, only a stand-in for each (`StandIn`), which records what the
   file would have done to the class: called it (REDUCE), made one (NEWOBJ), set its state
   (BUILD). So no constructor, no `__setstate__` and no function runs with the file's arguments,
   and none of them can be combined into something that does.
3. `rebuild_module` turns the records into modules by setting attributes, after checking
   every one.
"""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from torch.serialization import safe_globals
from torch.utils._python_dispatch import TorchDispatchMode

from shrinkc.compiler.load.allowlist import (
    DICTIONARIES,
    IGNORED,
    Allowed,
    Refused,
    is_plain,
    look_up,
)
from shrinkc.compiler.load.file_kind import MAX_PICKLE, unpacked_bytes
from shrinkc.compiler.load.pickle_cost import CostError, OtherProtocolError, Survey, survey
from shrinkc.compiler.load.zip_archive import open_archive
from shrinkc.compiler.support.text import one_line, shown
from shrinkc.errors import LoadError, UnsafeFileError

TRUST_ADVICE = (
    "save a state dict and give `arch` package.module:factory, or take the risk with `trust`"
)
# The magic number, protocol version, system information, the object, the keys of its storages.
_LEGACY_PICKLES, _LEGACY_OBJECT = 5, 3
_aten: Any = torch.ops.aten


class _StandInType(type):
    """A class whose call is only written down."""

    def __call__(cls, *args: object) -> StandIn:
        record = cast(type[StandIn], cls).__new__(cast(type[StandIn], cls), *args)
        record.called = True
        return record


class StandIn(metaclass=_StandInType):
    """What the file asked for; subclassed once for each name."""

    __slots__ = ("args", "called", "state")
    name: ClassVar[str]
    allowed: ClassVar[Allowed | None]  # None: ignored

    args: tuple[object, ...]
    called: bool
    state: object

    def __new__(cls, *args: object) -> StandIn:
        record = object.__new__(cls)
        record.args, record.called, record.state = args, False, None
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state


def load_inert(path: Path, kind: Literal["zip", "legacy"]) -> Any:
    """The pickled object, with a `StandIn` or one of its subclasses for all that is not plain.

    Plain are containers, numbers, strings, tensors (on the CPU), data types.

    Raises UnsafeFileError for a name that may not be there, LoadError for a damaged file.
    """
    found = _survey(path, kind)
    names = sorted(found.names, key=lambda name: (name not in found.holds.values(), name))
    dictionaries = [(OrderedDict, name) for name in names if name in DICTIONARIES]
    unknown = [name for name in names if not is_plain(name) and name not in DICTIONARIES]
    stand_ins = [_stand_in(path, name, found) for name in unknown]
    module = next((s for s in stand_ins if s.allowed and s.allowed.kind == "module"), None)
    if module and kind == "legacy":
        raise UnsafeFileError(
            f"{path}: a whole model ({module.name}) in the format of PyTorch before 1.6, which "
            f"cannot be read without running code; save it again with torch.save, {TRUST_ADVICE}"
        )
    if kind == "legacy":
        _check_numbers(path, found)
    allowed: Any = [*dictionaries, *((s, _as_looked_up(s.name)) for s in stand_ins)]
    try:
        with warnings.catch_warnings(), safe_globals(allowed), _NoLargerThanStored():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever damaged bytes lead to
        raise LoadError(f"{path}: damaged ({one_line(error)}); copy or save it again") from error


class _NoLargerThanStored(TorchDispatchMode):
    """A tensor's shape must lie in the numbers that the file holds for it: torch would take memory
    for what is missing."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is _aten.set_.source_Storage_storage_offset:
            tensor, storage, offset, size, *strides = args
            stride = strides[0] if strides else ()  # of a single number
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
            if 0 not in size and (last + 1) * tensor.element_size() > storage.nbytes():
                raise ValueError(f"a tensor of {list(size)} is larger than what is stored of it")
        return func(*args, **(kwargs or {}))


def _stand_in(path: Path, name: str, file: Survey) -> type[StandIn]:
    found = None if name in IGNORED else look_up(name)
    if isinstance(found, Refused):
        keys = [shown(key, 40) for key, made_by in file.holds.items() if key and made_by == name]
        place = f" (under {' and '.join(map(repr, keys[:3]))})" if keys else ""
        names = f"{path}: it names {shown(name)}{place}, {found.reason}"
        if found.missing:
            raise LoadError(f"{names}; {TRUST_ADVICE.split(',')[0]}")
        raise UnsafeFileError(f"{names}, so loading it could run any code; {_risk(name)}")
    return _StandInType("Named", (StandIn,), {"__slots__": (), "name": name, "allowed": found})


def _as_looked_up(name: str) -> str:
    """Pickles of protocol 2 name Python 2's builtins; torch looks for what they are called now."""
    module, _, attribute = name.rpartition(".")
    if module != "__builtin__":
        return name
    return f"builtins.{ {'long': 'int', 'unicode': 'str'}.get(attribute, attribute) }"


def _risk(name: str) -> str:
    """How to load what is refused, if it must be."""
    package, _, rest = name.partition(".")
    if package == "__main__":
        return (
            "save a state dict and give `arch` package.module:factory, or take the risk with "
            f"`trust` and `arch` train:{shown(rest, 40)}, where train.py is the script that has it"
        )
    return TRUST_ADVICE


def _survey(path: Path, kind: Literal["zip", "legacy"]) -> Survey:
    if kind == "zip":
        stream, pickles, place = io.BytesIO(open_archive(path).read("data.pkl")), 1, 0
    else:
        with path.open("rb") as file:
            stream = io.BytesIO(file.read(MAX_PICKLE))
        pickles, place = _LEGACY_PICKLES, _LEGACY_OBJECT
    try:
        return survey(stream, pickles, place, unpacked_bytes(path, kind))
    except OtherProtocolError as error:
        raise LoadError(
            f"{path}: written with another pickle protocol than torch.save's default; "
            "save it again without pickle_protocol"
        ) from error
    except CostError as error:
        raise UnsafeFileError(
            f"{path}: it asks for {error}, which no saved network needs; {TRUST_ADVICE}"
        ) from error
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise LoadError(
            f"{path}: truncated or damaged ({one_line(error)}); copy or save it again"
        ) from error


def _check_numbers(path: Path, found: Survey) -> None:
    """Raise LoadError unless behind the pickles of an old file every storage stands as it was
    announced, in any order: how many numbers, and these. torch asks for memory before it looks."""
    kinds = {(count, _ITEM_BYTES.get(kind)) for kind, count in found.storages.values()}
    if any(size is None for _, size in kinds):
        return
    places, end = {found.end}, path.stat().st_size
    with path.open("rb") as file:
        for _ in found.storages:
            behind: set[int] = set()
            for place in places:
                file.seek(place)
                count = int.from_bytes(file.read(8), "little")
                behind |= {place + 8 + n * (size or 0) for n, size in kinds if n == count}
            places = {place for place in behind if place <= end}
            if not places:
                raise LoadError(
                    f"{path}: truncated or damaged (its numbers are not those that it announces); "
                    "copy or save it again"
                )


_ITEM_BYTES = {
    f"torch.{name}Storage": size
    for size, names in {
        1: ("Byte", "Char", "Bool"),
        2: ("Short", "Half", "BFloat16"),
        4: ("Int", "Float"),
        8: ("Long", "Double", "ComplexFloat"),
        16: ("ComplexDouble",),
    }.items()
    for name in names
}
