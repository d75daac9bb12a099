"""Options of the output: what is written into the folder, and over what. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from mlxport.converter.checkpoint.writing.convert_streaming import parse_size


@dataclass(frozen=True)
class OutputOptions:
    """How the output folder is written.

    Attributes:
        overwrite: whether a folder that is there is replaced.
        max_shard_size: bytes of data in a file of weights; None for the usual size.
        carry_along: whether what accompanies the source's weights (``config.json``, the
            tokenizer, README and licence) is copied too.
    """

    overwrite: bool = False
    max_shard_size: int | None = None
    carry_along: bool = True

    @classmethod
    def of(
        cls, *, overwrite: bool, max_shard_size: int | str | None, carry_along: bool
    ) -> OutputOptions:
        """Return the options that a user's values stand for: a size may be ``"5GB"``.

        Raises:
            OptionsError: the size is none.
        """
        return cls(overwrite, parse_size(max_shard_size), carry_along)
