"""`shrinkc sensitivity`: how accurate a network stays with one channel group pruned."""

from __future__ import annotations

from dataclasses import asdict

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    AnnotationsOption,
    ArchOption,
    BgrOption,
    ClassesOption,
    CriterionOption,
    ImagesOption,
    InputOption,
    LabelsOption,
    LimitOption,
    MeanOption,
    MetricOption,
    ModelArgument,
    PlotOption,
    ResizeOption,
    ScaleOption,
    StdOption,
    TaskOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import as_json, print_json, progress
from shrinkc.compiler.cli.tasks import asked_of
from shrinkc.errors import InputError


@app.command(cls=Command)
def sensitivity(
    model: ModelArgument,
    *,
    inputs: InputOption = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    task: TaskOption = "auto",
    metric: MetricOption = None,
    criterion: CriterionOption = "l1",
    images: ImagesOption = None,
    labels: LabelsOption = False,
    limit: LimitOption = 500,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    bgr: BgrOption = False,
    scale: ScaleOption = None,
    annotations: AnnotationsOption = None,
    plot: PlotOption = None,
) -> None:
    """Prune every channel group alone and judge what the network loses (Li et al., 2017).

    Networks are judged on --images: by top-1 with --labels, otherwise by how often they agree with
    the original, or for outputs that are no classes by R² against it.
    """
    from shrinkc.compiler.api.sensitivity import sensitivity as judged
    from shrinkc.compiler.api.steps.network import ModelFile
    from shrinkc.compiler.cli.inputs import LABELS_READ, Reading, shapes_of
    from shrinkc.compiler.cli.show.sensitivity import curves as show_curves
    from shrinkc.compiler.report.plots import require_plot
    from shrinkc.compiler.support.unread import refuse_unread

    if images is None:
        raise InputError("sensitivity is judged on images", "give `images`")
    refuse_unread(("classes", classes is not None, labels, LABELS_READ))
    if plot is not None:
        require_plot(plot)
    found = judged(
        ModelFile(model, arch, trust),
        shapes_of(inputs),
        images=Reading(
            *(classes, resize, mean, std), annotations=annotations, bgr=bgr, scale=scale
        ).folder(images),
        criterion=criterion,
        labels=labels,
        limit=limit,
        task=asked_of(task, metric),
        progress=progress(),
    )
    if plot is not None:
        found.plot(plot)
    if as_json():
        told = {"criterion": criterion, "judged": found.judged, "images": found.images}
        print_json(told | {"curves": [asdict(curve) for curve in found.curves]})
    else:
        show_curves(found.curves, found.judged)
