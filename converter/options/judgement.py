"""Options of the judgement: what is compared with PyTorch besides the example, how strictly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mlxport.converter.parity.reference.trials import Trials
from mlxport.converter.parity.verdict.judgement import Judgement


@dataclass(frozen=True)
class JudgementOptions:
    """How a model is compared with PyTorch.

    Attributes:
        judgement: what passes.
        gradients: whether the gradients of inputs and parameters are judged too.
        trials: the calls to judge besides the example.
    """

    judgement: Judgement = field(default_factory=Judgement)
    gradients: bool = False
    trials: Trials = field(default_factory=Trials)

    @classmethod
    def of(
        cls,
        *,
        noise_multiple: float | None,
        gradients: bool,
        input_kinds: Sequence[str],
        batch_sizes: Sequence[int] | None,
        calls: int | None = None,
    ) -> JudgementOptions:
        """Return the options that a user's values stand for.

        Raises:
            OptionsError: the multiple is not positive, a kind is unknown, or a size or the number
                of calls is none.
        """
        trials = Trials.of(input_kinds, batch_sizes, calls)
        return cls(Judgement.of(noise_multiple), gradients, trials)
