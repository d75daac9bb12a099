"""What a prompt or a log shows of a result: a few lines that say what became of the model."""

import mlx.nn as mlx_nn
import pytest
import torch
from torch import nn

import mlxport

LINES, WIDTH = 4, 300


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


class Port(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = mlx_nn.Conv2d(3, 4, 3)
        self.head = mlx_nn.Linear(4, 2)


@pytest.fixture(scope="module")
def net():
    return Small().eval()


@pytest.fixture(scope="module")
def folder(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("small")
    torch.save({"net": net.state_dict(), "epoch": 3}, path / "net.pt")
    mlxport.convert_checkpoint(path / "net.pt", path / "out", model=net, inputs=["1,3,8,7"])
    return path


def in_memory(net, folder):
    return mlxport.convert(net, torch.randn(1, 3, 8, 7))


def unjudged(net, folder):
    return mlxport.convert(net, torch.randn(1, 3, 8, 7), verify=False)


def weights_alone(net, folder):
    path = folder / "weights"
    return mlxport.convert_checkpoint(
        folder / "net.pt", path, layers=["*=Conv", "head.*=Linear"], overwrite=True
    )


def inspected(net, folder):
    return mlxport.inspect(folder / "net.pt")


SHOWN = {
    "a conversion": (
        in_memory,
        ["Small in MLX: 4 tensors, 1 transpose in a call\n", "parity holds: 1 output"],
    ),
    "unjudged": (unjudged, ["Small in MLX: 4 tensors", "parity was not judged"]),
    "weights alone": (weights_alone, ["net.pt in MLX: 4 tensors\n", "not judged", "notes"]),
    "a report": (lambda net, folder: in_memory(net, folder).report, ["parity holds: 1 output"]),
    "an analysis": (
        lambda net, folder: mlxport.analyze(net, torch.randn(1, 3, 8, 7)),
        ["Small: everything has an MLX counterpart", "parameters 122 of 122"],
    ),
    "an inspection": (inspected, ["net.pt: 4 tensors (488 B), 1 note"]),
    "loaded weights": (
        lambda net, folder: mlxport.load_weights(Port(), net.state_dict()),
        ["4 parameters loaded; 0 problems"],
    ),
    "a restored file": (
        lambda net, folder: mlxport.restore(folder / "out", folder / "b.pt", overwrite=True),
        ["b.pt: 4 tensors"],
    ),
}


@pytest.mark.parametrize(("make", "texts"), SHOWN.values(), ids=SHOWN)
def test_a_result_shows_itself_in_a_few_lines(net, folder, make, texts):
    shown = repr(make(net, folder))
    assert all(text in shown for text in texts), shown
    lines = shown.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= WIDTH


def test_a_failed_conversion_says_where(net):
    result = mlxport.convert(net, torch.randn(1, 3, 8, 7))
    result.model.head.weight = result.model.head.weight + 1
    report = mlxport.verify(result.model, net, torch.randn(1, 3, 8, 7))
    assert repr(report).startswith("<ParityReport: parity FAILED at head")


def test_an_inspection_of_several_state_dicts(tmp_path, net):
    torch.save({"a": net.state_dict(), "b": net.state_dict()}, tmp_path / "two.pt")
    assert str(mlxport.inspect(tmp_path / "two.pt")).endswith("2 state dicts, none chosen")


def test_a_notebook_shows_what_was_made_and_the_verdict(net):
    text = in_memory(net, None)._repr_html_()
    assert text.startswith("<p>Small in MLX: 4 tensors, 1 transpose in a call</p>")
    assert "<strong>PASS, Small</strong>: parity holds" in text
    analysis = mlxport.analyze(net, torch.randn(1, 3, 8, 7))
    assert analysis._repr_html_().startswith("<pre>Small: everything has an MLX counterpart")
