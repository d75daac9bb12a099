"""The tokenizer that was carried along from the folder of a checkpoint. Needs no torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxport.converter.errors import CheckpointError, ConversionError
from mlxport.converter.plan.json_data import read_json

_logger = logging.getLogger(__name__)

TOKENIZER = "tokenizer.json"
# what names the tokens that end a text, the first that does
_SETTINGS = ("generation_config.json", "config.json")


@dataclass(frozen=True)
class CarriedTokenizer:
    """A tokenizer, and the tokens that end a text.

    Attributes:
        tokenizer: of the package ``tokenizers``.
        ends: numbers of tokens.
    """

    tokenizer: Any
    ends: frozenset[int]

    @classmethod
    def of(cls, folder: Path) -> CarriedTokenizer:
        """Read the tokenizer in an output folder.

        Raises:
            CheckpointError: there is none, it cannot be read, or ``tokenizers`` is not installed.
        """
        file = folder / TOKENIZER
        if not file.is_file():
            raise CheckpointError(
                f"{folder} holds no {TOKENIZER}. It is carried along from the folder of the "
                "checkpoint: write it there by transformers' AutoTokenizer, "
                "tokenizer.save_pretrained(folder), and convert again, or copy it to the output."
            )
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise CheckpointError(
                f"{file} is read by the package tokenizers, which cannot be imported: {error}. "
                "pip install 'mlxport[generate]'"
            ) from error
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the package raises nothing more special
            raise CheckpointError(f"{file}: cannot be read as a tokenizer: {error}") from error
        return cls(tokenizer, _ends(folder))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, with those that the tokenizer puts before it."""
        return list(self.tokenizer.encode(text).ids)

    def decode(self, tokens: list[int]) -> str:
        """Return the text of some tokens, without those that are no text."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


def _ends(folder: Path) -> frozenset[int]:
    """Return the tokens that end a text, as the first file that names any has them."""
    for name in _SETTINGS:
        try:
            settings = read_json(folder / name) if (folder / name).is_file() else {}
        except ConversionError:
            _logger.info("%s cannot be read", folder / name, exc_info=True)
            continue
        named = settings.get("eos_token_id") if isinstance(settings, dict) else None
        listed = named if isinstance(named, list) else [named]
        if ends := frozenset(one for one in listed if type(one) is int):
            return ends
    return frozenset()
