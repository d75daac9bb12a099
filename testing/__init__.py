"""Parity as an assertion, for the tests of those who port models: ``assert_parity``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlxport.converter import api
from mlxport.converter.expected import checked_arguments

if TYPE_CHECKING:
    import mlx.nn
    import torch

    from mlxport.converter.parity.report.report import ParityReport

__all__ = ["assert_parity"]

# of a failing report: what fails stands first
_LAYERS_SHOWN = 10


@checked_arguments
def assert_parity(
    mlx_model: mlx.nn.Module,
    torch_model: torch.nn.Module,
    inputs: torch.Tensor | Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> ParityReport:
    """Fail where an MLX model, converted or written by hand, does not compute what PyTorch's does.

    Args:
        mlx_model: the MLX model, in eval mode, with the torch model's weights.
        torch_model: the torch model; it is left as it is.
        inputs: a tensor, or the positional inputs in a tuple or list, in PyTorch's axes.
        kwargs: keyword inputs.
        options: of ``mlxport.verify``: ``names``, ``inputs_order``, ``gradients``, ….

    Returns:
        The report, which passed.

    Raises:
        AssertionError: parity failed or was not shown; the message is the short report: the
            verdict, the layer that causes it, what fails first.
        ConversionError: the models cannot be compared; as ``mlxport.verify`` raises it.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    report = api.verify(mlx_model, torch_model, inputs, kwargs, **options)
    if not report.passed:
        raise AssertionError(report.to_text(failing_first=True, limit=_LAYERS_SHOWN))
    return report
