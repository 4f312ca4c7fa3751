"""Operator lists as a runtime executes them, appended one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from shrinkc.latency_tables.key import OpKey


@dataclass
class OpSequence:
    """Batch 1, square maps, "SAME" padding (output size ⌈size / stride⌉). `channels` and `size`
    are those of the last result; set them back to branch off from an earlier one."""

    precision: str
    size: int
    channels: int = 3
    ops: list[OpKey] = field(default_factory=list[OpKey])

    def conv(self, out: int, kernel: int = 1, stride: int = 1, activation: str = "none") -> None:
        self._append("conv2d", out, kernel, stride, 1, activation)

    def grouped(self, out: int, kernel: int, stride: int, groups: int, activation: str) -> None:
        self._append("conv2d", out, kernel, stride, groups, activation)

    def depthwise(self, kernel: int, stride: int, activation: str) -> None:
        self._append("depthwise_conv2d", self.channels, kernel, stride, self.channels, activation)

    def elementwise(self, op: str, activation: str = "none") -> None:
        self._append(op, self.channels, activation=activation)

    def global_pool(self) -> None:
        self.ops.append(
            OpKey(
                op="mean",
                in_channels=self.channels,
                out_channels=self.channels,
                in_size=(self.size, self.size),
                precision=self.precision,
            )
        )
        self.size = 1

    def max_pool(self, kernel: int, stride: int) -> None:
        self._append("max_pool", self.channels, kernel, stride)

    def classifier(self, classes: int) -> None:
        self._append("linear", classes)
        self.elementwise("softmax")

    def _append(
        self,
        op: str,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str = "none",
    ) -> None:
        out_size = ceil(self.size / stride)
        self.ops.append(
            OpKey(
                op=op,
                in_channels=self.channels,
                out_channels=out,
                kernel=(kernel, kernel),
                stride=(stride, stride),
                groups=groups,
                in_size=(self.size, self.size),
                out_size=(out_size, out_size),
                activation=activation,
                precision=self.precision,
            )
        )
        self.channels, self.size = out, out_size
