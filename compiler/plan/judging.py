"""What a plan's network and int8 lose, on images that no fit saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path

from torch import Tensor, fx

from shrinkc.compiler.formats.registry import FORMATS, HOST_FORMAT
from shrinkc.compiler.images.sanity import Sanity
from shrinkc.compiler.images.tensors import in_parts
from shrinkc.compiler.plan.drop import Answering, answers, answers_of_file, promise_of
from shrinkc.compiler.plan.int8_variants import Int8Damage
from shrinkc.compiler.plan.plan_file import Promise
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import Prepared, prepare
from shrinkc.compiler.quantise.stored import inner_inputs
from shrinkc.compiler.recover.divergence import Damage, agreeing, apart
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.support.progress import Progress
from shrinkc.compiler.tasks.own_metric import bytes_of
from shrinkc.compiler.tasks.task import Answer, Task
from shrinkc.compiler.verify.int8_files import Making, int8_files
from shrinkc.passes.criteria.shared.data import Batch

CALIBRATED = 100  # images that tell the ranges of int8
GLANCED = 32  # images, whether they are all alike
COMPARED = 100  # images that tell which of several networks is nearest to the original
KEPT = 64 << 20  # bytes of the original's answers, at most
ADVICE = "a plan is fitted to them and may not suit others: give real images of many classes"


@dataclass(frozen=True, eq=False)
class Judge:
    """Compares with the original.

    original  of the size that is planned for
    sample   images that plans are fitted to, and int8 is calibrated on
    held     images that plans are judged on
    cache    folder that keeps what int8 loses; None: nothing is kept
    threads  of the files that are run
    task     what the outputs mean
    whole    of the user's network at its own size, where that is larger, on the same images: plans
             are compared with that one
    """

    original: fx.GraphModule
    sample: Sample
    held: Sample
    cache: Path | None
    threads: int
    progress: Progress
    task: Task
    whole: Judge | None = None
    _known: dict[str, list[Answer]] = field(default_factory=dict, init=False)

    def image_notes(self) -> Sequence[str]:
        """Where the images are all alike, or the original says the same of all of them."""
        sanity, answer = Sanity("images", ADVICE, task=self.task), answers(self.original)
        few = self.sample.at_most(GLANCED)
        with self.progress.task("Looking at the images"):
            for x, _ in few.batches():
                sanity.see_input(x[0])
                sanity.see_answer(answer(x))
        return sanity.notes()

    def inputs(self, count: int) -> list[tuple[Tensor, ...]]:
        """Single images, evenly spread over those that fits see."""
        few = self.sample.at_most(count)
        return [one for x, _ in few.batches() for one in in_parts(x, 1)]

    def in_int8(self, graph: fx.GraphModule, options: Int8) -> Prepared:
        """With all in fp32 that spoils the files, of every format: a plan says it once for all."""
        few = self.inputs(CALIBRATED)
        prepared = prepare(graph, few, options, self.progress, task=self.task)
        return int8_files(prepared, Making(FORMATS, few, options, self.progress))[0]

    def int8_damage(self, graph: fx.GraphModule, options: Int8) -> Int8Damage:
        """What a network that computes what the original does loses by it; kept."""
        sample = self.sample
        seen = f"int8 {self.task!r} {sample.images.digest} {sample.size} {sample.indices}"
        journal = Journal(self.cache, digest_of(graph, f"{seen} {options}"), count=1)
        if "" not in journal.entries:
            prepared = self.in_int8(graph, options)
            with self.progress.task("Measuring what int8 costs"):
                few = sample.split()[1]
                lost = self._damage(self._quantised(prepared), few).loss
            for layer in prepared.noise:
                journal.put(layer.layer, [layer.snr_db])
            journal.put("", [lost])
        noise = {layer: found[0] for layer, found in journal.entries.items() if layer}
        return Int8Damage(max(0.0, journal.entries[""][0]), noise)  # below 0: rounding

    def loss(self, graph: fx.GraphModule, prepared: Prepared | None = None) -> float:
        """How far the answers are from the original's, on a few images that no fit saw; of the int8
        file, where the network is `prepared` for one."""
        changed = answers(graph) if prepared is None else self._quantised(prepared)
        return self._beside(changed).loss

    def loss_on(
        self, graph: fx.GraphModule, sample: Sample, originals: Sample | None = None
    ) -> float:
        """The same on images of one's own choice; `originals`: as the original reads them, where
        that is another size."""
        return self._damage(answers(graph), sample, originals).loss

    def of_the_size(self) -> Damage:
        """What it alone costs that images are smaller than the user's network reads them."""
        with self.progress.task("Measuring what the size costs"):
            return self._beside(answers(self.original))

    def _beside(self, changed: Answering) -> Damage:
        whole, mine = self.whole or self, self.held.at_most(COMPARED)
        return whole._damage(changed, mine, whole.held.at_most(COMPARED))

    def _damage(
        self, changed: Answering, sample: Sample, originals: Sample | None = None
    ) -> Damage:
        """The mean over the images; `originals`: as the original reads them."""
        lost = alike = count = 0.0
        wanted = self._answers(originals or sample)
        for (x, _), want in zip(sample.batches(), wanted, strict=True):
            got, samples = changed(x), len(x[0])
            lost += apart(self.task, got, want, samples)
            alike += agreeing(self.task, got, want, samples)
            count += samples
        return Damage(lost / count, alike / count, nan)

    def _answers(self, sample: Sample) -> Iterator[Answer]:
        """The original's, batch by batch; kept where there is room for all of them."""
        key = f"{sample.images.digest} {sample.size} {sample.indices}"
        if key in self._known:
            yield from self._known[key]
            return
        answer, found = answers(self.original), list[Answer]()
        room = KEPT - sum(map(bytes_of, self._known.values()))
        for x, _ in sample.batches():
            here = answer(x)
            room -= bytes_of([here])
            if room >= 0:
                found.append(here)
            yield here
        if room >= 0:
            self._known[key] = found

    def promise(self, graph: fx.GraphModule, prepared: Prepared | None) -> Promise:
        """Of a plan's network; by the int8 file, where it is one."""
        with self.progress.task("Judging the plan on other images"):
            changed = answers(graph) if prepared is None else self._quantised(prepared)
            whole = self.whole or self
            both = answers(whole.original), changed, labelled_batches(self.held)
            theirs = None if self.whole is None else labelled_batches(whole.held)
            return promise_of(*both, task=self.task, originals=theirs)

    def _quantised(self, prepared: Prepared) -> Answering:
        """By the file that is written: of a plan without images."""
        few = inner_inputs(prepared.graph_module)
        file = HOST_FORMAT.write_int8(prepared.quantisation, few).data
        return answers_of_file(file, prepared.graph_module, self.threads)


def labelled_batches(sample: Sample) -> list[Batch]:
    """(inputs, their labels where there are any)."""
    labels = sample.images.labels
    return [(x, None if labels is None else labels[places]) for x, places in sample.batches()]
