"""How closely smaller images are looked at: by the answers on images, judged on what is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from by_macs import ByMacs
from PIL import Image
from torch import Tensor, fx, nn

import shrinkc
from shrinkc import Goal, ImageFolder
from shrinkc.compiler.capture import capture
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.preprocessing import preprocessing_for
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.plan.plan_file import Resolution
from shrinkc.compiler.plan.planner import Planning, prepare_planning
from shrinkc.compiler.plan.resolutions.closer import CLOSER, closest
from shrinkc.compiler.support.progress import Silent

LARGE, SMALL, COUNT = 32, 24, 24


class Stripes(nn.Module):
    """Answers by how wide stripes are: filters of two frequencies, and what each of them finds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 2, 9, padding=4, bias=False), nn.Linear(2, 2)
        places = torch.arange(9.0) - 4
        with torch.no_grad():
            for channel, width in enumerate((8.0, 6.4)):
                wave = torch.cos(2 * torch.pi * places / width)
                self.conv.weight[channel] = (wave / wave.norm()).expand(3, 9, 9) / 9
            self.fc.weight.copy_(torch.tensor([[9.0, -9.0], [-9.0, 9.0]]))
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).abs().mean((2, 3)))


def graph(size: int) -> fx.GraphModule:
    return capture(Stripes().eval(), (torch.randn(1, 3, size, size),))


def pixels(size: int, width: float) -> Tensor:
    """uint8 (COUNT, size, size, 3): stripes so many pixels wide, each image begins elsewhere."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.rand(COUNT, 1, generator=generator) * width
    contrast = 0.2 + 0.8 * torch.rand(COUNT, 1, generator=generator)
    wave = torch.cos(2 * torch.pi * (torch.arange(size) + starts) / width) * contrast
    rows = ((wave + 1) * 127.5).round().to(torch.uint8)
    return rows[:, None, :, None].expand(COUNT, size, size, 3).contiguous()


def images(size: int, width: float) -> Images:
    return Images(pixels(size, width), None, (0.5,), (0.25,))


def test_answers_nearest_to_the_originals_tell_how_close_to_look() -> None:
    """Stripes of the width that the original sees are what the small network answers alike for."""
    large, small = graph(LARGE), graph(SMALL)
    judge = prepare_planning(
        *(large, images(LARGE, 8.0), ByMacs("macs"), Planning(("fp32",), groups=False))
    ).judge
    narrow = 8.0 * SMALL / LARGE  # as much of the image in fewer pixels

    def seen(closer: float) -> Images:
        return images(SMALL, narrow * closer)

    def divergence(closer: float) -> float:
        """By hand."""
        rows = torch.tensor(judge.sample.indices)
        with torch.no_grad():
            want = large(images(LARGE, 8.0).taken(rows)[0])[0].log_softmax(1)
            got = small(seen(closer).taken(rows)[0])[0].log_softmax(1)
        return float(F.kl_div(got, want, log_target=True, reduction="batchmean"))

    for among in (CLOSER, (1.0, 1.2, 1.35, 1.5)):
        found = closest(judge, deployed(small), seen, Silent(), among)
        assert found == min(among, key=divergence)
        assert found > 1
    assert closest(judge, deployed(small), seen, Silent(), (1.2,)) == 1.2


def folder_of(path: Path, width: float) -> ImageFolder:
    """Images of the network's own size."""
    path.mkdir()
    for number, one in enumerate(pixels(64, width)):
        Image.fromarray(one.numpy()).save(path / f"{number:02}.png")
    return ImageFolder(path, mean=(0.5,), std=(0.25,))


def planned_of(given: Any, **options: Any) -> Any:
    net, x = Stripes().eval(), torch.zeros(1, 3, 64, 64)
    asked = {"target": "rpi4", "runs": 0, "precision": "fp32", "goal": Goal.speedup(1.2)}
    return shrinkc.plan(net, x, images=given, resolutions=[48], **{**asked, **options})


def test_the_plan_says_how_close_and_is_judged_on_that(tmp_path: Path) -> None:
    given = folder_of(tmp_path / "images", 8.0)
    planned = planned_of(given, evaluation=given)
    found = planned.plan.resolution
    assert found is not None
    assert found.closer in CLOSER[1:]
    resize = preprocessing_for((1, 3, 64, 64)).at_size((48, 48), found.closer).resize
    assert resize == round(48 * found.closer)
    assert any(f"the shorter side resized to {resize} pixels" in n for n in planned.report.notes)
    told = json.loads(planned.files["report.json"])
    assert told["preprocessing"]["resize"] == resize
    planned.save(tmp_path / "out")
    again = shrinkc.apply(
        *(Stripes().eval(), tmp_path / "out", torch.zeros(1, 3, 64, 64)), runs=0, images=given
    )
    assert json.loads(again.files["report.json"])["preprocessing"]["resize"] == resize
    assert again.report.in_torch is not None
    assert again.report.in_torch.agreement == planned.plan.promise.agreement


def test_what_is_not_cut_is_not_looked_at_closer(tmp_path: Path) -> None:
    given = folder_of(tmp_path / "images", 8.0)
    stretched = ImageFolder(given.path, resize="stretch", mean=(0.5,), std=(0.25,))
    for how in (stretched, torch.rand(COUNT, 3, 64, 64)):
        found = planned_of(how).plan.resolution
        assert found is not None
        assert found.closer == 1


def test_plans_of_before_look_as_closely_as_they_did() -> None:
    assert Resolution(size=(6, 6), size_before=(8, 8)).closer == 1
    for wrong in (0.9, 5.0, float("nan")):
        with pytest.raises(ValueError, match="closer"):
            Resolution(size=(6, 6), size_before=(8, 8), closer=wrong)
