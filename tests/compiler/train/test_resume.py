"""Killed, stopped and resumed trainings equal uninterrupted ones."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from interruptible import interruptible, started
from training_examples import FAST, Net, images, net, resumable, rows

from shrinkc.compiler.images.decoded import Data
from shrinkc.compiler.support.disk.lock import alone_in
from shrinkc.compiler.train.compute import Ranks
from shrinkc.compiler.train.keeper import Keeper
from shrinkc.compiler.train.settings.config import Hooks, Keeping, Training
from shrinkc.compiler.train.state import load, load_weights
from shrinkc.compiler.train.stopping import TrainingStopped, stop_on_signal
from shrinkc.compiler.train.train import train
from shrinkc.errors import TrainingError

SCRIPT = Path(__file__).parents[2] / "support/training_examples.py"
TIMEOUT_S = 180  # a busy machine needs a while to import torch


def training(folder: Path, seconds: float = 0.0) -> "subprocess.Popen[str]":
    command = (sys.executable, "-W", "error", SCRIPT, folder, str(seconds))
    return started(command, {**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the script: more threads would add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wait_for(folder: Path, lines: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        log = folder / "log.jsonl"
        if log.exists() and log.read_text().count("\n") >= lines:
            return
        time.sleep(0.01)
    raise AssertionError("the training writes no log")


def assert_same(found: Any, wanted: Any, where: str = "") -> None:
    """Equal bits in nested containers of tensors."""
    if isinstance(wanted, torch.Tensor):
        assert torch.equal(found, wanted), where
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            assert_same(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted), where
        for index, pair in enumerate(zip(found, wanted, strict=True)):
            assert_same(*pair, f"{where}.{index}")
    else:
        assert found == wanted, where


CLOCK = ("seconds", "since", "images_per_s")


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in CLOCK}
    return [timeless(v) for v in value] if isinstance(value, list) else value


@pytest.mark.usefixtures("one_thread")
def test_killed_and_stopped_and_resumed_is_the_same_training_bit_for_bit(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = training(killed, 0.03)
    wait_for(killed, 6)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    first = load(killed / "last.pt")["step"]

    process = training(killed, 0.03)
    wait_for(killed, 12)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    second = load(killed / "last.pt")["step"]
    assert f"TrainingStopped: stopped after step {second} of 48; run the same again" in errors
    assert 0 < first < second < 48

    process = training(killed)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    resumable(whole)
    assert len(rows(whole)) == 4 + 16
    assert rows(killed) == rows(whole)
    for name in ("last.pt", "best.pt"):
        assert_same(timeless(load(killed / name)), timeless(load(whole / name)))
    assert sorted(p.name for p in killed.iterdir()) == ["best.pt", "last.pt", "log.jsonl"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    def stop(_model: object, moment: Any) -> None:
        if moment.step == 4:
            signal.raise_signal(number)

    data = Data(images())
    keeping = Keeping(tmp_path / "stopped")
    former = signal.getsignal(number)
    with pytest.raises(TrainingStopped, match=r"after step 5 of 24; .*go on from .*last\.pt"):
        train(net(), data, short(Hooks(after_step=stop)), keeping=keeping)
    assert signal.getsignal(number) is former
    resumed = train(net(1), data, short(), keeping=keeping)  # the weights come from the folder
    straight = train(net(), data, short())
    assert_same(resumed.model.state_dict(), straight.model.state_dict())


def test_a_finished_training_is_only_loaded(tmp_path: Path) -> None:
    whole = resumable(tmp_path / "whole")
    (tmp_path / "whole" / "best.pt").unlink()
    again = resumable(tmp_path / "whole")
    assert not (tmp_path / "whole" / "best.pt").exists()
    assert timeless(list(again.history)) == timeless(list(whole.history))
    assert_same(again.model.state_dict(), whole.model.state_dict())


def short(hooks: Hooks | None = None, **changes: Any) -> Training:
    settings: dict[str, Any] = {"epochs": 2, "batch": 8, "optimiser": FAST, **changes}
    return Training(hooks=hooks or Hooks(), **settings)


def test_a_second_signal_ends_at_once() -> None:
    with interruptible():
        with stop_on_signal() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.requested
            signal.raise_signal(signal.SIGTERM)  # what torchrun passes on at the same moment
            stop._since = time.monotonic() - 2  # pyright: ignore
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_settings_are_refused(tmp_path: Path) -> None:
    keeping, data = Keeping(tmp_path), Data(images())
    train(net(), data, short(), keeping=keeping)
    for changed, name in (({"batch": 16}, "batch 8, not 16"), ({"seed": 1}, "seed 0, not 1")):
        with pytest.raises(TrainingError, match=f"holds a training with {name}; give another"):
            train(net(), data, short(**changed), keeping=keeping)
    with pytest.raises(TrainingError, match="holds a training with network"):
        train(net(width=6), data, short(), keeping=keeping)
    with pytest.raises(TrainingError, match="holds a training with images 96×12×12×3-"):
        train(net(), Data(images(seed=5)), short(), keeping=keeping)


def test_machines_that_do_not_share_the_folder(tmp_path: Path) -> None:
    other = Ranks(1, 2, lambda steps: steps + 15)  # rank 0 has found a checkpoint
    run: Any = SimpleNamespace(ranks=other, step=0, fabric=SimpleNamespace(device="cpu"))
    with pytest.raises(TrainingError, match="different steps, this one of step 0; give a folder t"):
        Keeper(Keeping(tmp_path), run).resume(Keeping(tmp_path))


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (
        alone_in(tmp_path),
        pytest.raises(TrainingError, match=f"process {os.getpid()} on .* is at work there; let it"),
    ):
        train(net(), Data(images()), short(), keeping=Keeping(tmp_path))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not a checkpoint", None])
def test_damaged_checkpoints(tmp_path: Path, data: bytes | None) -> None:
    train(net(), Data(images()), short(), keeping=Keeping(tmp_path))
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:-500] if data is None else data)
    with pytest.raises(TrainingError, match=r"last\.pt: not a readable checkpoint .*remove it"):
        train(net(), Data(images()), short(), keeping=Keeping(tmp_path))
    torch.save({"model": {}}, path)
    with pytest.raises(TrainingError, match="not a checkpoint of this version"):
        load_weights(net(), path)


def test_every_part_of_a_checkpoint_is_checked(tmp_path: Path) -> None:
    """Other types, another network's numbers, one changed bit of the weights."""
    train(net(), Data(images()), short(), keeping=Keeping(tmp_path))
    path = tmp_path / "last.pt"
    state = load(path)
    wrong: list[dict[str, Any]] = [
        *({name: 5} for name in state if name not in ("version", "step", "epochs", "best")),
        *({name: "five"} for name in state if name != "version"),
        *({"step": -1}, {"seconds": math.nan}, {"model": {"a": 1}}, {"optimiser": {"state": 3}}),
        *({"epoch": {"more": 1}}, {"settings": {}}),
        *({"settings": state["settings"] | {key: torch.zeros(2)}} for key in state["settings"]),
    ]
    for change in wrong:
        torch.save({**state, **change}, path)
        with pytest.raises(TrainingError, match=r"last\.pt: damaged|holds a training with"):
            train(net(), Data(images()), short(), keeping=Keeping(tmp_path))
    torch.save(state, path)
    data = bytearray(path.read_bytes())
    bias = next(x for x in state["model"].values() if x.ndim == 1 and x.any())
    data[data.index(bias.numpy().tobytes()) + 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrainingError, match=r"last\.pt: not a readable checkpoint .*checksum"):
        train(net(), Data(images()), short(), keeping=Keeping(tmp_path))


@pytest.mark.parametrize(
    "line", ["[]", "5", "{}", '{"event": "step"}', '{"step": "a"}', "[" * 9999]
)
def test_a_log_of_other_lines(tmp_path: Path, line: str) -> None:
    train(net(), Data(images()), short(), keeping=Keeping(tmp_path))
    log = tmp_path / "log.jsonl"
    whole = log.read_text()
    log.write_text(f"{line}\n{whole}")
    train(net(), Data(images()), short(), keeping=Keeping(tmp_path))
    assert log.read_text() == whole


def test_a_checkpoint_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"version": 1, "model": Evil()}, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        load(tmp_path / "last.pt")
    assert not (tmp_path / "touched").exists()


def test_weights_for_another_network(tmp_path: Path) -> None:
    result = train(net(), Data(images()), short(), keeping=Keeping(tmp_path))
    other = net(7)
    load_weights(other, tmp_path / "last.pt")
    assert_same(other.state_dict(), result.model.state_dict())
    with pytest.raises(TrainingError, match="does not fit the network"):
        load_weights(Net(width=4), tmp_path / "last.pt")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"file: cannot be written .*; choose another"):
        train(net(), Data(images()), short(), keeping=Keeping(tmp_path / "file"))
