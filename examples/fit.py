"""The training of all examples but the digits: AdamW and a one-cycle rate, on batches as drawn."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def fit(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Any], Tensor],
    draw: Callable[[], Any],
    out: Path,
    steps: int,
    rate: float,
) -> None:
    """Build, train for so many batches of `draw`, and write a state dict.

    Seeds are fixed; other processors and torch versions round differently.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    start = time.perf_counter()
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for step in range(1, steps + 1):
        value = loss(model, draw())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            seconds = time.perf_counter() - start
            print(f"step {step:4}  loss {value.item():.4f}  {seconds:.0f} s", flush=True)
    torch.save(model.state_dict(), out)
    print(f"{out.stat().st_size / 1000:.0f} kB")
