"""`shrinkc sensitivity`: what every channel group bears, alone."""

from __future__ import annotations

from dataclasses import asdict

from shrinkc.compiler.cli.app import Command, app
from shrinkc.compiler.cli.options import (
    ArchOption,
    ClassesOption,
    CriterionOption,
    ImagesOption,
    InputOption,
    LabelsOption,
    LimitOption,
    MeanOption,
    ModelArgument,
    PlotOption,
    ResizeOption,
    StdOption,
    TrustOption,
)
from shrinkc.compiler.cli.output import as_json, print_json, progress
from shrinkc.errors import InputError


@app.command(cls=Command)
def sensitivity(
    model: ModelArgument,
    *,
    inputs: InputOption = None,
    arch: ArchOption = None,
    trust: TrustOption = False,
    criterion: CriterionOption = "l1",
    images: ImagesOption = None,
    labels: LabelsOption = False,
    limit: LimitOption = 500,
    classes: ClassesOption = None,
    resize: ResizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    plot: PlotOption = None,
) -> None:
    """Prune every channel group alone and judge what each bears (Li et al., 2017).

    Networks are judged on --images: by top-1 with --labels, otherwise by how often they agree with
    the original.
    """
    from shrinkc.compiler.api.prune import batches_of, looked_at
    from shrinkc.compiler.api.steps.network import captured, input_shapes, require_convolutions
    from shrinkc.compiler.api.steps.request import CompileArguments
    from shrinkc.compiler.cli.inputs import preprocessing_of
    from shrinkc.compiler.cli.show.sensitivity import curves as show_curves
    from shrinkc.compiler.load.load import load_model
    from shrinkc.compiler.report.plots import require_matplotlib, sensitivity_map
    from shrinkc.compiler.width import sensitivity as judging
    from shrinkc.compiler.width.methods import spec_of
    from shrinkc.passes.analysis.channels.channel_groups import channel_groups
    from shrinkc.passes.criteria.spec import Given

    given = CompileArguments(
        *(model, "", tuple(inputs or ()), images, None, classes, resize, mean, std, None),
        *("fp32", 17, "none", arch, trust, 1, 0, as_json()),
    )
    method = spec_of(criterion)
    if images is None:
        raise InputError("sensitivity is judged on images", "give `images`")
    if method.needs == "labels" and not labels:
        raise InputError(f"`criterion` {criterion} needs labels", "give `labels`")
    if plot is not None:
        require_matplotlib()
    network = load_model(model, arch=arch, trust=trust)
    shapes = input_shapes(network, given.shapes)
    if len(shapes) > 1:
        raise InputError("images are read for networks with one input")
    reporter = progress()
    with reporter.task("Capturing"):
        graph = captured(network, shapes)
        require_convolutions(graph)
    read = looked_at(given, labels, limit, preprocessing_of(given, shapes), reporter)
    batches, groups = batches_of(read), channel_groups(graph)
    with reporter.task(f"Scoring channels: {criterion}"):
        scores = method.build(Given(batches, 0, by_cost=True)).scores(graph, groups)
    judge = judging.correct_of(batches) if labels else judging.agreement_of(batches, graph)
    ratios = judging.RATIOS
    with reporter.task("Pruning each group alone", len(scores) * len(ratios)) as done:
        curves = judging.sensitivity(graph, groups, scores, judge, done=done)
    what = "top-1" if labels else "agreement with the original"
    if plot is not None:
        title = f"{model.name}, {criterion}: {what}, {len(read)} images"
        sensitivity_map(title, curves, ratios, plot)
    if as_json():
        judged = {"criterion": criterion, "judged": what, "images": len(read)}
        print_json(judged | {"curves": [asdict(curve) for curve in curves]})
    else:
        show_curves(curves, what)
