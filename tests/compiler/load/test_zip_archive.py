"""Archives that are damaged, or that two readers take differently: one line each."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.load.zip_archive import open_archive
from shrinkc.errors import LoadError

GOOD = b"\x80\x02}X\x01\0\0\0aK\x01s."
EVIL = b"\x80\x02ctorch._utils\n_rebuild_wrapper_subclass\n)R."


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "m.pt"
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), path)
    return path


def changed(path: Path, change: Callable[[bytearray], Any]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def refused(path: Path, match: str) -> None:
    with pytest.raises(LoadError, match=match) as caught:
        load_model(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_flipped_bit_in_a_weight(saved: Path) -> None:
    model: Any = load_model(saved)
    weight = model[0].weight.detach().numpy().tobytes()

    def flip(data: bytearray) -> None:
        data[data.index(weight) + 2] ^= 0x40

    changed(saved, flip)
    refused(saved, r"damaged: 'm/data/0' is not what was written \(checksum\); copy or download")


def test_a_flipped_bit_in_the_pickle(saved: Path) -> None:
    changed(saved, lambda data: data.__setitem__(data.index(b"torch.nn.modules"), ord("u")))
    refused(saved, r"damaged: 'm/data\.pkl' is not what was written")


def test_checksums_that_were_not_written(tmp_path: Path) -> None:
    options: Any = torch.serialization
    before = options.get_crc32_options()
    options.set_crc32_options(False)
    try:
        torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "m.pt")
    finally:
        options.set_crc32_options(before)
    assert isinstance(load_model(tmp_path / "m.pt"), nn.Sequential)


@pytest.mark.parametrize(
    ("offset", "value", "match"),
    [
        (8, 1, "is encrypted"),
        (10, 99, "compressed in an unknown way"),
        (10, 8, "is not what was written"),
    ],
)
def test_entries_of_other_kinds(saved: Path, offset: int, value: int, match: str) -> None:
    changed(saved, lambda data: struct.pack_into("<H", data, data.index(b"PK\1\2") + offset, value))
    refused(saved, match)


def test_an_entry_larger_than_the_file(saved: Path) -> None:
    """Whose bytes would be asked of the system before they are found missing."""
    sizes = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)

    def claim(data: bytearray) -> None:
        at = data.index(b"PK\1\2") + 20
        data[at : at + 8] = sizes

    changed(saved, claim)
    refused(saved, "is not what was written|GiB|bytes")


def test_a_compressed_archive_loads(saved: Path) -> None:
    with zipfile.ZipFile(saved) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    assert isinstance(load_model(saved), nn.Sequential)


def test_every_cut_is_one_line(saved: Path) -> None:
    """A download that stopped anywhere."""
    data = saved.read_bytes()
    for end in (*range(0, len(data), 101), *range(len(data) - 120, len(data))):
        saved.write_bytes(data[:end])
        refused(saved, "truncated or damaged|empty;|no known kind|a text file")


def test_every_changed_byte_is_the_same_model_or_one_line(saved: Path) -> None:
    """The list of entries and the end records, byte by byte."""
    data = saved.read_bytes()
    want = load_model(saved).state_dict()
    messages: list[str] = []
    start = data.index(b"PK\1\2")
    for at in range(start, len(data), 3):
        saved.write_bytes(data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :])
        try:
            got = load_model(saved).state_dict()
        except LoadError as error:
            messages.append(str(error))
        else:
            assert all(torch.equal(got[key], want[key]) for key in want)
    assert len(messages) > 20
    assert not any(len(message.splitlines()) > 1 for message in messages)


def local(name: bytes, data: bytes) -> bytes:
    sizes = struct.pack("<IIIHH", zlib.crc32(data), len(data), len(data), len(name), 0)
    return b"PK\3\4" + struct.pack("<HHHHH", 20, 0, 0, 0, 33) + sizes + name + data


def central(name: bytes, data: bytes, offset: int, extra: bytes = b"", size: int = 0) -> bytes:
    size = size or len(data)
    sizes = struct.pack("<III", zlib.crc32(data), size, size)
    lengths = struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0, offset)
    head = b"PK\1\2" + struct.pack("<HHHHHH", 20, 20, 0, 0, 0, 33)
    return head + sizes + lengths + name + extra


class TwoPickles:
    """An archive with a harmless pickle and another, and lists of entries for either."""

    def __init__(self) -> None:
        self.body, self.at = b"", dict[str, int]()
        for key, name, data in (
            ("version", b"a/version", b"3\n"),
            ("good", b"a/data.pkl", GOOD),
            ("evil", b"a/data.pkl", EVIL),
        ):
            self.at[key] = len(self.body)
            self.body += local(name, data)

    def entries(self, which: str, shift: int = 0) -> bytes:
        data = GOOD if which == "good" else EVIL
        version = central(b"a/version", b"3\n", self.at["version"] + shift)
        return version + central(b"a/data.pkl", data, self.at[which] + shift)

    def in_a_comment(self) -> bytes:
        """Python adds what lies between to every offset, torch does not."""
        size = len(self.entries("good"))
        seen_by_torch = len(self.body) + size + 22
        first = self.entries("good", seen_by_torch - len(self.body))
        second = self.entries("evil")
        end = struct.pack("<HHHHIIH", 0, 0, 2, 2, size, seen_by_torch, len(second))
        return self.body + first + b"PK\5\6" + end + second

    def before_the_end(self) -> bytes:
        """The same with a comment of no length; something unlisted stands at the start."""
        start = local(b"a/unlisted", bytes(300))
        good, evil = self.entries("good"), self.entries("evil", len(start))
        shifted = self.entries("good", len(start) - len(evil))
        at = len(start) + len(self.body)
        end = struct.pack("<HHHHIIH", 0, 0, 2, 2, len(good), at, 0)
        return start + self.body + evil + shifted + b"PK\5\6" + end

    def twice_in_the_list(self) -> bytes:
        entries = self.entries("good") + central(b"a/DATA.pkl", EVIL, self.at["evil"])
        end = struct.pack("<HHHHIIH", 0, 0, 3, 3, len(entries), len(self.body), 0)
        return self.body + entries + b"PK\5\6" + end

    def more_than_announced(self) -> bytes:
        entries = self.entries("good") + central(b"a/x", EVIL, self.at["evil"])
        end = struct.pack("<HHHHIIH", 0, 0, 2, 2, len(entries), len(self.body), 0)
        return self.body + entries + b"PK\5\6" + end

    def by_an_extra_field(self) -> bytes:
        """An offset of 64 bits for who reads it."""
        extra = struct.pack("<HHQ", 1, 8, self.at["evil"])
        entries = central(b"a/data.pkl", GOOD, self.at["good"], extra)
        end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entries), len(self.body), 0)
        return self.body + entries + b"PK\5\6" + end

    def by_a_second_end_record(self) -> bytes:
        """Of 64 bits, which one reader may believe and the other not."""
        good, evil = self.entries("good"), self.entries("evil")
        at = len(self.body) + len(evil)
        record = b"PK\6\6" + struct.pack(
            "<QHHIIQQQQ", 44, 45, 45, 0, 0, 2, 2, len(good), len(self.body)
        )
        locator = b"PK\6\7" + struct.pack("<IQI", 0, at, 1)
        end = struct.pack("<HHHHIIH", 0, 0, 2, 2, len(evil), len(self.body) + 1, 0)
        return self.body + evil + record + locator + b"PK\5\6" + end

    def of_two_folders(self) -> bytes:
        body = self.body + local(b"b/data.pkl", EVIL)
        entries = self.entries("good") + central(b"b/x.pkl", EVIL, len(self.body))
        end = struct.pack("<HHHHIIH", 0, 0, 3, 3, len(entries), len(body), 0)
        return body + entries + b"PK\5\6" + end

    def by_an_end_of_the_name(self) -> bytes:
        """Python's names end at a zero."""
        entries = central(b"a/version", b"3\n", 0) + central(
            b"a/data.pkl\0x", GOOD, self.at["good"]
        )
        end = struct.pack("<HHHHIIH", 0, 0, 2, 2, len(entries), len(self.body), 0)
        return self.body + entries + b"PK\5\6" + end


