"""Checkpoints of other things than a model's weights are named for what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.keys.kinds import is_average, recognised
from mlxport.converter.errors import CheckpointError, SeveralStateDictsError, StateDictError
from mlxport.converter.plan.tensor import TensorSpec
from mlxport.converter.tasks.fit_target import fit_target
from mlxport.converter.tasks.loading.load_into_model import load_into_model

WEIGHTS = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}


def packed(dtype: torch.dtype) -> dict[str, Any]:
    """The state dict of a model that torch.ao quantized, as it is in a file."""
    params = {"l._packed_params.dtype": dtype, "l._packed_params._packed_params": (1, None)}
    return {"l.scale": torch.ones(()), "l.zero_point": torch.zeros((), dtype=torch.int64)} | params


ONE = torch.ones(1)
FILES: dict[str, tuple[dict[str, Any], str]] = {
    "PEFT": (
        {"base_model.model.q.lora_A.weight": ONE, "base_model.model.q.lora_B.weight": ONE},
        r"adapter \(PEFT\).*q\.lora_A\.weight.*merge_and_unload",
    ),
    "LoHa": ({"q.hada_w1_a": ONE}, r"adapter \(PEFT\)"),
    "bitsandbytes, 4 bit": (
        WEIGHTS | {"weight.absmax": ONE, "weight.quant_state.bitsandbytes__nf4": ONE},
        r"bitsandbytes quantized.*2 tensors \(weight\.absmax.*dequantize.*quantize=",
    ),
    "bitsandbytes, nested": (WEIGHTS | {"weight.nested_quant_map": ONE}, "bitsandbytes quantized"),
    "bitsandbytes, 8 bit": (WEIGHTS | {"SCB": ONE}, "bitsandbytes quantized"),
    "float8 by blocks": (WEIGHTS | {"weight_scale_inv": ONE}, "scale of each block.*dequantize"),
    "GPTQ": ({"qweight": ONE, "g_idx": ONE}, "GPTQ, AWQ or compressed-tensors.*dequantize"),
    "dynamic int8": (
        packed(torch.qint8),
        r"torch\.ao quantized to int8.*left out: l\._packed_params\.dtype, l\._packed_params\._pa",
    ),
    "EMA beside, without dots": (
        WEIGHTS | {"model_ema.weight": ONE, "model_ema.decay": ONE},
        r"Under model_ema is a moving average.*drop=\['model_ema'\].*LitEma\.copy_to",
    ),
    "EMA beside": (
        WEIGHTS | {"ema.net.weight": ONE},
        r"Under ema is a moving average.*drop=\['ema'\].*prefix='ema' takes the average",
    ),
    "DeepSpeed": (
        {"module": {"weight": torch.ones(0)}, "ds_version": "0.15", "param_shapes": [1]},
        r"DeepSpeed wrote this.*zero_to_fp32\.py",
    ),
    "other entries": ({"more": ONE, "settings": "x"}, r"no tensors, left out: settings\."),
}


@pytest.mark.parametrize(("content", "said"), FILES.values(), ids=FILES)
def test_a_file_that_does_not_fit_is_named_for_what_it_is(content, said, tmp_path) -> None:
    torch.save(content, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    with pytest.raises(StateDictError, match=rf"(?s)does not fit the model.*{said}"):
        load_into_model(nn.Linear(3, 2), checkpoint)


UNREADABLE: dict[str, tuple[dict[str, Any], str]] = {
    "DeepSpeed's optimizer": (
        {"optimizer_state_dict": {"fp32_flat_groups": [ONE]}, "ds_config": {}, "ds_version": "0"},
        "DeepSpeed wrote this",
    ),
    "EMA without names": (
        {"ema": {"decay": 0.9, "shadow_params": [torch.ones(2, 3), ONE]}},
        r"shadow_params is a moving average.*ema\.copy_to",
    ),
}


@pytest.mark.parametrize(("content", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_without_a_state_dict_is_named_for_what_it_is(content, said, tmp_path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(StateDictError, match=rf"(?s)no state dict in it.*{said}"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("below", [".", "global_step10"])
def test_a_folder_of_deepspeed_is_named(below, tmp_path) -> None:
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        torch.save({"ds_version": "0"}, folder / name)
    with pytest.raises(CheckpointError, match=r"2 files of DeepSpeed.*zero_to_fp32\.py"):
        open_checkpoint(tmp_path)


def test_weights_alone_of_such_a_kind_are_warned_of(tmp_path) -> None:
    torch.save(packed(torch.qint8), tmp_path / "x.pt")
    result = mlxport.convert_checkpoint(tmp_path / "x.pt", tmp_path / "out")
    assert any("torch.ao quantized to int8" in text for text in result.warnings)


@pytest.mark.parametrize("name", ["ema", "state_dict_ema", "model-ema"])
def test_of_several_state_dicts_the_average_is_named(name, tmp_path) -> None:
    torch.save({"model": WEIGHTS, name: dict(WEIGHTS)}, tmp_path / "x.pt")
    with pytest.raises(SeveralStateDictsError) as error:
        open_checkpoint(tmp_path / "x.pt")
    lines = str(error.value).splitlines()
    assert [line.endswith("a moving average of the weights (EMA)") for line in lines[1:3]] == [
        False,
        True,
    ]


PLAIN = ["layer.scale", "ema_proj_x.weight.q", "schema.weight", "blocks.0.lora", "packed.weight"]


def test_common_names_are_nothing_else() -> None:
    spec = TensorSpec("F32", (1,)).outline()
    names = [name for name in PLAIN if not name.startswith("ema")]
    assert recognised(Checkpoint(Path("x"), dict.fromkeys(names, spec), {})) == ()


@pytest.mark.parametrize(
    ("name", "said"),
    {"ema": True, "model_ema": True, "EMA_model": True, "schema": False, "cinema": False}.items(),
)
def test_names_of_averages(name, said) -> None:
    assert is_average(name) is said


BESIDE = {
    "one other": (["net.weight", "ema.net.weight"], True),
    "two others": (["weight", "bias", "ema.net.weight"], True),
    "nothing else": (["ema.net.weight", "ema.net.bias"], False),
}


@pytest.mark.parametrize(("names", "has_others"), BESIDE.values(), ids=BESIDE)
def test_the_weights_beside_an_average_are_named_where_there_are_any(names, has_others) -> None:
    spec = TensorSpec("F32", (1,)).outline()
    (hint,) = recognised(Checkpoint(Path("x"), dict.fromkeys(names, spec), {}))
    assert hint.startswith("Under ema is a moving average")
    assert hint.endswith("prefix='ema' takes the average.")
    assert ("drop=['ema'] takes the weights" in hint) is has_others


def test_ports_by_hand_are_told_too() -> None:
    import mlx.nn

    spec = TensorSpec("F32", (1,)).outline()
    tensors = {"weight.absmax": spec}
    fit = fit_target(mlx.nn.Linear(3, 2), Checkpoint(Path("x"), tensors, {}), {})
    with pytest.raises(StateDictError, match="bitsandbytes quantized"):
        fit.require("Nothing was loaded.")
