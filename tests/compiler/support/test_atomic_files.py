"""Every step of writing results is made to fail: the folder holds all of the old or of the new."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import pytest

from shrinkc.compiler.support.atomic_files import atomic_folder, write_file
from shrinkc.compiler.support.disk import screen
from shrinkc.errors import InputError

# What the module, and the body of its `with`, ask of the operating system.
STEPS = (
    *("mkdir", "open", "write", "fsync", "close", "link", "symlink", "replace"),
    *("rename", "unlink", "rmdir", "chmod"),
)
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


def beneath(name: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: b"a folder", **{f"{name}/{file}": data for file, data in files.items()}}


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


class EveryCall:
    """Counts the calls of STEPS and of `exchange`, and lets one of them do something else, before
    it acts or after."""

    def __init__(
        self, patch: pytest.MonkeyPatch, act: Callable[[], object], step: int, after: bool
    ) -> None:
        self.calls, self.acted = 0, ""
        patch.setattr(os, "fsync", lambda _: None)  # what is killed is the process, not the machine
        for owner, names in ((os, STEPS), (screen, ("exchange",))):
            for name in names:
                patch.setattr(owner, name, self._wrap(name, getattr(owner, name), act, step, after))

    def _wrap(
        self,
        name: str,
        real: Callable[..., object],
        act: Callable[[], object],
        step: int,
        after: bool,
    ) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            due = self.calls == step and (name, after) != ("close", True)
            self.calls += 1
            if due:
                self.acted = name
                if not after:
                    act()
            result = real(*args, **kwargs)
            if due and after:
                act()
            return result

        return call


def raising(fault: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise fault

    return act


def without_screen(patch: pytest.MonkeyPatch) -> None:
    """As on a file system that cannot exchange folders."""
    patch.setattr(screen, "_renameat2", lambda: lambda *_: -1)


SCREENED = pytest.mark.parametrize("screened", [True, False], ids=["screen", "no screen"])


@SCREENED
@pytest.mark.parametrize(
    ("fault", "after"),  # after a close the standard library would close once more
    [(fault, False) for fault in FAULTS] + [(KeyboardInterrupt(), True)],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_a_fault_at_any_step(
    tmp_path: Path, fault: BaseException, after: bool, screened: bool
) -> None:
    acted: list[str] = []
    for step in range(300):
        folder = tmp_path / str(step) / "out"
        folder.parent.mkdir()
        write_old(folder)
        raised: BaseException | None = None
        with pytest.MonkeyPatch.context() as patch:
            if not screened:
                without_screen(patch)
            calls = EveryCall(patch, raising(fault), step, after)
            try:
                write_new(folder)
            except (KeyboardInterrupt, InputError) as error:
                raised = error
        if calls.calls <= step:
            break
        if not calls.acted:
            continue
        acted.append(calls.acted)
        found = content(folder.parent)
        if raised or calls.acted == "unlink":  # the lock's file alone may stay: the next run's
            found.pop("out/.shrinkc-lock", None)
        old, new = beneath("out", OLD), beneath("out", OLD | NEW)
        if isinstance(raised, InputError):
            assert found == old, f"step {step}: {calls.acted}"
        elif isinstance(raised, KeyboardInterrupt):
            assert found in (old, new), f"step {step}: {calls.acted}"
        else:
            assert found == new, f"step {step}: {calls.acted}"
    else:
        pytest.fail("the steps have no end")
    assert content(folder.parent) == beneath("out", OLD | NEW)
    unused = {"rename"} | ({"close"} if after else set())
    assert set(acted) >= {*STEPS, "exchange"} - unused
    assert acted.count("exchange") in ({2, 3} if screened else {1})


def killed(folder: Path, step: int, screened: bool, write: Callable[[Path], object]) -> bool:
    """Whether a process that writes to `folder` was killed before that step; else it had fewer."""
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            if not screened:
                without_screen(patch)
            EveryCall(patch, lambda: os.kill(os.getpid(), signal.SIGKILL), step, after=False)
            write(folder)
            os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (-signal.SIGKILL, 0)
    return code != 0


LATER = {"model.onnx": b"later onnx", "report.json": b"later report"}


def write_later(folder: Path) -> None:
    with atomic_folder(folder) as stage:
        for name, data in LATER.items():
            (stage / name).write_bytes(data)


def seen(folder: Path) -> dict[str, bytes]:
    """What a user sees."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for top in folder.iterdir()
        if not top.name.startswith(".shrinkc")
        for path in ([top] if not top.is_dir() else top.rglob("*"))
        if not path.is_dir()
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="posix only")
@SCREENED
def test_a_kill_at_any_step(tmp_path: Path, screened: bool) -> None:
    """All old or all new at once, or without a screen after the next run; nothing hidden stays."""
    states = list[str]()
    own = {"photos/1.jpg": b"the user's own"}
    whole = {"old": OLD | own, "new": OLD | NEW | own}
    for step in count():
        folder = tmp_path / str(step) / "out"
        folder.parent.mkdir()
        write_old(folder)
        (folder / "photos").mkdir()
        (folder / "photos" / "1.jpg").write_bytes(b"the user's own")
        if not killed(folder, step, screened, write_new):
            break
        found = seen(folder)
        states += [name for name, files in whole.items() if found == files] or ["mixed"]
        write_later(folder)
        assert seen(folder) in [files | LATER for files in whole.values()], f"step {step}"
        assert nothing_hidden(folder)
        assert not (folder / "photos").is_symlink()
    assert len(states) > 40
    assert set(states) == ({"old", "new"} if screened else {"old", "new", "mixed"})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="posix only")
