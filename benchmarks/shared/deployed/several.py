"""Several inputs, several outputs, several tasks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.shared.deployed import Builder
from benchmarks.shared.deployed.blocks import Backbone
from benchmarks.shared.deployed.register import listed, mask

NETWORKS: dict[str, Builder] = {}


@listed(NETWORKS, (1, 3, 32, 32), (1, 3, 32, 32))
class TwoTower(nn.Module):
    """Siamese encoder, cosine similarity and distance."""

    def __init__(self):
        super().__init__()
        self.t = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 8),
        )
        self.l = nn.Parameter(torch.tensor(2.0))

    def forward(self, a, b):
        a, b = (F.normalize(self.t(a)), F.normalize(self.t(b)))
        return (F.cosine_similarity(a, b) * self.l.exp(), F.pairwise_distance(a, b))


@listed(NETWORKS, (1, 3, 32, 32))
class MultiTask(nn.Module):
    """A dictionary of age, gender, emotion and score."""

    def __init__(self):
        super().__init__()
        self.b = Backbone(8)
        self.a = nn.Linear(32, 1)
        self.g = nn.Linear(32, 2)
        self.e = nn.Linear(32, 7)

    def forward(self, x):
        f = self.b(x)[2].mean((2, 3))
        return {
            "age": (F.softmax(self.e(f), 1) * torch.arange(7.0)).sum(1),
            "gender": self.g(f).argmax(1),
            "emotion": F.log_softmax(self.e(f), -1),
            "score": self.a(f).squeeze(-1),
        }


@listed(NETWORKS, (1, 5, 8), mask(1, 5))
class Masked(nn.Module):
    """Attention with a mask that is an input."""

    def __init__(self):
        super().__init__()
        self.m = nn.MultiheadAttention(8, 2, batch_first=True)
        self.f = nn.Linear(8, 2)

    def forward(self, x, mask):
        y, _ = self.m(x, x, x, key_padding_mask=mask, need_weights=False)
        return self.f(y)
