"""Boxes: layouts, suppression, mAP by hand and by pycocotools as it is used, planted bugs."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
import torch
from torch import Tensor

from shrinkc.compiler.tasks.detection.boxes import Convention, decoded, overlaps, suppressed
from shrinkc.compiler.tasks.detection.detection import Detection
from shrinkc.compiler.tasks.tally import Tally
from shrinkc.errors import InputError

SIZE = (64, 96)
BOXES = torch.tensor([[4.0, 6, 44, 16], [40, 8, 60, 60], [0, 0, 10, 10]])
SCORES = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.0, 0.0]])
LABELS = torch.tensor([[[0, 4, 6, 44, 16, 0], [1, 40, 8, 60, 60, 0]]]).float()
TASK = Detection(layout="pair", scale="pixels", size=SIZE)


def centred(boxes: Tensor) -> Tensor:
    return torch.cat(((boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]), -1)


def answers(boxes: Tensor = BOXES, scores: Tensor = SCORES) -> dict[str, tuple[Tensor, ...]]:
    """The same detections in every layout."""
    rows = torch.cat((centred(boxes), scores), 1)[None]
    five = torch.cat((centred(boxes), torch.full((len(boxes), 1), 0.5), 2 * scores), 1)[None]
    unit = boxes / torch.tensor([SIZE[1], SIZE[0]] * 2)
    return {
        "yolov8": (rows.transpose(1, 2),),
        "rows": (rows,),
        "yolov5": (five,),
        "pair": (boxes[None], scores[None]),
        "turned pair": (scores[None], boxes[None]),
        "unit": (unit[None], scores[None]),
        "background": (boxes[None], torch.cat((torch.full((len(boxes), 1), 0.9), scores), 1)[None]),
    }


HOW = {
    "yolov8": Convention("yolov8", "xywh", "pixels"),
    "rows": Convention("rows", "xywh", "pixels"),
    "yolov5": Convention("yolov5", "xywh", "pixels"),
    "pair": Convention("pair", "xyxy", "pixels"),
    "turned pair": Convention("pair", "xyxy", "pixels"),
    "unit": Convention("pair", "xyxy", "unit"),
    "background": Convention("pair", "xyxy", "pixels", background=0),
}


@pytest.mark.parametrize("name", HOW)
def test_every_layout_says_the_same(name: str) -> None:
    boxes, scores = decoded(answers()[name], HOW[name], SIZE)
    torch.testing.assert_close(boxes[0], BOXES)
    torch.testing.assert_close(scores[0], SCORES)


@pytest.mark.parametrize(
    ("name", "layout", "scale"),
    [("pair", "pair", "pixels"), ("unit", "pair", "unit"), ("yolov8", "yolov8", "pixels")],
)
def test_layouts_are_told_by_shapes_and_said(name: str, layout: str, scale: str) -> None:
    answer = answers()[name]
    if layout == "yolov8":
        answer = (answer[0].repeat(1, 1, 4),)  # more boxes than numbers of each
    task = Detection().of_inputs(((1, 3, *SIZE),)).scaled(answer, 1)
    assert (task.layout, task.scale, task.size) == (layout, scale, SIZE)
    form = "xyxy" if layout == "pair" else "xywh"
    assert f"boxes are read as {layout}, {form}, {scale}; `task` says otherwise" in task.notes
    given = Detection(layout=task.layout, scale=task.scale, size=SIZE).scaled(answer, 1)
    assert given.notes == ()


def test_logits_and_other_outputs_are_refused() -> None:
    with pytest.raises(InputError, match=r"read as pair, scores are -3 to 4, no probabilities"):
        TASK.scaled((BOXES[None], torch.tensor([[[4.0, 1], [-3, 0], [0, 0]]])), 1)
    for outputs, said in (((BOXES,), "3×4"), ((SCORES[None, :, None],), "1×3×1×2")):
        with pytest.raises(InputError, match=f"`task` detection: the outputs are {said}"):
            Detection(size=SIZE).scaled(outputs, 1)


def test_suppression_is_within_a_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 0, 60, 10]])
    scores = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.0, 0.7], [0.0005, 0.0]])
    found = suppressed(boxes, scores, 0.001, 0.65)
    assert found[:, 4].tolist() == pytest.approx([0.9, 0.7])  # the second overlaps by 9/11
    assert found[:, 5].tolist() == [0, 1]
    assert len(suppressed(boxes, scores, 0.001, 0.9)) == 3
    broken = boxes.clone()
    broken[0, 0] = float("nan")
    assert suppressed(broken, scores, 0.001, 0.65)[:, 4].tolist() == pytest.approx([0.8, 0.7])


def test_overlaps_by_hand() -> None:
    box, others = torch.tensor([0.0, 0, 10, 10]), torch.tensor([[5.0, 0, 15, 10], [20, 20, 30, 30]])
    assert overlaps(box, others).tolist() == pytest.approx([1 / 3, 0])


# --- mAP ---


def mean_ap(answer: tuple[Tensor, ...], labels: Tensor = LABELS, task: Detection = TASK) -> float:
    return task.score(task.evidence(answer, labels))


def test_all_found() -> None:
    for name, how in HOW.items():
        task = Detection(how.layout, how.form, how.scale, how.background, size=SIZE)
        assert mean_ap(answers()[name], task=task) == pytest.approx(1.0), name


def test_by_hand() -> None:
    """One of class 0's two objects is found; class 1's box overlaps its object by 0.72."""
    labels = torch.tensor(
        [[[0, 0, 0, 10, 10, 0], [0, 30, 0, 40, 10, 0], [1, 0, 20, 10, 30, 0]]]
    ).float()
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 20, 7.2, 30]])
    scores = torch.tensor([[0.9, 0.0], [0.0, 0.9]])
    half = 51 / 101  # recalls 0, 0.01, … 0.5 have a precision of 1, those above of 0
    evidence = TASK.evidence((boxes[None], scores[None]), labels)
    assert TASK.score(evidence) == pytest.approx((half + 5 / 10) / 2)  # 0.5, 0.55 … 0.7
    assert TASK.details(evidence) == {"mAP50": pytest.approx((half + 1) / 2)}


def test_a_false_alarm_that_is_surer_halves_precision() -> None:
    boxes = torch.cat((BOXES, torch.tensor([[70.0, 30, 90, 60]])))
    scores = torch.cat((SCORES, torch.tensor([[0.95, 0.0]])))
    assert mean_ap((boxes[None], scores[None])) == pytest.approx((0.5 + 1) / 2)


def test_planted_bugs_are_seen() -> None:
    turned = BOXES[:, [1, 0, 3, 2]]  # x and y
    assert mean_ap((turned[None], SCORES[None])) < 0.2
    assert mean_ap((BOXES[None], SCORES.roll(1, 1)[None])) < 0.6  # classes off by one
    assert mean_ap((centred(BOXES)[None], SCORES[None])) < 0.2  # of another form
    assert mean_ap((BOXES[None] / 2, SCORES[None])) < 0.2  # of another scale


def test_crowds_are_neither_missed_nor_false() -> None:
    crowd = torch.tensor([[[0, 4, 6, 44, 16, 0], [1, 40, 8, 60, 60, 0], [0, 0, 0, 96, 64, 1]]])
    inside = torch.cat((BOXES, torch.tensor([[70.0, 30, 90, 60]])))
    scores = torch.cat((SCORES, torch.tensor([[0.95, 0.0]])))
    assert mean_ap((inside[None], scores[None]), crowd.float()) == pytest.approx(1.0)


def test_without_any_object_there_is_no_score() -> None:
    with pytest.raises(InputError, match="no image has a box to find"):
        mean_ap(answers()["pair"], torch.full((1, 1, 6), -1.0))


def random_case(seed: int, images: int = 30) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Objects, and detections that are near them, or beside, or missing."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    corner, side = rand(images, 5, 2) * 50, 5 + rand(images, 5, 2) * 30
    boxes = torch.cat((corner, corner + side), 2)
    classes = torch.randint(0, 3, (images, 5, 1), generator=generator).float()
    classes[rand(images, 5, 1) < 0.2] = -1
    labels = torch.cat((classes, boxes, torch.zeros(images, 5, 1)), 2)
    found = boxes + 4 * (rand(images, 5, 4) - 0.5)
    scores = 0.3 * rand(images, 5, 3)
    kinds = classes.long().clamp(min=0)
    scores.scatter_(2, kinds, 0.3 + 0.7 * rand(images, 5, 1))
    return (found, scores), labels


def by_pycocotools(answer: tuple[Tensor, ...], labels: Tensor, task: Detection) -> list[float]:
    """As its own tutorial uses it, all images at once."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    wanted: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, (boxes, scores, rows) in enumerate(zip(*answer, labels, strict=True)):
        for kind, *corners, crowd in rows.tolist():
            if kind >= 0:
                box = [*corners[:2], corners[2] - corners[0], corners[3] - corners[1]]
                one = {"id": len(wanted) + 1, "image_id": image, "category_id": int(kind)}
                wanted.append(one | {"bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd)})
        for row in suppressed(boxes, scores, task.least, task.overlap).tolist():
            box = [*row[:2], row[2] - row[0], row[3] - row[1]]
            one = {"image_id": image, "category_id": int(row[5]), "bbox": box, "score": row[4]}
            found.append(one)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(labels))],
            "categories": [{"id": i} for i in range(3)],
            "annotations": wanted,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(x) for x in evaluation.stats[:2]]


