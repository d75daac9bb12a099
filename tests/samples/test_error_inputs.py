"""What torch's constructors and forward passes reject, ours reject, naming the layer."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from sample_database import INFOS, ErrorSample, error_samples
from sample_parity import Converted
from torch.utils._pytree import tree_map_only

from mlxport import layers
from mlxport.converter.plan.tensor import to_mlx
from mlxport.converter.plan.torch_tensor import tensor_from_torch

# torch's argument -> MLX's
_RENAMED = {"embedding_dim": "dims", "dim": "axis"}

# Samples that are not rejected, or not by the layer -> why
OTHERWISE = {
    "Embedding-00-forward": "an index is known only once MLX has evaluated it",
    "LinearCrossEntropyLoss-03-constructor": "ours takes the shape of the weights, not the weights",
}


@pytest.mark.parametrize("sample", list(error_samples()), ids=str)
def test_rejected(sample: ErrorSample, record_property: Callable[[str, object], None]) -> None:
    error, message = sample.raises
    with pytest.raises(error, match=message):
        _run_in_torch(sample)
    own = True
    try:
        if sample.in_constructor:
            _construct(sample)
        else:
            module, call = sample.build()
            converted = Converted(module, call)
            own = type(converted.layer).__module__.startswith("mlxport.layers")
            converted.run(call)
        problem: Exception | None = None
    except Exception as raised:  # any refusal will do that names the layer
        problem = raised
    # MLX's own layers reject in MLX's words
    named = _names(sample.layer, str(problem)) if own else isinstance(problem, ValueError)
    if reason := OTHERWISE.get(str(sample)):
        record_property("note", f"{sample}: {reason}")
        assert not named, f"it is rejected now; take it off the list: {problem}"
    else:
        assert named, f"torch: {message}\nours: {problem!r}"


def _run_in_torch(sample: ErrorSample) -> None:
    if sample.in_constructor:
        arguments = sample.arguments
        INFOS[sample.layer].module_cls(*arguments.args, **arguments.kwargs)
    else:
        module, call = sample.build()
        call.run(module)


def _construct(sample: ErrorSample) -> None:
    arguments = sample.arguments
    kwargs = {
        _RENAMED.get(k, k): v for k, v in arguments.kwargs.items() if k not in ("device", "dtype")
    }
    args, kwargs = tree_map_only(
        torch.Tensor, lambda x: to_mlx(tensor_from_torch(x)), (arguments.args, kwargs)
    )
    getattr(layers, sample.layer)(*args, **kwargs)


def _names(layer: str, message: str) -> bool:
    """Whether a message begins with the layer or the function it stands for."""
    name = re.match(r"\[?(\w+)(\]|:)", message)
    return name is not None and name[1].replace("_", "").lower() in layer.lower()
