"""Capture: what the canonical graph looks like, and that it computes what the model does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.errors import CaptureError
from shrinkc.passes import ir


def operators(graph: fx.GraphModule) -> list[str]:
    """Operator names in order, inputs and output left out."""
    names: list[str] = []
    for node in graph.graph.nodes:
        module = ir.module_of(graph, node)
        if module is not None:
            names.append(type(module).__name__)
        elif node.op == "call_function":
            names.append(node.target.__name__)
    return names


def captured(model: nn.Module, *shape: int) -> fx.GraphModule:
    torch.manual_seed(0)
    graph = capture(model, (torch.randn(*shape),))
    x = torch.randn(3, *shape[1:])
    with torch.no_grad():
        torch.testing.assert_close(graph(x)[0], model(x), rtol=1e-4, atol=1e-5)
    return graph


class Functional(nn.Module):
    """Weights used through torch.nn.functional, as subclassed layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 3, 3, 3))
        self.b = nn.Parameter(torch.randn(6))
        self.gamma = nn.Parameter(torch.rand(6))
        self.register_buffer("mean", torch.randn(6))
        self.register_buffer("var", torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        standard = (self.w - self.w.mean((1, 2, 3), keepdim=True)) / self.w.std()
        y = F.conv2d(x, standard, self.b, padding="same")
        return F.relu(F.batch_norm(y, self.mean, self.var, self.gamma, None))


def test_functional_layers_become_modules_and_weight_arithmetic_a_constant() -> None:
    assert operators(captured(Functional(), 1, 3, 8, 8)) == ["Conv2d", "BatchNorm2d", "ReLU"]


class ControlFlow(nn.Module):
    """Python decides by shape: symbolic trace cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        return F.hardswish(y) if y.shape[-1] > 4 else y


def test_export_fallback_lifts_layers_to_their_own_paths() -> None:
    graph = captured(ControlFlow().eval(), 1, 3, 8, 8)
    assert graph.meta["captured_by"] == "torch.export"
    assert operators(graph) == ["Conv2d", "BatchNorm2d", "Hardswish"]
    assert isinstance(graph.get_submodule("conv"), nn.Conv2d)
    assert graph.get_submodule("bn").running_mean is not None
    graph.train()  # its batch norm trains, which one exported in eval mode would not
    before = graph.get_submodule("bn").running_mean.clone()
    graph(torch.randn(2, 3, 8, 8))
    assert not torch.equal(before, graph.get_submodule("bn").running_mean)


class Shuffle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.size()
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def test_shape_arithmetic_leaves_reshapes_that_work_at_any_batch_size() -> None:
    graph = captured(Shuffle(), 1, 6, 4, 5)
    assert operators(graph) == ["reshape", "permute", "reshape"]
    assert graph.meta["dynamic_batch"]
    first = next(n for n in graph.graph.nodes if n.target is torch.reshape)
    assert first.args[1] == (-1, 2, 3, 4, 5)


class Token(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.token.expand(x.shape[0], -1, -1), x.flatten(2).mT), 1)


def test_a_class_token_follows_the_batch() -> None:
    assert "batch_expand" in operators(captured(Token(), 1, 4, 3, 3))


class InPlace(nn.Module):
    """The residual reads what the in-place activation wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = F.relu(y, inplace=True)
        return y + z


def test_in_place_operations_change_what_later_readers_see() -> None:
    graph = captured(InPlace(), 1, 4, 3, 3)
    add = next(n for n in graph.graph.nodes if n.name == "add")
    assert add.args[0] is add.args[1]


class Line(nn.Module):
    """The 1-D weights are raised to 2-D on the way, into tensors that nobody else holds."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(1, 1, 3, padding=1, bias=False) for _ in range(12))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        return x


def test_equal_settings_do_not_make_two_layers_one() -> None:
    graph = captured(Line(), 1, 1, 9)
    assert graph.meta["captured_by"] == "symbolic_trace"
    assert len({n.target for n in graph.graph.nodes if n.op == "call_module"}) == 12


def test_dropout_in_place_is_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout2d(inplace=True), nn.ReLU(inplace=True))
    assert operators(captured(model.eval(), 1, 3, 4, 4)) == ["Conv2d", "ReLU"]
    flat = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(inplace=True), nn.ReLU(inplace=True))
    assert operators(captured(flat.eval(), 1, 3, 4, 4)) == ["Conv2d", "Dropout", "ReLU"]


class Many(nn.Module):
    """One of each, through spellings that models use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, 2, padding=1, padding_mode="reflect")
        self.gn = nn.GroupNorm(2, 8)
        self.line = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.shuffle = nn.PixelShuffle(2)
        self.act = nn.PReLU(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gn(self.conv(x))
        gate = self.line(F.adaptive_avg_pool2d(y, 1).squeeze(-1).mT).mT.unsqueeze(-1)
        y = y * torch.sigmoid(gate).expand_as(y)
        a, b = torch.split(y, [2, 6], dim=1)
        y = torch.cat([b[:, ::2], a.clamp(-1, 1), torch.roll(b, 1, 3)[:, 1:4]], 1)
        y = self.act(self.shuffle(y))
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        return F.max_pool2d(y, 3, 2, 1, ceil_mode=True).std((2, 3)) / (1 + y.norm(dim=(2, 3)))


def test_many_spellings() -> None:
    graph = captured(Many(), 2, 4, 9, 9)
    assert graph.meta["captured_by"] == "symbolic_trace"


class Tiles(nn.Module):
    """Windows taken apart and put together, as MobileViT does."""

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, 2, stride=2)
        overlapping = F.unfold(x, 3, padding=1, stride=3)
        return (
            F.fold(columns, x.shape[-2:], 2, stride=2)
            + overlapping.mean((1, 2))[:, None, None, None]
        )


