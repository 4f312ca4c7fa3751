"""What is known of a network that its numbers do not say: how images become inputs, and what the
classes are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shrinkc.compiler.images.preprocessing import Preprocessing

LABELS = "labels.txt"  # in a file that packs files, and beside it
COLOURS = {1: "grey", 3: "RGB"}
FITS = {"letterbox": "fitted in with grey around it", "stretch": "stretched to the input's size"}


@dataclass(frozen=True)
class Description:
    """Of the files of one network.

    name           of the network
    task           what it is for, as reports call it
    preprocessing  of the images that the files read, as they read them; None: no images, or not
                   known
    labels         of the classes of the first output, in its order; () where they are not known
    """

    name: str
    task: str
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()

    @property
    def image(self) -> Preprocessing | None:
        """Where the input is an image that has colours."""
        given = self.preprocessing
        return given if given is not None and given.channels in COLOURS else None

    @property
    def colour(self) -> str:
        """Of the image: grey, RGB or BGR."""
        assert self.image is not None
        return "BGR" if self.image.bgr else COLOURS[self.image.channels]

    @property
    def mean(self) -> tuple[float, ...]:
        """What is subtracted from pixels of 0 to 255, one for all channels or one for each."""
        return self._of_pixels(0)

    @property
    def std(self) -> tuple[float, ...]:
        """What they are divided by then."""
        return self._of_pixels(1)

    def _of_pixels(self, which: int) -> tuple[float, ...]:
        assert self.image is not None
        return tuple(255 * one for one in self.image.normalisation[which])

    @property
    def fit(self) -> str:
        """How an image gets the input's size, in words."""
        assert self.image is not None
        cropped = f"its shorter side resized to {self.image.resize}, the centre cropped"
        return FITS.get(self.image.fit, cropped)


def label_file(labels: Sequence[str]) -> bytes:
    """A class a line."""
    return "".join(f"{label}\n" for label in labels).encode("utf-8")
