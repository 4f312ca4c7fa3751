"""Train the keyword spotter and write examples/spotter/spotter.pt (a state dict).

python -m examples.spotter.train
"""

from pathlib import Path

import numpy as np

from examples.fit import fit
from examples.spotter.data import draw
from examples.spotter.loss import loss
from examples.spotter.net import spotter

if __name__ == "__main__":
    random = np.random.default_rng(0)
    out = Path(__file__).parent / "spotter.pt"
    fit(spotter, loss, lambda: draw(32, random), out, steps=600, rate=8e-3)
