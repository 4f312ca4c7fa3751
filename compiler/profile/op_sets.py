"""Which operators a table should know: those of given networks at every width and merge that a
planner may ask for, or a grid of usual ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.export import ops
from shrinkc.latency_tables.key import OpKey

STEP = 8  # channels: kernels are made for multiples of it
LEAST_SHARE = 0.25  # of the channels that slicing leaves
WIDTHS = 8
OFF_DIAGONAL = ((1.0, 0.5), (0.5, 1.0), (1.0, LEAST_SHARE), (LEAST_SHARE, 1.0))
CHAIN, LARGEST_KERNEL, WORSE = 6, 7, 4.0  # of merges: layers, kernel, MACs against the parts'
MAX_WEIGHTS = 1 << 24
NETWORK_BYTES = 12 << 20  # that a mobile network touches in one inference: weights, activations


def network_keys(program: ops.Program, precision: str, widths: int = WIDTHS) -> list[OpKey]:
    """Every operator of the network and what merging could make of it, then those at other
    widths; each once. `widths` is how many a layer is measured at, from all channels to a quarter
    of them; a merged one at half as many."""
    ends = _Ends(program)
    exact = [(key, ends.fixed(op)) for op, key in keyed(program, precision)]
    merged = [(key, ends.fixed(first, last)) for key, first, last in _merges(program, precision)]
    found = dict.fromkeys(key for key, _ in (*exact, *merged))
    for key, fixed in exact:
        found.update(dict.fromkeys(_at_widths(key, fixed, widths)))
        found.update(dict.fromkeys(_apart(key, fixed) if widths > 1 else ()))
    for key, fixed in merged:
        found.update(dict.fromkeys(_at_widths(key, fixed, max(widths // 2, 1))))
    return list(found)


class _Ends:
    """Which channels are given: those of the network's inputs and outputs."""

    def __init__(self, program: ops.Program) -> None:
        self._inputs, self._outputs = set(program.inputs), set(program.outputs)
        for op in reversed(program.ops):  # what only reorders an output is as fixed as it
            if isinstance(op, ops.Reshape | ops.Softmax) and op.output in self._outputs:
                self._outputs |= set(_values(op))

    def fixed(self, first: ops.Op, last: ops.Op | None = None) -> tuple[bool, bool]:
        """(in, out)"""
        read = any(value in self._inputs for value in _values(first))
        return read, (last or first).output in self._outputs


def _values(op: ops.Op) -> Iterator[ops.Value]:
    return (o for o in op.operands() if isinstance(o, ops.Value))


