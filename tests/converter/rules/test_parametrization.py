"""Weight norm, spectral norm and orthogonal weights: folded, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize

from mlxport.converter.errors import ConversionError, UnsupportedError
from mlxport.converter.plan.fold_steps import FoldOrthogonal, FoldSpectralNorm, FoldWeightNorm
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.rules.build import build_layer
from mlxport.converter.rules.registry import rule_for
from mlxport.converter.rules.spec import spec_for

T = torch.nn
Builder = Callable[[], torch.nn.Module]

LAYERS: dict[str, tuple[Builder, tuple[int, ...]]] = {
    "Conv1d": (lambda: T.Conv1d(4, 6, 3, groups=2), (2, 4, 9)),
    "Conv2d": (lambda: T.Conv2d(4, 6, (3, 2), stride=2), (2, 4, 9, 8)),
    "Conv3d": (lambda: T.Conv3d(4, 6, (1, 2, 3), groups=2), (2, 4, 5, 6, 7)),
    "ConvTranspose1d": (lambda: T.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (2, 4, 5)),
    "ConvTranspose2d": (lambda: T.ConvTranspose2d(4, 6, (3, 2), stride=2), (2, 4, 5, 4)),
    "ConvTranspose3d": (
        lambda: T.ConvTranspose3d(4, 6, (1, 2, 3), stride=2, groups=2),
        (2, 4, 3, 4, 3),
    ),
    "Linear": (lambda: T.Linear(4, 6), (3, 4)),
    "Bilinear": (lambda: T.Bilinear(4, 4, 6, bias=False), (3, 4)),
}
NORMS: dict[str, Callable[..., torch.nn.Module]] = {
    "weight": parametrizations.weight_norm,
    "old_weight": torch.nn.utils.weight_norm,
    "spectral": parametrizations.spectral_norm,
    "old_spectral": torch.nn.utils.spectral_norm,
}
DIMS = [0, 1, 2, 3, 4, -1, None]


def normed(norm: str, build: Builder, **kwargs: Any) -> torch.nn.Module:
    """A module in evaluation whose normalised tensor and its norm have different values."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # the old form is deprecated
        # what autograd knows to be computed cannot be copied
        module = NORMS[norm](build().requires_grad_(False), **kwargs).eval()
        for name, tensor in module.state_dict().items():
            if name.endswith(("original0", "weight_g")):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
            elif name.endswith(("original", "weight_orig")):
                tensor.mul_(torch.rand_like(tensor) + 0.5)  # the vectors no longer fit exactly
    return module


def inputs(name: str) -> tuple[torch.Tensor, ...]:
    x = torch.randn(LAYERS[name][1])
    return (x, torch.randn(3, 4)) if name == "Bilinear" else (x,)


def ndim(name: str) -> int:
    return LAYERS[name][0]().weight.ndim  # type: ignore[union-attr]


WEIGHT_CASES = [
    pytest.param(norm, name, dim, id=f"{norm}-{name}-{dim}")
    for norm in ("weight", "old_weight")
    for name in LAYERS
    for dim in DIMS
    if dim is None or dim < ndim(name)
]


@pytest.mark.parametrize(("norm", "name", "dim"), WEIGHT_CASES)
def test_weight_norm(
    assert_layer_parity: Callable[..., None], norm: str, name: str, dim: int | None
) -> None:
    module = normed(norm, LAYERS[name][0], dim=dim)
    assert_layer_parity(module, *inputs(name))
    assert_layer_parity(module, *inputs(name), train=True)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("norm", ["spectral", "old_spectral"])
@pytest.mark.parametrize("dim", [None, 0, 1])
def test_spectral_norm(
    assert_layer_parity: Callable[..., None], norm: str, name: str, dim: int | None
) -> None:
    assert_layer_parity(normed(norm, LAYERS[name][0], dim=dim), *inputs(name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["Conv3d", "ConvTranspose3d", "Linear"])
@pytest.mark.parametrize("norm", NORMS)
def test_half_precision(
    assert_layer_parity: Callable[..., None], norm: str, name: str, dtype: torch.dtype
) -> None:
    assert_layer_parity(normed(norm, LAYERS[name][0]), *inputs(name), dtype=dtype)


@pytest.mark.parametrize("orthogonal_map", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("use_trivialization", [True, False], ids=["based", "plain"])
@pytest.mark.parametrize("name", ["Conv2d", "Linear"])
def test_orthogonal(
    assert_layer_parity: Callable[..., None],
    name: str,
    orthogonal_map: str,
    use_trivialization: bool,
) -> None:
    module = LAYERS[name][0]()
    parametrizations.orthogonal(
        module, orthogonal_map=orthogonal_map, use_trivialization=use_trivialization
    )
    with torch.no_grad():
        module.parametrizations.weight.original.add_(0.1)  # type: ignore[union-attr, operator]
    assert_layer_parity(module, *inputs(name))


@pytest.mark.parametrize("norm", ["weight", "old_weight"])
@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "bias_hh"])
def test_any_tensor_of_a_layer(
    assert_layer_parity: Callable[..., None], norm: str, name: str
) -> None:
    module = normed(norm, lambda: T.GRUCell(3, 4), name=name)
    assert_layer_parity(module, torch.randn(2, 3), torch.randn(2, 4))


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l1_reverse"])
def test_recurrent_networks(assert_layer_parity: Callable[..., None], name: str) -> None:
    module = normed("weight", lambda: T.LSTM(3, 4, 2, bidirectional=True), name=name)
    assert_layer_parity(module, torch.randn(5, 2, 3))


