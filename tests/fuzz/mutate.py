"""Changes to bytes, text and JSON that readers get wrong."""

from __future__ import annotations

import json
import string
import struct
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 1000, 65535, 65536, 10**6, 2**24, 2**28),
    *(
        2**31 - 1,
        2**31,
        -(2**31),
        2**32 - 1,
        2**32,
        2**53,
        2**63 - 1,
        2**63,
        -(2**63),
        2**64,
        10**30,
    ),
    *(0.5, -0.0, 1e-300, 1e300, -1e300, float("nan"), float("inf"), float("-inf")),
)
CODE = '__import__("os").system("touch ran")'
TEXTS = (
    *("", " ", "\n", "\0", "\x1b[31mred\x1b]0;owned\x07", "\u202e", "\ud800", "é", "０", "a" * 300),
    *("../../ran", "/etc/passwd", "~", "..", "con", "a/b", "a\\b", "file:///etc/passwd"),
    *("nan", "inf", "-1", "1e400", "0x10", "1_000", "true", "null", "NaN"),
    *("__class__", "__dict__", "forward", "self", "import", "eval", "lambda: 0", CODE),
    *(f'x"); {CODE}; ("', f"x\n{CODE}", "%s%n", "{0.__class__}", "<script>", "'; drop"),
)
VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, *NUMBERS, *TEXTS)
# What stands in text where a JSON library would not write it.
TOKENS = (
    *(b"[" * 2000, b"{" * 500, b'{"a":' * 2000, b"1" * 5000, b"-", b"1e999", b"NaN", b"Infinity"),
    *(
        b"\xff",
        b"\xef\xbb\xbf",
        b"\0",
        b'"',
        b"\\",
        b"\\ud800",
        b",",
        b":",
        b"]",
        b"}",
        b"\r",
        b"\n\n",
    ),
    *(b"\x1b[31m", b"\xf0\x9f\x92\xa9", b"\t", b" " * 5000, b"null", b"[]", b"{}", b"0" * 400),
)


MOST = 1 << 18  # bytes of what is made: damage, not size


def data(rng: Random, given: bytes, words: Sequence[bytes] = ()) -> bytes:
    """One to eight changes: bits, bytes, numbers, slices."""
    found = bytearray(given)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        _change(rng, found, words)
    return bytes(found[:MOST])


def _change(rng: Random, found: bytearray, words: Sequence[bytes]) -> None:
    size = len(found)
    if size == 0:
        found += rng.choice((*words, b"\0", rng.randbytes(8)))
        return
    # The ends hold magic numbers and directories.
    at = rng.choice(
        (
            rng.randrange(size),
            rng.randrange(min(size, 64)),
            size - 1 - rng.randrange(min(size, 128)),
        )
    )
    match rng.randrange(9):
        case 0:
            found[at] ^= 1 << rng.randrange(8)
        case 1:
            found[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case 2 | 3:
            kind = rng.choice(("<H", "<I", "<Q", ">H", ">I", ">Q"))
            limit = 1 << (8 * struct.calcsize(kind))
            number = rng.choice((*(n for n in NUMBERS if isinstance(n, int)), size, size + 1, at))
            found[at : at + struct.calcsize(kind)] = struct.pack(kind, number % limit)
        case 4:
            del found[at : at + rng.choice((1, 2, 4, 16, size))]
        case 5:
            found[at:at] = rng.choice((*words, rng.randbytes(rng.choice((1, 4, 16))), bytes(8)))
        case 6:
            end = at + rng.choice((1, 4, 16, 64, 512))
            found[at:at] = found[at:end] * rng.choice((1, 1, 2, 50))
        case 7:
            other = rng.randrange(size)
            length = rng.choice((1, 4, 16, 64))
            found[at : at + length] = found[other : other + length]
        case _:
            found[at : at + rng.choice((4, 16, 256))] = bytes(rng.choice((4, 16, 256)))


def text(rng: Random, given: bytes, words: Sequence[bytes] = ()) -> bytes:
    """Tokens put in, lines and words moved about."""
    if rng.random() < 0.3:
        return data(rng, given, (*TOKENS, *words))
    found = given
    for _ in range(rng.choice((1, 1, 2, 4))):
        cut = rng.choice((b"\n", b",", b" ", b"=", b'"'))
        parts = found.split(cut)
        at = rng.randrange(len(parts))
        match rng.randrange(6):
            case 0:
                parts[at] = rng.choice(
                    (*TOKENS, *words, *(t.encode("utf-8", "surrogatepass") for t in TEXTS))
                )
            case 1:
                parts[at] = str(rng.choice(NUMBERS)).encode()
            case 2:
                del parts[at]
            case 3:
                parts.insert(at, rng.choice(parts))
            case 4:
                parts[at] *= rng.choice((2, 100))
            case _:
                other = rng.randrange(len(parts))
                parts[at], parts[other] = parts[other], parts[at]
        found = cut.join(parts)[:MOST]
    return found


def letters(rng: Random, alphabet: str = string.printable) -> str:
    return "".join(rng.choices(alphabet, k=rng.choice((0, 1, 2, 5, 20))))


# --- JSON ----------------------------------------------------------------------------------------


def tree(rng: Random, given: Any, values: Sequence[Any] = ()) -> Any:
    """A copy of JSON with one to four of its values, keys or branches changed."""
    found = json.loads(json.dumps(given))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(found))
        if not places:
            return deepcopy(rng.choice(VALUES))
        parent, key = rng.choice(places)
        _OPERATIONS[rng.randrange(len(_OPERATIONS))](rng, parent, key, places, (*values, *VALUES))
    return found


