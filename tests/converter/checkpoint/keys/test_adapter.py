"""Adapters in PEFT's folders: what is read, and what is refused by its name."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlxport.converter.checkpoint.keys.adapter import open_adapter
from mlxport.converter.errors import CheckpointError

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q"]}
Q = {
    "base_model.model.a.q.lora_A.weight": np.ones((2, 4), np.float32),
    "base_model.model.a.q.lora_B.weight": np.ones((5, 2), np.float32),
}


def saved(folder: Path, tensors: dict[str, Any] | None = None, **config: Any) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(Q if tensors is None else tensors, folder / "adapter_model.safetensors")
    return folder


SCALES: dict[str, tuple[dict[str, Any], float]] = {
    "alpha by rank": ({}, 1.5),
    "rank stabilised": ({"use_rslora": True}, 3 / math.sqrt(2)),
    "a pattern of the last name": ({"alpha_pattern": {"q": 8}}, 4.0),
    "a pattern of the whole path": ({"alpha_pattern": {"^a.q": 8}}, 4.0),
    "the first of two patterns": ({"alpha_pattern": {"a.*": 6, "q": 8}}, 3.0),
    "a pattern of another": ({"alpha_pattern": {"b": 8}}, 1.5),
    "a rank of its own": ({"r": 8, "rank_pattern": {"q": 2}}, 1.5),
    "of all": ({"target_modules": "all-linear"}, 1.5),
    "by a regular expression": ({"target_modules": r"a\.[kq]"}, 1.5),
    "by the whole path": ({"target_modules": ["a.q"]}, 1.5),
    "the largest alpha": ({"lora_alpha": sys.float_info.max}, sys.float_info.max / 2),
}


@pytest.mark.parametrize(("config", "scale"), SCALES.values(), ids=SCALES)
def test_scale(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    adapter = open_adapter(saved(tmp_path, **config))
    assert list(adapter.layers) == ["a.q"]
    assert adapter.layers["a.q"].scale == scale


def test_what_is_replaced(tmp_path: Path) -> None:
    more = {
        "base_model.model.head.weight": np.ones((2, 2), np.float32),
        "base_model.model.a.q.base_layer.bias": np.ones(5, np.float32),
    }
    adapter = open_adapter(saved(tmp_path, Q | more))
    assert adapter.replaced == {
        "head.weight": "base_model.model.head.weight",
        "a.q.bias": "base_model.model.a.q.base_layer.bias",
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    "no method": ({"peft_type": None}, "peft_type is None"),
    "DoRA": ({"use_dora": True}, "use_dora=True: DoRA\n.*merge_and_unload"),
    "QALoRA": ({"use_qalora": True}, "QALoRA"),
    "single parameters": ({"target_parameters": ["w"]}, "adapters of single parameters"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "it may have changed the base"),
    "an option of tomorrow": ({"use_next": 1}, "use_next=1, which is not known"),
    "another rank": ({"r": 3}, r"lora_A.weight is \(2, 4\), and its rank is to be 3"),
    "a rank that is none": ({"r": 0}, "a.q: r=0"),
    "an alpha that is none": ({"lora_alpha": "x"}, "lora_alpha='x'"),
    "an alpha beyond any float": ({"lora_alpha": 10**400}, "a.q: r=2, lora_alpha=1000"),
    "an infinite alpha": ({"lora_alpha": math.inf}, "a.q: r=2, lora_alpha=inf"),
    "another target": ({"target_modules": ["k"]}, "a.q: target_modules do not name it"),
    "an ending without a dot": ({"target_modules": [".q"]}, "do not name it"),
    "a pattern that is none": ({"rank_pattern": {"(": 2}}, "'.*' is no regular expression"),
    "patterns that are none": ({"rank_pattern": [2]}, r"rank_pattern is \[2\]"),
}


@pytest.mark.parametrize(("config", "why"), REFUSED.values(), ids=REFUSED)
def test_is_refused(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"(?s){why}"):
        open_adapter(saved(tmp_path, **config))


TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "half a pair": ({k: v for k, v in Q.items() if "lora_A" in k}, "there is no lora_B.weight"),
    "another prefix": ({"a.q.lora_A.weight": Q[next(iter(Q))]}, "does not begin with base_model"),
    "a magnitude": (
        Q | {"base_model.model.a.q.lora_magnitude_vector": np.ones(5, np.float32)},
        "lora_magnitude_vector is no tensor of LoRA",
    ),
}


@pytest.mark.parametrize(("tensors", "why"), TENSORS.values(), ids=TENSORS)
def test_tensors_are_refused(tensors: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=why):
        open_adapter(saved(tmp_path, tensors))


def test_files_are_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"adapter_config\.json cannot be read"):
        open_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        open_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(CheckpointError, match=r"there is no adapter_model\.safetensors"):
        open_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no header")
    with pytest.raises(CheckpointError):
        open_adapter(tmp_path)