def test_a_kill_while_a_killed_run_is_undone(tmp_path: Path) -> None:
    for first in count():
        behind = tmp_path / f"first {first}"
        behind.mkdir()
        write_old(behind / "out")
        assert killed(behind / "out", first, True, write_new)
        if (behind / "out" / screen.MARK).exists():
            break
    for step in count():
        folder = tmp_path / str(step) / "out"
        shutil.copytree(behind, folder.parent, symlinks=True)
        assert seen(folder) == OLD | NEW
        if not killed(folder, step, True, write_later):
            break
        assert seen(folder) in (OLD, OLD | NEW, OLD | LATER), f"step {step}"
        write_later(folder)
        assert seen(folder) == OLD | LATER
        assert nothing_hidden(folder)
    assert step > 40


def nothing_hidden(folder: Path) -> bool:
    names = [path.name for path in folder.parent.rglob("*")]
    beside = [path.name for path in folder.parent.iterdir()]
    return beside == [folder.name] and not [n for n in names if n.startswith(".")]


@SCREENED
def test_folders_in_the_folder_and_files_that_go(
    output: Path, monkeypatch: pytest.MonkeyPatch, screened: bool
) -> None:
    if not screened:
        without_screen(monkeypatch)
    (output / "2x").mkdir()
    (output / "2x" / "plan.json").write_bytes(b"old plan")
    (output / "2x" / "notes").write_bytes(b"own")

    def write(fail: bool) -> None:
        with atomic_folder(output, gone=("model.onnx", "never was")) as stage:
            for name in ("2x", "3x/deep"):
                (stage / name).mkdir(parents=True)
                (stage / name / "plan.json").write_bytes(b"new plan")
            if fail:
                (stage / "report.json").mkdir()
                (stage / "report.json" / "no folder").touch()

    before = content(output)
    with pytest.raises(InputError, match="not a folder"):
        write(fail=True)
    assert content(output) == before
    write(fail=False)
    assert seen(output) == {
        **{"report.json": OLD["report.json"], "notes.txt": OLD["notes.txt"]},
        **{"2x/plan.json": b"new plan", "2x/notes": b"own", "3x/deep/plan.json": b"new plan"},
    }
    assert nothing_hidden(output)


