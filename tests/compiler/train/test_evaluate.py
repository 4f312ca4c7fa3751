"""Top-1, loss and agreement, counted by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_examples import images, net

from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.train.compute import Ranks
from shrinkc.compiler.train.evaluate import evaluate


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_counts(batch: int) -> None:
    model, teacher, judged = net(1).train(), net(2).train(), images(50)
    found = evaluate(model, judged, teacher=teacher, batch=batch)
    assert model.training
    assert teacher.norm.num_batches_tracked == 0
    assert judged.labels is not None
    with torch.no_grad():
        inputs = judged.inputs(judged.pixels)
        outputs, taught = model.eval()(inputs), teacher.eval()(inputs)
    assert found.images == 50
    assert found.top1 == (outputs.argmax(1) == judged.labels).double().mean()
    assert found.loss == pytest.approx(float(F.cross_entropy(outputs, judged.labels)))
    assert found.agreement == (outputs.argmax(1) == taught.argmax(1)).double().mean()


def test_without_labels_or_teacher() -> None:
    found = evaluate(net(), images(8, labelled=False))
    assert found.to_json() == {"images": 8, "top1": None, "loss": None, "agreement": None}


def test_ranks_add_up() -> None:
    model, judged = net(), images(51)
    parts: list[Tensor] = []

    def noted(tensor: Tensor) -> Tensor:
        parts.append(tensor)
        return tensor

    for rank in range(3):
        evaluate(model, judged, teacher=net(2), ranks=Ranks(rank, 3, noted))
    whole = evaluate(model, judged, teacher=net(2))
    correct, loss, agreeing = (torch.stack(parts).sum(0) / 51).tolist()
    assert correct == whole.top1
    assert loss == pytest.approx(whole.loss)
    assert agreeing == whole.agreement


def test_modes_of_single_modules_and_types_are_respected() -> None:
    model = net().double().train()
    model.norm.eval()
    found = evaluate(model, images(8))
    assert found.top1 is not None
    assert model.training
    assert not model.norm.training


def test_a_network_without_parameters() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    judged = Images(torch.zeros(3, 4, 4, 1), torch.tensor([0, 0, 1]))
    assert evaluate(model, judged).top1 == 2 / 3


def test_a_loss_that_json_lacks() -> None:
    model = net()
    with torch.no_grad():
        model.head.bias[0] = torch.inf
    found = evaluate(model, images(8))
    assert found.loss is not None
    assert not found.loss < torch.inf
    assert found.to_json()["loss"] is None
