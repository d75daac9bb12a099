"""Layers of PyTorch with a LoRA adapter beside them, as PEFT's compute; PEFT is not needed.

``base_layer``, ``lora_A`` and ``lora_B`` have PEFT's names and meaning. PEFT has none for
transposed convolutions. What stands for them here is what its class for convolutions makes of
them: ``lora_A`` is the layer's kind with the layer's geometry, ``lora_B`` the same kind with a
kernel of 1 and the layer's groups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


class LoRALayer(torch.nn.Module):
    """A layer and what an adapter adds to its result: ``scale · lora_B(lora_A(dropout(x)))``.

    Args:
        base_layer: the layer.
        scale: the factor.
        dropout: the share of inputs that are dropped in training.
    """

    lora_A: torch.nn.Module  # noqa: N815  # PEFT's name
    lora_B: torch.nn.Module  # noqa: N815  # PEFT's name

    def __init__(self, base_layer: torch.nn.Module, scale: float, dropout: float) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.scale = scale
        self.lora_dropout = torch.nn.Dropout(dropout) if dropout else None
        self.dtype: torch.dtype | None = None  # of the adapter, where it is not the layer's

    @property
    def weight(self) -> Any:
        """The weight of the layer, for code that reads it past the adapter, as in PEFT."""
        return self.base_layer.weight

    @property
    def bias(self) -> Any:
        """The bias of the layer, for code that reads it."""
        return self.base_layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute in the adapter's dtype, and give the layer's."""
        y: torch.Tensor = self.base_layer(x)
        z = x if self.lora_dropout is None else self.lora_dropout(x)
        if self.dtype is None:
            z = self.lora_B(self.lora_A(z))
            y = y + z * self.scale
            return y
        z = self.lora_B(self.lora_A(z.to(self.dtype)))
        y = (y + z * self.scale).to(y.dtype)
        return y


class LoRALinear(LoRALayer):
    """Beside ``torch.nn.Linear``, or the ``Conv1D`` of transformers."""


class LoRAConv1d(LoRALayer):
    """Beside ``torch.nn.Conv1d``."""


class LoRAConv2d(LoRALayer):
    """Beside ``torch.nn.Conv2d``."""


class LoRAConv3d(LoRALayer):
    """Beside ``torch.nn.Conv3d``."""


class LoRAConvTranspose1d(LoRALayer):
    """Beside ``torch.nn.ConvTranspose1d``."""


class LoRAConvTranspose2d(LoRALayer):
    """Beside ``torch.nn.ConvTranspose2d``."""


class LoRAConvTranspose3d(LoRALayer):
    """Beside ``torch.nn.ConvTranspose3d``."""


class LoRAEmbedding(LoRALayer):
    """Beside ``torch.nn.Embedding``: rows of a table of rank ``r``, times ``lora_embedding_B``."""

    lora_embedding_A: torch.nn.Parameter  # noqa: N815  # PEFT's name
    lora_embedding_B: torch.nn.Parameter  # noqa: N815  # PEFT's name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Look up rows; there is no dropout, as in PEFT."""
        y: torch.Tensor = self.base_layer(x)
        z = F.linear(F.embedding(x, self.lora_embedding_A.T), self.lora_embedding_B)
        return y + z * self.scale if self.dtype is None else (y + z * self.scale).to(y.dtype)
