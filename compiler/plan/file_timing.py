"""What whole files take, where plans are made for the machine that they are made on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor, fx

from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.measure.speedup import Measuring, alone_ms, host_file
from shrinkc.compiler.plan.int8_variants import PrecisionVariant
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress

FEW = 10  # images that int8 is calibrated on where only speed is measured


class FileTiming:
    """The original's file, and files of networks that came from it; every shape is timed once.

    beside  what networks are timed beside: the original, or the same for larger images
    inputs  how many → the network's inputs, for int8's ranges
    folder  keeps the times; None: nothing is kept
    """

    def __init__(
        self,
        original: fx.GraphModule,
        inputs: Callable[[int], Sequence[tuple[Tensor, ...]]],
        threads: int,
        folder: Path | None,
        progress: Progress,
        beside: fx.GraphModule | None = None,
    ) -> None:
        self.original, self.inputs, self.threads = original, inputs, threads
        self.progress, self.beside = progress, beside or original
        how = f"{threads} threads, in turns"
        if self.beside is not original:
            how += f" beside {digest_of(self.beside, '')}"
        self._times = Journal(folder, digest_of(original, how), count=1)

    @cached_property
    def _beside(self) -> bytes:
        return host_file(self.beside, "fp32", ())

    def factors(self, table: CostTable, precisions: Sequence[str]) -> dict[str, float]:
        """Precision → the original's milliseconds, over the sum of its operators'."""
        found: dict[str, float] = {}
        for precision in precisions:
            if precision not in self._times.entries:
                with self.progress.task(f"Timing the network as it is, {precision}"):
                    few = self.inputs(FEW) if precision == "int8" else ()
                    whole = precision == "fp32" and self.beside is self.original
                    file = self._beside if whole else host_file(self.original, precision, few)
                    self._times.put(precision, [alone_ms(file, self.threads)])
            summed = predicted_ms(self.original, table, precision)
            found[precision] = self._times.entries[precision][0] / summed
        return found

    def speedup(self, graph: fx.GraphModule, variant: PrecisionVariant) -> float:
        """Over what stands beside, in fp32."""
        precision, kept = variant.precision, variant.int8_options(graph).keep_fp32
        shape = " ".join((precision, digest_of(graph, ""), *kept))
        if shape not in self._times.entries:
            inputs = self.inputs(FEW) if precision == "int8" else ()
            measuring = Measuring(self._beside, 1.0, precision, inputs, self.threads, kept)
            self._times.put(shape, [measuring.speedup(graph)])
        return self._times.entries[shape][0]
