"""What a table is for, as a value that prints the way it is typed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shrinkc.errors import UnknownTargetError

_PART = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Target:
    """`device`, or `device/runtime` where a device has tables of several runtimes."""

    device: str
    runtime: str | None = None

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises UnknownTargetError unless the text is one or two lower-case names joined by a
        slash."""
        parts = text.split("/")
        if len(parts) > 2 or not all(_PART.fullmatch(part) for part in parts):
            raise UnknownTargetError(
                f"'{text}' is not a target; write a device, or device/runtime, in lower case"
            )
        return cls(*parts)

    @property
    def folders(self) -> tuple[str, ...]:
        """Where its table lies under `data`."""
        return (self.device,) if self.runtime is None else (self.device, self.runtime)

    def __str__(self) -> str:
        return "/".join(self.folders)
