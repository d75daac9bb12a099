"""Adapters put into torch models: what does not fit is named, all of it at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mlxport.converter.checkpoint.keys.adapter import Adapter, open_adapter
from mlxport.converter.errors import StateDictError
from mlxport.converter.torch_model.adapted import put_adapter
from mlxport.converter.torch_model.lora import LoRALinear

PAIR = {"q.lora_A.weight": (2, 4), "q.lora_B.weight": (4, 2)}
CONV = {"q.lora_A.weight": (2, 4, 3), "q.lora_B.weight": (4, 2, 1)}
TABLE = {"q.lora_embedding_A": (2, 4), "q.lora_embedding_B": (4, 2)}


def adapter_of(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Adapter:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": r".*"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {f"base_model.model.{name}": torch.ones(shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return open_adapter(folder)


class Subclass(torch.nn.Linear):
    pass


REFUSED: dict[str, tuple[Any, dict[str, tuple[int, ...]], str]] = {
    "another path": (torch.nn.Linear(4, 4), {k.replace("q", "k"): s for k, s in PAIR.items()}, "k"),
    "another shape": (torch.nn.Linear(5, 4), PAIR, r"lora_A.weight: expected \(2, 5\), got \(2, 4"),
    "another class": (torch.nn.Bilinear(4, 4, 4), PAIR, "Bilinear are not served"),
    "a subclass": (Subclass(4, 4), PAIR, "Subclass are not served"),
    "a table for a layer": (torch.nn.Linear(4, 4), TABLE, "a Linear has no table"),
    "no table": (torch.nn.Embedding(4, 4), PAIR, r"a Embedding has no lora_A\.weight"),
    "a table with max_norm": (torch.nn.Embedding(4, 4, max_norm=1.0), TABLE, "it has max_norm"),
    "dilation": (torch.nn.Conv1d(4, 4, 3, dilation=2), CONV, "PEFT's layer leaves both out"),
    "padding of values": (
        torch.nn.Conv1d(4, 4, 3, padding=1, padding_mode="reflect"),
        CONV,
        "padding_mode='reflect'",
    ),
    "odd groups": (
        torch.nn.Conv1d(4, 4, 3, groups=4),
        CONV,
        "its 4 groups do not divide the rank 2",
    ),
    "a weight norm": (
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 4)),
        PAIR,
        "it is parametrised",
    ),
    "no such tensor": (torch.nn.Linear(4, 4), PAIR | {"q.scale": (4,)}, "q.scale: the model has"),
    "a tensor of another shape": (
        torch.nn.Linear(4, 4),
        PAIR | {"q.bias": (5,)},
        r"q.bias: expected \(4,\), got \(5,\)",
    ),
}


@pytest.mark.parametrize(("layer", "shapes", "why"), REFUSED.values(), ids=REFUSED)
def test_is_refused(
    layer: torch.nn.Module, shapes: dict[str, tuple[int, ...]], why: str, tmp_path: Path
) -> None:
    model = torch.nn.ModuleDict({"q": layer})
    with pytest.raises(StateDictError, match=f"does not fit ModuleDict:\n(?s:.)*{why}"):
        put_adapter(model, adapter_of(tmp_path, shapes))


def test_attention_reads_past_an_adapter(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"attention": torch.nn.MultiheadAttention(4, 2)})
    shapes = {f"attention.out_proj.{k.removeprefix('q.')}": s for k, s in PAIR.items()}
    with pytest.raises(StateDictError, match="MultiheadAttention reads its weight past"):
        put_adapter(model, adapter_of(tmp_path, shapes))


def test_a_bias_without_a_bias_stays_apart(tmp_path: Path) -> None:
    shapes = PAIR | {"q.lora_B.bias": (4,)}
    adapter = adapter_of(tmp_path, shapes)
    model = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4, bias=False)})
    with pytest.raises(StateDictError, match="the layer has none to add it to"):
        put_adapter(model, adapter, mergeable=True)
    put_adapter(model, adapter)
    assert isinstance(model["q"], LoRALinear)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    shapes = PAIR | {"k.lora_A.weight": (2, 4), "k.lora_B.weight": (4, 2), "scale": (1,)}
    model = torch.nn.ModuleDict({"q": torch.nn.Bilinear(4, 4, 4)})
    with pytest.raises(StateDictError) as caught:
        put_adapter(model, adapter_of(tmp_path, shapes))
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:4]] == [
        "scale",
        "k",
        "q",
    ]


def test_values_are_rounded_only_where_that_was_asked_for(tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path, PAIR | {"q.bias": (4,)})
    with pytest.raises(StateDictError, match="allow_lossy_cast=True does so"):
        put_adapter(torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4).half()}), adapter)
    model = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4).half()})
    put_adapter(model, adapter, allow_lossy_cast=True)
    assert model["q"].bias.dtype == torch.float16
    assert model["q"].lora_A.weight.dtype == torch.float32


def test_keys(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4), "qq": torch.nn.Linear(1, 1)})
    before = torch.random.get_rng_state()
    adapted = put_adapter(model, adapter_of(tmp_path, PAIR | {"q.bias": (4,), "qq.bias": (1,)}))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert adapted.layers == {"q": "out_in"}
    assert adapted.keys == {
        "q.base_layer.weight": "q.weight",
        "q.base_layer.bias": "base_model.model.q.bias",
        "q.lora_A.weight": "base_model.model.q.lora_A.weight",
        "q.lora_B.weight": "base_model.model.q.lora_B.weight",
        "qq.weight": "qq.weight",
        "qq.bias": "base_model.model.qq.bias",
    }