def json_bytes(rng: Random, value: Any) -> bytes:
    """Mostly as a library writes it."""
    written = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return text(rng, written) if rng.random() < 0.1 else written


Places = list[tuple[Any, Any]]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index), however deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            for key, inner in list(one.items() if isinstance(one, dict) else enumerate(one)):
                yield one, key
                waiting.append(inner)


def _other(rng: Random, parent: Any, key: Any, places: Places, values: Sequence[Any]) -> None:
    parent[key] = deepcopy(rng.choice(values))  # or a list could get into itself


def _remove(rng: Random, parent: Any, key: Any, places: Places, values: Sequence[Any]) -> None:
    del parent[key]


def _again(rng: Random, parent: Any, key: Any, places: Places, values: Sequence[Any]) -> None:
    if isinstance(parent, list):
        parent[key:key] = [parent[key]] * rng.choice((1, 1, 2, 300))
    else:
        parent[rng.choice((*TEXTS, f"{key}_"))] = parent[key]


def _swap(rng: Random, parent: Any, key: Any, places: Places, values: Sequence[Any]) -> None:
    other, place = rng.choice(places)
    mine, theirs = json.dumps(parent[key]), json.dumps(other[place])
    parent[key], other[place] = json.loads(theirs), json.loads(mine)


def _wrap(rng: Random, parent: Any, key: Any, places: Places, values: Sequence[Any]) -> None:
    for _ in range(rng.choice((1, 1, 50))):
        parent[key] = rng.choice(([parent[key]], {"list": parent[key]}))


def _near(rng: Random, parent: Any, key: Any, places: Places, values: Sequence[Any]) -> None:
    """Of the same type, a little different."""
    value = parent[key]
    if isinstance(value, bool) or value is None:
        parent[key] = rng.choice((True, False, None))
    elif isinstance(value, int | float):
        parent[key] = rng.choice(
            (value + 1, value - 1, -value, value * 2, value / 2, rng.choice(NUMBERS))
        )
    elif isinstance(value, str):
        parent[key] = rng.choice(
            (value[:-1], value + "_", value.upper(), value + rng.choice(TEXTS), letters(rng))
        )
    else:
        _again(rng, parent, key, places, values)


def _rename(rng: Random, parent: Any, key: Any, places: Places, values: Sequence[Any]) -> None:
    if isinstance(parent, dict):
        value = parent.pop(key)
        parent[rng.choice((*TEXTS, key + "_"))] = value
    else:
        rng.shuffle(parent)


_OPERATIONS: tuple[Callable[[Random, Any, Any, Places, Sequence[Any]], None], ...] = (
    *(_other, _near, _near, _remove, _again, _swap, _wrap, _rename),
)
