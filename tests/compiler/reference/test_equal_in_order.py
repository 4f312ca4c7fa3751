"""Equal scores: which comes first is nobody's mistake."""

import torch
from torch import Tensor, nn

from shrinkc.compiler.reference.equal_in_order import EqualInOrder
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.support.difference import OutputError


def test_equal_numbers_come_in_their_order() -> None:
    x = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0, 2.0]]).repeat(2, 40)
    with EqualInOrder():
        values, indices = x.topk(50)
        smallest = x.topk(3, largest=False).indices
        order = x.sort(descending=True)
    assert values.tolist() == x.topk(50).values.tolist()
    assert indices[0, :4].tolist() == [1, 2, 4, 7]
    assert values.is_contiguous()
    assert indices.is_contiguous()  # as PyTorch's are: networks call `view`
    assert smallest[0].tolist() == [3, 9, 15]
    assert bool((order.indices[0, :119].diff() > 0).all())
    assert order.values.tolist() == x.sort(descending=True).values.tolist()


def test_another_order_of_equal_scores_is_forgiven_and_another_score_is_not() -> None:
    class Decoder(nn.Module):
        """The places of the best scores, which saturate."""

        def forward(self, x: Tensor) -> Tensor:
            scores = (x * 50).sigmoid()
            _, places = scores.topk(5, dim=1)
            return torch.gather(torch.arange(200.0).expand(len(x), -1), 1, places)

    x = torch.randn(4, 200, generator=torch.Generator().manual_seed(0)) + 4

    def answer(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (Decoder()(*inputs),)

    want = Decoder()(x).numpy()
    with EqualInOrder():
        file = Decoder()(x).numpy()
    assert (file != want).any()
    for wrong, allowed in ((file, True), (want + 1000, False)):
        error = OutputError()
        error.add(wrong, want)
        for rounding in Original(answer).rounding([(x,)]):
            error.forgive(rounding[0])
        assert (error.relative() == 0) is allowed
