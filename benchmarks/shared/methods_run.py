"""What all rows of benchmarks.methods_cifar share: lengths, networks, images, the originals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import fx, nn

from benchmarks.shared import cifar, results, tuning_cifar
from benchmarks.shared.common import ROOT, replace_json
from benchmarks.shared.inverted_cifar import ir_net
from benchmarks.shared.methods_rows import Length
from benchmarks.shared.resnet_cifar import pretrained
from benchmarks.shared.tuning_cifar import deployed, judged
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.measure.speedup import host_file, speedup_of
from shrinkc.compiler.model_file.file import load_model_file, save_model
from shrinkc.compiler.support.progress import Terminal
from shrinkc.compiler.train.settings.config import Keeping, Training
from shrinkc.compiler.train.settings.optimisers import Sgd
from shrinkc.compiler.train.settings.schedules import OneCycle
from shrinkc.compiler.train.train import train

OUT = ROOT / "out" / "methods_cifar"
LOOKED = 1000  # images, of those that no training sees but that of the base
LENGTHS = {
    "trial": Length(("resnet20",), 2000, 2, 1, 64, 2, 8, 1, base=0.02),
    "short": Length(("resnet20", "inverted"), 5000, 3, 1, 32, 15, 60, 1),
    "published": Length(("resnet56", "resnet20", "inverted"), 47_000, 200, 100, 128, 367, None, 25),
}


@dataclass(frozen=True)
class Network:
    """`epochs`: that make it the original; `cost`: of a training, beside that of the cheapest."""

    build: Callable[[Path], nn.Module]
    training: Callable[[int], Training]
    epochs: int
    cost: int


def tuned(epochs: int) -> Training:
    """Weights that saw the original images are used to the lossy ones."""
    return Training(epochs, 128, optimiser=Sgd(0.02), schedule=OneCycle())


def new(epochs: int) -> Training:
    return cifar.recipe(epochs, 0)


def untrained(_: Path) -> nn.Module:
    torch.manual_seed(0)
    return ir_net()


NETWORKS = {
    "inverted": Network(untrained, new, cifar.EPOCHS, 1),
    "resnet20": Network(lambda data: pretrained(data, 20), tuned, 10, 5),
    "resnet56": Network(lambda data: pretrained(data, 56), tuned, 10, 15),
}


@dataclass(frozen=True)
class Run:
    """What a command was told."""

    data: Path
    venvs: Path | None
    length: str
    again: bool

    def folder(self, network: str) -> Path:
        return OUT / self.length / network

    def base(self, network: str) -> tuple[fx.GraphModule, results.Row]:
        """The original and what it was measured at; trained the first time."""
        folder, how = self.folder(network), NETWORKS[network]
        facts = folder / "base.json"
        if not facts.exists():
            print(f"{network}: the original", flush=True)
            model, (learn, _, test) = how.build(self.data), tuning_cifar.split(self.data)
            share = LENGTHS[self.length].base * how.epochs  # of an epoch
            recipe, keeping = how.training(max(1, round(share))), Keeping(folder / "base")
            some = learn.part(torch.arange(round(len(learn) * min(1.0, share))))
            train(model, cifar.augmented(some), recipe, keeping=keeping, progress=Terminal())
            graph = cifar.captured(model.cpu())
            save_model(graph, folder / "base.safetensors", {})
            torch.save(model.state_dict(), folder / "base.pt")
            fp32 = host_file(deployed(graph), "fp32", ())
            int8 = cifar.int8_file(deployed(graph), learn)
            found = {"top1": judged(self.data, graph), "int8_speedup": speedup_of(fp32, int8)}
            found |= {"top1_int8": cifar.top1_of_file(int8, test), "epochs": recipe.epochs}
            replace_json(facts, {"network": network, "method": "original", **found})
        graph, _ = load_model_file(folder / "base.safetensors")
        return graph, json.loads(facts.read_text())


@cache
def parts(data: Path, images: int, seed: int) -> tuple[Images, Images, Images]:
    """To look at, to train on, to choose a rate with: as the network reads them, so that all are
    cropped and padded alike."""
    learn, choose, _ = tuning_cifar.split(data)
    order = torch.randperm(len(learn), generator=torch.Generator().manual_seed(seed))
    looked, learnt = order[:LOOKED], order[LOOKED:][:images]
    return as_read(learn.part(looked)), as_read(learn.part(learnt)), choose


def as_read(images: Images) -> Images:
    pixels = images.inputs(images.pixels).permute(0, 2, 3, 1).contiguous()
    return Images(pixels, images.labels)
