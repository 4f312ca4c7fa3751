"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[
    Path, typer.Argument(help="A .pt module or state dict, or a .safetensors file.")
]
TargetOption = Annotated[
    str, typer.Option(help="A shipped latency table, a table's folder, or host.")
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", help="Input shape N,C,H,W; once per input. Default: 1,C,224,224."),
]
ArchOption = Annotated[
    str | None,
    typer.Option(help="package.module:factory that builds the network of a state dict."),
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Load files that can run code. Only for files you made.")
]
PrecisionOption = Annotated[str, typer.Option(help="fp32 or int8.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads of every measurement here.")]
ON_HELP = r"host, ssh://user@host\[:port]\[/path/to/python], adb:SERIAL, or cuda."
DevicesOption = Annotated[
    list[str], typer.Option("--on", help=f"{ON_HELP} Several are measured side by side.")
]
BenchmarkModelOption = Annotated[
    str | None,
    typer.Option(
        help="TFLite's benchmark_model, for adb: a file here or a path on the phone. Without it, "
        "Python in Termux."
    ),
]
TimeoutOption = Annotated[
    float, typer.Option(min=1, help="Seconds without a word after which a device counts as hung.")
]
ClassesOption = Annotated[
    Path | None, typer.Option(help="JSON: class folder → class index. Default: sorted order.")
]
ResizeOption = Annotated[int | None, typer.Option(help="Shorter side before the crop.")]
MeanOption = Annotated[str | None, typer.Option(help="Per channel, after scaling to 0–1.")]
StdOption = Annotated[str | None, typer.Option(help="Per channel.")]
OpsetOption = Annotated[int, typer.Option(help="ONNX opset.")]
RunsOption = Annotated[int, typer.Option(min=0, help="Timed runs per file; 0: none.")]
BudgetOption = Annotated[
    float | None, typer.Option(help="Milliseconds by the target's table, instead of --speedup.")
]
EvaluationOption = Annotated[
    Path | None, typer.Option(help="Other images, to judge it on; class folders: top-1.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Images per training step.")]
RateOption = Annotated[float, typer.Option(help="Of SGD, at its peak.")]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Where nothing is trained: of distillation at the end, on --images without labels.",
    ),
]
SpeedupOption = Annotated[
    float | None, typer.Option(help="Over what the table says of the network as it is.")
]
MergeOption = Annotated[
    str, typer.Option(help="Merge linear segments: auto (where the table says it pays), all, none.")
]


OnOption = Annotated[str, typer.Option("--on", help=ON_HELP)]