def channel_widths(channels: int, count: int) -> list[int]:
    """`channels` and multiples of 8 below, down to a quarter; at most `count`, evenly spread."""
    least = max(STEP, -(-int(channels * LEAST_SHARE) // STEP) * STEP)
    steps = list(range((channels - 1) // STEP * STEP, least - 1, -STEP))
    if len(steps) > count - 1:
        spread = [round(i * (len(steps) - 1) / max(count - 2, 1)) for i in range(count - 1)]
        steps = [steps[i] for i in dict.fromkeys(spread)]
    return [channels, *steps]


_DENSE = ("conv2d", "conv_transpose2d", "linear", "matmul")


def _at_widths(key: OpKey, fixed: tuple[bool, bool], count: int) -> Iterator[OpKey]:
    """Input and output at the same share of their channels."""
    if key.op in _DENSE and key.groups == 1:
        ins = _shares(key.in_channels, fixed[0], count)
        outs = _shares(key.out_channels, fixed[1], count)
        for inside, outside in zip(ins, outs, strict=True):
            yield replace(key, in_channels=inside, out_channels=outside)
    elif key.in_channels == key.out_channels and key.groups in (1, key.in_channels):
        for channels in channel_widths(key.in_channels, 1 if any(fixed) else count):
            groups = channels if key.groups > 1 else 1
            yield replace(key, in_channels=channels, out_channels=channels, groups=groups)


def _apart(key: OpKey, fixed: tuple[bool, bool]) -> Iterator[OpKey]:
    """Input and output at different shares."""
    if key.op in _DENSE and key.groups == 1:
        for inside, outside in OFF_DIAGONAL:
            yield replace(
                key,
                in_channels=_share(key.in_channels, inside, fixed[0]),
                out_channels=_share(key.out_channels, outside, fixed[1]),
            )


def _shares(channels: int, fixed: bool, count: int) -> list[int]:
    """Exactly `count` widths, so that two lists go together; small layers repeat theirs."""
    if fixed:
        return [channels] * count
    known = channel_widths(channels, count)
    return [known[round(i * (len(known) - 1) / max(count - 1, 1))] for i in range(count)]


def _share(channels: int, share: float, fixed: bool) -> int:
    if fixed or share == 1:
        return channels
    return min(channels, max(STEP, round(channels * share / STEP) * STEP))


# --- merged layers -------------------------------------------------------------------------------


def _merges(program: ops.Program, precision: str) -> Iterator[tuple[OpKey, ops.Op, ops.Op]]:
    """(merged layer, first, last) for every chain of convolutions that could become one dense
    convolution once the activations inside are gone; shortcuts around them merge with them."""
    made = {op.output: op for op in program.ops}
    for last in program.ops:
        if not isinstance(last, ops.Conv):
            continue
        chain = [last]
        while len(chain) < CHAIN and (earlier := _conv_before(chain[0], made)) is not None:
            chain.insert(0, earlier)
            merged = _merged(chain, precision)
            if merged is not None:
                yield merged, chain[0], last


def _conv_before(conv: ops.Conv, made: dict[ops.Value, ops.Op]) -> ops.Conv | None:
    """The convolution that feeds this one, through element-wise operators; at the end of a
    shortcut the last one of what it leads around."""
    order = {value: i for i, value in enumerate(made)}
    op = made.get(conv.x)
    while isinstance(op, ops.Unary | ops.Binary | ops.ChannelAffine):
        known = [value for value in _values(op) if value in made]
        op = made[max(known, key=lambda value: order[value])] if known else None
    return op if isinstance(op, ops.Conv) else None


def _merged(chain: Sequence[ops.Conv], precision: str) -> OpKey | None:
    """k = k₁ + (k₂ − 1)·s₁, s = s₁·s₂; None for what no planner would want."""
    kernel, stride = (1, 1), (1, 1)
    for conv in chain:
        reach = [d * (k - 1) + 1 for k, d in zip(conv.weight.shape[2:], conv.dilation, strict=True)]
        kernel = (kernel[0] + (reach[0] - 1) * stride[0], kernel[1] + (reach[1] - 1) * stride[1])
        stride = (stride[0] * conv.stride[0], stride[1] * conv.stride[1])
    first, last = chain[0], chain[-1]
    depthwise = all(c.groups == c.x.shape[1] == c.output.shape[1] > 1 for c in chain)
    _, inside, in_h, in_w = first.x.shape
    _, outside, out_h, out_w = last.output.shape
    key = OpKey(
        *("depthwise_conv2d" if depthwise else "conv2d", inside, outside, kernel, stride),
        groups=inside if depthwise else 1,
        in_size=(in_h, in_w),
        out_size=(out_h, out_w),
        activation=last.activation,
        precision=precision,
    )
    parts = sum(c.output.shape[2] * c.output.shape[3] * c.weight.size for c in chain)
    small = max(kernel) <= LARGEST_KERNEL and kernel[0] <= in_h and kernel[1] <= in_w
    sane = key.macs <= WORSE * parts and key.weight_elements <= MAX_WEIGHTS
    return key if small and sane else None


# --- the grid ------------------------------------------------------------------------------------

# Side of the square maps → usual channels there.
_USUAL = {
    112: (16, 32, 64, 96),
    56: (24, 64, 96, 144, 256),
    28: (32, 64, 128, 192, 256, 512),
    14: (64, 96, 160, 256, 384, 576, 1024),
    7: (96, 160, 320, 512, 960, 1280),
}
# Multiples of 8 that are none of 16: kernels work on 8 or on 16 channels at a time.
_HALF = {
    112: (24, 40),
    56: (40, 72, 136),
    28: (40, 72, 120, 248),
    14: (72, 120, 232, 504),
    7: (104, 232, 504),
}
_LINEAR = (64, 256, 512, 1024, 1280, 2048)
_ACTIVATIONS = ("hard_swish", "silu", "sigmoid")


def default_keys(precision: str) -> list[OpKey]:
    """About 700 operators of usual kinds and sizes."""
    keys = (*_stem(), *_convolutions(), *_half_filled(), *_depthwise(), *_linears(), *_others())
    return list(dict.fromkeys(replace(key, precision=precision) for key in keys))


def _conv(inside: int, outside: int, k: int, stride: int, size: int, groups: int = 1) -> OpKey:
    out = -(-size // stride)
    return OpKey(
        *("conv2d" if groups == 1 else "depthwise_conv2d", inside, outside, (k, k)),
        stride=(stride, stride),
        groups=groups,
        in_size=(size, size),
        out_size=(out, out),
        activation="relu",
    )


def _stem() -> Iterable[OpKey]:
    return (_conv(3, c, k, 2, 224) for c, k in product((16, 24, 32, 64), (3, 7)))


def _convolutions() -> Iterator[OpKey]:
    for size, usual in _USUAL.items():
        for inside, outside in product(usual, usual):
            yield _conv(inside, outside, 1, 1, size)
        for channels in usual:
            yield from (_conv(channels, channels, k, 1, size) for k in (3, 5) if channels <= 512)
            yield _conv(channels, 2 * channels, 3, 2, size)
            yield _conv(channels, 2 * channels, 1, 2, size)
            if channels <= 96:
                yield _conv(channels, channels, 7, 1, size)
                yield _conv(channels, 8 * channels // 3 // STEP * STEP, 3, 1, size)


def _half_filled() -> Iterator[OpKey]:
    for size, widths in _HALF.items():
        for width, usual in zip(widths, _USUAL[size], strict=False):
            yield from (_conv(i, o, 1, 1, size) for i, o in ((width, width), (usual, width)))
            yield from (_conv(width, 4 * width, 1, 1, size), _conv(width, usual, 1, 1, size))
            yield _conv(width, width, 3, 1, size)
            for k, stride in ((3, 1), (3, 2), (5, 1)):
                yield _conv(width, width, k, stride, size, width)


def _depthwise() -> Iterator[OpKey]:
    for size, usual in _USUAL.items():
        for channels, (k, stride) in product(usual, ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))):
            yield _conv(channels, channels, k, stride, size, channels)


def _linears() -> Iterable[OpKey]:
    pairs = product(_LINEAR, (10, *_LINEAR[:4], 1000))
    return (OpKey("linear", inside, outside) for inside, outside in pairs)


def _others() -> Iterator[OpKey]:
    for size, usual in _USUAL.items():
        for channels in usual[::2]:
            maps = OpKey("", channels, channels, in_size=(size, size), out_size=(size, size))
            yield from (replace(maps, op=op) for op in ("add", "mul", *_ACTIVATIONS))
            yield replace(maps, op="mean", out_size=(1, 1))
            half = (-(-size // 2),) * 2
            for op, k in (("max_pool", 2), ("max_pool", 3), ("avg_pool", 2)):
                stride = {"stride": (2, 2), "out_size": half}
                yield replace(maps, op=op, kernel=(k, k), **stride)
            if channels >= 2 * STEP:
                yield replace(maps, op="concat")
    for channels in _LINEAR:
        yield OpKey("softmax", channels, channels)
