"""Pickles changed operation by operation, and made of operations from nothing."""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable
from random import Random

import mutate

# What a file may name, what it may not, and what lies in between.
NAMES = (
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch FloatStorage"),
    *("torch._utils _rebuild_tensor", "torch._tensor _rebuild_from_type_v2", "torch Tensor"),
    *(
        "torch._utils _rebuild_parameter_with_state",
        "torch LongStorage",
        "torch Size",
        "torch float32",
    ),
    *(
        "torch._utils _rebuild_wrapper_subclass",
        "torch._utils _rebuild_sparse_tensor",
        "torch device",
    ),
    *(
        "torch._utils _rebuild_qtensor",
        "torch.storage _load_from_bytes",
        "torch.storage UntypedStorage",
    ),
    *("torch.nn.parameter Parameter", "torch.nn.parameter Buffer", "torch.nn.modules.conv Conv2d"),
    *("torch.nn.modules.activation ReLU", "torch.nn.modules.container Sequential"),
    *(
        "torch.nn.modules.linear Linear",
        "torch.nn.modules.rnn LSTM",
        "torch.nn.modules.module Module",
    ),
    *("torch.nn.modules.container ModuleList", "torch.nn.modules.batchnorm BatchNorm2d"),
    *("torch.nn.modules.conv _ConvNd", "torch.fx.graph_module GraphModule", "torch.hub load"),
    *("collections OrderedDict", "collections Counter", "collections defaultdict", "builtins set"),
    *("__builtin__ set", "builtins eval", "builtins exec", "builtins getattr", "builtins print"),
    *("os system", "posix system", "subprocess Popen", "_codecs encode", "codecs decode"),
    *("functools partial", "operator attrgetter", "importlib import_module", "__main__ Net"),
    *("numpy dtype", "numpy._core.multiarray scalar", "numpy._core.multiarray _reconstruct"),
    *(
        "numpy ndarray",
        "pathlib PosixPath",
        "argparse Namespace",
        "types CodeType",
        "copyreg _reconstructor",
    ),
    *(
        "torch.nn.functional relu",
        "torch._C._nn gelu",
        "torch.nn.modules.conv Conv2d.forward",
        ". .",
        "a ",
    ),
)
_WORDS = (
    *(
        "a",
        "training",
        "_parameters",
        "_buffers",
        "_modules",
        "weight",
        "bias",
        "forward",
        "__class__",
    ),
    *(
        "_backward_hooks",
        "_forward_hooks",
        "in_channels",
        "kernel_size",
        "state_dict",
        "latin1",
        "hex_codec",
    ),
    *(
        "storage",
        "cpu",
        "0",
        "model",
        "__setstate__",
        "_metadata",
        "items",
        "keys",
        "get",
        "module",
    ),
)


def _global(rng: Random) -> bytes:
    module, _, name = rng.choice(NAMES).partition(" ")
    return f"c{module}\n{name}\n".encode()


def _text(rng: Random) -> bytes:
    word = rng.choice((*_WORDS, *_WORDS, *mutate.TEXTS)).encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(word)) + word


def _number(rng: Random) -> bytes:
    number = rng.choice(mutate.NUMBERS)
    if isinstance(number, float):
        return b"G" + struct.pack(">d", number)
    if 0 <= number < 256 and rng.random() < 0.7:
        return b"K" + bytes([number])
    if abs(number) < 2**31 and rng.random() < 0.8:
        return b"J" + struct.pack("<i", number)
    return _long(number)


def _long(number: int) -> bytes:
    raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _memo(rng: Random) -> bytes:
    return rng.choice((b"q", b"h", b"h", b"h")) + bytes([rng.choice((0, 1, 2, 3, 5, 9, 30, 255))])


def _doubling(rng: Random) -> bytes:
    """A value of itself twice, again and again."""
    depth, start = rng.choice((5, 20, 40, 200)), rng.choice((b")", b"]", b"}", b"K\x01"))
    kind = rng.choice((b"q%bh%b\x86", b"q%b0](h%bh%be", b"q%b0}(K\x01h%bK\x02h%bu"))
    steps = (kind.replace(b"%b", bytes([i])) for i in range(min(depth, 255)))
    return start + b"".join(steps)


_STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK%btQ"


def _storage(rng: Random) -> bytes:
    return _STORAGE.replace(b"%b", bytes([rng.choice((0, 1, 4, 108, 255))]))


