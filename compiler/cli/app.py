"""The application that commands register with."""

from __future__ import annotations

import typer

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compile a trained CNN into the ONNX and TFLite files that run fastest on one device, "
    "with proof that they compute the same. `shrinkc MODEL --target rpi4` is short for "
    "`shrinkc compile MODEL --target rpi4`.",
)
