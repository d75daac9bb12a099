"""Compare PyTorch's fast path for attention, which users run, with the modules called one by one.

In eval mode, without gradients and hooks, attention layers and encoders take a fused path. The
recorded run calls every module instead, and zeroes padding as that path does. What else it does
otherwise (a floating mask masks wherever it is not zero, a query whose keys are all masked gives
NaN, GELU is the exact one) is not followed, and the verdict says so.
"""

from __future__ import annotations

import logging

import torch

from mlxport.converter.parity.reference.copies import detached_clones
from mlxport.converter.parity.reference.recorded_values import RecordedTensor, tensors
from mlxport.converter.parity.verdict.compare import judge
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.parity.verdict.reference_data import ReferenceValue
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import CallArguments
from mlxport.converter.torch_model.model_state import eval_mode, trial_run

_logger = logging.getLogger(__name__)

_FUSED = (
    torch.nn.MultiheadAttention,
    torch.nn.TransformerEncoder,
    torch.nn.TransformerEncoderLayer,
)
# what is asked is whether the numbers are others, and not how well they are rounded
_OTHER_NUMBERS = Judgement(32.0)


def has_fast_path(module: torch.nn.Module) -> bool:
    """Tell whether PyTorch may take its fast path in a module."""
    return torch.backends.mha.get_fastpath_enabled() and any(
        isinstance(part, _FUSED) for part in module.modules()
    )


@stage("fast path")
def fast_path_difference(
    module: torch.nn.Module, given: CallArguments, outputs: tuple[ReferenceValue, ...], seed: int
) -> str:
    """Run a model as users do and say what differs from the recorded outputs; empty if nothing.

    Args:
        module: the model.
        given: its positional and keyword arguments.
        outputs: what was recorded with every module called.
        seed: of the random state, as in the recorded run.
    """
    args, kwargs = detached_clones(given)
    devices = {t.device for t in [*module.parameters(), *module.buffers()] if t.is_cuda}
    with eval_mode(module), trial_run(module), torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        try:
            found = [RecordedTensor(leaf) for leaf in tensors(module(*args, **kwargs))]
        except Exception as error:  # whatever PyTorch raises on that path alone
            _logger.debug("PyTorch's fast path fails", exc_info=True)
            return f"it fails: {type(error).__name__}: {error}".splitlines()[0]
    if len(found) != len(outputs):
        return f"it gives {len(found)} tensors, not {len(outputs)}"
    for value, other in zip(outputs, found, strict=True):
        verdict = judge(
            other.values.reshape(other.shape),
            value.reference,
            value.native,
            dtype=value.dtype,
            shape=value.shape,
            actual_dtype=other.dtype,
            judgement=_OTHER_NUMBERS,
        )
        if not verdict.passed:
            return _said(verdict.misplaced, verdict.error, verdict.problems)
    return ""


def _said(misplaced: int, error: float | None, problems: tuple[str, ...]) -> str:
    if misplaced:
        return f"NaN or infinity in {misplaced:,} other places"
    return problems[0] if error is None else f"other numbers, {error:.2g} apart"