def _tensor(rng: Random) -> bytes:
    def sizes() -> bytes:
        return b"(" + b"".join(_number(rng) for _ in range(rng.choice((0, 1, 2, 4, 40)))) + b"t"

    args = (
        _storage(rng),
        _number(rng),
        sizes(),
        sizes(),
        b"\x89",
        b"ccollections\nOrderedDict\n)R",
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"".join(args) + b"tR"


def _module(rng: Random, depth: int) -> bytes:
    name = rng.choice(("conv Conv2d", "activation ReLU", "container Sequential", "rnn LSTM"))
    module, _, kind = name.partition(" ")
    parts = [_text(rng) + _value(rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))]
    known = b"".join(
        _word(key) + b"}" for key in ("_parameters", "_buffers", "_modules") if rng.random() < 0.9
    )
    state = b"}(" + _word("training") + b"\x89" + known + b"".join(parts) + b"u"
    return f"ctorch.nn.modules.{module}\n{kind}\n".encode() + b")\x81" + state + b"b"


def _word(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


_SIMPLE: tuple[Callable[[Random], bytes], ...] = (
    *(_global, _text, _number, _memo, _storage, _tensor, _doubling),
    lambda rng: rng.choice((b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f")),
)
_OPERATIONS = (
    *(b"R", b"R", b"\x81", b"b", b"s", b"u", b"a", b"e", b"t", b"(", b"\x85", b"\x86", b"\x87"),
    *(b"0", b"1", b"2", b"Q", b"\x92", b"\x93", b"\x94", b"\x90", b"o", b"i", b"d", b"l", b"."),
)


def _value(rng: Random, depth: int = 0) -> bytes:
    if depth > 3 or rng.random() < 0.5:
        return rng.choice(_SIMPLE)(rng)
    if rng.random() < 0.2:
        return _module(rng, depth)
    inner = [_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 3)))]
    keyed = b"".join((_text(rng) if rng.random() < 0.7 else _value(rng, 4)) + one for one in inner)
    joined = b"".join(inner)
    return rng.choice(
        (
            b"(" + joined + b"t",
            b"](" + joined + b"e",
            b"}(" + keyed + b"u",
            _global(rng) + b"(" + joined + b"tR",
            _global(rng) + b")\x81}(" + keyed + b"ub",
        )
    )


def made(rng: Random) -> bytes:
    """A pickle by grammar; in half of them some operations at random."""
    parts = [b"\x80\x02", _value(rng)]
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 3, 10))):
            parts.append(rng.choice(_OPERATIONS) if rng.random() < 0.5 else _value(rng, 2))
    return b"".join(parts) + b"."


def changed(rng: Random, given: bytes) -> bytes:
    """Of another pickle: operations left out, repeated, moved, put in, their arguments changed."""
    if rng.random() < 0.3:
        return made(rng)
    if rng.random() < 0.1:
        return mutate.data(rng, given)
    parts = operations(given)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(rng, parts)
    return b"".join(parts)


def _change(rng: Random, parts: list[bytes]) -> None:
    at = rng.randrange(len(parts))
    match rng.randrange(9):
        case 0:
            del parts[at]
        case 1:
            parts.insert(at, parts[at])
        case 2:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        case 3:
            parts.insert(at, rng.choice(_OPERATIONS))
        case 4:
            parts.insert(at, _value(rng, 1))
        case 5 | 6:
            parts[at] = _alike(rng, parts[at])
        case 7:
            end = at + rng.choice((2, 5, 20))
            parts[at:at] = parts[at:end] * rng.choice((1, 20))
        case _:
            parts[at : at + rng.choice((2, 10))] = []
    if not parts:
        parts.append(b".")


def _alike(rng: Random, part: bytes) -> bytes:
    kinds: dict[bytes, Callable[[Random], bytes]] = {
        b"c": _global,
        b"X": _text,
        b"h": _memo,
        b"q": _memo,
    }
    return kinds.get(part[:1], rng.choice((_number, _number, _value)))(rng)


def operations(given: bytes) -> list[bytes]:
    """The operations of a pickle, each with its argument."""
    starts = [position for _, _, position in pickletools.genops(given) if position is not None]
    return [given[a:b] for a, b in zip(starts, [*starts[1:], len(given)], strict=True)]


def several(given: bytes, count: int) -> list[bytes]:
    """So many pickles behind one another, and what comes then."""
    stream, ends = io.BytesIO(given), [0]
    for _ in range(count):
        for _ in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    return [given[a:b] for a, b in zip(ends, [*ends[1:], len(given)], strict=True)]
