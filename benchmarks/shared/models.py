"""The architectures that coverage.py compiles: public model libraries, random weights.

    python -m benchmarks.shared.models            # write architectures.json by the rule below
    python -m benchmarks.shared.models --count    # what is in it

Needs benchmarks/requirements-coverage.txt, and nothing is downloaded. The rule, which does not look
at what shrinkc can do:

* pytorchcv: of every family (a module of its registry) whose input is one image, the model with
  the fewest parameters. Not: speech and video families, and the `_cub` repetitions of ImageNet
  families for another number of classes. Cityscapes networks read 256×512 instead of 1024×2048.
  Networks that decode key points or boxes in Python give the maps that they decode.
* timm: of every module the model with the fewest parameters; of `byobnet`, `efficientnet` and
  `mobilenetv3`, which hold many published architectures each, of every name family (the letters
  that a name starts with). Not: timm's own `test_` models.
* transformers: every model type registered for image classification, semantic segmentation or
  depth estimation that takes one image and whose default configuration builds as it is, with at
  most two equal layers (`num_hidden_layers`), or as many as its neck reads. Not: its wrapper
  around timm.
* all: at most 64 million parameters, so that everything runs on a small machine.

Weights are random, and so is what initialisation leaves constant: zero-initialised biases and
last scales would hide whole branches. Batch norms get the statistics of a random batch, moved by
a random tenth, so that folding them is tested on numbers of a trained network's size. Their scales
are halved and a half is added to their shifts: branches stay small and most units alive. Without it
some deep random networks amplify float32's own rounding to more than 1e-4 of the output, and no
exporter could be told right from wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LIST = Path(__file__).parent / "architectures.json"
MAX_PARAMETERS = 64_000_000
MAX_LAYERS = 2  # of a transformers configuration

# pytorchcv modules whose input is sound, video or a mesh, and repetitions
_NOT_IMAGES = {
    *("jasper", "jasperdr", "quartznet", "voca", "nvpattexp", "visemenet"),
    *("raft", "propainter", "propainter_ip", "propainter_rfc"),
    *("resnet_cub", "seresnet_cub", "mobilenet_cub", "proxylessnas_cub"),
}
_DECODING = ("alphapose", "simplepose", "centernet")
_TOOLBOXES = {"byobnet", "efficientnet", "mobilenetv3"}
_TASKS = ("IMAGE_CLASSIFICATION", "SEMANTIC_SEGMENTATION", "DEPTH_ESTIMATION")


@dataclass(frozen=True)
class Architecture:
    """`name` as its library knows it; `input_shape` (channels, height, width)."""

    library: str
    name: str
    input_shape: tuple[int, int, int]
    parameters: int

    @property
    def key(self) -> str:
        return f"{self.library}/{self.name}"


def architectures() -> list[Architecture]:
    """What architectures.json lists."""
    rows = json.loads(LIST.read_text())
    return [Architecture(**{**row, "input_shape": tuple(row["input_shape"])}) for row in rows]


def build(architecture: Architecture) -> nn.Module:
    """In eval mode, weights random and the same every time."""
    load_torchvision()
    torch.manual_seed(0)
    model = _BUILDERS[architecture.library](architecture.name, architecture.input_shape)
    randomise(model, torch.randn(2, *architecture.input_shape))
    return model.eval()


def randomise(model: nn.Module, inputs: Tensor) -> None:
    """No constant parameters, and batch norm statistics of this network on `inputs`."""
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.min() == parameter.max():
                parameter.add_(0.1 * torch.randn_like(parameter))
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        norms = [norm for norm in norms if norm.running_mean is not None]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            if norm.affine:
                norm.weight.mul_(0.5)
                norm.bias.add_(0.5)
            norm.momentum = 1.0  # the running statistics become those of the batch
            norm.train()
        model(inputs)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            # a channel that was silent or constant in this batch would amplify the next one
            floor = 0.05 * (norm.running_var + norm.running_mean**2).mean() + 1e-6
            deviation = torch.maximum(norm.running_var, floor).sqrt()
            norm.running_mean.add_(0.1 * deviation * torch.randn_like(deviation))
            norm.running_var.copy_(
                deviation**2 * (1 + 0.1 * torch.randn_like(deviation)).clamp(min=0.5)
            )
    model.eval()


# --- building by name ----------------------------------------------------------------------------


def load_torchvision() -> None:
    """timm and pytorchcv import torchvision, whose PyPI wheel does not load beside a CPU torch:
    its operators are missing. No network here uses them; declared, they let the import pass."""
    global _TORCHVISION_OPERATORS
    if _TORCHVISION_OPERATORS is not None:
        return
    operators = ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
    operators += ("deform_conv2d", "qroi_align")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in operators:
        for operator in (name, f"_{name}_backward"):
            if not hasattr(torch.ops.torchvision, operator):
                library.define(f"{operator}(Tensor x) -> Tensor")
    _TORCHVISION_OPERATORS = library  # dropped, it would take the operators with it


_TORCHVISION_OPERATORS: torch.library.Library | None = None


def _pytorchcv(name: str, input_shape: tuple[int, int, int]) -> nn.Module:
    from pytorchcv.model_provider import get_model

    options: dict[str, Any] = {}
    if name.endswith("cityscapes"):
        options["in_size"] = input_shape[1:]
    if name.startswith(_DECODING):
        options["return_heatmap"] = True
    return get_model(name, pretrained=False, **options)


def _timm(name: str, input_shape: tuple[int, int, int]) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


def _transformers(name: str, input_shape: tuple[int, int, int]) -> nn.Module:
    import transformers

    model_type, class_name = name.split(":")
    config = transformers.CONFIG_MAPPING[model_type]()
    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and not hasattr(config, "depths"):  # a number of stages otherwise
        taken = getattr(config, "backbone_out_indices", None)  # a neck reads that many of them
        config.num_hidden_layers = min(layers, len(taken or range(MAX_LAYERS)))
        if taken:
            config.backbone_out_indices = list(range(len(taken)))
    return getattr(transformers, class_name)(config)


_BUILDERS: dict[str, Callable[[str, tuple[int, int, int]], nn.Module]] = {
    "pytorchcv": _pytorchcv,
    "timm": _timm,
    "transformers": _transformers,
}

# --- the rule ------------------------------------------------------------------------------------


def choose() -> list[Architecture]:
    """Apply the rule to the installed libraries; minutes, because it builds every candidate
    (without storage)."""
    chosen = [*_choose_pytorchcv(), *_choose_timm(), *_choose_transformers()]
    return [one for one in chosen if one.parameters <= MAX_PARAMETERS]


def _smallest(library: str, names: Iterable[str]) -> tuple[str, nn.Module, int] | None:
    """The name, the model without storage, its number of parameters."""
    best: tuple[str, nn.Module, int] | None = None
    for name in names:
        try:
            with torch.device("meta"):
                model = _BUILDERS[library](name, (3, 256, 512))
        except Exception as error:
            print(f"{library}/{name} does not build: {type(error).__name__}: {error}"[:150])
            continue
        count = sum(parameter.numel() for parameter in model.parameters())
        if best is None or count < best[2]:
            best = (name, model, count)
    return best


def _choose_pytorchcv() -> Iterator[Architecture]:
    from pytorchcv import model_provider

    families: defaultdict[str, list[str]] = defaultdict(list)
    for name, factory in model_provider._models.items():
        families[factory.__module__.rpartition(".")[2]].append(name)
    for family, names in families.items():
        if family in _NOT_IMAGES or not (best := _smallest("pytorchcv", names)):
            continue
        name, model, count = best
        height, width = getattr(model, "in_size", (224, 224))
        if name.endswith("cityscapes"):
            height, width = 256, 512
        yield Architecture("pytorchcv", name, (_channels(model), height, width), count)


def _channels(model: nn.Module) -> int:
    """What the first convolution reads."""
    return next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))


def _choose_timm() -> Iterator[Architecture]:
    import timm
    from timm.models import _registry

    families: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for module, names in _registry._module_to_models.items():
        for name in sorted(names):
            if timm.is_model(name) and not name.startswith("test_"):
                letters = re.match(r"[a-z]+", name)
                prefix = letters.group() if letters and module in _TOOLBOXES else ""
                families[module, prefix].append(name)
    for _, names in sorted(families.items()):
        if best := _smallest("timm", names):
            name, model, count = best
            yield Architecture("timm", name, tuple(model.default_cfg["input_size"]), count)


def _choose_transformers() -> Iterator[Architecture]:
    import transformers
    from transformers.models.auto import modeling_auto

    for task in _TASKS:
        for model_type, classes in getattr(
            modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES"
        ).items():
            if model_type == "timm_wrapper":
                continue
            class_name = classes if isinstance(classes, str) else classes[0]
            best = _smallest("transformers", [f"{model_type}:{class_name}"])
            if best is None or getattr(transformers, class_name).main_input_name != "pixel_values":
                continue
            name, model, count = best
            yield Architecture("transformers", name, _input_shape(model.config), count)


def _input_shape(config: Any) -> tuple[int, int, int]:
    vision = getattr(config, "vision_config", config)
    backbone = getattr(config, "backbone_config", None)
    size = getattr(vision, "image_size", None) or getattr(backbone, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    return (getattr(vision, "num_channels", 3) or 3, height, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", action="store_true", help="only count what is listed")
    arguments = parser.parse_args()
    if not arguments.count:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        load_torchvision()
        rows = [json.dumps(asdict(one)) for one in choose()]
        LIST.write_text("[\n" + ",\n".join(rows) + "\n]\n")
    counts: defaultdict[str, int] = defaultdict(int)
    for architecture in architectures():
        counts[architecture.library] += 1
    print(", ".join(f"{library} {count}" for library, count in counts.items()))


if __name__ == "__main__":
    main()
