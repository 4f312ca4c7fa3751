"""MobileNetV2-1.0-224 with ImageNet weights: the network most of the benchmarks compile.

    python -m benchmarks.shared.mobilenet_v2 --data DIR -o out/mobilenet_v2

checks top-1 on the validation images in plain PyTorch and writes what the command line needs:

    shrinkc out/mobilenet_v2/mobilenet_v2.pt --arch benchmarks.shared.mobilenet_v2:mobilenet_v2 \\
        --target rpi4 --images DIR/images/imagenet_sample/validation \\
        --classes out/mobilenet_v2/classes.json --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5

The weights are TensorFlow's: batch norms folded, "SAME" padding (a stride of 2 pads only right and
bottom), input RGB in [−1, 1], 1,001 classes of which 0 is background. DIR (or SHRINKC_DATA) holds
weights/mobilenet_v2_imagenet and images/imagenet_sample/{calibration,validation}/<class>_<wnid>/.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.shared.common import add_data_argument, print_table

# Expansion, channels, blocks, stride of the first (Sandler et al., 2018, table 2).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
CLASSES = 1001
SIZE = 224  # of the images that the weights were trained on
WEIGHTS = Path("weights/mobilenet_v2_imagenet/mobilenet_v2_1.0_224_float32.npz")
IMAGES = Path("images/imagenet_sample")


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, relu: bool, batch_norm: bool
) -> nn.Sequential:
    """A convolution with TensorFlow's padding for even sizes, and what follows it."""
    layers: list[nn.Module] = []
    if stride == 2:
        layers.append(nn.ZeroPad2d((0, 1, 0, 1)))
    padding = kernel // 2 if stride == 1 else 0
    layers.append(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=not batch_norm)
    )
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    if relu:
        layers.append(nn.ReLU6())
    return nn.Sequential(*layers)


class Block(nn.Module):
    """An inverted residual."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, expansion: int, batch_norm: bool
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = (
            _conv(inputs, hidden, 1, 1, 1, True, batch_norm) if expansion > 1 else nn.Identity()
        )
        self.dw = _conv(hidden, hidden, 3, stride, hidden, True, batch_norm)
        self.proj = _conv(hidden, outputs, 1, 1, 1, False, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.proj(self.dw(self.expand(x)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """(N, 3, 224, 224) in [−1, 1] → (N, 1001) logits."""

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__()
        self.stem = _conv(3, 32, 3, 2, 1, True, batch_norm)
        blocks: list[nn.Module] = []
        channels = 32
        for expansion, outputs, count, stride in STAGES:
            for index in range(count):
                first_stride = stride if index == 0 else 1
                blocks.append(Block(channels, outputs, first_stride, expansion, batch_norm))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _conv(channels, 1280, 1, 1, 1, True, batch_norm)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1280, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.head(self.blocks(self.stem(x)))).flatten(1))


def mobilenet_v2() -> MobileNetV2:
    """As the weights are: batch norms folded. A factory for `--arch`."""
    return MobileNetV2()


def mobilenet_v2_bn() -> MobileNetV2:
    """With its batch norms, at random weights: as a network comes from training."""
    return MobileNetV2(batch_norm=True)


def pretrained(data: Path) -> MobileNetV2:
    """The ImageNet weights of `data`."""
    model = mobilenet_v2()
    arrays = np.load(data / WEIGHTS)
    state = model.state_dict()
    with torch.no_grad():
        for name in arrays.files:
            module, _, kind = name.rpartition(".")
            target = name if module == "fc" else _conv_name(state, module, kind)
            state[target].copy_(torch.from_numpy(arrays[name]).reshape(state[target].shape))
            state.pop(target)
    if state:
        raise ValueError(f"no weights for {', '.join(state)}")
    return model.eval()


def _conv_name(state: dict[str, Tensor], module: str, kind: str) -> str:
    """`stem.weight` → `stem.0.weight`, or `.1.` where padding comes first."""
    return next(name for i in (0, 1) if (name := f"{module}.{i}.{kind}") in state)


def images(folder: Path, size: int = SIZE) -> tuple[Tensor, list[int]]:
    """Centre crops in [−1, 1] (N, 3, size, size) and their classes (0 is background)."""
    from PIL import Image

    crops: list[np.ndarray] = []
    labels: list[int] = []
    for path in sorted(folder.glob("*/*")):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
        top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
        crops.append(pixels[top : top + size, left : left + size].transpose(2, 0, 1))
        labels.append(class_of(path.parent.name))
    return torch.from_numpy(np.stack(crops) / 127.5 - 1), labels


def views(folder: Path, size: int, closer: float = 1.0) -> Tensor:
    """The same images for networks of another input size, as `shrinkc` reads them: as much is seen
    of each, or so many times closer."""
    from shrinkc.compiler.images.preprocessing import preprocessing_for, read_image

    own = preprocessing_for((1, 3, SIZE, SIZE), mean=(0.5,), std=(0.5,))
    as_read = own.at_size((size, size), closer)
    paths = sorted(folder.glob("*/*"))
    return torch.stack([read_image(path.read_bytes(), path.name, as_read) for path in paths])


def class_of(folder: str) -> int:
    """`0207_n02099601` → 208: the network's class 0 is background."""
    return int(folder.partition("_")[0]) + 1


def write_classes(folder: Path, path: Path) -> None:
    """Folder name → class, for `shrinkc --classes`."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    path.write_text(json.dumps({name: class_of(name) for name in names}, indent=1))


def write_model(data: Path, out: Path) -> Path:
    """The state dict, for `shrinkc --arch benchmarks.shared.mobilenet_v2:mobilenet_v2`."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "mobilenet_v2.pt"
    torch.save(pretrained(data).state_dict(), path)
    return path


def top_1(model: nn.Module, images: Tensor, labels: list[int]) -> float:
    """Share of images whose largest logit is the label's."""
    with torch.no_grad():
        predicted = torch.cat([model(batch).argmax(1) for batch in images.split(20)])
    return (predicted == torch.tensor(labels)).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument("-o", "--out", type=Path, default=Path("out/mobilenet_v2"))
    arguments = parser.parse_args()
    validation = arguments.data / IMAGES / "validation"
    path = write_model(arguments.data, arguments.out)
    write_classes(validation, arguments.out / "classes.json")
    inputs, labels = images(validation)
    accuracy = top_1(pretrained(arguments.data), inputs, labels)
    print_table(
        ("model", "images", "top-1"), [(str(path), str(len(labels)), f"{100 * accuracy:.2f} %")]
    )


if __name__ == "__main__":
    main()
