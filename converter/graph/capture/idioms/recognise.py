"""Recognise the modules that compute a layer of MLX by formula or by one op: norms, activations.

Libraries write RMSNorm, LayerNorm and activations as classes of their own. What such a class is
called says nothing; what each of its calls computes does. A module is recognised where that is one
formula over one input and its own tensors, and gets the layer that the torch class of that formula
becomes. A formula in another order of its products differs by rounding; parity judges it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.nn as nn
import torch
from torch.fx import Node

from mlxport.converter.graph.capture.idioms.terms import (
    CASTS,
    Along,
    Bound,
    Term,
    Terms,
    Wildcard,
    any_input,
    any_number,
    matches,
    product,
    summed,
    uncast,
)
from mlxport.converter.rules.normalization import rms_norm_spec, unit_offset_norm_spec
from mlxport.converter.rules.registry import RULES, Axes, LayerSpec, Rule

_LONGEST = 24  # ops; no formula here has more
_SIDE = ("aten._assert_tensor_metadata.default",)

_X, _EPS = any_input("x"), any_number("eps")
_AXIS = Wildcard("axis", lambda term: isinstance(term, int))
_ABSENT = ("given", None)
_WEIGHT, _BIAS = (
    Wildcard(name, lambda term: isinstance(term, Along) or term == _ABSENT)
    for name in ("weight", "bias")
)
_SIZES, _THERE, _BACK = (
    Wildcard(name, lambda term: isinstance(term, tuple) and term[0] == "list")
    for name in ("sizes", "there", "back")
)
_ANY = Wildcard("any", lambda term: True)


def _mean(term: Term) -> Term:
    return ("mean", _AXIS, term)


def _permuted(name: str, *others: Term) -> tuple[Term, Term]:
    """Return an op over the last axis of the input, and of the input with its axes permuted."""
    inner = ("aten.permute.default", _X, _THERE)
    return (name, _X, *others), ("aten.permute.default", (name, inner, *others), _BACK)


_CENTRED = ("sub", _X, _mean(_X))
_RMS = ("rsqrt", ("add", _EPS, _mean(product(_X, _X))))
_DEVIATION = ("rsqrt", ("add", _EPS, _mean(product(_CENTRED, _CENTRED))))
_LAYER_NORM = product(_CENTRED, _DEVIATION, _WEIGHT)
_NORM_FORMULAS: tuple[tuple[Term, Any], ...] = (
    (product(_X, _RMS), torch.nn.RMSNorm),
    (product(_X, _RMS, _WEIGHT), torch.nn.RMSNorm),
    (product(_X, _RMS, summed(1.0, _WEIGHT)), unit_offset_norm_spec),
    (product(_CENTRED, _DEVIATION), torch.nn.LayerNorm),
    (_LAYER_NORM, torch.nn.LayerNorm),
    (summed(_LAYER_NORM, _BIAS), torch.nn.LayerNorm),
)
_NORM_OPS: tuple[tuple[Term, type[torch.nn.Module]], ...] = (
    *((p, torch.nn.RMSNorm) for p in _permuted("aten.rms_norm.default", _SIZES, _WEIGHT, _EPS)),
    *(
        (pattern, torch.nn.LayerNorm)
        for pattern in _permuted("aten.layer_norm.default", _SIZES, _WEIGHT, _BIAS, _EPS, _ANY)
    ),
)

_ROOT = math.sqrt(2 / math.pi)
_CURVES = (
    summed(_X, product(0.044715, _X, _X, _X)),
    product(_X, summed(1.0, product(0.044715, _X, _X))),
)
_FAST = LayerSpec(nn.GELU, ("fast",), axes=Axes.ANY)
_ACTIVATION_FORMULAS: tuple[tuple[Term, LayerSpec | torch.nn.Module], ...] = (
    *(
        (product(0.5, _X, summed(1.0, ("tanh", product(_ROOT, curve)))), torch.nn.GELU("tanh"))
        for curve in _CURVES
    ),
    (product(0.5, _X, summed(1.0, ("erf", product(math.sqrt(0.5), _X)))), torch.nn.GELU()),
    (product(_X, ("sigmoid", product(1.702, _X))), _FAST),
    (product(_X, ("sigmoid", _X)), torch.nn.SiLU()),
)
_ACTIVATION_OPS: tuple[tuple[Term, torch.nn.Module], ...] = (
    (("aten.relu.default", _X), torch.nn.ReLU()),
    (("aten.silu.default", _X), torch.nn.SiLU()),
    (("aten.mish.default", _X), torch.nn.Mish()),
    (("aten.hardswish.default", _X), torch.nn.Hardswish()),
    (("aten.hardsigmoid.default", _X), torch.nn.Hardsigmoid()),
    (("aten.gelu.default", _X, ("given", "none")), torch.nn.GELU()),
    (("aten.gelu.default", _X, ("given", "tanh")), torch.nn.GELU("tanh")),
    (("sigmoid", _X), torch.nn.Sigmoid()),
    (("tanh", _X), torch.nn.Tanh()),
)


def idiom_rule(
    module: torch.nn.Module, calls: Iterable[Sequence[Node]], tensors: Mapping[Node, str]
) -> Rule | None:
    """Return a rule for a module of which every call computes one and the same layer of MLX.

    Args:
        module: the torch module, which holds no other.
        calls: the ops of each call, as captured and not decomposed.
        tensors: placeholder -> name of the module's tensor it stands for.

    Returns:
        the rule; None where no layer is recognised.
    """
    specs = [_of_call(ops, tensors) for ops in calls]
    spec = specs[0] if specs else None
    if spec is None or any(other != spec for other in specs):
        return None
    if {*module.state_dict()} != {key for entry in spec.entries for key in entry.sources}:
        return None
    name = spec.target.__name__
    target = f"mlx.nn.{name}" if getattr(nn, name, None) is spec.target else f"layers.{name}"
    return Rule(type(module), lambda _: spec, frozenset(), True, target, "", idiom=True)


def _of_call(ops: Sequence[Node], tensors: Mapping[Node, str]) -> LayerSpec | None:
    """Return the layer that one call computes."""
    computed = [op for op in ops if str(op.target) not in _SIDE]
    inside = {*computed, *ops}
    left = [uncast(op) for op in computed if not inside.issuperset(op.users)]
    leaving = [*dict.fromkeys(op for op in left if op in inside)]
    if len(leaving) != 1 or len(computed) > _LONGEST:
        return None
    call = _Call(computed, leaving[0], Terms(computed, tensors))
    term = call.terms.of(call.result)
    for table, layer_of in (
        (_ACTIVATION_OPS, call.activation),
        (_ACTIVATION_FORMULAS, call.activation_in_float32),
        (_NORM_OPS, call.norm),
        (_NORM_FORMULAS, call.norm_in_float32),
    ):
        for pattern, layer in table:
            for bound in matches(pattern, term):
                if (spec := layer_of(layer, bound)) is not None:
                    return spec
    return None


@dataclass(frozen=True)
class _Call:
    """One call of a module.

    Attributes:
        ops: what it computes.
        result: the op that gives its result.
        terms: reads them.
    """

    ops: Sequence[Node]
    result: Node
    terms: Terms

    def activation(self, layer: Any, bound: Bound) -> LayerSpec | None:
        """Return the layer of an activation, unless it computes floats of integers."""
        dtype = _tensor(bound["x"]).dtype
        if not dtype.is_floating_point or _tensor(self.result).dtype != dtype:
            return None
        return layer if isinstance(layer, LayerSpec) else _by_its_rule(layer)

    def activation_in_float32(self, layer: Any, bound: Bound) -> LayerSpec | None:
        """Return the layer of a formula: in half precision MLX's rounds less often."""
        single = all(_tensor(op).dtype == torch.float32 for op in self.ops)
        return self.activation(layer, bound) if single else None

    def norm(self, layer: Any, bound: Bound) -> LayerSpec | None:
        """Return the layer of a norm over one axis, the last or that of the channels."""
        x = _tensor(bound["x"])
        weight, bias = (_tensor_named(bound.get(name)) for name in ("weight", "bias"))
        axis = bound["axis"] if "axis" in bound else _moved_axis(bound, x.ndim)
        over_channels = axis == 1 - x.ndim and x.ndim > 2
        size = x.shape[axis] if axis == -1 or over_channels else None
        seen = axis if "axis" in bound else -1
        if not isinstance(size, int) or any(t and t.axis != seen for t in (weight, bias)):
            return None
        if "sizes" in bound and bound["sizes"] != ("list", float(size)):
            return None
        if not self._of_one_dtype(x.dtype) or (bias and not weight):
            return None
        return _norm_spec(layer, size, bound["eps"], weight, bias, over_channels=over_channels)

    def norm_in_float32(self, layer: Any, bound: Bound) -> LayerSpec | None:
        """Return the layer of a formula whose statistics are float32's, as MLX's are."""
        for op in self.ops:
            scales = any(self.terms.along(one) for one in op.all_input_nodes)
            if _tensor(op).dtype != torch.float32 and not scales and str(op.target) not in CASTS:
                return None
        return self.norm(layer, bound)

    def _of_one_dtype(self, dtype: torch.dtype) -> bool:
        read = {node for op in self.ops for node in op.all_input_nodes} & self.terms.tensors.keys()
        return all(_tensor(node).dtype == dtype for node in (*read, self.result))


