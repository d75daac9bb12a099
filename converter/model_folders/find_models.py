"""Ask each recogniser what a folder holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from mlxport.converter.errors import CheckpointError, ConversionError, OptionsError
from mlxport.converter.model_folders.diffusers import diffusers_models
from mlxport.converter.model_folders.found_model import FoundModel, Recogniser, by_hand
from mlxport.converter.model_folders.monai import monai_model
from mlxport.converter.model_folders.nnunet import nnunet_models
from mlxport.converter.model_folders.timm import timm_model
from mlxport.converter.model_folders.transformers import transformers_model
from mlxport.converter.terminal import cleaned

_logger = logging.getLogger(__name__)

# Asked in this order; each knows its folders by other files or other names in them.
RECOGNISERS: tuple[Recogniser, ...] = (
    diffusers_models,
    timm_model,
    transformers_model,
    nnunet_models,
    monai_model,
)


def find_models(source: Path) -> dict[str, FoundModel]:
    """Return the models that a folder describes.

    Args:
        source: a folder, or a file in one.

    Returns:
        Name of a part -> the model; one model has the empty name. Nothing where the folder does
        not say what it holds.

    Raises:
        CheckpointError: it says it, and the model cannot be built: its library is missing, or
            does not know it.
    """
    for recogniser in RECOGNISERS:
        if found := _asked(recogniser, source):
            return dict(found)
    return {}


def _asked(recogniser: Recogniser, source: Path) -> Mapping[str, FoundModel]:
    """Return what a recogniser finds; descriptions may hold anything in any place."""
    try:
        return recogniser(source)
    except ConversionError:
        raise
    except Exception as error:
        _logger.info("%s: %s", source, recogniser.__name__, exc_info=True)
        reason = cleaned(f"{type(error).__name__}: {error}".partition("\n")[0])
        raise CheckpointError(
            f"{source}: what it says of its model cannot be understood ({reason}). "
            f"{by_hand(source)}"
        ) from error


def find_model(source: Path) -> FoundModel | None:
    """Return the one model that a folder describes; None where it does not say what it holds.

    Raises:
        CheckpointError: as for `find_models`.
        OptionsError: it holds several.
    """
    found = find_models(source)
    if len(found) > 1:
        raise OptionsError(
            f"{source} holds {len(found)} models ({', '.join(found)}): convert_many converts all "
            "of them, or name the folder of one"
        )
    return next(iter(found.values()), None)
