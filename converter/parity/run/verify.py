"""Hold an MLX model to a recorded reference: every layer in place and alone, the model whole.

Needs mlx and numpy, never torch: the reference brings what PyTorch computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.nn as nn

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.environment import environment
from mlxport.converter.parity.run.verification import Verification
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import IN_PLACE, WHOLE, ParityEntry
from mlxport.converter.parity.verdict.judgement import DEFAULT_JUDGEMENT, Judgement
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.plan.record import Conversion


def verify_live(
    model: nn.Module,
    conversion: Conversion,
    reference: Reference,
    *,
    inputs: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    judgement: Judgement = DEFAULT_JUDGEMENT,
) -> ParityReport:
    """Judge a model against a reference recorded with ``keep_inputs=True``.

    Of each call of each module in the conversion, every output tensor is judged *in place* and
    *alone*; the model's outputs *in place* and *whole*. ``conversion.modules`` may hold a path
    several times: its records stand for calls 0, 1, …, the last for all that follow. What cannot
    be judged is an entry with the reason, and never counts as passed.

    Args:
        model: the MLX model, in eval mode; called with the reference's inputs.
        conversion: says which MLX module stands for which PyTorch module, in which axis order.
        reference: what PyTorch computed.
        inputs: what to call the model with instead, positional and by name.
        judgement: what passes.

    Raises:
        ParityError: the model is in training mode, fails, or does not fit the conversion, or the
            conversion does not fit the reference.
    """
    return Verification(model, conversion, reference, judgement, inputs).report()


def verify_bundle(
    model: nn.Module,
    conversion: Conversion,
    reference: Reference,
    *,
    judgement: Judgement = DEFAULT_JUDGEMENT,
) -> ParityReport:
    """Judge a model against a reference read from a file, where torch need not be installed.

    As `verify_live`, without *alone*: a stored reference holds no layer inputs.

    Raises:
        ParityError: as for `verify_live`.
    """
    calls = tuple(replace(call, inputs=None, alone=()) for call in reference.calls)
    without = replace(reference, calls=calls)
    return verify_live(model, conversion, without, judgement=judgement)


def verify_at_sizes(
    model: nn.Module,
    conversion: Conversion,
    references: Iterable[Reference],
    *,
    judgement: Judgement = DEFAULT_JUDGEMENT,
    alone: bool = True,
) -> ParityReport:
    """Judge a model against references recorded at several sizes and on several inputs.

    Args:
        model: the MLX model.
        conversion: says which MLX module stands for which PyTorch module.
        references: what PyTorch computed in each run, of the example first. Those with a ``case``
            hold no layer inputs; where the model fails on one, the report says so.
        judgement: what passes.
        alone: judge layers on PyTorch's own inputs too, which the references then hold.

    Raises:
        ParityError: as for `verify_live`.
    """

    def judged(reference: Reference) -> ParityReport:
        check = verify_live if alone and not reference.case else verify_bundle
        try:
            return check(model, conversion, reference, judgement=judgement)
        except ParityError as error:
            if not reference.case:
                raise
            return failed_run(model, reference, str(error), judgement)

    first, *others = map(judged, references)
    return replace(first, others=tuple(others))


def failed_run(
    model: nn.Module, reference: Reference, problem: str, judgement: Judgement
) -> ParityReport:
    """Return the report on a run in which the model gave no result."""
    layer = type(model).__name__
    verdicts = [Verdict((problem,), v.shape, v.dtype) for v in reference.outputs]
    return ParityReport(
        entries=(),
        outputs=tuple(
            ParityEntry("", 0, k, layer, dict.fromkeys((IN_PLACE, WHOLE), verdict))
            for k, verdict in enumerate(verdicts)
        ),
        dtype=reference.dtype,
        reference_dtype=reference.reference_dtype,
        fallback=reference.fallback,
        noise_multiple=judgement.noise_multiple,
        seed=reference.seed,
        environment=environment(reference.versions),
        sizes=dict(reference.sizes),
        case=reference.case,
    )
