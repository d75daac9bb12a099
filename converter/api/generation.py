"""Text: let a converted language model go on with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlxport.converter.api.boundary import public
from mlxport.converter.environment import prepare
from mlxport.converter.exclusive import exclusive

if TYPE_CHECKING:
    from mlxport.converter.tasks.generation.generate import Generated


@public
@exclusive
def generate(
    folder: str | Path,
    prompt: str,
    *,
    max_tokens: int = 100,
    device: str = "auto",
    check_code: bool = False,
) -> Generated:
    """Let the language model of an output folder go on with a text: a first look.

    Greedily, by the model's cache, with the tokenizer that was carried along (``tokenizer.json``,
    read by the package ``tokenizers``); the text is taken as it is, without a template for chats.
    mlx-lm samples, serves and trains. Needs no torch.

    Runs the folder's ``model.py``, with all that you may do: read one from a stranger first.

    Args:
        folder: what ``mlxport convert`` wrote of a causal language model's folder.
        prompt: the text.
        max_tokens: how many tokens at most; fewer where the model ends the text.
        device: ``auto``, ``cpu``, ``metal`` or ``cuda``.
        check_code: hold ``model.py`` and ``layers/`` to the digests in ``conversion.json`` before
            they run.

    Returns:
        The text and its tokens; ``str()`` gives the prompt with what follows.

    Raises:
        ConversionError: the folder holds no such model, no tokenizer, or other code than was
            written.
        DeviceError: the device is not on this machine.
        OptionsError: the prompt has no tokens, or more than the model takes.
    """
    prepare()
    from mlxport.converter.tasks.generation.generate import generate

    return generate(folder, prompt, max_tokens=max_tokens, device=device, check_code=check_code)
