"""What stands where a file should: told, never waited for."""

import os
import socket
from pathlib import Path

import pytest

from shrinkc.compiler.support.reading.regular_file import read_regular, require_writable


def test_files_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, the limit is 4"):
        read_regular(path, 4)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_regular(link, 5) == b"12345"


def odd(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / "pipe")
    (folder / "itself").symlink_to("itself")
    (folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
    return {p.name: p for p in folder.iterdir()} | {"zero": Path("/dev/zero")}


def test_what_is_no_file(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = odd(tmp_path_factory.mktemp("o"))
    texts = {"pipe": "a pipe", "folder": "a folder", "socket": "a socket", "zero": "a device"}
    assert found.keys() == {*texts, "itself"}
    for name, path in found.items():
        with pytest.raises(OSError, match=texts.get(name, "symbolic links")):
            read_regular(path, 1 << 40)
        with pytest.raises(OSError, match=texts.get(name, "symbolic links")):
            require_writable(path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "no", 1)
    with pytest.raises(OSError, match="no name of a file"):
        read_regular(Path("a\0b"), 1)
    require_writable(tmp_path / "no")


def test_a_file_of_proc_has_no_length() -> None:
    """Some of them have no end either."""
    path = Path("/proc/self/maps")
    if not path.exists():
        pytest.skip("no /proc")
    assert read_regular(path, 1 << 40) == b""
