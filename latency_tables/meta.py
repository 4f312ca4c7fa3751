"""`meta.toml`: what was measured, on what, and where the figures come from."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources.abc import Traversable
from typing import Literal, cast

from shrinkc.errors import TableError
from shrinkc.latency_tables.interpolate import CLIFFS
from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import KERNELS, Kernels
from shrinkc.latency_tables.key import PRECISIONS
from shrinkc.latency_tables.rows import limited_text, table_error, told

SCHEMA = 1
MAX_BYTES = 1 << 20
MAX_COUNT = 10**12
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?|unknown")
Kind = Literal["measured", "fitted"]


@dataclass(frozen=True)
class ModelShape:
    """What a fitted model assumes: whose kernels, their tiles by precision, and the caches."""

    kernels: Kernels
    tiles: Mapping[str, Tiles]
    caches: Caches


@dataclass(frozen=True)
class TableMeta:
    """`kind`: measured (operators timed one by one) or fitted (a cost model of whole networks).
    What the source does not state is "unknown". `note` is what a user of the figures must know and
    no other field says; it may be empty. `cliffs` says whose kernels make latency jump
    between measured operators: "cpu" or "gpu". `model` is None for a table without one."""

    kind: Kind
    device: str
    soc: str
    runtime: str
    runtime_version: str
    threads: int
    governor: str
    precisions: tuple[str, ...]
    batch: int
    date: str
    source: str
    licence: str
    note: str = ""
    model: ModelShape | None = None
    cliffs: str = "cpu"


_TEXTS = ("device", "soc", "runtime", "runtime_version", "governor", "date", "source", "licence")
_COUNTS = ("threads", "batch")
_KNOWN = frozenset({"schema", "kind", "precisions", "note", "model", "cliffs", *_TEXTS, *_COUNTS})


def read_meta(path: Traversable) -> TableMeta:
    """Raises TableError for what is missing, unknown, of the wrong type or newer than this."""
    try:
        content = tomllib.loads(limited_text(path, MAX_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        raise table_error(path, f"cannot be read: {error}") from None
    except RecursionError:
        raise TableError(f"{path}: not valid TOML: nested too deep; correct it") from None
    except ValueError as error:  # of numbers and dates as well
        raise table_error(path, f"not valid TOML: {error}; correct it") from None
    return _Reader(path, content).meta()


def meta_toml(meta: TableMeta) -> str:
    """The file's text; `read_meta` gives `meta` back."""
    given = {name: getattr(meta, name) for name in _ORDER}
    values = {"schema": SCHEMA, **{n: v for n, v in given.items() if v != _DEFAULTS.get(n)}}
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    if meta.model is not None:
        caches = asdict(meta.model.caches)
        lines += ["", "[model]", f"kernels = {_toml(meta.model.kernels.name)}"]
        lines += ["", "[model.caches]", *(f"{k} = {v}" for k, v in caches.items())]
        for precision, tiles in meta.model.tiles.items():
            sizes = asdict(tiles)
            lines += ["", f"[model.tiles.{precision}]", *(f"{k} = {v}" for k, v in sizes.items())]
    return "\n".join(lines) + "\n"


_DEFAULTS = {"note": "", "cliffs": "cpu"}  # left out of the file
_ORDER = tuple(field.name for field in fields(TableMeta) if field.name != "model")


def _toml(value: object) -> str:
    plain = list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
    return json.dumps(plain, ensure_ascii=False)


