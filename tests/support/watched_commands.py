"""Runs commands one after the other and tells what they did outside themselves, as JSON.

    python watched_commands.py COMMANDS.json

Exit codes; connections that Python code asked for; how often the kernel found no way for a packet
of this network namespace, whoever sent it, child processes and C++ included (where the namespace
has no interfaces, that is every packet); files that Python code opened for writing, made or moved.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

connections: list[str] = []
written: set[str] = set()


def hook(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto") and isinstance(arguments[-1], tuple):
        connections.append(f"{event} {arguments[-1]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        connections.append(f"{event} {arguments[0]}")
    elif event in ("open", "os.mkdir", "os.rename", "os.link", "os.symlink"):
        names = [one for one in arguments if isinstance(one, str | bytes | os.PathLike)]
        if names and (event != "open" or _writes(arguments[2])):
            written.add(os.path.realpath(os.fsdecode(names[-1] if event != "open" else names[0])))


def _writes(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def unroutable() -> int:
    """Packets that the kernel had no way for, of both versions of IP."""
    names, values = (
        line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines()[:2]
    )
    six = dict(line.split() for line in Path("/proc/self/net/snmp6").read_text().splitlines())
    return int(dict(zip(names, values, strict=True))["OutNoRoutes"]) + int(six["Ip6OutNoRoutes"])


def main() -> None:
    from short_fits import shorten

    from shrinkc.compiler.cli.main import main as shrinkc

    shorten()
    sys.addaudithook(hook)
    codes = {}
    for words in json.loads(Path(sys.argv[1]).read_text()):
        if words[0] == "connect":  # is anything watched at all?
            import socket

            codes[" ".join(words)] = socket.socket().connect_ex(("192.0.2.1", 80))
        else:
            codes[" ".join(words)] = shrinkc([*words, "--quiet"])
    found = {
        "codes": codes,
        "connections": connections,
        "unroutable": unroutable(),
        "written": sorted(written),
    }
    Path(sys.argv[1]).with_suffix(".found").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
