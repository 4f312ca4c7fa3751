"""The fitness of candidates: each judged once, kept at once, several side by side.

What was judged is a line in a file that is named after everything that a fitness depends on, and
found there by the candidate's content: which channels stay. A search that was killed asks the same
questions again, is answered from the file, and goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from shrinkc.compiler.support.jobs import Job, Parallel, finished, workers
from shrinkc.compiler.support.journal import Journal, digest_of
from shrinkc.compiler.width.search.judge import Judge, fitness_of, judged
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import Keep

WAITING = 4  # candidates for every worker that are handed over at a time
ONE_CLASS = "they tell no candidates apart; give images of several classes"


class SpentError(Exception):
    """As many candidates were judged as were asked for: the search is over, the best is known."""


@dataclass(frozen=True)
class Found:
    """The best candidate so far."""

    keep: Keep
    fitness: float


@dataclass(eq=False)
class Fitness:
    """Judges candidates, `most` different ones at most; what an earlier run judged counts.

    about  what a fitness depends on besides network, task and repair: images, recipe
    tell   called after each, with words on how the search stands
    """

    judge: Judge
    most: int
    parallel: Parallel = 1
    folder: Path | None = None
    about: str = ""
    tell: Callable[[str], object] = field(default=lambda note: None)

    def __post_init__(self) -> None:
        _check_told_apart(self.judge)
        self._journal = self._kept(self.about)
        self._known: set[str] = set()
        self._best: dict[str, Found] = {}

    def _kept(self, about: str) -> Journal:
        judge = self.judge
        settings = f"fitness {judge.task!r} {judge.repair} {about}"
        return Journal(self.folder, digest_of(judge.graph, settings), count=2)

    def weigh(self, weights: Callable[[Keep], Mapping[str, Tensor]], digest: str) -> None:
        """From now on every candidate has the weights that are made for it; `digest` tells those
        apart. Before anything is judged."""
        self.judge = replace(self.judge, weights=weights)
        self._journal = self._kept(f"{self.about} {digest}")

    @property
    def count(self) -> int:
        """Candidates that were judged."""
        return len(self._known)

    @property
    def images(self) -> int:
        """That judge them."""
        return sum(len(inputs[0]) for inputs, _ in self.judge.held)

    def original(self) -> float:
        """Of the network that nothing was taken from."""
        return judged(self.judge, self.judge.graph)[0]

    def of(self, candidates: Sequence[Keep], goal: str = "") -> list[float]:
        """In their order; `goal`: what they meet, where several are searched for at once. Raises
        SpentError once there would be more than `most`, with those before judged."""
        named = [(_label(keep), keep) for keep in candidates]
        at_once = 1 if self.parallel == 1 else WAITING * workers(self.parallel)
        for start in range(0, len(named), at_once):
            few = named[start : start + at_once]
            new = dict.fromkeys(label for label, _ in few if label not in self._known)
            allowed = {*self._known, *list(new)[: self.most - self.count]}
            self._judge({label: keep for label, keep in few if label in allowed})
            for label, keep in few:
                if label not in allowed:
                    raise SpentError
                self._note(label, keep, goal)
        return [self._journal.entries[label][0] for label, _ in named]

    def one(self, keep: Keep, goal: str = "") -> float:
        (found,) = self.of([keep], goal)
        return found

    def best(self, goal: str = "") -> Found:
        """Raises InputError where no candidate's answers were finite."""
        if goal not in self._best:
            raise InputError(
                f"the answers of all {self.count} candidates are not finite on the {self.images} "
                "images that judge them: nothing can be chosen"
            )
        return self._best[goal]

    def _judge(self, candidates: dict[str, Keep]) -> None:
        """Those that were not judged in this or an earlier run."""
        left = [label for label in candidates if label not in self._journal.entries]
        jobs = [Job(f"candidate {label[:6]}", fitness_of, (candidates[label],)) for label in left]
        with closing(finished(jobs, len(jobs), self.parallel, shared=(self.judge,))) as results:
            for index, result in results:
                self._journal.put(left[index], list(result))

    def _note(self, label: str, keep: Keep, goal: str) -> None:
        fitness, finite = self._journal.entries[label]
        best = self._best.get(goal)
        if finite and (best is None or fitness > best.fitness):
            self._best[goal] = Found(keep, fitness)
        if label not in self._known:
            self._known.add(label)
            words = (f"{name} {one.fitness:.3f}".strip() for name, one in self._best.items())
            self.tell(f"best {', '.join(words)}" if self._best else "")


def _label(keep: Keep) -> str:
    """Of which channels stay; a group that stays whole is as good as one that is not named."""
    digest = hashlib.sha256()
    for name in sorted(keep):
        if not keep[name].all():
            digest.update(f"{name} {len(keep[name])} ".encode() + keep[name].tobytes())
    return digest.hexdigest()[:24]


def _check_told_apart(judge: Judge) -> None:
    """Raises InputError where a network that always answers the same would be the best there is."""
    given = [labels for _, labels in judge.held if labels is not None]
    if given and not judge.task.classifies:
        return
    told = given or [judge.task.labels(want) for want in judge.wanted]
    classes = {int(one) for some in told if some is not None for one in some.flatten()}
    if len(classes) == 1 and all(some is not None for some in told):
        what = "labels of the images" if given else "answers of the network to the images"
        raise InputError(f"all {what} that judge candidates are class {min(classes)}: {ONE_CLASS}")
