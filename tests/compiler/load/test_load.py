"""Model files: what loads, and one line for everything that does not."""

import gzip
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.load.file_kind import identify
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.model_file.file import save_model
from shrinkc.errors import LoadError, UnsafeFileError


class OwnNet(nn.Module):
    """A class that no library has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def network() -> nn.Sequential:
    """Every kind of attribute: shared modules, functions, tuples, buffers, frozen weights."""
    torch.manual_seed(0)
    shared = nn.Conv2d(4, 4, 3, padding=1, groups=2)
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 1), bias=False),
        nn.BatchNorm2d(4),
        shared,
        nn.PReLU(4),
        shared,
        nn.AdaptiveAvgPool2d((2, None)),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Flatten(),
        nn.LazyLinear(5),
        nn.TransformerEncoderLayer(5, 1, 7, activation=torch.nn.functional.gelu, batch_first=True),
    )
    model(torch.randn(2, 3, 8, 8))
    shared.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".anything"])
def test_a_pickled_module(tmp_path: Path, suffix: str) -> None:
    model = network().train()
    path = tmp_path / f"model{suffix}"
    torch.save(model, path)
    loaded = load_model(path)
    assert type(loaded) is nn.Sequential
    assert not any(module.training for module in loaded.modules())
    assert loaded[2] is loaded[4]
    assert [p.requires_grad for p in loaded.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    want, got = model.state_dict(), loaded.state_dict()
    assert list(got) == list(want)
    assert all(torch.equal(got[key], want[key]) for key in want)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded(x), model.eval()(x))
    loaded[1].weight.data.zero_()
    assert torch.equal(model[1].weight, torch.ones(4))


def test_a_module_inside_a_checkpoint_and_data_parallel(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    path = tmp_path / "model.pt"
    torch.save({"model": nn.DataParallel(model), "epoch": 3}, path)
    loaded = load_model(path)
    assert type(loaded) is nn.Sequential
    assert torch.equal(loaded[0].weight, model[0].weight)


def test_a_model_without_parameters(tmp_path: Path) -> None:
    torch.save(nn.ReLU().train(), tmp_path / "model.pt")
    assert not load_model(tmp_path / "model.pt").training


def test_our_own_file_gives_the_canonical_graph(tmp_path: Path) -> None:
    x = torch.randn(1, 3, 8, 8)
    graph_module = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), (x,))
    path = tmp_path / "model.safetensors"
    save_model(graph_module, path, {})
    loaded = load_model(path)
    assert isinstance(loaded, fx.GraphModule)
    assert torch.equal(loaded(x)[0], graph_module(x)[0])
    with pytest.raises(LoadError, match="holds its network; leave out `arch`"):
        load_model(path, arch="a:b")
    graph_module.get_submodule("0").bias.data[2] = float("inf")
    save_model(graph_module, path, {})
    with pytest.raises(LoadError, match=r"1 of 4 values of '0\.bias' are NaN or infinite"):
        load_model(path)


def zip_of(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path.read_bytes()


def saved(value: Any, path: Path, **options: Any) -> bytes:
    torch.save(value, path, **options)
    return path.read_bytes()


def bad_files(tmp: Path) -> dict[str, tuple[bytes, str]]:
    """Name → (content, what the message says)."""
    scratch = tmp / "scratch"
    model = saved(nn.Linear(30, 30), scratch)
    legacy = saved(nn.Linear(30, 30).state_dict(), scratch, _use_new_zipfile_serialization=False)
    tensors = safetensors.torch.save({"weight": torch.zeros(10)})
    page = b"<!DOCTYPE html><html>Not found</html>"
    return {
        "empty.pt": (b"", "empty; copy or download it again"),
        "half.pt": (
            model[: len(model) // 2],
            r"truncated or damaged \(its end is missing\); copy or",
        ),
        "legacy_half.pt": (legacy[: len(legacy) // 2], r"damaged \(.*\); copy or save"),
        "legacy_quarter.pt": (legacy[:150], r"truncated or damaged \(.*\); copy or save"),
        "half.safetensors": (tensors[:-10], r"damaged \(.*\); copy or save"),
        "head.safetensors": (tensors[:40], "truncated safetensors; copy or download"),
        "notes.pt": ("Weights für später\n".encode(), "a text file; give a PyTorch model"),
        "page.pt": (page, "a web page, not a model: the download went wrong"),
        "lfs.pt": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        "noise.pt": (bytes(range(255, 127, -1)) * 9, "of no known kind, or damaged"),
        "a.onnx": (b"\x08\x08\x12\x07pytorch", "damaged, or no ONNX file"),
        "a.tflite": (b"\x1c\0\0\0TFL3" + bytes(99), "a TFLite file, which is already compiled"),
        "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "a Keras/HDF5 file"),
        "a.gz": (gzip.compress(model), "a gzip archive"),
        "other.pt": (zip_of(scratch, {"a/b.txt": b""}), "a zip archive that torch.save did not"),
        "two.pt": (
            zip_of(scratch, {"a/data.pkl": b"\x80\x02N.", "b/data.pkl": b"\x80\x02N."}),
            "damaged: two archives in one",
        ),
        "plain.pt": (pickle.dumps([1, 2], 2), "a plain pickle, whose loading may run any code"),
        "protocol.pt": (saved(nn.ReLU(), scratch, pickle_protocol=4), "another pickle protocol"),
        "meta.pt": (saved(nn.Linear(3, 3, device="meta"), scratch), "empty.* that is not supp"),
        "list.pt": (saved([1, 2], scratch), "holds a list, neither a model nor a state dict"),
        "dict.pt": (
            saved({"epoch": 3, "loss": 0.5}, scratch),
            "holds a dict with epoch, loss, neither a model nor a state dict",
        ),
        "header.safetensors": (
            struct.pack("<Q", 40) + b"{" + bytes(60),
            r"damaged \(its header is not JSON\)",
        ),
        "deep.safetensors": (
            struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 200_000,
            r"damaged \(its header is not JSON\)",
        ),
    }


def test_bad_files_are_one_line_each(tmp_path: Path) -> None:
    for name, (content, message) in bad_files(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(LoadError, match=message) as caught:
            load_model(path)
        assert str(caught.value).startswith(f"{path}: "), name
        assert len(str(caught.value).splitlines()) == 1, name
        assert ";" in str(caught.value), name


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no\.pt: no such file; check the path"):
        load_model(tmp_path / "no.pt")
    with pytest.raises(LoadError, match=r"a folder; give a PyTorch model"):
        load_model(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(LoadError, match=r"cannot be read \(Not a directory\); check the path"):
        load_model(tmp_path / "file" / "model.pt")


def test_sizes_are_checked_before_parsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(100, 100), path)
    bomb = tmp_path / "bomb.pt"
    files = {"a/data.pkl": b"\x80\x02N.", "a/data/0": bytes(1 << 22)}
    zip_of(bomb, files, zipfile.ZIP_DEFLATED)
    pickled = tmp_path / "pickled.pt"
    zip_of(pickled, {"a/data.pkl": bytes(17 << 20)}, zipfile.ZIP_DEFLATED)
    many = tmp_path / "many.pt"
    zip_of(many, {f"a/{i}": b"" for i in range(300)} | {"a/data.pkl": b"\x80\x02N."})

    def parsed(*_: object, **__: object) -> None:
        pytest.fail("parsed before its size was checked")

    monkeypatch.setattr(torch, "load", parsed)
    monkeypatch.setattr("shrinkc.compiler.load.zip_archive.MAX_ENTRIES", 200)
    with pytest.raises(LoadError, match=r"truncated or damaged \(301 entries\); copy or"):
        load_model(many)
    for file, limit in ((path, 10_000), (bomb, 100_000)):
        with pytest.raises(LoadError, match=r"GiB unpacked, the limit is 0\.0 GiB; save only"):
            load_model(file, max_bytes=limit)
    with pytest.raises(LoadError, match="a pickle of 17,825,792 bytes"):
        load_model(pickled)


def with_pickle(path: Path, data: bytes, storages: dict[str, bytes]) -> Path:
    """A torch.save archive around a handmade pickle."""
    files = {"a/data.pkl": data, "a/byteorder": b"little", "a/version": b"3\n"}
    zip_of(path, files | {f"a/data/{name}": storage for name, storage in storages.items()})
    return path


def tensor_pickle(shape: tuple[int, ...], stride: tuple[int, ...], numel: int) -> bytes:
    """{"weight": a tensor of `shape` on a storage of `numel` float32}"""

    def ints(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", v) for v in values) + b"t"

    storage = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu\x8a\x08"
        + struct.pack("<q", numel)
        + b"tQ"
    )
    args = b"(" + storage + b"K\0" + ints(shape) + ints(stride) + b"\x89ccollections\n"
    args += b"OrderedDict\n)Rt"
    return b"\x80\x02}X\x06\0\0\0weightctorch._utils\n_rebuild_tensor_v2\n" + args + b"Rs."


@pytest.mark.parametrize(
    ("shape", "stride", "numel"),
    [((10**10,), (0,), 4), ((10**10,), (1,), 4), ((4,), (1,), 10**9), ((4,), (10**9,), 4)],
    ids=["repeated", "beyond the storage", "storage beyond the file", "strided beyond"],
)
def test_tensors_that_claim_more_than_the_file_holds(
    tmp_path: Path, shape: tuple[int, ...], stride: tuple[int, ...], numel: int
) -> None:
    path = with_pickle(tmp_path / "m.pt", tensor_pickle(shape, stride, numel), {"0": bytes(16)})
    with pytest.raises(LoadError, match=r"damaged(: its tensors claim| \()"):
        load_model(path)


def test_the_handmade_archive_is_sound(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "m.pt", tensor_pickle((2, 2), (2, 1), 4), {"0": bytes(16)})
    with pytest.raises(LoadError, match=r"a state dict, weights without a network \(weight\)"):
        load_model(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    path = tmp_path / "model.pt"
    model[1].running_var[1] = value
    torch.save(model, path)
    with pytest.raises(LoadError, match=r"1 of 4 values of '1\.running_var' are NaN or infinite"):
        load_model(path)
    model[0].weight.data[0] = value
    torch.save(model, path)
    with pytest.raises(LoadError, match=r"3 of 12 values of '0\.weight' are NaN or infinite; the"):
        load_model(path)


def test_masks_may_be_infinite(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ReLU())
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    torch.save(model, tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt").get_buffer("mask").isinf().any()


@pytest.mark.parametrize("legacy", [False, True])
def test_other_classes_are_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save(OwnNet(), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        UnsafeFileError,
        match=r"model\.pt: it names .*test_load\.OwnNet, which is no class of torch\.nn or of a "
        r"known model library, so loading it could run any code; save a state dict and give "
        r"`arch` package\.module:factory, or take the risk with `trust`$",
    ):
        load_model(path)


def test_a_whole_model_in_the_old_format(tmp_path: Path) -> None:
    torch.save(nn.ReLU(), tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeFileError, match=r"a whole model .* PyTorch before 1\.6, .* `trust`"):
        load_model(tmp_path / "m.pt")


def test_a_missing_library(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "m.pt", b"\x80\x02ctimm.models.no_such\nNet\n)\x81.", {})
    with pytest.raises(
        LoadError, match=r"it names timm\.models\.no_such\.Net, (but timm is not i|w)"
    ):
        load_model(path)


def test_safetensors_whose_header_begins_like_a_pickle(tmp_path: Path) -> None:
    """The header's length comes first: in one file of 32 its lowest byte is 0x80."""
    weights = {"weight": torch.ones(2)}
    for note in range(0, 256, 8):
        path = tmp_path / "m.safetensors"
        safetensors.torch.save_file(weights, path, {"note": "x" * note})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert identify(path, 1 << 30) == "safetensors"
    with pytest.raises(LoadError, match="a state dict, weights without a network"):
        load_model(path)
