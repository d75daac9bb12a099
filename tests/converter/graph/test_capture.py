import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph import ops
from mlxport.converter.graph.capture import capture, plain_path


class Harmless(nn.Conv3d):
    def __init__(self, channels):
        super().__init__(channels, channels, 3, padding=1)

    def extra_repr(self):
        return "harmless"


class OwnForward(nn.Conv3d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1, 1, 1)))


class OwnConvForward(nn.Conv3d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight * 2, bias)


class OtherStride(nn.Conv3d):
    def forward(self, x):
        return F.conv3d(x, self.weight, self.bias, stride=2)


def doubled():
    layer = nn.Conv3d(4, 4, 3)
    layer.register_forward_hook(lambda module, args, output: output * 2)
    return layer


def normed():
    return nn.utils.parametrizations.weight_norm(nn.Conv3d(4, 4, 3))


def normed_by_hook():
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Conv3d(4, 4, 3))


@pytest.mark.parametrize(
    ("make", "is_leaf"),
    [
        (lambda: nn.Conv3d(4, 4, 3), True),
        (lambda: nn.ConvTranspose3d(4, 4, 3, 2, 1, 1), True),
        (lambda: nn.BatchNorm3d(4), True),
        (lambda: nn.ReLU(inplace=True), True),
        (lambda: Harmless(4), True),
        (lambda: OwnForward(4, 4, 3), False),
        (lambda: OwnConvForward(4, 4, 3), False),
        (lambda: OtherStride(4, 4, 3), False),
        (doubled, False),
        (normed, False),
        (normed_by_hook, False),
    ],
    ids=[
        "conv", "transposed conv", "batch norm", "in-place relu", "harmless subclass",
        "own forward", "own _conv_forward", "other stride", "hook", "weight norm",
        "weight norm by hook",
    ],
)  # fmt: skip
def test_a_leaf_is_what_does_only_what_its_class_stands_for(make, is_leaf, volume):
    captured = capture(nn.Sequential(make()).eval(), (volume,), handled=ops.registry.OPS)
    assert ("0" in captured.leaves) is is_leaf


def test_modes_are_left_as_they_were(volume):
    model = nn.Sequential(nn.Conv3d(4, 4, 1), nn.BatchNorm3d(4), nn.Dropout(0.5))
    model.train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    capture(model, (volume,), handled=ops.registry.OPS)
    assert [m.training for m in model] == [True, False, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_inputs_the_model_rejects_are_told_with_their_shapes():
    with pytest.raises(CaptureError, match=r"itself rejects the example input \(1, 3, 8\)"):
        capture(nn.Conv3d(4, 4, 1), (torch.ones(1, 3, 8),), handled=ops.registry.OPS)


class DataDependent(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


def test_what_torch_export_cannot_capture_is_told_with_its_reason(volume):
    with pytest.raises(CaptureError, match=r"DataDependent.*data-dependent"):
        capture(DataDependent(), (volume,), handled=ops.registry.OPS)


def test_call_numbers_are_stripped():
    assert plain_path("encoder@1.conv@12.weight") == "encoder.conv.weight"


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        self.last.copy_(x.mean())
        return x * 2


def test_a_model_that_changes_its_buffers_is_refused(volume):
    with pytest.raises(CaptureError, match=r"changes its own buffers.*\n  last"):
        capture(Remembers(), (volume,), handled=ops.registry.OPS)


def test_a_model_may_write_into_its_input(volume):
    before = volume.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv3d(4, 4, 1))
    captured = capture(model, (volume,), handled=ops.registry.OPS)
    assert sorted(captured.leaves) == ["0", "1"]
    assert torch.equal(volume, before)


def test_an_encoder_with_padding_is_captured():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1)
    padding = torch.tensor([[False, False, True], [False, True, True]])
    kwargs = {"src_key_padding_mask": padding}
    capture(encoder, (torch.randn(2, 3, 8),), kwargs, handled=ops.registry.OPS)
