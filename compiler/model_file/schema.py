"""The graph in shrinkc's own file, as JSON: what is legal to find there.

A file may come from anyone, so types are strict, fields are known, sizes are bounded, and every
name is a plain identifier: `torch.fx` writes names into the Python source that it compiles.
"""

from __future__ import annotations

import keyword
import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)

VERSION = 1
MAX_HEADER = 64 << 20  # bytes of JSON
MAX_NODES = 200_000
_MAX_INT = 2**31
_MAX_SIZE = 2**24  # of a module's field: channels, kernel, padding, …


def _no_keyword(text: str) -> str:
    if _NO_NAME.search(text):
        raise ValueError(f"'{text}' is no name")
    return text


_NO_NAME = re.compile(rf"(?:^|\.)(?:__|(?:{'|'.join(keyword.kwlist)})(?:\.|$))")


Identifier = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200),
    AfterValidator(_no_keyword),
]
Path = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=1000),
    AfterValidator(_no_keyword),
]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]*$", max_length=60)]


def _no_integer(value: object) -> object:
    if isinstance(value, int):
        raise ValueError("not a float")
    return value


Real = Annotated[float, BeforeValidator(_no_integer)]
Integer = Annotated[int, Field(ge=-_MAX_INT, le=_MAX_INT)]
Size = Annotated[int, Field(ge=-_MAX_SIZE, le=_MAX_SIZE)]


class Strict(BaseModel):
    """Exact types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Reference(Strict):
    """The result of another node."""

    node: Identifier


class Special(Strict):
    """A float that JSON cannot write."""

    float: Literal["inf", "-inf", "nan"]


# No value is of two of these kinds: the first that fits is the one.
_IN_ORDER = Field(union_mode="left_to_right")
Item = Annotated[bool | Integer | Real | Word | Reference | Special | None, _IN_ORDER]
Items = Annotated[tuple[Item, ...], Field(max_length=10_000)]


class ListEntry(Strict):
    """A list; a bare JSON array is a tuple."""

    list: Items


Argument = Annotated[
    Reference | bool | Integer | Real | Word | Items | ListEntry | Special | None, _IN_ORDER
]
_Sizes = tuple[Annotated[Size | Real | Special | None, _IN_ORDER], ...]
ModuleField = Annotated[bool | Size | Real | Word | _Sizes | Special | None, _IN_ORDER]


class NodeEntry(Strict):
    """One node. `target`: a name of `ir.FUNCTIONS`, a module or tensor path, or an input."""

    op: Literal["placeholder", "get_attr", "call_module", "call_function", "output"]
    name: Identifier
    target: Path
    args: Annotated[tuple[Argument, ...], Field(max_length=100)]


class ModuleEntry(Strict):
    """`kind`: a name of `ir.MODULES`; `tensors`: own name → key in the file."""

    kind: Identifier
    fields: dict[Identifier, ModuleField]
    tensors: dict[Identifier, Path]


class AliasEntry(Strict):
    """A further path of a module that is already there."""

    same_as: Path


class AttributeEntry(Strict):
    """A tensor that `get_attr` reads and no module of the graph owns."""

    tensor: Path
    kind: Literal["parameter", "buffer", "transient buffer", "plain"]


class GraphEntry(Strict):
    """Everything but the numbers.

    inputs      placeholder → captured shape
    nodes       in execution order
    modules     path → module, in the order of the state dict
    attributes  path → tensor
    frozen      keys of the parameters that do not require a gradient
    layouts     key → dimensions from outermost to innermost, where not row-major
    meta        what capture noted about the graph
    extra       the caller's own (preprocessing, …)
    """

    version: Literal[1]
    inputs: dict[Identifier, Annotated[tuple[Integer, ...], Field(max_length=16)]]
    nodes: Annotated[tuple[NodeEntry, ...], Field(max_length=MAX_NODES)]
    modules: Annotated[dict[Path, ModuleEntry | AliasEntry], Field(max_length=MAX_NODES)]
    attributes: Annotated[dict[Path, AttributeEntry], Field(max_length=MAX_NODES)]
    frozen: Annotated[tuple[Path, ...], Field(max_length=MAX_NODES)]
    layouts: Annotated[
        dict[Path, Annotated[tuple[Integer, ...], Field(max_length=16)]],
        Field(max_length=MAX_NODES),
    ]
    meta: Annotated[dict[Identifier, bool | Integer | Real | str], Field(max_length=100)]
    extra: dict[str, JsonValue]


class VersionEntry(BaseModel):
    """Read first: the rest may look different in a newer file."""

    model_config = ConfigDict(strict=True, extra="ignore")
    version: int
