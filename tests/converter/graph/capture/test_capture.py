import pytest
import torch
from torch import nn

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import capture


def test_modes_are_left_as_they_were(volume):
    model = nn.Sequential(nn.Conv3d(4, 4, 1), nn.BatchNorm3d(4), nn.Dropout(0.5))
    model.train()
    model[1].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    capture(model, (volume,), handled=ops.registry.OPS)
    assert [m.training for m in model] == [True, False, True]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_inputs_the_model_rejects_are_told_with_their_shapes():
    with pytest.raises(CaptureError, match=r"rejects the example input input=float32 \(1, 3, 8\)"):
        capture(nn.Conv3d(4, 4, 1), (torch.ones(1, 3, 8),), handled=ops.registry.OPS)


class DataDependent(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


def test_what_torch_export_cannot_capture_is_told_with_its_reason(volume):
    with pytest.raises(CaptureError, match=r"DataDependent: it decides by the values"):
        capture(DataDependent(), (volume,), handled=ops.registry.OPS)


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        self.last.copy_(x.mean())
        return x * 2


def test_the_buffers_that_a_model_changes_are_its_state(volume):
    model = Remembers()
    assert capture(model, (volume,), handled=ops.registry.OPS).state == ("last",)
    assert model.last == 0


class Grows(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 0))

    def forward(self, x):
        self.cache = torch.cat([self.cache, x.reshape(1, -1)], 1)
        return self.cache.sum()


def test_a_buffer_whose_form_changes_is_told_where_results_depend_on_it(volume):
    with pytest.raises(CaptureError, match=r"another form.*\n  cache: it goes from \(1, 0\) to"):
        capture(Grows(), (volume,), handled=ops.registry.OPS)


class Learns(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x):
        self.scale.mul_(2)
        return x * 2


def test_a_model_that_changes_its_parameters_is_refused(volume):
    with pytest.raises(CaptureError, match=r"changes its own parameters.*\n  scale"):
        capture(Learns(), (volume,), handled=ops.registry.OPS)


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
