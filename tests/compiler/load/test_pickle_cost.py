"""Pickles of a few hundred bytes that ask for days or gigabytes: refused in one line, at once."""

import io
import itertools
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from shrinkc.compiler.load import pickle_cost
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.load.pickle_cost import CostError, survey
from shrinkc.errors import LoadError, UnsafeFileError

SECONDS = 10.0  # on a machine that is busy with other things; each takes milliseconds


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def doubled(kind: str) -> bytes:
    """A tuple or list of itself twice, forty times over."""
    steps = [b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(40)]
    if kind == "tuple":
        return b")" + b"".join(steps)
    nested = [b"]q" + bytes([i + 1]) + b"(" + (b"h" + bytes([i])) * 2 + b"e" for i in range(40)]
    return b"]q\0" + b"".join(nested)


def encoded(times: int) -> bytes:
    """Bytes that every call writes out twice as long."""
    start = b"c_codecs\nencode\n" * times + text("aaaaaaa") + text("latin-1") + b"\x86R"
    return start + (text("hex_codec") + b"\x86R") * (times - 1)


def numbers_of_one_hash(count: int, between: bytes = b"") -> bytes:
    numbers = (((1 << 61) - 1) * i + 5 for i in range(1, count + 1))
    return b"".join(b"\x8a\x10" + n.to_bytes(16, "little") + between for n in numbers)


def tuples_of_one_hash(length: int, between: bytes = b"") -> bytes:
    """All of minus one and minus two, whose hashes are the same."""
    one, two = (b"J" + struct.pack("<i", number) for number in (-1, -2))
    tuples = itertools.product((one, two), repeat=length)
    return b"".join(b"(" + b"".join(each) + b"t" + between for each in tuples)


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n"
HOSTILE = {
    "a key": b"}" + doubled("tuple") + b"K\x01s",
    "a set": b"c__builtin__\nset\n](" + doubled("tuple") + b"e\x85R",
    "a called list": doubled("list") + b")R",
    "a state": ORDERED + b")R}" + text("_metadata") + doubled("list") + b"sb",
    "a string": encoded(30),
    "a string by a tensor's way": b"ctorch._tensor\n_rebuild_from_type_v2\n("
    + b"c_codecs\nencode\nN"
    + text("a")
    + text("latin1")
    + b"\x86NtR",
    "numbers of one hash": b"}(" + numbers_of_one_hash(20_000, b"N") + b"u",
    "numbers of one hash in a set": b"c__builtin__\nset\n]("
    + numbers_of_one_hash(20_000)
    + b"e\x85R",
    "tuples of one hash": b"}(" + tuples_of_one_hash(14, b"N") + b"u",
    "a long key": b"}(" + b"K\x01" * 20_000 + b"tK\x01s",
    "a storage's key": b"(" + text("storage") + b"N" * 60 + b"tQ",
    "memory": b"ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R",
    "new memory": b"ctorch\nTensor\nJ\xff\xff\xff\x7f\x85\x81",
    "a storage": b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R",
    "a tensor that is set": REBUILD + b")R)b",
    "a method of a dictionary": ORDERED + b")R}" + text("get") + b"K\x05sb",
    "another operation": b"(lp0\n",
}