@pytest.mark.parametrize("seed", range(4))
def test_the_same_as_pycocotools_says(seed: int) -> None:
    answer, labels = random_case(seed)
    evidence = TASK.evidence(answer, labels)
    wanted = by_pycocotools(answer, labels, TASK)
    assert [TASK.score(evidence), TASK.details(evidence)["mAP50"]] == pytest.approx(
        wanted, abs=1e-9
    )
    assert 0.2 < wanted[0] < 0.9


def test_batches_add_up() -> None:
    answer, labels = random_case(0)
    whole = Tally(TASK)
    whole.add(answer, answer, labels, 30)
    parts = Tally(TASK)
    for rows in torch.arange(30).split(7):
        some = tuple(one[rows] for one in answer)
        parts.add(some, some, labels[rows], len(rows))
    assert parts.judgement() == whole.judgement()
    assert whole.judgement().details["mAP50"] > (whole.judgement().score or 0)


def test_without_labels_the_originals_detections_are_the_truth() -> None:
    answer, _ = random_case(1)
    task = TASK.scaled(answer, 30)
    tally = Tally(task)
    tally.add(answer, answer, None, 30)
    same = tally.judgement()
    assert same.agreement == pytest.approx(1.0)
    assert same.drop is not None
    assert same.drop.value == pytest.approx(0.0)
    moved = Tally(task)
    moved.add((answer[0] + 2, answer[1]), answer, None, 30)
    found = moved.judgement()
    assert found.agreement is not None
    assert found.agreement < 0.9
    assert found.drop is not None
    assert found.drop.value == pytest.approx(1 - found.agreement)


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(InputError, match="has a box of class 5; the network tells 2 classes apart"):
        TASK.check_labels(answers()["pair"], LABELS + 4 * (LABELS == 1), "images")


# --- divergence ---


def test_divergence_weighs_what_the_original_is_sure_of() -> None:
    answer = answers()["pair"]
    assert TASK.divergence(answer, answer).tolist() == [0]
    moved = BOXES.clone()
    moved[0] += 3
    empty = BOXES.clone()
    empty[2] += 3  # no object is there
    sure = TASK.divergence((moved[None], answer[1]), answer)
    unsure = TASK.divergence((empty[None], answer[1]), answer)
    assert float(sure) > 100 * float(unsure)


def test_divergence_can_be_descended_on() -> None:
    wanted = answers()["yolov8"]
    task = Detection("yolov8", scale="pixels", size=SIZE)
    start = (wanted[0] + torch.tensor([3.0, -2, 4, 1, 0, 0])[None, :, None]).clamp(min=0)
    x = start.requires_grad_()
    before = task.divergence((x,), wanted).item()
    optimiser = torch.optim.Adam([x], lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        task.divergence((x,), wanted).sum().backward()
        optimiser.step()
    assert task.divergence((x,), wanted).item() < 0.2 * before
