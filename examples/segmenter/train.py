"""Train the U-Net and write examples/segmenter/segmenter.pt (a state dict).

python -m examples.segmenter.train
"""

from pathlib import Path

from torch import Tensor

from examples.fit import fit
from examples.segmenter.data import canvases, masks_of
from examples.segmenter.loss import loss
from examples.segmenter.net import unet

if __name__ == "__main__":
    drawn = canvases(training=True)

    def batch() -> tuple[Tensor, Tensor]:
        images, canvas = drawn.batch(16)
        return images, masks_of(canvas)

    fit(unet, loss, batch, Path(__file__).parent / "segmenter.pt", steps=1500, rate=4e-3)