def _norm_spec(
    layer: Any,
    size: int,
    eps: float,
    weight: Along | None,
    bias: Along | None,
    *,
    over_channels: bool,
) -> LayerSpec:
    spec: LayerSpec
    if layer is unit_offset_norm_spec:
        spec = unit_offset_norm_spec(size, eps)
    elif layer is torch.nn.RMSNorm:
        spec = rms_norm_spec((size,), eps, affine=weight is not None)
    else:
        options = {"elementwise_affine": weight is not None, "bias": bias is not None}
        spec = _by_its_rule(torch.nn.LayerNorm(size, eps, device="meta", **options))
    seen = {"weight": weight, "bias": bias}
    named = {name: along.name for name, along in seen.items() if along is not None}
    entries = tuple(replace(entry, sources=(named[entry.sources[0]],)) for entry in spec.entries)
    axes = Axes.CHANNELS_LAST if over_channels else spec.axes
    return replace(spec, entries=entries, axes=axes)


def _moved_axis(bound: Bound, ndim: int) -> int:
    """Return the axis that an op over the last one takes, where the others keep their order."""
    if "there" not in bound:
        return -1
    there = [0, *range(2, ndim), 1]
    back = [0, ndim - 1, *range(1, ndim - 1)]
    is_of_channels = (bound["there"][1:], bound["back"][1:]) == (tuple(there), tuple(back))
    return 1 - ndim if is_of_channels else 0


def _by_its_rule(module: torch.nn.Module) -> LayerSpec:
    return RULES[type(module)].build(module)


def _tensor(node: Node) -> torch.Tensor:
    value = node.meta["val"]
    assert isinstance(value, torch.Tensor)
    return value


def _tensor_named(term: Term) -> Along | None:
    return term if isinstance(term, Along) else None
