"""Train the detector and write examples/detector/detector.pt (a state dict).

python -m examples.detector.train
"""

from pathlib import Path

from torch import Tensor

from examples.detector.data import boxes_of, canvases
from examples.detector.loss import Boxes, loss
from examples.detector.net import detector
from examples.fit import fit

if __name__ == "__main__":
    drawn = canvases(training=True)

    def batch() -> tuple[Tensor, Boxes]:
        images, canvas = drawn.batch(16)
        return images, boxes_of(canvas)

    fit(detector, loss, batch, Path(__file__).parent / "detector.pt", steps=1200, rate=6e-3)
