"""Every step of writing results is made to fail: the folder holds all of the old or of the new."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shrinkc.compiler.support.atomic_files import atomic_folder, write_file
from shrinkc.errors import InputError

# What the module, and the body of its `with`, ask of the operating system.
STEPS = ("mkdir", "open", "write", "fsync", "close", "link", "replace")
FAULTS = (
    KeyboardInterrupt(),
    OSError(errno.ENOSPC, "No space left on device"),
    PermissionError(errno.EACCES, "Permission denied"),
)
OLD = {"model.onnx": b"old onnx", "report.json": b"old report", "notes.txt": b"the user's own"}
NEW = {"model.onnx": b"new onnx", "model.tflite": b"new tflite", "report.json": b"new report"}


def write_old(folder: Path) -> None:
    folder.mkdir()
    for name, data in OLD.items():
        (folder / name).write_bytes(data)


def write_new(folder: Path, then: Callable[[Path], object] = str) -> None:
    with atomic_folder(folder) as stage:
        for name, data in NEW.items():
            descriptor = os.open(stage / name, os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, data)
            os.close(descriptor)
        then(stage)


def content(folder: Path) -> dict[str, bytes]:
    """Everything under `folder`, hidden and nested files included."""
    return {
        str(path.relative_to(folder)): b"a folder" if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_old(tmp_path / "out")
    return tmp_path / "out"


class FaultyCalls:
    """Lets call number `step` of STEPS raise `fault`, before or after it has acted."""

    def __init__(
        self, patch: pytest.MonkeyPatch, fault: BaseException, step: int, after: bool
    ) -> None:
        self.calls, self.failed = 0, ""
        for name in STEPS:
            patch.setattr(os, name, self._wrap(name, getattr(os, name), fault, step, after))

    def _wrap(
        self,
        name: str,
        real: Callable[..., object],
        fault: BaseException,
        step: int,
        after: bool,
    ) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            due = self.calls == step and (name, after) != ("close", True)
            self.calls += 1
            if due:
                self.failed = name
                if not after:
                    raise fault
            result = real(*args, **kwargs)
            if due and after:
                raise fault
            return result

        return call


@pytest.mark.parametrize(
    ("fault", "after"),  # after a close the standard library would close once more
    [(fault, False) for fault in FAULTS] + [(KeyboardInterrupt(), True)],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_a_fault_at_any_step(tmp_path: Path, fault: BaseException, after: bool) -> None:
    failed: list[str] = []
    for step in range(200):
        folder = tmp_path / str(step)
        write_old(folder)
        raised: BaseException | None = None
        with pytest.MonkeyPatch.context() as patch:
            calls = FaultyCalls(patch, fault, step, after)
            try:
                write_new(folder)
            except (KeyboardInterrupt, InputError) as error:
                raised = error
        if calls.calls <= step:
            break
        if not calls.failed:
            continue
        failed.append(calls.failed)
        found = content(folder)
        if isinstance(raised, InputError):
            assert found == OLD, f"step {step}: {calls.failed}"
        elif isinstance(raised, KeyboardInterrupt):
            assert found in (OLD, OLD | NEW), f"step {step}: {calls.failed}"
        else:
            assert found == OLD | NEW, f"step {step}: {calls.failed}"
    assert content(folder) == OLD | NEW
    assert set(failed) == set(STEPS) - ({"close"} if after else set[str]())
    assert failed.count("replace") == len(NEW)
    assert failed.count("fsync") == len(NEW) + 1


def test_interrupted_between_renames(output: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        renamed: list[str] = []
        replace = Path.replace

        def interrupted(self: Path, target: Path) -> Path:
            renamed.append(target.name)
            if len(renamed) == len(NEW):
                raise KeyboardInterrupt
            return replace(self, target)

        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_new(output)
    assert renamed[:3] == sorted(NEW)
    assert content(output) == OLD


def test_without_hard_links(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_new(output)
    assert content(output) == OLD | NEW


def test_a_missing_folder_is_made_and_unmade(tmp_path: Path) -> None:
    write_new(tmp_path / "a" / "b")
    assert content(tmp_path / "a" / "b") == NEW
    with pytest.raises(ZeroDivisionError):
        write_new(tmp_path / "c" / "d", then=lambda stage: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_of_the_body_passes_through(output: Path) -> None:
    image = output.parent / "no such image.png"
    with pytest.raises(FileNotFoundError, match="no such image"):
        write_new(output, then=lambda stage: image.read_bytes())
    assert content(output) == OLD


def test_a_file_in_place_of_the_folder(output: Path) -> None:
    with pytest.raises(InputError, match=r"report\.json: not a folder;.* choose another"):
        write_new(output / "report.json")
    with pytest.raises(InputError, match=r"sub: not a folder;.* choose another"):
        write_new(output / "report.json" / "sub")
    assert content(output) == OLD


def test_a_folder_in_place_of_a_file(output: Path) -> None:
    (output / "report.json").unlink()
    (output / "report.json").mkdir()
    before = content(output)
    with pytest.raises(InputError, match="holds a folder where a file goes"):
        write_new(output)
    assert content(output) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(output: Path) -> None:
    output.chmod(0o500)
    try:
        with pytest.raises(InputError, match=r"no permission to write there;.* choose another"):
            write_new(output)
        assert content(output) == OLD
    finally:
        output.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_device_that_is_really_full(output: Path) -> None:
    def fill(stage: Path) -> None:
        (stage / "big").symlink_to("/dev/full")
        (stage / "big").write_bytes(b"new")

    with pytest.raises(InputError, match=r"out: no space left on the device;.* choose another"):
        write_new(output, then=fill)
    assert content(output) == OLD


def test_one_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "model.safetensors"
    write_file(path, b"first")
    write_file(path, b"second")
    assert content(path.parent) == {"model.safetensors": b"second"}
