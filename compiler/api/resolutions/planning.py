"""Planners for the sizes of `resolutions`, each on images of its own size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from shrinkc.compiler.api.resolutions.sizes import at_size, require_resizable, smaller_sizes
from shrinkc.compiler.api.steps.network import Model, Subject
from shrinkc.compiler.api.steps.request import Request
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.closed_form import FITTED
from shrinkc.compiler.images.augment import Size
from shrinkc.compiler.images.decoded import Images, Samples
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.plan.plan_file import Plan
from shrinkc.compiler.plan.planner import Planner, prepare_planning
from shrinkc.compiler.plan.replay import require_model
from shrinkc.compiler.plan.resolutions.closer import closest
from shrinkc.compiler.plan.resolutions.planner import Resolutions
from shrinkc.compiler.support.progress import Advance, Progress, Silent
from shrinkc.compiler.support.text import shown as visible
from shrinkc.errors import ImageError, InputError


def subjects_at(
    resolutions: Sequence[int] | None, model: Model, request: Request
) -> dict[Size, Subject]:
    """The network at each of the sizes below its own, the largest first. Raises InputError where
    one is none, or the network does not take it."""
    sizes = smaller_sizes(resolutions, request.subject)
    for source, name in ((request.images, "images"), (request.evaluation, "evaluation")):
        if sizes:
            require_resizable(source, name)
    found: dict[Size, Subject] = {}
    for size in sizes:
        with request.progress.task(f"Capturing at {'×'.join(map(str, size))}"):
            found[size] = at_size(model, request.subject, size)
    return found


def planned_at(model: Model, request: Request, plan: Plan) -> Request:
    """`request` at the size of a plan. Raises InputError for another network, or another size of
    it, than the plan was made for."""
    found, shapes = plan.resolution, request.subject.input_shapes
    if found is None:
        return request
    if [shape[2:] for shape in shapes] != [found.size_before]:
        own = " and ".join("×".join(map(str, shape)) for shape in shapes)
        raise InputError(f"the plan reads {found}, and this network reads {own}; plan anew")
    require_model(request.subject.graph, plan)
    return request.at_size(at_size(model, request.subject, found.size), found.size, found.closer)


def decoded(request: Request) -> tuple[Samples, Samples | None]:
    """What plans are fitted to, and judged on where that is given."""
    source = request.needed_images.without_labels()  # folders may be in another order
    held_out = None if request.evaluation is None else request.decoded(request.evaluation)
    return source.at_most(FITTED).decoded(request.progress), held_out


def resizing(plan: Plan, request: Request) -> tuple[str, ...]:
    """What the files' user has to know of a plan for smaller images."""
    if plan.resolution is None:
        return ()
    source = request.evaluation or request.images
    how = None if source is None else source.preprocessing
    told = f"the files read {plan.resolution}"
    if how is None:
        return (f"{told}: resize them with antialiasing",)
    size = "×".join(map(str, how.size))
    if how.fit == "crop":
        return (f"{told}: the shorter side resized to {how.resize} pixels, the middle {size} cut",)
    return (f"{told}: {how.fit} to {size}",)


def with_sizes(
    planner: Planner, table: CostTable, whole: Request, subjects: Mapping[Size, Subject]
) -> tuple[Planner, dict[Size, Request]]:
    """The planner that may choose among these sizes, too, and what is asked at each. `whole`: what
    `planner` is for; `table`: not as measured."""
    smaller: list[Planner] = []
    requests: dict[Size, Request] = {}
    for size, subject in subjects.items():
        shown = _Named(whole.progress, f"{'×'.join(map(str, size))}: ")
        closer = _closest(planner, whole, subject, size, shown)
        requests[size] = request = whole.at_size(subject, size, closer)
        images, held_out = decoded(request)
        _require_same(images, planner.judge.sample.images)
        if held_out is not None:
            _require_same(held_out, planner.judge.held.images)
        one = prepare_planning(
            *(subject.graph, images, table, planner.planning),
            held_out=held_out,
            task=planner.task,
            progress=shown,
            whole=planner,
            closer=closer,
        )
        smaller.append(one)
    return (Resolutions(planner, smaller) if smaller else planner), requests


def _closest(
    planner: Planner, whole: Request, subject: Subject, size: Size, progress: Progress
) -> float:
    """How many times closer to look, where images are cut: what is judged on is read alike."""
    source = whole.needed_images.without_labels()
    if not all(one.cropped for one in (source, whole.evaluation or source)):
        return 1.0

    def images(closer: float) -> Samples:
        return source.at_size(size, closer).decoded(Silent(), margin=False)

    return closest(planner.judge, deployed(subject.graph), images, progress)


def _require_same(small: Samples, large: Samples) -> None:
    """Raise ImageError where some image is used in one size alone."""
    if not isinstance(small, Images) or not isinstance(large, Images):
        return
    skipped = {name for name, _ in small.skipped} ^ {name for name, _ in large.skipped}
    if skipped or len(small) != len(large):
        name = f"'{visible(min(skipped))}'" if skipped else "an image"
        raise ImageError(f"{small.source}: {name} can be used in one size alone; remove it")


class _Named:
    """Progress of one size."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.progress, self.name = progress, name

    def task(self, text: str, total: int | None = None) -> AbstractContextManager[Advance]:
        return self.progress.task(f"{self.name}{text}", total)
