"""The exceptions of mlxport, and the exit code that each gives the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_MOST_LISTED = 200
_LONGEST_LINE = 1_000


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


class ConversionError(Exception):
    """Anything that keeps mlxport from giving back a right result.

    The message says where, what was expected and what came, why, and the next step.
    ``exit_code`` is what the command line returns.
    """

    exit_code = 1

    @classmethod
    def listing(cls, heading: str, problems: Iterable[str], advice: str = "") -> ConversionError:
        """Build one error that lists all problems of a kind, one indented line each.

        Of a great many, as a damaged file may have, the first stand there and the number of the
        rest; so does the beginning of a line that is longer than any screen.
        """
        found = list(problems)
        lines = [heading, *(f"  {_shortened(problem)}" for problem in found[:_MOST_LISTED])]
        if len(found) > _MOST_LISTED:
            lines.append(f"  and {len(found) - _MOST_LISTED} more")
        return cls("\n".join([*lines, advice] if advice else lines))


class OptionsError(ConversionError):
    """An argument or a combination of arguments makes no sense (exit code 2)."""

    exit_code = 2


class CaptureError(ConversionError):
    """``torch.export`` could not capture the model, or the model rejects the example input."""


class UnsupportedError(ConversionError):
    """Modules or ATen operations without an MLX counterpart, every one of them listed."""


class InternalError(ConversionError):
    """A fault in mlxport itself: the exception it comes from is its cause."""


class UserCodeError(ConversionError):
    """Code of the user's own raised: a model's ``forward``, a factory, a hook."""


class StateDictError(ConversionError):
    """Keys, shapes or dtypes of a state dict do not fit the model."""


class PlanError(ConversionError):
    """A weight plan and the tensors it speaks of do not go together; one of them is damaged."""


class SeveralStateDictsError(StateDictError):
    """A file holds several state dicts and nothing says which is meant.

    ``choices``: what ``key=`` may say -> the names in that state dict.
    """

    def __init__(self, message: str, choices: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(message)
        self.choices = choices


class CheckpointError(ConversionError):
    """A checkpoint file cannot be read or an output cannot be written."""


class ParityError(ConversionError):
    """The MLX model does not compute what the PyTorch model computes (exit code 3)."""

    exit_code = 3


class EvidenceError(ParityError):
    """A parity report or a stored reference is missing or damaged: nothing was judged."""

    exit_code = 1


class DeviceError(ConversionError):
    """The device asked for is not on this machine (exit code 4)."""

    exit_code = 4
