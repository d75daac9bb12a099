"""Recognise checkpoints that hold something else than a model's weights, by the names in them.

What to do with each is said where it does not fit. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, first_names, printable

_SHOWN = 8

# What the end of some names is -> what the tensors are.
_QUANTIZED = {
    re.compile(r"(.*\.)?((nested_)?(absmax|quant_map)|SCB|.*bitsandbytes__\w+)"): (
        "weights that bitsandbytes quantized, and what their codes stand for"
    ),
    re.compile(r"(.*\.)?weight_scale_inv"): (
        "float8 weights that mean nothing without the scale of each block"
    ),
    re.compile(r"(.*\.)?(qweight|qzeros|g_idx|weight_packed)"): (
        "weights that GPTQ, AWQ or compressed-tensors quantized and packed into integers"
    ),
    re.compile(r"(.*\.)?_packed_params(\.\w+)?"): (
        "the packed weights of a model that torch.ao quantized to int8, which no tensor holds"
    ),
}
_ADAPTER = re.compile(r"(.*\.)?(lora_\w+|hada_w\d\w*|lokr_w\d\w*|ia3_\w+|vera_lambda_\w+)(\..*)?")
_AVERAGE = re.compile(r"(\w+_)?(ema|averaged|shadow)(_\w+)?")


def recognised(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return what is to be known of a checkpoint that does not fit, a sentence or two each."""
    found = [*kinds_of(checkpoint), *_averages(checkpoint)]
    if checkpoint.others:
        shown = [printable(name) for name in checkpoint.others][:_SHOWN]
        more = len(checkpoint.others) - len(shown)
        rest = f" and {more} more" if more else ""
        found.append(f"Entries that are no tensors, left out: {', '.join(shown)}{rest}.")
    return tuple(found)


def kinds_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return what a checkpoint is, where its tensors are not the weights of a model."""
    names = (*checkpoint.tensors, *checkpoint.others)
    return (*checkpoint.hints, *_quantized(names), *_adapter(names))


def _quantized(names: Sequence[str]) -> Iterator[str]:
    for pattern, what in _QUANTIZED.items():
        if those := [name for name in names if pattern.fullmatch(name)]:
            yield (
                f"These are {what}: {first_names(those)}. Take the checkpoint it was made from, or "
                "dequantize the model in PyTorch and save its state dict; "
                f"{argument('quantize')} quantizes for MLX."
            )


def _adapter(names: Sequence[str]) -> Iterator[str]:
    if those := [name for name in names if _ADAPTER.fullmatch(name)]:
        yield (
            f"This is an adapter (PEFT), changes to weights that stand elsewhere: "
            f"{first_names(those)}. Convert the checkpoint of its base with "
            f"{argument('adapter')} and the folder of a LoRA adapter, or merge it in PyTorch and "
            "save the state dict of what PeftModel.from_pretrained(model, folder)"
            ".merge_and_unload() gives."
        )


def _averages(checkpoint: Checkpoint) -> Iterator[str]:
    """Name moving averages of the weights that stand beside them, under a name of their own."""
    first: dict[str, list[str]] = {}
    for key in checkpoint.tensors:
        name, _, rest = key.partition(".")
        first.setdefault(name, []).append(rest)
    for name, below in first.items():
        if not is_average(name) or not any(below):
            continue
        dotted = any("." in rest for rest in below)
        takes = (
            f"{argument('prefix', name)} takes the average"
            if dotted
            else (
                "the average has names without dots: in PyTorch, let its own code copy it into the "
                "model (LitEma.copy_to) and save that"
            )
        )
        others = f"{argument('drop', [name])} takes the weights; " if len(first) > 1 else ""
        yield f"Under {printable(name)} is a moving average of the weights (EMA): {others}{takes}."


def is_average(name: str) -> bool:
    """Tell whether a name is one that moving averages of weights go by."""
    return _AVERAGE.fullmatch(name.lower()) is not None
