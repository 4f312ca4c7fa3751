"""Synthesised words for the keyword spotter: one second at 4 kHz, in noise.

    python -m examples.spotter.data FOLDER

writes FOLDER/train.npz and FOLDER/test.npz (400 waves each, of other seeds): `wave` (n, 4000) and
`target`, the words' numbers.

A word is a sequence of vowels, each of which is two formants that a voice's harmonics are loud at
(Peterson & Barney, 1952). Voices differ in pitch, in the length of their throats and in pace.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from examples.spotter.net import RATE, SAMPLES

FORMANTS = {"i": (270, 1700), "a": (730, 1090), "u": (300, 870), "e": (530, 1500)}  # hertz
WORDS = ("ia", "ai", "ua", "au", "eu", "ue", "iei", "aua")


def word(name: str, random: np.random.Generator) -> np.ndarray:
    """(4000,), within −1 to 1."""
    length = int(random.uniform(0.45, 0.8) * SAMPLES)
    start = int(random.integers(0, SAMPLES - length))
    at = np.linspace(0, 1, length)
    pitch = random.uniform(90, 220) * (1 + random.uniform(-0.2, 0.2) * at)
    turns = 2 * np.pi * np.cumsum(pitch) / RATE
    throat = random.uniform(0.9, 1.1)
    places = np.linspace(0, 1, len(name))
    voice = np.zeros(length)
    for formant in (0, 1):
        middles = np.interp(at, places, [FORMANTS[vowel][formant] * throat for vowel in name])
        for harmonic in range(1, 22):
            hertz = harmonic * pitch
            loud = np.exp(-(((hertz - middles) / 120) ** 2)) * (hertz < RATE / 2)
            voice += loud * np.sin(harmonic * turns)
    voice *= np.minimum(1, 12 * np.minimum(at, 1 - at))  # fades in and out
    wave = random.normal(0, random.uniform(0.02, 0.1), SAMPLES)
    wave[start : start + length] += voice / np.abs(voice).max() * random.uniform(0.2, 0.6)
    return wave.clip(-1, 1).astype(np.float32)


def draw(count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Waves (count, 4000) and the words' numbers (count,)."""
    labels = random.integers(0, len(WORDS), count)
    waves = np.stack([word(WORDS[label], random) for label in labels])
    return torch.from_numpy(waves), torch.from_numpy(labels)


def write(folder: Path, count: int = 400) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in ((1, "train"), (2, "test")):
        waves, labels = draw(count, np.random.default_rng(seed))
        np.savez(folder / f"{name}.npz", wave=waves.numpy(), target=labels.numpy())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
