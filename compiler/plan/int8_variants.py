"""What a plan may compute in: fp32, int8, and int8 with help for the layers that it hurts.

Int8 as it is comes first. As long as it moves the outputs by more than `ENOUGH`, channels are
equalised too, and then the noisiest layers compute in fp32, twice as many each time. What does not
help is left out: equalising costs nothing, a layer in fp32 costs what the table says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import fx

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.support.text import counted

ENOUGH = 0.02  # divergence in nats: MobileNetV2's int8 has 0.004, one that loses points has 0.05
HELPS = 0.8  # of the divergence, at most, that is left by what helps
MOST_IN_FP32 = 16  # layers


@dataclass(frozen=True)
class PrecisionVariant:
    """A precision, how int8 is made, and the divergence of the outputs that this alone causes."""

    precision: str
    damage: float = 0.0
    int8: Int8 = field(default_factory=Int8)

    @property
    def label(self) -> str:
        kept = len(self.int8.keep_fp32)
        return f"{self.precision}, {counted(kept, 'layer')} in fp32" if kept else self.precision

    def int8_options(self, graph_module: fx.GraphModule) -> Int8:
        """How a changed network becomes int8: of its layers that are still there."""
        there = {op.name for op in lower(graph_module).ops}
        return replace(self.int8, keep_fp32=tuple(n for n in self.int8.keep_fp32 if n in there))


@dataclass(frozen=True)
class Int8Damage:
    """Of int8 made with some options. `noise`: layer → signal to noise in dB."""

    damage: float
    noise: Mapping[str, float]


def int8_variants(measured: Callable[[Int8], Int8Damage]) -> list[PrecisionVariant]:
    """Each does less damage than those before it, and is no faster."""
    options = Int8()
    found = measured(options)
    variants = [PrecisionVariant("int8", found.damage, options)]
    if found.damage > ENOUGH:
        equalised = measured(replace(options, tuning="both"))
        if equalised.damage < HELPS * found.damage:
            options, found = replace(options, tuning="both"), equalised
            variants = [PrecisionVariant("int8", found.damage, options)]
    noisiest = sorted(found.noise, key=lambda layer: found.noise[layer])
    count = 1
    while variants[-1].damage > ENOUGH and count <= min(MOST_IN_FP32, len(noisiest) - 1):
        kept = replace(options, keep_fp32=tuple(noisiest[:count]))
        damage = measured(kept).damage
        if damage < HELPS * variants[-1].damage:
            variants.append(PrecisionVariant("int8", damage, kept))
        count *= 2
    return variants
