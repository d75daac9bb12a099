"""How strictly MLX's values are judged: the settings of a verification."""

from __future__ import annotations

from dataclasses import dataclass

# Right layers lose up to 13 times what torch loses, faulty ones 3,000 times: `make calibrate`.
NOISE_MULTIPLE = 32.0


@dataclass(frozen=True)
class Judgement:
    """What passes.

    Attributes:
        noise_multiple: the largest ratio of MLX's error to PyTorch's rounding noise that passes.
    """

    noise_multiple: float = NOISE_MULTIPLE


DEFAULT_JUDGEMENT = Judgement()
