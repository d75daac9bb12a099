"""Networks to convert, with random weights: of about 100 million parameters, and large ones."""

from __future__ import annotations

from typing import Any

import torch

from mlxport.examples.unet3d import UNet3d


def unet() -> torch.nn.Module:
    """The example's 3-D U-Net, wide."""
    torch.manual_seed(0)
    return UNet3d(widths=(128, 256, 512, 1024)).eval()


def bert() -> torch.nn.Module:
    """BERT of the base size, as transformers has it."""
    _allow_torchvision()
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertModel(BertConfig()).eval()


def swinunetr() -> torch.nn.Module:
    """MONAI's SwinUNETR, with 24 features."""
    from monai.networks.nets import SwinUNETR

    torch.manual_seed(0)
    return SwinUNETR(1, 2, feature_size=24, spatial_dims=3).eval()


def efficientnet() -> torch.nn.Module:
    """The vision model of ALIGN, an EfficientNet-B7, as transformers has it."""
    _allow_torchvision()
    from transformers import AlignVisionConfig, AlignVisionModel

    torch.manual_seed(0)
    return AlignVisionModel(AlignVisionConfig()).eval()


def _allow_torchvision() -> None:
    try:
        import torchvision  # noqa: F401  # transformers imports it
    except RuntimeError:  # built for another PyTorch than the CPU's; its import wants these two
        operators = torch.library.Library("torchvision", "DEF")
        _kept.append(operators)
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")


_kept: list[torch.library.Library] = []  # what is defined goes with its library

_INPUTS: dict[str, tuple[str, tuple[int, ...], torch.dtype]] = {
    "unet": ("1,1,16,16,16", (1, 1, 16, 16, 16), torch.float32),
    "bert": ("int64:1,128:0..29999", (1, 128), torch.int64),
    "swinunetr": ("1,1,96,96,96", (1, 1, 96, 96, 96), torch.float32),
    "efficientnet": ("1,3,600,600", (1, 3, 600, 600), torch.float32),
}


def inputs(network: str) -> tuple[str, tuple[Any, ...]]:
    """Return the example input of a network, for ``--input`` and as tensors."""
    text, shape, dtype = _INPUTS[network]
    return text, (torch.zeros(shape, dtype=dtype),)
