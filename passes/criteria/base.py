"""What a criterion is given and what it returns.

A criterion scores the channels of every group; an allocation decides how many of each group stay;
`Selection` is what a pass carries out. Any criterion goes with any allocation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import fx, nn

from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import ChannelGroup, Groups, Keep
from shrinkc.passes.channels.selection import Selection

Scores = Mapping[str, npt.NDArray[np.float64]]
Needs = Literal["nothing", "images", "labels"]
Normalise = Literal["share", "mean", "sum", "none", "cumulative", "measured"]


@dataclass(frozen=True)
class Site:
    """A place where something can be removed: a channel group, or an activation of size 1."""

    name: str
    size: int
    kind: Literal["channels", "activation"]


class Criterion(Protocol):
    """A frozen dataclass; its fields are its options and its data. The more, the more important.

    A group that a criterion cannot judge has no entry, and stays whole. One that wants to remove
    channels while the network trains is `Scheduled` besides.
    """

    name: ClassVar[str]

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        """Group name → (size,) importance. The graph is left as it is."""
        ...


class Removal(Protocol):
    """Channels that go one by one while a network trains; saved and restored with the training."""

    @property
    def keep(self) -> Keep:
        """What is left."""
        ...

    def after_step(self, model: nn.Module, moment: object, /) -> None:
        """After every step of the optimiser, gradients still in place."""
        ...

    def selection(self) -> Selection: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> None: ...


class Schedule(Protocol):
    """How a criterion removes channels while a network trains. Says in `str` when they go."""

    def start(
        self,
        graph_module: fx.GraphModule,
        groups: Groups,
        cost: Callable[[Keep], Mapping[str, float]],
        until: Callable[[Keep], bool],
        multiple: int,
    ) -> tuple[fx.GraphModule, Removal]:
        """A copy to train, and what that calls.

        cost      asked with what is left: group → what one channel takes
        until     asked before every removal: is it enough?
        multiple  widths are multiples of it
        """
        ...

    def removals(self, steps: int, multiple: int) -> int:
        """How often something can go in a training of so many steps."""
        ...

    def finish(self, graph_module: fx.GraphModule, trained: nn.Module) -> fx.GraphModule:
        """A copy of the network that was given, with the weights of the one that was trained."""
        ...


@runtime_checkable
class Scheduled(Protocol):
    """What a criterion has besides, that may want to remove channels while the network trains."""

    @property
    def schedule(self) -> Schedule | None:
        """None: it is asked for scores, once a round."""
        ...


def schedule_of(criterion: Criterion) -> Schedule | None:
    """None: its scores decide at once."""
    return criterion.schedule if isinstance(criterion, Scheduled) else None


def sites(groups: Groups) -> tuple[Site, ...]:
    return tuple(Site(g.name, g.size, "channels") for g in groups.groups)


def uniform(groups: Groups, scores: Scores, keep_ratio: float, multiple: int = 1) -> Selection:
    """The same share of every group, the most important channels of each.

    Widths are rounded to `multiple` channels (and to what the group's cells allow) and are never
    0; groups narrower than that stay whole. Raises InputError for a ratio outside of (0, 1).
    """
    if not 0 < keep_ratio < 1:
        raise InputError(f"a keep ratio of {keep_ratio:g}: give a number between 0 and 1")
    keep = {
        group.name: most_important(
            group, scores[group.name], rounded(group, keep_ratio * group.size, multiple)
        )
        for group in groups.groups
        if group.name in scores
    }
    return Selection({name: stays for name, stays in keep.items() if not stays.all()})


def lowest(
    groups: Groups, scores: Scores, ratio: float, vanish: Literal["refuse", "keep one"] = "refuse"
) -> Selection:
    """A global threshold: of all channels together, `ratio` of them with the lowest scores go.

    A group with convolution groups loses as many as each of its cells can spare. Where a group (or
    cell) would lose every channel, it keeps one, or InputError names it. Raises InputError for a
    ratio outside of (0, 1).
    """
    if not 0 < ratio < 1:
        raise InputError(f"a ratio of {ratio:g}: give a number between 0 and 1")
    scored = [group for group in groups.groups if group.name in scores]
    together = np.sort(np.concatenate([scores[g.name] for g in scored] or [np.zeros(0)]))
    count = int(len(together) * ratio)
    return above(groups, scores, together[count] if count else -np.inf, vanish)


def above(
    groups: Groups,
    scores: Scores,
    threshold: float,
    vanish: Literal["refuse", "keep one"] = "refuse",
) -> Selection:
    """What scores `threshold` or more stays; of every cell as many as of the fullest one."""
    keep: dict[str, npt.NDArray[np.bool_]] = {}
    for group in groups.groups:
        if group.name not in scores:
            continue
        high = scores[group.name] >= threshold
        cells = len(np.bincount(group.cells))
        most = int(np.bincount(group.cells[high], minlength=cells).max())
        if not most and vanish == "refuse":
            raise InputError(
                f"channel group '{group.name}' would vanish: all its {group.size} channels are "
                f"below {threshold:.3g}; prune less, or allow groups to keep one"
            )
        gone = np.bincount(group.cells) - max(most, 1)
        stays = group.size - max(int(gone.min()), 0) * cells
        if stays < group.size:
            keep[group.name] = most_important(group, scores[group.name], stays)
    return Selection(keep)


def widths(group: ChannelGroup, multiple: int = 1) -> tuple[int, ...]:
    """How many channels the group may keep, ascending; the last is all of them.

    Its layers are then multiples of `multiple` wide, as far as they are made of this group.
    """
    cells = np.bincount(group.cells)
    step = multiple // gcd(multiple, _positions(group))
    removable = range(int(cells.min()) - 1, -1, -1)
    left = (group.size - n * len(cells) for n in removable)
    return tuple(n for n in left if n % step == 0 or n == group.size)


def rounded(group: ChannelGroup, channels: float, multiple: int = 1) -> int:
    """The nearest of `widths`, the larger of two equally near."""
    return min(widths(group, multiple), key=lambda n: (abs(n - channels), -n))


def most_important(
    group: ChannelGroup, scores: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.bool_]:
    """(size,) The `count` channels of the highest score; as many go from each cell.

    Of equal scores the earlier channel stays. Raises InputError where `count` is none of `widths`.
    """
    cells = np.bincount(group.cells)
    gone, rest = divmod(group.size - count, len(cells))
    if rest or not 0 <= gone < cells.min():
        raise InputError(
            f"channel group '{group.name}' cannot keep {count} of {group.size} channels"
            + (f": as many must go from each of {len(cells)} cells" if len(cells) > 1 else "")
        )
    order = np.lexsort((-np.arange(group.size), scores, group.cells))  # by cell, worst first
    starts = np.cumsum(cells) - cells
    keep = np.ones(group.size, bool)
    keep[order[(starts[:, None] + np.arange(gone)).reshape(-1)]] = False
    return keep


def _positions(group: ChannelGroup) -> int:
    """Positions that one channel takes in the first layer that makes it."""
    if not group.made:
        return 1
    return len(group.made[0].positions) // len(np.unique(group.made[0].channels))
