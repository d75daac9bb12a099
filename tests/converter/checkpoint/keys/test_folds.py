"""Weights that lie in parts in a checkpoint: put together where the shapes tell how."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrizations

from mlxport.converter.checkpoint.keys.folds import plain_sources
from mlxport.converter.checkpoint.keys.infer_layout import read_tensors
from mlxport.converter.plan.fold_steps import FoldSpectralNorm
from mlxport.converter.plan.tensor import TensorSpec, to_float64
from mlxport.converter.plan.torch_tensor import tensor_from_torch

Norm = Callable[[torch.nn.Module], torch.nn.Module]

NORMS: dict[str, Norm] = {
    "weight-norm": torch.nn.utils.weight_norm,
    "weight-norm-new": parametrizations.weight_norm,
    "spectral-norm": torch.nn.utils.spectral_norm,
    "spectral-norm-new": parametrizations.spectral_norm,
}
# a layer and the shape of an input
LAYERS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, ...]]] = {
    "conv": (lambda: torch.nn.Conv2d(3, 5, 2), (1, 3, 4, 4)),
    "transposed": (lambda: torch.nn.ConvTranspose3d(3, 5, 2), (1, 3, 2, 2, 2)),
    "linear": (lambda: torch.nn.Linear(4, 6), (1, 4)),
    "square": (lambda: torch.nn.Linear(4, 4), (1, 4)),
}


def specs_of(module: torch.nn.Module) -> dict[str, TensorSpec]:
    tensors = {f"net.{k}": tensor_from_torch(v) for k, v in module.state_dict().items()}
    return {key: TensorSpec.of(tensor) for key, tensor in tensors.items()}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("norm", NORMS)
def test_the_weight_is_the_one_the_layer_uses_or_it_is_open(norm: str, layer: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hooks are deprecated
        build, shape = LAYERS[layer]
        module = NORMS[norm](build()).eval()
    sources = plain_sources(specs_of(module))
    if norm.startswith("spectral") and layer == "square":
        (name,) = (key for key, source in sources.items() if source.open)
        assert "either axis" in sources[name].open
        assert read_tensors(sources)[name].kind == "open"
        return
    assert {*sources} == {"net.weight", "net.bias"}
    source = sources["net.weight"]
    state = {f"net.{k}": tensor_from_torch(v) for k, v in module.state_dict().items()}
    tensors = tuple(state[key] for key in source.keys)
    for step in source.steps:
        tensors = step.apply(tensors)
    module(torch.zeros(shape))  # the hooks make the weight when the layer runs
    want = module.weight.detach().numpy()
    np.testing.assert_allclose(to_float64(tensors[0]), want, rtol=1e-5, atol=1e-7)


def test_the_rows_of_a_transposed_convolution_are_its_second_axis() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.nn.utils.spectral_norm(torch.nn.ConvTranspose2d(3, 5, 2))
    assert plain_sources(specs_of(module))["net.weight"].steps == (FoldSpectralNorm(1),)


def test_a_parametrisation_that_is_not_known_is_open() -> None:
    module = parametrizations.orthogonal(torch.nn.Linear(4, 6))
    found = plain_sources(specs_of(module))
    (name,) = (key for key, source in found.items() if source.open)
    assert "parametrisation" in found[name].open
    assert read_tensors(found)[name].steps is None


@pytest.mark.parametrize("shape", [(0, 4), (0, 0)], ids=str)
def test_a_weight_in_parts_without_rows_is_open(shape: tuple[int, int]) -> None:
    parts = {"weight_orig": shape, "weight_u": shape[:1], "weight_v": shape[1:]}
    found = plain_sources({key: TensorSpec("F32", size) for key, size in parts.items()})
    assert found["weight_orig"].open
    assert "weight" not in found
