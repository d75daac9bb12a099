"""How strictly MLX's values are judged: the settings of a verification."""

from __future__ import annotations

from dataclasses import dataclass

from mlxport.converter.ranges import positive

# Right layers lose up to 4 times what torch loses, faulty ones 3,000 times: `make calibrate`.
NOISE_MULTIPLE = 8.0
# the same in units of how far PyTorch's own values move when all it computes from is moved
MOVE_MULTIPLE = 4.0
LARGEST_MULTIPLE = 1000.0


@dataclass(frozen=True)
class Judgement:
    """What passes.

    Attributes:
        noise_multiple: the largest ratio of MLX's error to PyTorch's rounding noise that passes.

    Raises:
        OptionsError: the ratio is no number above 0, or so large that faults would pass.
    """

    noise_multiple: float = NOISE_MULTIPLE

    def __post_init__(self) -> None:
        multiple = positive("noise_multiple", self.noise_multiple, LARGEST_MULTIPLE)
        object.__setattr__(self, "noise_multiple", multiple)

    @classmethod
    def of(cls, noise_multiple: float | None) -> Judgement:
        """Return the judgement at a multiple, the usual one where none is given."""
        return cls(NOISE_MULTIPLE if noise_multiple is None else noise_multiple)


DEFAULT_JUDGEMENT = Judgement()