@dataclass(frozen=True)
class _Reader:
    path: Traversable
    content: Mapping[str, object]

    def meta(self) -> TableMeta:
        self._schema()
        self._only(self.content, _KNOWN, "")
        text = {name: self._text(name) for name in _TEXTS}
        return TableMeta(
            kind=self._kind(),
            device=text["device"],
            soc=text["soc"],
            runtime=text["runtime"],
            runtime_version=text["runtime_version"],
            threads=self._count(self.content, "threads"),
            governor=text["governor"],
            precisions=self._precisions(),
            batch=self._count(self.content, "batch"),
            date=text["date"],
            source=text["source"],
            licence=text["licence"],
            note=self._text("note") if "note" in self.content else "",
            model=self._model() if "model" in self.content else None,
            cliffs=self._cliffs(),
        )

    def _schema(self) -> None:
        schema = self.content.get("schema")
        if type(schema) is not int or not 1 <= schema <= MAX_COUNT:
            raise self._error("schema must be a positive integer")
        if schema > SCHEMA:
            raise self._error(
                f"schema {schema} is newer than {SCHEMA}, the newest this shrinkc reads; "
                "update shrinkc"
            )

    def _kind(self) -> Kind:
        match self.content.get("kind"):
            case "measured":
                return "measured"
            case "fitted":
                return "fitted"
            case other:
                raise self._error(f"kind is {_told(other)}; write measured or fitted")

    def _text(self, name: str) -> str:
        value = self.content.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self._error(f"{name} must be a text; write 'unknown' where nobody knows it")
        if name == "source" and value.strip().lower() == "unknown":
            raise self._error("source is unknown; name where the figures come from")
        if name == "date" and not _DATE.fullmatch(value):
            raise self._error(f"date is {told(value)}; write YYYY-MM-DD, YYYY-MM, YYYY or unknown")
        return value

    def _count(self, values: Mapping[str, object], name: str, where: str = "") -> int:
        value = values.get(name)
        if type(value) is not int or not 1 <= value <= MAX_COUNT:
            raise self._error(f"{where}{name} must be a positive integer")
        return value

    def _precisions(self) -> tuple[str, ...]:
        values = self.content.get("precisions")
        names = cast("list[object]", values) if isinstance(values, list) else []
        known = [name for name in names if name in PRECISIONS]
        if not names or len(set(known)) < len(names):
            raise self._error(f"precisions must list some of {', '.join(PRECISIONS)}, each once")
        return tuple(known)

    def _cliffs(self) -> str:
        value = self.content.get("cliffs", "cpu")
        if not isinstance(value, str) or value not in CLIFFS:
            raise self._error(f"cliffs is {_told(value)}; write one of {', '.join(CLIFFS)}")
        return value

    def _model(self) -> ModelShape:
        model = self._section(self.content, "model")
        self._only(model, frozenset({"kernels", "caches", "tiles"}), "model.")
        kernels = model.get("kernels")
        if not isinstance(kernels, str) or kernels not in KERNELS:
            raise self._error(
                f"model.kernels is {_told(kernels)}; write one of {', '.join(KERNELS)}"
            )
        tiles = self._section(model, "tiles", "model.")
        if set(tiles) != set(self._precisions()):
            raise self._error("model.tiles must have one section for each of the precisions")
        sizes = {p: self._counts(tiles, p, "model.tiles.", _TILE_NAMES) for p in tiles}
        caches = self._counts(model, "caches", "model.", _CACHE_NAMES)
        shapes = {p: Tiles(*counts) for p, counts in sizes.items()}
        return ModelShape(KERNELS[kernels], shapes, Caches(*caches))

    def _section(
        self, values: Mapping[str, object], name: str, where: str = ""
    ) -> Mapping[str, object]:
        section = values.get(name)
        if not isinstance(section, dict):
            raise self._error(f"section [{where}{name}] is missing")
        return cast("dict[str, object]", section)

    def _counts(
        self, values: Mapping[str, object], name: str, where: str, names: tuple[str, ...]
    ) -> list[int]:
        section = self._section(values, name, where)
        self._only(section, frozenset(names), f"{where}{name}.")
        return [self._count(section, count, f"{where}{name}.") for count in names]

    def _only(self, values: Mapping[str, object], known: frozenset[str], where: str) -> None:
        unknown = sorted(set(values) - known)
        if unknown:
            key = f"{where}{unknown[0][:60]}"
            raise self._error(f"unknown key {key}; known: {', '.join(sorted(known))}")

    def _error(self, problem: str) -> TableError:
        return table_error(self.path, problem)


def _told(value: object) -> str:
    """A text as it is, of anything else what it is."""
    return told(value) if isinstance(value, str) else f"a {type(value).__name__}"


_TILE_NAMES = tuple(field.name for field in fields(Tiles))
_CACHE_NAMES = tuple(field.name for field in fields(Caches))
