"""Train the example network on scikit-learn's digits and write examples/digits.pt (a state dict).

    python examples/train_digits.py

About a minute on one core. Seeds are fixed; other processors and torch versions round differently,
so the weights can differ from the committed ones.
"""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from digits_data import split, to_tensor
from digits_net import digits_net
from torch import Tensor, nn

EPOCHS, BATCH, PEAK_RATE = 30, 64, 4e-3
OUT = Path(__file__).parent / "digits.pt"


def shifted(images: Tensor, pixels: int = 3) -> Tensor:
    """Every image moved by up to `pixels` in each direction; what comes in is background."""
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, value=-1.0)
    tops, lefts = torch.randint(0, 2 * pixels + 1, (2, count)).tolist()
    return torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, top, left in zip(padded, tops, lefts, strict=True)
        ]
    )


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is the label's."""
    model.eval()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """AdamW with a one-cycle rate and label smoothing."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, EPOCHS * steps)
    for epoch in range(EPOCHS):
        model.train()
        total = 0.0
        for batch in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            logits = model(shifted(images[batch]))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:2}  loss {total / steps:.4f}")


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    start = time.perf_counter()
    train_images, train_labels, test_images, test_labels = split()
    model = digits_net()
    train(model, to_tensor(train_images), torch.tensor(train_labels))
    test_accuracy = accuracy(model, to_tensor(test_images), torch.tensor(test_labels))
    torch.save(model.state_dict(), OUT)
    print(
        f"test accuracy {test_accuracy:.2%} on {len(test_labels)} images, "
        f"{OUT.stat().st_size / 1000:.0f} kB, {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
