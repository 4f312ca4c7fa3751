"""Images that say too little."""

from __future__ import annotations

import torch

from shrinkc.compiler.images.sanity import Sanity


def test_answers_that_are_no_numbers_are_counted() -> None:
    sanity = Sanity("images", "give others")
    scores = torch.rand(8, 5)
    sanity.see_answer((scores, torch.arange(8), torch.zeros(8, 0), torch.tensor(1.0)))
    assert sanity.notes() == ()
    scores[2, 1] = scores[2, 3] = scores[5, 0] = float("nan")
    sanity.see_answer((torch.rand(8, 5), scores))
    (note,) = sanity.notes()
    assert note.startswith("the network answers NaN on 2 of 16 images")