def archive(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in (("data.pkl", data), ("byteorder", b"little"), ("version", b"3\n")):
            file.writestr(f"a/{name}", content)
    return path


REASONS = {
    **dict.fromkeys((name for name in HOSTILE if "one hash" in name), "more work than"),
    **dict.fromkeys(("a key", "a set", "a called list", "a state"), "values within values"),
    "a long key": "a key of many",
    "a storage's key": "a storage that is named by no tuple",
    "a string by a tensor's way": "made by something else",
    "a method of a dictionary": "attributes of its own",
    "a tensor that is set": "a state for what has none",
    "another operation": "the operation LIST",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_costs_too_much_is_refused_before_it_is_done(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded"))
    path = archive(tmp_path / "m.pt", b"\x80\x02" + HOSTILE[name] + b".")
    before = time.monotonic()
    with pytest.raises(
        UnsafeFileError, match=f"it asks for .*{REASONS.get(name, 'a call of')}.*, which no"
    ) as caught:
        load_model(path)
    assert time.monotonic() - before < SECONDS
    assert len(str(caught.value).splitlines()) == 1


def test_numbers_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for them is asked of the system before the file is found to end."""
    path = tmp_path / "m.pt"
    weights = {"weight": torch.zeros(256)}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    found = data.index(b"M\x00\x01", data.index(b"cpuq"))  # 256, in two bytes
    path.write_bytes(data[:found] + b"M\xff\xff" + data[found + 3 :])
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(LoadError, match="more numbers than the file has bytes"):
        load_model(path)
    at = data.rindex((256).to_bytes(8, "little"))  # again, in front of the numbers
    path.write_bytes(data[:at] + (1 << 40).to_bytes(8, "little") + data[at + 8 :])
    with pytest.raises(LoadError, match="not those that it announces"):
        load_model(path)


def test_the_same_pickles_are_sound_where_they_are_small(tmp_path: Path) -> None:
    """What is refused above is refused for its size, not for its form."""
    once = b"q\x00h\x00\x86"
    for data in (b"})" + once + b"K\x01s", b"c__builtin__\nset\n])" + once + b"a\x85R"):
        assert survey(io.BytesIO(b"\x80\x02" + data + b"."), 1).names <= {"__builtin__.set"}
        with pytest.raises(LoadError, match="neither a model nor a state dict"):
            load_model(archive(tmp_path / "m.pt", b"\x80\x02" + data + b"."))


def test_a_few_keys_of_one_hash_are_sound() -> None:
    for data in (numbers_of_one_hash(1000, b"N"), tuples_of_one_hash(9, b"N")):
        survey(io.BytesIO(b"\x80\x02}(" + data + b"u."), 1)


def test_operations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_cost, "MAX_OPERATIONS", 100)
    with pytest.raises(CostError, match="more than 100 operations"):
        survey(io.BytesIO(b"\x80\x02" + b"N" * 100 + b"."), 1)


def test_work_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many keys, each of which is small enough."""
    monkeypatch.setattr(pickle_cost, "MAX_WORK", 10_000)
    key = b"(" + b"K\x01" * 900 + b"tq\x00"
    many = b"}" + key + b"K\x01s" + b"h\x00K\x01s" * 20
    with pytest.raises(CostError, match="more work than"):
        survey(io.BytesIO(b"\x80\x02" + many + b"."), 1)


def test_dictionaries_that_hold_themselves(tmp_path: Path) -> None:
    """Under every key that weights may lie under."""
    loop: dict[str, object] = {str(i): i for i in range(1000)}
    for name in ("state_dict", "model", "ema", "net", "params", "module", "generator"):
        loop[name] = loop
    torch.save(loop, tmp_path / "m.pt")
    with pytest.raises(LoadError, match="neither a model nor a state dict"):
        load_model(tmp_path / "m.pt")


def test_a_network_of_a_billion_layers(tmp_path: Path) -> None:
    model = nn.LSTM(2, 2)
    model.num_layers = 10**9
    torch.save(nn.Sequential(model), tmp_path / "m.pt")
    with pytest.raises(UnsafeFileError, match=r"holds 1000000000 layers without weights in '0'"):
        load_model(tmp_path / "m.pt")
    torch.save(nn.LSTM(2, 2, 3, bidirectional=True), tmp_path / "m.pt")
    assert isinstance(load_model(tmp_path / "m.pt"), nn.LSTM)


@pytest.mark.parametrize("value", [torch.ones(2), torch.ones(1), [1], {"a": [1] * 10**5}])
def test_a_hook_of_any_kind(tmp_path: Path, value: object) -> None:
    model = nn.Conv2d(3, 4, 1)
    vars(model)["my_hook"] = value
    torch.save(nn.Sequential(model), tmp_path / "m.pt")
    with pytest.raises(UnsafeFileError, match=r"holds hooks \(my_hook\) in '0'"):
        load_model(tmp_path / "m.pt")
