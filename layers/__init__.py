"""MLX layers that MLX lacks or computes differently from PyTorch.

Spatial layers and functions take channels last, ``(N, *S, C)``. The functions live in the modules.
"""

from mlxport.layers.conv_modules import Conv1d, Conv2d, Conv3d
from mlxport.layers.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from mlxport.layers.norm_modules import GroupNorm, LayerNorm, RMSNorm
from mlxport.layers.norm_tracking import BatchNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from mlxport.layers.response_norm import CrossMapLRN2d, LocalResponseNorm

__all__ = [
    "BatchNorm",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossMapLRN2d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]
