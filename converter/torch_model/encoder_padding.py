"""What TransformerEncoder does with padding in inference, op by op, so that it can be captured.

In eval mode, without gradients, ``torch.nn.TransformerEncoder`` may leave padding out of its input
(a nested tensor) and put zeros in its place behind the last layer. `torch.export` cannot see that
path, nor can a hook see into it; here the same numbers come from the ordinary one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_DEVICES = ("cpu", "cuda", "xpu")  # those whose tensors PyTorch nests


@contextmanager
def padding_zeroed() -> Iterator[None]:
    """Let encoders zero their padding as in inference, though every module in them is called."""
    original = torch.nn.TransformerEncoder.forward

    @functools.wraps(original)
    def forward(
        self: Any,
        src: Any,
        mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool | None = None,
    ) -> Any:
        if not _leaves_padding_out(self, src, mask, src_key_padding_mask):
            return original(self, src, mask, src_key_padding_mask, is_causal)
        padding, zeroed = _padding(self, src_key_padding_mask)
        output = src
        for layer in self.layers:
            output = layer(output, src_mask=None, src_key_padding_mask=padding)
        output = output.masked_fill(zeroed.unsqueeze(-1), 0.0)
        return output if self.norm is None else self.norm(output)

    torch.nn.TransformerEncoder.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.TransformerEncoder.forward = original  # type: ignore[method-assign]


def _leaves_padding_out(encoder: Any, src: Any, mask: Any, padding: Any) -> bool:
    """Tell whether PyTorch would nest the input: its own conditions, but for values."""
    first = encoder.layers[0]
    return (
        getattr(encoder, "use_nested_tensor", False)
        and not first.training
        and src.dim() == 3
        and padding is not None
        and mask is None
        and src.device.type in _DEVICES
        and not torch.is_autocast_enabled()
    )


def _padding(encoder: Any, padding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mask for the layers, and where the output is zeroed.

    Where padding stands before or between what is none PyTorch zeroes nothing; without
    ``mask_check`` it takes as many positions from the left as are none.
    """
    padded = padding if padding.dtype == torch.bool else padding != 0
    if getattr(encoder, "mask_check", True):
        # not by comparing neighbours: slices would exclude lengths below 3 from what is captured
        return padding, padded & (padded | (padded.cumsum(1) == 0)).all()
    lengths = (~padded).sum(1, keepdim=True)
    padded = torch.arange(padded.shape[1], device=padded.device) >= lengths
    return padded, padded