TRICKS = [
    name for name in vars(TwoPickles) if name.startswith(("in", "be", "tw", "mo", "by", "of"))
]


@pytest.mark.parametrize("name", TRICKS)
def test_what_two_readers_take_differently(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(getattr(TwoPickles(), name)())
    refused(path, r"truncated or damaged \(.*\); copy|damaged: two archives in one; copy")


@pytest.mark.parametrize("name", ["in_a_comment", "before_the_end"])
def test_tricks_work_on_readers_that_do_not_look(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(getattr(TwoPickles(), name)())
    with zipfile.ZipFile(path) as file:
        assert file.read("a/data.pkl") == GOOD
    reader: Any = torch._C.PyTorchFileReader(str(path))
    assert reader.get_record("data.pkl") == EVIL


def test_the_same_archive_without_a_trick(tmp_path: Path) -> None:
    path, made = tmp_path / "m.pt", TwoPickles()
    entries = made.entries("good")
    end = struct.pack("<HHHHIIH", 0, 0, 2, 2, len(entries), len(made.body), 0)
    path.write_bytes(made.body + entries + b"PK\5\6" + end)
    assert open_archive(path).read("data.pkl") == GOOD
    refused(path, "holds a dict with a, neither a model nor a state dict")


def test_what_torch_and_python_write_is_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"a": torch.ones(3)}, stream)
    (tmp_path / "m.pt").write_bytes(stream.getvalue())
    archive = open_archive(tmp_path / "m.pt")
    archive.check()
    with zipfile.ZipFile(stream) as file:
        for name in file.namelist():
            assert archive.read(name.partition("/")[2]) == file.read(name)
