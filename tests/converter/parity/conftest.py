"""A torch network, its hand-written MLX twin and the record that pairs them."""

import importlib.util
from pathlib import Path

import mlx.core as mx
import pytest
import torch
from torch import nn

from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.run.verify import verify_live
from mlxport.converter.plan.tensor import to_mlx
from mlxport.converter.plan.torch_tensor import tensor_from_torch

TWIN = Path(__file__).with_name("mlx_twin.py")


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)  # overwrites what norm returned

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


class Split(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, x):
        y = self.head(x)
        return y, {"mean": y.mean((2, 3))}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.acts = nn.ModuleDict({"N": nn.ReLU(inplace=True)})
        self.blocks = nn.ModuleList([Block(4), Block(4)])
        self.shared = nn.Conv2d(4, 4, 1)  # called twice
        self.split = Split(4, 3)

    def forward(self, x):
        y = self.acts["N"](self.stem(x))
        for block in self.blocks:
            y = self.shared(block(y))
        logits, rest = self.split(y)
        return logits, [rest["mean"], logits.argmax(1)]


@pytest.fixture(scope="session")
def twin():
    """The module of the MLX twin."""
    spec = importlib.util.spec_from_file_location("mlx_twin", TWIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_net():
    """Make a torch network with statistics and affine parameters that matter."""

    def make(seed=0, dtype=torch.float32):
        torch.manual_seed(seed)
        net = Net()
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                for tensor in (part.running_mean, part.weight.data, part.bias.data):
                    tensor.normal_()
                part.running_var.uniform_(0.5, 2)
        return net.to(dtype)

    return make


@pytest.fixture
def make_twin(twin):
    """Make the MLX twin of a torch network, in eval mode."""

    def make(net, cls=None):
        model = (cls or twin.Twin)()
        weights = []
        for name, value in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            value = value.permute(0, 2, 3, 1) if value.ndim == 4 else value
            weights.append((name, to_mlx(tensor_from_torch(value))))
        model.load_weights(weights)
        return model.eval()

    return make


@pytest.fixture
def check(twin, make_net, make_twin):
    """`check(spoil)`: verify the pair live after `spoil(model)` has changed the MLX side."""

    def run(spoil=lambda model: None, *, seed=0, cls=None, dtype=torch.float32, **options):
        net = make_net(seed, dtype)
        model = make_twin(net, cls)
        spoil(model)
        conversion = twin.conversion(dtype=str(dtype).removeprefix("torch."))
        paths = [record.path for record in conversion.modules]
        x = torch.randn(2, 2, 6, 5, dtype=dtype)
        reference = record_reference(net, (x,), paths=paths, keep_inputs=True)
        mx.eval(model.parameters())
        return verify_live(model, conversion, reference, **options)

    return run