def test_windows_as_columns_and_back() -> None:
    assert operators(captured(Tiles(), 1, 3, 6, 6)).count("Conv2d") == 2


class OverlappingTiles(nn.Module):
    """Outlook attention (VOLO): windows that overlap are summed."""

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, 3, padding=1, stride=2)
        dilated = F.unfold(x, 2, dilation=2)
        return F.fold(columns, (7, 6), 3, padding=1, stride=2) + F.fold(
            dilated, (7, 6), 2, dilation=2
        )


def test_overlapping_windows_are_summed_by_a_transposed_convolution() -> None:
    assert operators(captured(OverlappingTiles(), 2, 3, 7, 6)).count("ConvTranspose2d") == 2


class Upsampling(nn.Module):
    """torch takes a transposed convolution's groups and dilation by place and by name."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.b = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            (
                F.conv_transpose2d(x, self.w, self.b, 2, 2, 1, 2, 2),
                F.conv_transpose2d(x, self.w, self.b, 2, 2, 1, 2, dilation=2),
                F.conv_transpose2d(x, self.w, self.b, 2, 2, 1, groups=2, dilation=2),
            ),
            1,
        )


def test_a_transposed_convolution_by_place_and_by_name() -> None:
    assert operators(captured(Upsampling(), 1, 4, 5, 6)).count("ConvTranspose2d") == 3


class Halo(nn.Module):
    """Windows by `Tensor.unfold` (HaloNet)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unfold(2, 4, 2).unfold(3, 3, 3).mean((2, 3))


def test_windows_by_tensor_unfold() -> None:
    captured(Halo(), 1, 3, 8, 9)


@pytest.mark.parametrize("corners", [False, True])
def test_bicubic_resizing_is_two_matrix_products(corners: bool) -> None:
    class Bicubic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, (5, 12), mode="bicubic", align_corners=corners)

    assert operators(captured(Bicubic(), 1, 3, 7, 8)) == ["matmul", "matmul"]


class WritesIntoParts(nn.Module):
    """In-place work on views: whoever reads the whole afterwards must see it."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0
        x[:, 1:] += x[:, :-1].mean((2, 3), keepdim=True)
        x[:, 0] = x[:, 1] * 2
        first, rest = x[:, :2], x[:, 2:]
        rest.mul_(3)
        x[:, :, ::2, 1:3] = first.mean(1, keepdim=True)[:, :, ::2, 1:3]
        buffer = torch.zeros(x.shape[0], 6, *x.shape[2:])
        buffer[:, 1:5] = x
        buffer[:, 2:4] = 1.5
        return torch.cat([x, rest, buffer], 1)


def test_writes_into_parts_of_a_tensor_are_followed() -> None:
    assert "slice_dim" in operators(captured(WritesIntoParts(), 2, 4, 5, 6))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return self.attention(tokens, tokens, tokens, need_weights=False)[0][:, 0]


def test_attention() -> None:
    names = operators(captured(Attention().eval(), 1, 8, 3, 3))
    assert names.count("matmul") == 2
    assert names.count("Softmax") == 1


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.conv(x)))


def test_a_module_called_twice_stays_one_module() -> None:
    graph = captured(Shared(), 1, 4, 5, 5)
    targets = [n.target for n in graph.graph.nodes if n.op == "call_module"]
    assert targets[0] == targets[2] == "conv"


def test_the_model_is_not_touched_and_shares_nothing() -> None:
    model = Shared().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    graph = capture(model, (torch.randn(1, 4, 5, 5),))
    for parameter in graph.parameters():
        parameter.data.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Unsupported(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x).abs()


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(CaptureError, match="fft"):
        capture(Unsupported(), (torch.randn(1, 3, 4, 4),))


def test_a_wrong_input_shape_says_what_to_do() -> None:
    with pytest.raises(CaptureError, match=r"does not run on inputs of 1×3×5×5.*`inputs`"):
        capture(Shared(), (torch.randn(1, 3, 5, 5),))


class TakenNames(nn.Module):
    """Layers, a parameter and a buffer with names that an fx.GraphModule needs for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.meta = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.graph = nn.Conv2d(4, 4, 1)
        self.code = nn.Parameter(torch.ones(4, 1, 1))
        self.register_buffer("recompile", torch.full((4, 1, 1), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.graph(self.meta(x)) * self.code + self.recompile
        return y if y.shape[-1] > 100 else F.relu(y)


class TracedNames(TakenNames):
    def forward(self, x: Tensor) -> Tensor:
        return self.graph(self.meta(x)) * self.code + self.recompile


@pytest.mark.parametrize(
    ("kind", "method"), [(TracedNames, "symbolic_trace"), (TakenNames, "torch.export")]
)
def test_layers_with_names_that_graphs_have(kind: type[nn.Module], method: str) -> None:
    model = kind()
    before = list(model.state_dict())
    graph = captured(model, 1, 3, 8, 8)
    assert graph.meta["captured_by"] == method
    assert list(model.state_dict()) == before
    assert {n.target for n in graph.graph.nodes if n.op == "call_module"} >= {"meta_.0", "graph_"}
    assert set(dict(graph.named_parameters())) >= {"code_", "graph_.weight"}
