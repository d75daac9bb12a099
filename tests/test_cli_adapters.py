"""Adapters from the command line: a base and an adapter of a 3-D U-Net's upsampling."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from mlxport.cli import main
from mlxport.examples.unet3d import UNet3d

Invoke = Callable[..., Result]

NETS = """
from mlxport.examples.unet3d import UNet3d


def unet():
    return UNet3d(widths=(2, 4))
"""
MODEL = ("--model", "nets:unet", "--input", "1,1,8,6,7")
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["upsample.0", "head"]}


@pytest.fixture
def invoke(tmp_path: Path, write_nets: Callable[[str], object]) -> Invoke:
    write_nets(NETS)
    torch.manual_seed(0)
    base = UNet3d(widths=(2, 4))
    torch.save(base.state_dict(), "unet.pt")
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "adapter_config.json").write_text(json.dumps(CONFIG))
    up, head = base.upsample[0].weight.shape, base.head.weight.shape
    tensors = {
        "upsample.0.lora_A.weight": torch.randn(up[0], 2, *up[2:]),
        "upsample.0.lora_B.weight": torch.randn(2, up[1], 1, 1, 1),
        "head.lora_A.weight": torch.randn(2, *head[1:]),
        "head.lora_B.weight": torch.randn(head[0], 2, 1, 1, 1),
        "stem.1.bias": torch.randn(2),
    }
    save_file(
        {f"base_model.model.{name}": t for name, t in tensors.items()},
        tmp_path / "tuned" / "adapter_model.safetensors",
    )

    def run(*arguments: str) -> Result:
        try:
            return CliRunner().invoke(main, arguments)
        finally:
            sys.modules.pop("nets", None)

    return run


@pytest.mark.parametrize("merge", [("--merge",), ()], ids=["merged", "apart"])
def test_convert_verify_and_restore(merge: tuple[str, ...], invoke: Invoke) -> None:
    converted = invoke("convert", "unet.pt", *MODEL, "--adapter", "tuned", *merge, "-o", "out")
    assert converted.exit_code == 0, converted.output
    assert "parity holds" in converted.stdout
    assert ("class LoRAConvTranspose3d" in Path("out/model.py").read_text()) is not bool(merge)
    assert invoke("verify", "out").exit_code == 0
    assert invoke("verify", "out", "--weights").exit_code == 0
    restored = invoke("restore", "out", "-o", "base.safetensors")
    assert restored.exit_code == 0, restored.output
    base, found = torch.load("unet.pt"), load_file("base.safetensors")
    assert found.keys() == base.keys()
    assert all(torch.equal(tensor, found[key]) for key, tensor in base.items())
    adapter = invoke("restore", "out", "--adapter", "-o", "again")
    assert adapter.exit_code == 0, adapter.output
    assert "5 tensors written to again" in adapter.stderr
    assert json.loads(Path("again/adapter_config.json").read_text()) == CONFIG


def test_without_a_model_there_is_nothing_to_adapt(invoke: Invoke) -> None:
    result = invoke("convert", "unet.pt", "--adapter", "tuned", "-o", "out")
    assert result.exit_code == 2
    assert "leave out --adapter" in result.stderr
    result = invoke("convert", "unet.pt", *MODEL, "--merge", "-o", "out")
    assert result.exit_code == 2
    assert "--merge needs --adapter" in result.stderr


def test_the_adapter_of_another_model(invoke: Invoke) -> None:
    config = CONFIG | {"target_modules": ["head"]}
    Path("tuned/adapter_config.json").write_text(json.dumps(config))
    result = invoke("convert", "unet.pt", *MODEL, "--adapter", "tuned", "-o", "out")
    assert result.exit_code == 1
    assert "upsample.0: target_modules do not name it" in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize("merge", [("--merge",), ()], ids=["merged", "apart"])
def test_a_dry_run_knows_the_adapter(merge: tuple[str, ...], invoke: Invoke) -> None:
    result = invoke("convert", "unet.pt", *MODEL, "--adapter", "tuned", *merge, "--dry-run")
    assert result.exit_code == 0, result.output
    assert ("LoRAConvTranspose3d" in result.stdout) is not bool(merge)
    config = CONFIG | {"target_modules": ["head"]}
    Path("tuned/adapter_config.json").write_text(json.dumps(config))
    result = invoke("convert", "unet.pt", *MODEL, "--adapter", "tuned", *merge, "--dry-run")
    assert result.exit_code == 1
    assert "upsample.0: target_modules do not name it" in result.stderr


def test_a_layer_is_explained_with_its_adapter(invoke: Invoke) -> None:
    result = invoke("explain", "unet.pt", "upsample.0", *MODEL, "--adapter", "tuned")
    assert result.exit_code == 0, result.output
    assert "class LoRAConvTranspose3d" in result.stdout
    result = invoke("explain", "unet.pt", "upsample.0.lora_A", *MODEL, "--adapter", "tuned")
    assert "upsample.0.lora_A.weight" in result.stdout


@pytest.mark.parametrize("merge", [("--merge",), ()], ids=["merged", "apart"])
def test_another_adapter_goes_by_the_plan(merge: tuple[str, ...], invoke: Invoke) -> None:
    convert = ("convert", "unet.pt", "--adapter", "tuned")
    assert invoke(*convert, *MODEL, *merge, "-o", "one").exit_code == 0
    file = Path("tuned/adapter_model.safetensors")
    tensors = load_file(file)
    save_file({key: 1 - tensor for key, tensor in tensors.items()}, file)
    judged = ("--verify-with", *MODEL[1:])
    result = invoke(*convert, "--plan", "one", *judged, "-o", "two")
    assert result.exit_code == 0, result.output
    assert "parity holds" in result.stdout
    result = invoke(*convert, "--plan", "one", *MODEL[2:], *judged[:2], "--merge", "-o", "three")
    assert result.exit_code == 2
    assert "leave out --merge" in result.stderr
