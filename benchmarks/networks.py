"""Networks of about 100 million parameters, with random weights."""

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
    try:
        import torchvision  # noqa: F401  # transformers imports it
    except RuntimeError:  # built for another PyTorch than the CPU's; its import wants these two
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertModel(BertConfig()).eval()


def inputs(network: str) -> tuple[str, tuple[Any, ...]]:
    """Return the example input of a network, for ``--input`` and as tensors."""
    if network == "bert":
        return "int64:1,128:0..29999", (torch.zeros(1, 128, dtype=torch.int64),)
    return "1,1,16,16,16", (torch.zeros(1, 1, 16, 16, 16),)
