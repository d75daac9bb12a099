"""``docs/parity.schema.json`` describes what reports really hold, and nothing else."""

import json
from pathlib import Path

import jsonschema
import mlx.core as mx
import pytest
import torch
from click.testing import CliRunner

import mlxport
from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.report.schema import parity_schema
from mlxport.examples import hand_port

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs" / "parity.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 2, 3, padding=1)
        self.norm = torch.nn.BatchNorm3d(2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.norm(self.conv(x))
        return {"scores": y, "classes": y.argmax(1), "log": torch.log(y.mean((2, 3, 4)))}


def converted() -> ParityReport:
    torch.manual_seed(0)
    report = mlxport.convert(Net().eval(), torch.randn(2, 1, 6, 8, 7), gradients=True).report
    assert report is not None
    return report


def failing() -> ParityReport:
    net, x = Net().eval(), torch.randn(2, 1, 6, 8, 7)
    result = mlxport.convert(net, x, verify=False)
    result.model.conv.bias = result.model.conv.bias + 1e30
    result.model.norm.weight = result.model.norm.weight.astype(mx.bfloat16)
    report = mlxport.verify(result.model, net, x)
    assert not report.passed
    return report


def by_hand() -> ParityReport:
    torch_model, names = hand_port.Classifier(), {"norm": "group_norm"}
    model = hand_port.Port(pytorch_compatible=False)
    mlxport.load_weights(model, torch_model.state_dict(), rename=names)
    return mlxport.verify(model.eval(), torch_model, torch.randn(2, 3, 20, 24), names=names)


def dynamic() -> ParityReport:
    report = mlxport.convert(Net().eval(), torch.randn(2, 1, 6, 8, 7), dynamic=(0,)).report
    assert report is not None
    assert report.others
    return report


@pytest.mark.parametrize("made", [converted, failing, by_hand, dynamic], ids=lambda m: m.__name__)
def test_a_report_fits_it(made) -> None:
    report = made()
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    VALIDATOR.validate(data)
    assert ParityReport.from_json(data) == report


def test_it_is_what_the_classes_say() -> None:
    assert parity_schema() == SCHEMA, "`make docs` writes it anew"


def test_it_is_a_schema() -> None:
    VALIDATOR.check_schema(SCHEMA)


def test_what_the_command_line_prints_fits_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(Net().state_dict(), tmp_path / "net.pt")
    api.convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "out", model=Net().eval(), inputs=["2,1,6,8,7"]
    )
    printed = CliRunner().invoke(main, ["verify", str(tmp_path / "out"), "--json"]).stdout
    VALIDATOR.validate(json.loads(printed))
    VALIDATOR.validate(json.loads((tmp_path / "out" / "parity.json").read_text()))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"more": 1},
        {"culprit": 3},
        {"entries": [{}]},
        {"noise_multiple": "much"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_else_does_not(change) -> None:
    assert not VALIDATOR.is_valid({**by_hand().to_json(), **change})
