"""Adapters that PEFT saved: converted apart and merged, and held to what PEFT computes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

import mlxport
from mlxport.converter.errors import CheckpointError, ConversionError, StateDictError

IDS = torch.arange(16).reshape(2, 8) % 11
VOLUME = torch.linspace(-1, 1, 2 * 2 * 3 * 4 * 3).reshape(2, 2, 3, 4, 3)


class Net(torch.nn.Module):
    """One layer of each kind that PEFT has an adapter for, and a group norm between."""

    def __init__(self) -> None:
        super().__init__()
        from transformers.pytorch_utils import Conv1D

        self.table = torch.nn.Embedding(11, 6)
        self.conv = torch.nn.Conv1d(6, 8, 3, stride=2, padding=1)
        self.image = torch.nn.Conv2d(1, 2, (3, 1), padding=(1, 0))
        self.grouped = torch.nn.Conv1d(16, 16, 3, padding=1, groups=2)
        self.gpt = Conv1D(6, 16)
        self.norm = torch.nn.GroupNorm(2, 6)
        self.linear = torch.nn.Linear(6, 5)
        self.head = torch.nn.Linear(5, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(self.table(ids).transpose(1, 2)))
        x = self.grouped(self.image(x[:, None]).flatten(1, 2))
        x = self.gpt(x.transpose(1, 2).contiguous())
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.head(torch.relu(self.linear(x)))


class Up(torch.nn.Module):
    """A convolution down and transposed ones up, of a volume."""

    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Conv3d(2, 4, 3, stride=2, padding=1)
        self.up = torch.nn.ConvTranspose3d(
            4, 3, (3, 2, 3), stride=2, padding=(1, 0, 1), output_padding=(0, 0, 0)
        )
        self.wide = torch.nn.ConvTranspose3d(3, 2, 3, stride=2, output_padding=1, dilation=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wide(torch.relu(self.up(torch.relu(self.down(x)))))


def adapted(peft: Any, net: torch.nn.Module, folder: Path, **config: Any) -> Any:
    """Return PEFT's model of a net with an adapter, and save that."""
    plain = {"r": 2, "lora_alpha": 3, "init_lora_weights": False, "lora_dropout": 0.1}
    described = peft.LoraConfig(**{**plain, **config})
    if "up" in config["target_modules"]:
        described._register_custom_module({torch.nn.ConvTranspose3d: of_transposed(peft)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(net, described).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:  # as if trained: those of modules_to_save differ, too
                parameter.data = torch.randn(parameter.shape) / 2
        model.save_pretrained(folder)
    return model


def of_transposed(peft: Any) -> type:
    """Return the class of `docs/porting.md` for adapters of transposed convolutions."""
    guide = (Path(__file__).parents[4] / "docs" / "porting.md").read_text()
    code = next(b for b in guide.split("```")[1::2] if "class LoraConvTranspose" in b)
    defined: dict[str, Any] = {}
    exec(compile(code.partition("\n")[2], "porting.md", "exec"), defined)
    found: type = defined["LoraConvTranspose"]
    return found


ALL = ["table", "conv", "image", "gpt", "linear"]
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ALL},
    "rank stabilised, with patterns and all biases": {
        "target_modules": ALL,
        "use_rslora": True,
        "rank_pattern": {"conv": 4, "^lin.*": 3},
        "alpha_pattern": {"linear": 7, "table": 1},
        "bias": "all",
    },
    "of the adapted the biases, by a regular expression": {
        "target_modules": r"(li.ear|g.t)",
        "bias": "lora_only",
    },
    "modules to save": {"target_modules": ["gpt"], "modules_to_save": ["head", "norm"]},
    "with a bias in the adapter": {"target_modules": ["conv", "linear"], "lora_bias": True},
}


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_is_what_peft_computes(
    config: dict[str, Any], merge: bool, peft: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    base, net = Net().eval(), Net().eval()
    net.load_state_dict(base.state_dict())
    model = adapted(peft, net, tmp_path, **config)
    judged = len(config) == 1  # the others differ in nothing that is judged
    result = mlxport.convert(base, IDS, adapter=tmp_path, merge=merge, verify=judged)
    assert not judged or (result.report is not None and result.report.passed)
    assert result.model is not None
    with torch.no_grad():
        want = model.double()(IDS).numpy()
    np.testing.assert_allclose(np.array(result.model(mx.array(IDS.numpy()))), want, atol=2e-5)


def test_of_grouped_convolutions_they_stay_apart(peft: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, net = Net().eval(), Net().eval()
    net.load_state_dict(base.state_dict())
    model = adapted(peft, net, tmp_path, target_modules=["grouped"])
    result = mlxport.convert(base, IDS, adapter=tmp_path)
    assert result.report is not None
    assert result.report.passed
    assert result.model is not None
    with torch.no_grad():
        want = model.double()(IDS).numpy()
    np.testing.assert_allclose(np.array(result.model(mx.array(IDS.numpy()))), want, atol=2e-5)
    with pytest.raises(StateDictError, match="it has 2 groups and its adapter has none"):
        mlxport.convert(base, IDS, adapter=tmp_path, merge=True)


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
def test_of_transposed_convolutions(merge: bool, peft: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, net = Up().eval(), Up().eval()
    net.load_state_dict(base.state_dict())
    model = adapted(peft, net, tmp_path, target_modules=["down", "up", "wide"])
    result = mlxport.convert(base, VOLUME, adapter=tmp_path, merge=merge)
    assert result.report is not None
    assert result.report.passed, result.report.to_text()
    assert result.model is not None
    with torch.no_grad():
        want = model.double()(VOLUME.double()).numpy()
    np.testing.assert_allclose(np.array(result.model(mx.array(VOLUME.numpy()))), want, atol=2e-5)


def test_the_torch_model_is_left_as_it_was(peft: Any, tmp_path: Path) -> None:
    base = Net().eval()
    adapted(peft, Net(), tmp_path, target_modules=ALL, modules_to_save=["head"])
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    objects = dict(base.named_parameters())
    for merge in (True, False):
        mlxport.convert(base, IDS, adapter=tmp_path, merge=merge, verify=False)
    assert dict(base.named_parameters()).keys() == objects.keys()
    assert all(p is objects[n] and p.requires_grad for n, p in base.named_parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())


def test_only_the_adapter_is_trained(peft: Any, tmp_path: Path) -> None:
    from mlx.utils import tree_flatten

    adapted(peft, Net(), tmp_path, target_modules=["linear"], modules_to_save=["head"])
    model = mlxport.convert(Net().eval(), IDS, adapter=tmp_path, verify=False).model
    assert model is not None
    trained = {name for name, _ in tree_flatten(model.trainable_parameters())}
    assert trained == {"linear.lora_A.weight", "linear.lora_B.weight", "head.weight", "head.bias"}
    text = mlxport.convert(Net().eval(), IDS, adapter=tmp_path, verify=False).source
    assert "self.lora_dropout = nn.Dropout(0.1)" in text


def test_dora_is_named(peft: Any, tmp_path: Path) -> None:
    adapted(peft, Net(), tmp_path, target_modules=["linear"], use_dora=True)
    with pytest.raises(CheckpointError, match=r"use_dora=True: DoRA\n.*merge_and_unload"):
        mlxport.convert(Net().eval(), IDS, adapter=tmp_path)


def test_a_tied_weight_is_adapted_where_the_adapter_is(peft: Any, tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(11, 6)
            self.head = torch.nn.Linear(6, 11, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.table(ids))

    torch.manual_seed(0)
    base, net = Tied().eval(), Tied().eval()
    net.load_state_dict(base.state_dict())
    model = adapted(peft, net, tmp_path, target_modules=["head"])
    with torch.no_grad():
        want = model.double()(IDS).numpy()
    for merge in (True, False):
        result = mlxport.convert(base, IDS, adapter=tmp_path, merge=merge)
        assert result.report is not None
        assert result.report.passed
        assert result.model is not None
        np.testing.assert_allclose(
            np.array(result.model(mx.array(IDS.numpy()))), want, atol=2e-5, err_msg=str(merge)
        )


def test_half_precision(peft: Any, tmp_path: Path) -> None:
    """A base in bfloat16 keeps its dtype; the adapter beside it computes in float32, as PEFT's."""
    torch.manual_seed(0)
    base, net = Net().eval(), Net().eval()
    net.load_state_dict(base.state_dict())
    adapted(peft, net, tmp_path, target_modules=["linear"])
    for merge in (True, False):
        result = mlxport.convert(base.bfloat16(), IDS, adapter=tmp_path, merge=merge)
        assert result.report is not None
        assert result.report.passed
        assert result.model is not None
        assert result.model(mx.array(IDS.numpy())).dtype == mx.bfloat16
        parameters = result.model.linear
        kept = parameters if merge else parameters.base_layer
        assert kept.weight.dtype == mx.bfloat16


def test_merging_needs_an_adapter() -> None:
    with pytest.raises(ConversionError, match="merge=True needs adapter="):
        mlxport.convert(torch.nn.Linear(2, 2), torch.ones(1, 2), merge=True)
