"""Protocol buffers changed field by field, by their own descriptors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import mutate

_Message = Any


def messages(message: _Message) -> Iterator[_Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for one in value if field.is_repeated else (value,):
                yield from messages(one)


def change(rng: Random, message: _Message, words: Sequence[str] = ()) -> None:
    """One to four fields of any message in it: other values, removed, repeated, moved."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        one = rng.choice(list(messages(message)))
        present = [field for field, _ in one.ListFields()]
        if present and rng.random() < 0.85:
            field = rng.choice(present)
        else:
            field = rng.choice(list(one.DESCRIPTOR.fields))
        if field.is_repeated:
            _repeated(rng, one, field, words)
        elif rng.random() < 0.15:
            one.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            getattr(one, field.name).SetInParent()
        else:
            _set(one, field, _value(rng, field, words))


def _set(one: _Message, field: Any, value: Any) -> None:
    try:
        setattr(one, field.name, value)
    except (ValueError, TypeError):  # out of the field's range
        one.ClearField(field.name)


def _repeated(rng: Random, one: _Message, field: Any, words: Sequence[str]) -> None:
    items = getattr(one, field.name)
    count = len(items)
    action = rng.randrange(5)
    if action == 0 and count:
        del items[rng.randrange(count)]
    elif action == 1 and count:
        copies = [items[rng.randrange(count)] for _ in range(rng.choice((1, 1, 100)))]
        items.extend(copies)
    elif action == 2 and count > 1:
        order = list(items)
        rng.shuffle(order)
        kept = [_copy(item) for item in order]
        one.ClearField(field.name)
        getattr(one, field.name).extend(kept)
    elif field.type == field.TYPE_MESSAGE:
        items.add()
    elif count and rng.random() < 0.7:
        at = rng.randrange(count)
        try:
            items[at] = _value(rng, field, words)
        except (ValueError, TypeError):
            del items[at]
    else:
        try:
            items.append(_value(rng, field, words))
        except (ValueError, TypeError):
            one.ClearField(field.name)


def _copy(item: Any) -> Any:
    if not hasattr(item, "CopyFrom"):
        return item
    made = type(item)()
    made.CopyFrom(item)
    return made


def _value(rng: Random, field: Any, words: Sequence[str]) -> Any:
    if field.type == field.TYPE_STRING:
        text = rng.choice((*words, *words, *mutate.TEXTS))
        return text.encode("utf-8", "replace").decode()
    if field.type == field.TYPE_BYTES:
        return rng.choice((b"", b"\0", rng.randbytes(4), bytes(1000), b"\xff" * 8))
    if field.type == field.TYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values] + [99])
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice((0.0, 1.0, -1.0, 1e30, float("nan"), float("inf"), 1e-30))
    if field.type == field.TYPE_BOOL:
        return rng.random() < 0.5
    numbers = [n for n in mutate.NUMBERS if isinstance(n, int) and -(2**63) <= n < 2**63]
    return rng.choice((*numbers, *range(17)))
