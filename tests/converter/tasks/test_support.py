import json
import runpy
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mlxport.cli import main
from mlxport.converter.graph import ops
from mlxport.converter.rules import refusals, registry
from mlxport.converter.tasks import support

ROOT = Path(__file__).parents[3]
TORCH = {
    name: found
    for name in torch.nn.modules.__all__
    if isinstance(found := getattr(torch.nn, name), type) and issubclass(found, torch.nn.Module)
}


def test_every_torch_class_has_a_rule_or_a_reason():
    assert set(TORCH.values()) - set(registry.RULES) - set(refusals.WITHOUT_RULE) == set()


def test_no_class_has_both_a_rule_and_a_refusal():
    assert set(registry.RULES) & set(refusals.WITHOUT_RULE) == set()


@pytest.mark.parametrize(
    "row",
    [*support.layer_support(), *support.library_support(), *support.op_support()],
    ids=lambda row: row.source,
)
def test_a_row_names_its_test_or_its_reason(row):
    if row.target:
        assert (ROOT / row.tested).is_file()
    else:
        assert row.restrictions


def test_the_document_is_what_the_registries_say():
    page = (ROOT / "docs" / "supported.md").read_text()
    registries, networks, _ = page.partition("\n## Networks\n")
    assert registries == support.as_markdown(), "run: make docs"
    assert networks


def test_writing_the_registries_tables_keeps_that_of_the_networks(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "supported.md").read_text()
    (tmp_path / "supported.md").write_text(page.replace("| ReLU |", "| an old row |", 1))
    write = runpy.run_path(str(ROOT / "docs" / "write_supported.py"))["main"]
    monkeypatch.setitem(write.__globals__, "PAGE", tmp_path / "supported.md")
    write()
    assert (tmp_path / "supported.md").read_text() == page


def test_the_command_prints_every_row():
    shown = CliRunner().invoke(main, ["layers"]).output.splitlines()
    layers = len(registry.RULES) + len(refusals.WITHOUT_RULE) + len(registry.LIBRARY_RULES)
    assert len(shown) == layers + len(ops.registry.OPS)


def test_the_command_searches():
    shown = CliRunner().invoke(main, ["layers", "convtranspose3d"]).output
    assert shown.splitlines()[0].split()[:2] == ["ConvTranspose3d", "layers.ConvTranspose3d"]
    assert "nothing" in CliRunner().invoke(main, ["layers", "no such thing"]).output


def test_the_command_prints_json():
    table = json.loads(CliRunner().invoke(main, ["layers", "--json"]).output)
    assert {"source": "Identity", "target": "mlx.nn.Identity", "restrictions": ""}.items() <= next(
        row for row in table["layers"] if row["source"] == "Identity"
    ).items()
    assert "timm.layers.norm.LayerNorm2d" in {row["source"] for row in table["library_layers"]}
