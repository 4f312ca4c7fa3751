"""Random modules as users write them: in-place writes, views, several outputs, odd batches."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 4
PLAIN = (
    "{y} = m.convs[{k}]({x})",
    "{y} = F.relu({x}) * 2",
    "{y} = {x} + {z}",
    "{y} = {x} * torch.sigmoid({z})",
    "{y} = torch.cat(({x}[:, 1:], {z}[:, :1]), 1)",
    "{y} = {x} - {x}.mean((2, 3), keepdim=True)",
    "{y} = {x}.clone()",
)
VIEWS = (
    "{y} = {x}",
    "{y} = {x}.detach()",
    "{y} = {x}.contiguous()",
    "{y} = {x}.view({x}.shape)",
    "{v} = {x}[:, {a}:{b}]",
    "{v} = {x}[:, :, 1:3]",
    "{v} = {x}.flatten(2)",
    "{v} = {x}.permute(0, 2, 3, 1)",
    "{v} = {x}.narrow(1, {a}, 2)",
    "{v}, {w} = {x}.chunk(2, 1)",
    "{v} = {x}.unsqueeze(1)[:, :, {a}]",
)
WRITES = (
    "{t}.clamp_(max=6)",
    "{t}.clamp_(-3, 4)",
    "{t}.mul_(0.5).add_(1)",
    "{t}.sub_({c})",
    "{t} -= {c}",
    "{t} *= 2",
    "F.relu_({t})",
    "F.hardtanh({t}, -5, 5, inplace=True)",
    "m.act({t})",
    "{t}.sigmoid_()",
    "{t}.neg_()",
    "torch.mul({t}, 3, out={t})",
    "{x}.copy_({z})",
    "{x}.add_({z})",
    "{x}[:, {a}:{b}] = {z}[:, {a}:{b}]",
    "{x}[:, {a}].zero_()",
    "{x}[:, {a}] += {c}",
    "{x}[:, :, ::2].clamp_(max=5)",
    "{x}.data.clamp_(max=7)",
)
RETURNS = (
    "return {x}",
    "return {x}, {z}",
    "return {x}, {t}",
    "return {x}, {z}.mean()",
    "return {x}.flatten(1), {z}.amax((2, 3))",
    "return {x}, {z}.permute(2, 0, 1, 3), None",
    "return {x}.permute(0, 2, 3, 1).reshape(-1, 4), 3",
)


class RandomModule(nn.Module):
    """`source` holds the statements of its forward."""

    def __init__(self, source: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.source = source
        self.first = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, k) for k in (1, 1))
        self.act = nn.ReLU6(inplace=True)
        space: dict[str, Any] = {"torch": torch, "F": F}
        exec(source, space)
        self.run = space["run"]

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def random_module(seed: int) -> RandomModule:
    """A network of up to eight statements; most of them write."""
    draw = random.Random(seed)
    maps, parts = ["y0"], list[str]()
    lines = [draw.choice(WRITES) for _ in range(draw.randint(0, 2))]
    lines = [_filled(one, draw, ["x"], [], input_only=True) for one in lines]
    lines.append("y0 = m.first(x)")
    for step in range(draw.randint(2, 8)):
        kind = draw.choice((PLAIN, VIEWS, WRITES, WRITES))
        text = draw.choice(kind)
        fresh = {"y": f"y{step + 1}", "v": f"v{step}", "w": f"w{step}"}
        lines.append(_filled(text, draw, maps, parts, **fresh))
        maps += [fresh["y"]] if "{y}" in text else []
        parts += [fresh[name] for name in ("v", "w") if f"{{{name}}}" in text]
    lines.append(_filled(draw.choice(RETURNS), draw, maps, parts))
    return RandomModule("def run(m, x):\n    " + "\n    ".join(lines), seed)


def _filled(
    text: str,
    draw: random.Random,
    maps: list[str],
    parts: list[str],
    input_only: bool = False,
    **fresh: str,
) -> str:
    a = draw.randint(0, 1)
    target = draw.choice(maps + parts)
    names = {"x": draw.choice(maps), "z": draw.choice(maps), "t": target}
    if input_only:
        names["z"] = "(x * 0.5)"
    numbers = {"a": a, "b": a + draw.randint(1, 2), "k": draw.randint(0, 1)}
    return text.format(**{**names, **numbers, "c": draw.choice(("0.25", "1.5")), **fresh})
