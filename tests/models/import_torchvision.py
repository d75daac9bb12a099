"""Import torchvision, or let it be imported, beside a CPU build of PyTorch.

timm, transformers and diffusers import it. Its compiled part may be built for another PyTorch than
the CPU's. The networks of the tests use none of it, but its import wants two operators to exist.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    OPERATORS = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
