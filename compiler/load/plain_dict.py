"""Dictionaries out of a file, read by no method that the file may have put into an attribute of
them."""

from __future__ import annotations

from typing import Any

_DICT: Any = dict


def items_of(mapping: Any) -> list[tuple[Any, Any]]:
    """`mapping.items()`"""
    return list(_DICT.items(mapping))


def entry(mapping: Any, name: str) -> Any:
    """`mapping.get(name)`"""
    return _DICT.get(mapping, name)
