"""Folders of transformers: ``architectures`` in ``config.json``, inputs by what the model takes."""

from __future__ import annotations

import copy
import inspect
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlxport.converter.errors import CheckpointError
from mlxport.converter.model_folders.found_model import (
    CONFIG,
    FoundModel,
    built,
    by_hand,
    is_class_of,
    library,
    read_description,
)
from mlxport.converter.torch_model.caches import FilledCache
from mlxport.converter.torch_model.factory import Factory

_logger = logging.getLogger(__name__)

# Of the example: a batch that can be left open has more than one element; lengths differ, so that
# those of encoder and decoder are not taken for one.
_BATCH, _LENGTH, _DECODED, _FRAMES = 2, 12, 7, 12
# With a cache: the argument that it is, what it holds already, and what is added. torch.export does
# not find that keys and values are of one length where more is added than they hold.
_CACHE, _PAST, _ADDED = "past_key_values", 7, 5


def transformers_model(source: Path) -> Mapping[str, FoundModel]:
    """Return the model of a folder whose configuration names a class of transformers.

    Raises:
        CheckpointError: transformers is missing, or does not know the class.
    """
    if not (source / CONFIG).is_file():
        return {}
    data = read_description(source / CONFIG)
    names = data.get("architectures")
    if not (isinstance(names, list) and names and isinstance(names[0], str)):
        return {}
    name, described = names[0], f"the model {names[0]} of transformers"
    transformers: Any = library("transformers", "transformers", described, source)
    cls: Any = getattr(transformers, name, None)
    if not is_class_of(cls, transformers.PreTrainedModel):
        why = " Its code lies beside it, and is not run." if "auto_map" in data else ""
        raise CheckpointError(
            f"{source}: {CONFIG} names the class {name}, which is no model of transformers "
            f"{transformers.__version__}.{why} {by_hand(source)}"
        )
    return {"": _model(source, data, cls, transformers)}


def _model(source: Path, data: Mapping[str, Any], cls: Any, transformers: Any) -> FoundModel:
    """Return the model of a class, with a cache where it generates with one that just grows.

    Raises:
        CheckpointError: its configuration cannot be built.
    """
    name = cls.__name__
    described = f"the model {name} of transformers"
    config = built(described, source, lambda: cls.config_class.from_pretrained(str(source)))
    built(described, source, lambda: _without_code(config))
    call = _Call.of(cls, config, transformers.MODEL_FOR_MASKED_LM_MAPPING)

    def factory(config: Any) -> Factory:
        return Factory(
            f"transformers {name}", lambda: built(described, source, lambda: cls(config))
        )

    found = FoundModel(
        checkpoint=source,
        description=source / CONFIG,
        factory=factory(config),
        inputs=tuple(call.inputs),
        tensors=call.tensors,
        dynamic=tuple(call.ways),
        opened=tuple(call.opened),
        architecture=json.dumps(data, sort_keys=True),
    )
    if getattr(config, "use_cache", None) is None:
        return found
    cached = copy.deepcopy(config)
    config.use_cache, cached.use_cache = False, True
    if not _generates(cls, config, call):
        return replace(found, remarks=("no cache",))
    if reason := _no_growing_cache(transformers, config):
        return replace(found, remarks=(f"no cache ({reason})",))
    words = _words(config) or 0
    return replace(
        found,
        factory=factory(cached),
        inputs=(f"input_ids=int64:{_BATCH},{_ADDED}:0..{words}",),
        kwargs={_CACHE: FilledCache(_BATCH, _PAST, words)},
        dynamic=({"input_ids": (0, 1), _CACHE: (0, 2)},),
        opened=("batch and lengths",),
        remarks=("with a cache",),
        without_cache=replace(found, remarks=("no cache",)),
    )


def _generates(model: Any, config: Any, call: _Call) -> bool:
    """Tell whether a model goes on with a text, and takes nothing else."""
    takes = inspect.signature(model.forward).parameters
    decodes = not getattr(config, "is_encoder_decoder", False) and model.can_generate()
    return decodes and _CACHE in takes and set(call.axes) == {"input_ids"}


def _no_growing_cache(transformers: Any, config: Any) -> str:
    """Return why the cache of a model does not just grow; empty where it does."""
    try:
        layers = transformers.DynamicCache(config=config).layers
    except Exception as error:  # transformers', of a configuration that it has no cache for
        _logger.info("no cache by the configuration", exc_info=True)
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    plain = transformers.cache_utils.DynamicLayer
    others = {type(layer).__name__ for layer in layers if type(layer) is not plain}
    return f"it has layers of the kind {', '.join(sorted(others))}" if others else ""


# How attention may be computed without code from the Hub.
_ATTENTION = (None, "eager", "sdpa")


def _without_code(config: Any) -> None:
    """Take out of a configuration, and of those within, what has transformers fetch and run code.

    That is ``auto_map``, the address of a class, and an attention that names a repository of
    kernels. What either computes is what the classes of transformers compute.
    """
    if config._attn_implementation not in _ATTENTION:
        config._attn_implementation = None
    vars(config).pop("auto_map", None)
    for within in list(vars(config).values()):
        if hasattr(within, "sub_configs"):
            _without_code(within)


