"""Let the language model of an output folder go on with a text, greedily. Needs no torch."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxport.converter.arguments import argument
from mlxport.converter.errors import ConversionError, OptionsError
from mlxport.converter.output.code_digests import check_code as hold_to_digests
from mlxport.converter.output.contents import read_conversion
from mlxport.converter.output.device import on_device
from mlxport.converter.output.live_model import live_model, not_ending
from mlxport.converter.output.mlx_lm_file import generates
from mlxport.converter.plan.json_data import to_data
from mlxport.converter.tasks.generation.carried_tokenizer import CarriedTokenizer

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generated:
    """What a model went on with.

    Attributes:
        prompt: the text it was given.
        text: what it went on with.
        prompt_tokens: the tokens of the prompt.
        tokens: those it went on with.
        ended: why it stopped: ``"end of text"``, ``"max_tokens"``, or what the model takes no more.
        seconds: how long it took from the prompt to the last token.
    """

    prompt: str
    text: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    ended: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        data: dict[str, Any] = to_data(self)
        return data

    def __str__(self) -> str:
        return self.prompt + self.text


def generate(
    folder: str | Path,
    prompt: str,
    *,
    max_tokens: int = 100,
    device: str = "auto",
    check_code: bool = False,
) -> Generated:
    """Let the model of an output folder go on with a text; see ``mlxport.generate``.

    Raises:
        ConversionError: the folder holds no such model or no tokenizer.
        DeviceError: the device is not on this machine.
        OptionsError: the prompt has no tokens, or more than the model takes.
    """
    folder = Path(folder)
    if max_tokens < 1:
        raise OptionsError(f"{argument('max_tokens', max_tokens)}: expected at least 1")
    conversion = read_conversion(folder)
    if not generates(conversion):
        raise ConversionError(
            f"{folder}: its model does not go on with a text: it takes no tokens (input_ids) with "
            "a cache that grows, or gives no logits. A folder of a causal language model of "
            "transformers converts to one that does: mlxport convert FOLDER -o OUT"
        )
    if check_code:
        hold_to_digests(folder, conversion.code)
    tokenizer = CarriedTokenizer.of(folder)
    given = tokenizer.encode(prompt)
    if not given:
        raise OptionsError(f"{argument('prompt', prompt)}: the tokenizer makes no token of it")
    with on_device(device):
        model = live_model(folder)
        begun = time.perf_counter()
        with not_ending(folder / "model.py"):
            tokens, ended = _continued(model, given, max_tokens, tokenizer.ends)
        seconds = time.perf_counter() - begun
    text = tokenizer.decode([*given, *tokens])
    before = tokenizer.decode(given)
    # together, as the first word may begin with a space that it has not by itself
    more = text.removeprefix(before) if text.startswith(before) else tokenizer.decode(tokens)
    return Generated(prompt, more, tuple(given), tuple(tokens), ended, seconds)


def _continued(
    model: Any, given: list[int], most: int, ends: frozenset[int]
) -> tuple[list[int], str]:
    """Return the tokens that a model goes on with, and why it stopped.

    Raises:
        OptionsError: it does not take the prompt.
    """
    cache, ids = model.make_cache(), mx.array([given])
    tokens: list[int] = []
    while len(tokens) < most:
        try:
            logits = model(ids, cache=cache)["logits"]
        except ValueError as error:  # of the sizes that the model takes
            if not tokens:
                raise OptionsError(
                    f"{argument('prompt')}: the model does not take its {len(given)} tokens: "
                    f"{error}"
                ) from error
            _logger.info("the model takes no more", exc_info=True)
            return tokens, str(error)
        token = int(logits[0, -1].argmax().item())
        if token in ends:
            return tokens, "end of text"
        tokens.append(token)
        ids = mx.array([[token]])
    return tokens, "max_tokens"
