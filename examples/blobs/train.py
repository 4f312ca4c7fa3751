"""Train the regression and write examples/blobs/blobs.pt (a state dict).

python -m examples.blobs.train
"""

from pathlib import Path

import numpy as np

from examples.blobs.data import draw, to_tensors
from examples.blobs.loss import loss
from examples.blobs.net import blobs_net
from examples.fit import fit

if __name__ == "__main__":
    random = np.random.default_rng(0)
    out = Path(__file__).parent / "blobs.pt"
    fit(blobs_net, loss, lambda: to_tensors(*draw(32, random)), out, steps=1500, rate=5e-3)
