"""A folder that keeps what a call needs to go on belongs to one call at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shrinkc.compiler.api.steps.work_folder import alone_in_folder
from shrinkc.compiler.support.disk.lock import alone_in
from shrinkc.errors import InputError


@alone_in_folder
def working(number: int, *, folder: str | Path | None = None) -> int:
    return number if folder is None or (Path(folder) / ".lock").exists() else -1


def test_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert working(1) == working(1, folder=tmp_path / "a" / "b") == 1
    assert not (tmp_path / "a" / "b").exists()  # nothing was kept
    who = rf"work: process {os.getpid()} on .* is at work there; let it finish, or choose another"
    with alone_in(tmp_path / "work"):
        with pytest.raises(InputError, match=who):
            working(1, folder=str(tmp_path / "work"))
        monkeypatch.setenv("RANK", "1")  # beside rank 0, which has the lock
        assert working(1, folder=str(tmp_path / "work")) == 1
    (tmp_path / "work" / "kept").touch()
    monkeypatch.setenv("RANK", "0")
    assert working(1, folder=tmp_path / "work") == 1
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["kept"]
