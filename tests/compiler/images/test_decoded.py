"""Some of a set of images."""

import pytest
import torch

from shrinkc.compiler.images.decoded import Images


@pytest.mark.parametrize("labels", [None, torch.tensor([5, 6, 7])])
def test_a_part_has_its_rows_in_their_order_and_what_belongs_to_them(
    labels: torch.Tensor | None,
) -> None:
    pixels = torch.arange(3, dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 2, 2, 1)
    part = Images(pixels, labels, (0.5,), (0.2,)).part(torch.tensor([2, 0]))
    assert part.pixels[:, 0, 0, 0].tolist() == [2, 0]
    assert (part.labels is None) == (labels is None)
    if part.labels is not None:
        assert part.labels.tolist() == [7, 5]
    assert (part.mean, part.std) == ((0.5,), (0.2,))