def test_what_goes_is_gone_at_once(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged, behind = screen.exchange, list[set[str]]()

    def exchange(one: Path, other: Path) -> None:
        exchanged(one, other)
        behind.append({path.name for path in output.iterdir() if path.name[0] != "."})

    monkeypatch.setattr(screen, "exchange", exchange)
    with atomic_folder(output, gone=("model.onnx",)) as stage:
        (stage / "model.tflite").write_bytes(b"new")
    assert behind == [{"model.tflite", "report.json", "notes.txt"}] * 2


def test_the_folder_stays_the_one_it_was(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is inside it stays inside, and a link to it stays a link."""
    output.chmod(0o2750)
    before = output.stat()
    link = output.with_name("link")
    link.symlink_to("out")
    monkeypatch.chdir(output)
    write_new(Path())
    write_new(link)
    after = output.stat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert Path("model.tflite").read_bytes() == NEW["model.tflite"]
    assert link.is_symlink()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs mount namespaces")
def test_a_folder_that_is_a_mount_point(tmp_path: Path) -> None:
    """It cannot be exchanged; the files change one by one, and none of them is lost."""
    (tmp_path / "out").mkdir()
    program = (
        "import sys; from pathlib import Path\n"
        "from shrinkc.compiler.support.atomic_files import atomic_folder\n"
        "for text in ('old', 'new'):\n"
        "    with atomic_folder(Path('out')) as stage:\n"
        "        for name in 'ab': (stage / name).write_text(text)\n"
        "print(sorted((p.name, p.read_text()) for p in Path('out').iterdir()))\n"
    )
    inside = f"mount -t tmpfs none out || exit 77; exec '{sys.executable}' -c \"$0\""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("namespaces are not permitted")
    assert done.stdout == "[('a', 'new'), ('b', 'new')]\n", done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]


def test_what_comes_while_the_screen_stands_is_kept(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanged = screen.exchange
    (output / "own.txt").write_bytes(b"before")

    def exchange(one: Path, other: Path) -> None:
        exchanged(one, other)
        if (output / screen.MARK).exists():
            assert seen(output) == OLD | NEW | {"own.txt": b"before"}
            (output / "from a friend").mkdir()
            (output / "from a friend" / "1.txt").write_bytes(b"1")
            (output / "2.txt").write_bytes(b"2")
            (output / "notes.txt").write_bytes(b"edited")  # through the link
            (output / "in place").write_bytes(b"3")  # as editors do: a new file, renamed
            (output / "in place").replace(output / "own.txt")

    monkeypatch.setattr(screen, "exchange", exchange)
    write_new(output)
    more = {"from a friend/1.txt": b"1", "2.txt": b"2", "notes.txt": b"edited", "own.txt": b"3"}
    assert seen(output) == OLD | NEW | more
    assert nothing_hidden(output)


NOTHING: dict[str, list[str]] = {"replaced": [], "added": [], "folders": []}


@pytest.mark.parametrize(
    "note",
    [
        *({**NOTHING, "added": [name]} for name in ("../victim", "way/victim", "/etc/victim")),
        *({**NOTHING, "replaced": [name]} for name in ("../victim", "victim")),
        *({**NOTHING, "folders": ["../empty"]}, {**NOTHING, "added": [3]}, NOTHING | {"added": 1}),
        *({"replaced": []}, [], 7, "text"),
    ],
    ids=str,
)
def test_a_planted_note_does_nothing_elsewhere(output: Path, note: object) -> None:
    victim, stage = output.with_name("victim"), output / ".shrinkc-stage"
    victim.write_bytes(b"precious")
    output.with_name("empty").mkdir()
    (output / "way").symlink_to("..")
    stage.mkdir()
    (stage / "earlier").symlink_to("../..")
    (stage / "undo").write_text(json.dumps(note))
    with pytest.raises(InputError, match="stage: not shrinkc's own; remove it"):
        write_new(output)
    assert victim.read_bytes() == b"precious"
    assert output.with_name("empty").is_dir()
    shutil.rmtree(stage)
    write_new(output)


def test_planted_links_and_pipes(output: Path) -> None:
    """What stands under the names of a run's own files is not followed and not waited for."""
    victim = output.with_name("victim")
    victim.write_bytes(b"precious")
    (output / ".shrinkc-lock").symlink_to("../victim")
    with pytest.raises(InputError, match="a link where none may be"):
        write_new(output)
    (output / ".shrinkc-lock").unlink()
    (output / ".shrinkc-lock").hardlink_to(victim)
    (output / ".shrinkc-stage").symlink_to("../elsewhere")
    write_new(output)
    assert victim.read_bytes() == b"precious"
    (output / ".shrinkc-stage").mkdir()
    for path in (output / ".shrinkc-stage" / "undo", output / screen.MARK):
        os.mkfifo(path)
    write_new(output)
    assert (output / "model.tflite").read_bytes() == NEW["model.tflite"]


def test_a_folder_of_results_that_is_a_link_is_refused(output: Path) -> None:
    (output / "2x").symlink_to("..")

    def write() -> None:
        with atomic_folder(output) as stage:
            (stage / "2x").mkdir()
            (stage / "2x" / "victim").write_bytes(b"new")

    with pytest.raises(InputError, match="not a folder"):
        write()
    assert not output.with_name("victim").exists()
    assert {path.name for path in output.iterdir()} == {*OLD, "2x"}


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