def test_several_tensors(assert_layer_parity: Callable[..., None]) -> None:
    module = parametrizations.weight_norm(T.Linear(4, 6), "bias")
    parametrizations.spectral_norm(module, "weight")
    assert_layer_parity(module.eval(), torch.randn(3, 4))


@pytest.mark.parametrize("norm", NORMS)
def test_every_key_is_accounted_for(norm: str) -> None:
    module = normed(norm, LAYERS["ConvTranspose3d"][0])
    spec = spec_for(module)
    used = [key for entry in spec.entries for key in entry.sources]
    assert sorted([*used, *spec.ignored]) == sorted(module.state_dict())
    assert spec.entries[0].steps[0] == (
        FoldWeightNorm(0) if "weight" in norm else FoldSpectralNorm(1)
    )


@pytest.mark.parametrize("use_trivialization", [True, False], ids=["based", "plain"])
def test_every_key_of_an_orthogonal_weight_is_accounted_for(use_trivialization: bool) -> None:
    module = parametrizations.orthogonal(T.Linear(4, 6), use_trivialization=use_trivialization)
    spec = spec_for(module)
    used = [key for entry in spec.entries for key in entry.sources]
    assert sorted(used) == sorted(module.state_dict())
    assert not spec.ignored
    assert spec.entries[0].steps == (FoldOrthogonal("householder", use_trivialization),)


@pytest.mark.parametrize("norm", NORMS)
def test_the_module_stays_as_it_is(norm: str) -> None:
    module = normed(norm, LAYERS["Conv3d"][0])
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    kind, hooks = type(module), len(module._forward_pre_hooks)
    build_layer(module)
    assert (type(module), len(module._forward_pre_hooks)) == (kind, hooks)
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
def test_what_a_fold_lost_is_not_made_up(norm: str) -> None:
    module = normed(norm, LAYERS["Linear"][0])
    spec = spec_for(module)
    plan = WeightPlan.from_json(WeightPlan(spec.entries, spec.ignored).to_json())
    state = {key: tensor_from_torch(tensor) for key, tensor in module.state_dict().items()}
    with pytest.raises(ConversionError, match=rf"(?s){spec.entries[0].sources[0]}.*checkpoint"):
        dict(plan.invert(dict(plan.apply(state))))


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class OwnForward(T.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


def custom() -> torch.nn.Module:
    module = T.Linear(4, 6)
    parametrize.register_parametrization(module, "weight", Doubled())
    return module


def stacked() -> torch.nn.Module:
    module = parametrizations.spectral_norm(T.Linear(4, 6)).eval()
    parametrize.register_parametrization(module, "weight", Doubled())
    return module


def folded_and_hooked() -> torch.nn.Module:
    module = normed("old_weight", lambda: T.Linear(4, 6))
    module.register_forward_hook(lambda module, args, result: result * 2)
    return module


REFUSED = {
    "custom": (custom, r"Doubled.*remove_parametrizations\(module, 'weight'\)"),
    "stacked": (stacked, "Doubled after _SpectralNorm"),
    "vector": (lambda: parametrizations.spectral_norm(T.LayerNorm(4)).eval(), "_SpectralNorm"),
    "hook": (folded_and_hooked, "a forward hook is registered on it"),
    "training": (lambda: parametrizations.spectral_norm(T.Linear(4, 6)), "call eval"),
    "old_training": (lambda: torch.nn.utils.spectral_norm(T.Linear(4, 6)), "call eval"),
    "subclass": (lambda: parametrizations.weight_norm(OwnForward(4, 6)), "no rule"),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(build: Builder, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        build_layer(build())


@pytest.mark.parametrize("norm", ["weight", "spectral"])
def test_no_rule_stands_for_the_changed_class_itself(norm: str) -> None:
    assert rule_for(normed(norm, lambda: T.Linear(4, 6))) is None
