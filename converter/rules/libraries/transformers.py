"""Rules for the normalisation layers of Hugging Face transformers (written against 5.23).

Served are the RMS norms that scale by their weight, ``weight * x / rms(x)``, as Llama's and T5's,
those that scale by ``1 + weight``, as Gemma's, and the LayerNorms of ConvNeXt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlxport.converter.rules.normalization import (
    layer_norm,
    rms_norm_spec,
    unit_offset_norm_spec,
)
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, library_rule

# model -> its RMSNorm, with the parameter `weight` and the attribute `variance_epsilon`
_RMS_NORMS = {
    "aimv2": "Aimv2RMSNorm",
    "deepseek_v2": "DeepseekV2RMSNorm",
    "deepseek_v3": "DeepseekV3RMSNorm",
    "glm4": "Glm4RMSNorm",
    "granite": "GraniteRMSNorm",
    "llama": "LlamaRMSNorm",
    "longt5": "LongT5LayerNorm",
    "mistral": "MistralRMSNorm",
    "mixtral": "MixtralRMSNorm",
    "mt5": "MT5LayerNorm",
    "olmo2": "Olmo2RMSNorm",
    "phi3": "Phi3RMSNorm",
    "pix2struct": "Pix2StructLayerNorm",
    "pop2piano": "Pop2PianoLayerNorm",
    "qwen2": "Qwen2RMSNorm",
    "qwen2_moe": "Qwen2MoeRMSNorm",
    "qwen3": "Qwen3RMSNorm",
    "qwen3_moe": "Qwen3MoeRMSNorm",
    "smollm3": "SmolLM3RMSNorm",
    "t5": "T5LayerNorm",
    "udop": "UdopLayerNorm",
    "umt5": "UMT5LayerNorm",
}
# model -> its RMSNorm that scales by one more than its weight
_UNIT_OFFSET_NORMS = {
    "gemma": "GemmaRMSNorm",
    "gemma2": "Gemma2RMSNorm",
    "gemma3": "Gemma3RMSNorm",
    "qwen3_next": "Qwen3NextRMSNorm",
}
# model -> its LayerNorm with the attribute `data_format`
_LAYER_NORMS = {
    "convnext": "ConvNextLayerNorm",
    "convnextv2": "ConvNextV2LayerNorm",
}


def _qualified(model: str, cls: str) -> str:
    return f"transformers.models.{model}.modeling_{model}.{cls}"


@library_rule(
    *(_qualified(*item) for item in _RMS_NORMS.items()),
    target="mlx.nn.RMSNorm, layers.RMSNorm",
    restrictions="input and weight of one dtype",
)
def rms_norm(module: Any) -> LayerSpec:
    """MLX's RMSNorm over the last axis; ``layers.RMSNorm`` where ``eps`` is 0."""
    return rms_norm_spec(tuple(module.weight.shape), module.variance_epsilon, affine=True)


@library_rule(
    *(_qualified(*item) for item in _UNIT_OFFSET_NORMS.items()),
    target="layers.UnitOffsetRMSNorm",
    restrictions="eps above 0",
)
def unit_offset_rms_norm(module: Any) -> LayerSpec:
    """``layers.UnitOffsetRMSNorm``, whose weight is the torch module's."""
    if not module.eps > 0:
        raise Refusal(f"eps={module.eps}: MLX's norm of zeros needs one above 0")
    return unit_offset_norm_spec(module.weight.shape[0], module.eps)


@library_rule(
    *(_qualified(*item) for item in _LAYER_NORMS.items()),
    target="mlx.nn.LayerNorm, layers.LayerNorm",
)
def layer_norm_of_format(module: Any) -> LayerSpec:
    """LayerNorm over the channels of ``(N, C, H, W)``, or of ``(N, *S, C)``, by ``data_format``."""
    if module.data_format not in ("channels_first", "channels_last"):
        raise Refusal(f"data_format={module.data_format!r} is not known")
    spec = layer_norm(module)
    return (
        replace(spec, axes=Axes.CHANNELS_LAST) if module.data_format == "channels_first" else spec
    )