def _setting(config: Any, *names: str) -> Any:
    """Return the first of some settings of a configuration, or of one within; None for none."""
    within = ("vision_config", "audio_config", "encoder", "text_config", "decoder")
    parts = [config, *(getattr(config, part, None) for part in within)]
    for name in names:
        for part in parts:
            if (value := getattr(part, name, None)) is not None:
                return value
    return None


@dataclass
class _Call:
    """An example call of a model, as it is collected.

    Attributes:
        inputs: as `Spec.parse` reads them.
        tensors: inputs whose values matter.
        axes: input -> the axes that such models leave open.
    """

    inputs: list[str] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any, config: Any, masked: Mapping[Any, Any]) -> _Call:
        """Return the call of a model by its ``forward`` and its configuration.

        Nothing where the two do not say what it takes: a model with images in its text, say.

        Args:
            model: its class.
            config: its configuration.
            masked: keys are the configurations of models that fill in masked words.
        """
        call, takes = cls(), inspect.signature(model.forward).parameters
        if _setting(config, "image_token_id", "image_token_index", "audio_token_id") is not None:
            return call
        if "pixel_values" in takes:
            call._images(config)
        if "input_features" in takes:
            call._features(config)
        if "input_values" in takes:
            call._sound(config)
        if "input_ids" in takes:
            call._text(config, takes, masked)
        if "decoder_input_ids" in takes and call.axes:
            call._add("decoder_input_ids", (_DECODED,), (0, 1), f":0..{_words(config)}")
        return call

    @property
    def ways(self) -> list[Any]:
        """What to open: batch and lengths, or the batch alone."""
        if not self.axes:
            return []
        batch = {name: (0,) for name in self.axes}
        # of several inputs with one length, torch.export finds that it is one
        whole: Any = dict(self.axes)
        if set(self.axes.values()) == {(0, 1)} or len(self.axes) == 1:
            whole = next(iter(self.axes.values()))
        only: Any = (0,)
        return [whole] if self.axes == batch else [whole, only]

    @property
    def opened(self) -> list[str]:
        """The ways, in words."""
        return ["batch and length", "batch"][-len(self.ways) :] if self.axes else []

    def _add(
        self, name: str, shape: tuple[int, ...], axes: tuple[int, ...], drawn: str = ""
    ) -> None:
        kind = "int64:" if drawn else ""
        self.inputs.append(f"{name}={kind}{','.join(map(str, (_BATCH, *shape)))}{drawn}")
        self.axes[name] = axes

    def _images(self, config: Any) -> None:
        size, channels = _setting(config, "image_size"), _setting(config, "num_channels") or 3
        if size is None:
            size = 224
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        frames = getattr(config, "num_frames", None)
        before = (frames, channels) if frames else (channels,)
        self._add("pixel_values", (*before, height, width), (0,))

    def _features(self, config: Any) -> None:
        """Add features of sound: Whisper's by mel bins of a fixed length, others by time."""
        bins, length = _setting(config, "num_mel_bins"), _setting(config, "max_source_positions")
        width = _setting(config, "input_feat_per_channel", "feature_projection_input_dim")
        if width is not None:
            self._add("input_features", (4 * _FRAMES, width), (0, 1))
        elif bins is not None and length is not None:
            self._add("input_features", (bins, 2 * length), (0,))

    def _sound(self, config: Any) -> None:
        """Add samples of sound for convolutions of known strides, or frames of mel bins."""
        kernels, strides = _setting(config, "conv_kernel"), _setting(config, "conv_stride")
        if kernels and strides:
            reach, stride = 1, 1
            for kernel, step in zip(kernels[::-1], strides[::-1], strict=True):
                reach, stride = (reach - 1) * step + kernel, stride * step
            self._add("input_values", (reach + _FRAMES * stride,), (0, 1))
        elif (bins := getattr(config, "num_mel_bins", None)) and hasattr(config, "max_length"):
            self._add("input_values", (config.max_length, bins), (0,))

    def _text(self, config: Any, takes: Mapping[str, Any], masked: Mapping[Any, Any]) -> None:
        if (words := _words(config)) is None:
            return
        self._add("input_ids", (_LENGTH,), (0, 1), f":0..{words}")
        if "attention_mask" in takes and _reads_both_ways(config, masked):
            import torch

            # the second text is shorter: padding is masked as it is in use
            mask = torch.ones(_BATCH, _LENGTH, dtype=torch.int64)
            mask[1, -3:] = 0
            self.tensors["attention_mask"] = mask
            self.axes["attention_mask"] = (0, 1)


def _words(config: Any) -> int | None:
    """Return the largest number of a token; None where there is no vocabulary."""
    text = getattr(config, "text_config", None)
    size = getattr(text, "vocab_size", None) or _setting(config, "vocab_size")
    return None if size is None else int(size) - 1


def _reads_both_ways(config: Any, masked: Mapping[Any, Any]) -> bool:
    """Tell whether a model's text is padded in use: an encoder's, not that of a generating one."""
    if getattr(config, "is_encoder_decoder", False):
        return True
    return type(config) in masked and not getattr(config, "is_decoder", False)
