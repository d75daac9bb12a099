"""On which axes of a program's inputs the sizes of each tensor in it depend.

The tables say of each op along which axes it computes the same whatever they measure.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch.fx import Node

from mlxport.converter.graph.capture.sizes.size_steps import Reached, SizeStep, shortest
from mlxport.converter.graph.capture.sizes.size_watch import is_indexed
from mlxport.converter.graph.ir.inputs import InputAxis

SizeOrigin: TypeAlias = frozenset[Reached]  # on which axes of the inputs a size depends
AxesOrigins: TypeAlias = tuple[SizeOrigin, ...]  # of the axes of a tensor

_NONE: SizeOrigin = frozenset()


class SizeFlow:
    """Follows the axes of the inputs through a program.

    Attributes:
        origins: of each tensor that depends on an input.
        fixed: axes an op depends on in a way of which it is not known that any size would do.
        by_weights: axes that a convolution or linear layer contracts: MLX raises there itself.
        needed: sizes with the least that PyTorch takes there, where MLX would take less.
    """

    def __init__(self, leaves: Collection[str]) -> None:
        self.origins: dict[Node, Any] = {}
        self.fixed: set[InputAxis] = set()
        self.by_weights: set[InputAxis] = set()
        self.needed: list[tuple[Reached, int]] = []
        self.leaves = leaves

    def visit(self, node: Node) -> None:
        """Note where the axes of a node's results come from."""
        if node.op not in ("call_function", "call_module", "call_method"):
            return
        rule = None if node.op != "call_function" else self._rule(node)
        found = None if rule is None else rule(self, node)
        if found is None:
            self.fix(axis for given in node.all_input_nodes for axis in self._all(given))
            found = _unknown(node)
        flat = not any(isinstance(one, tuple) for one in found)
        self.origins[node] = tuple(map(shortest, found)) if flat else found

    def of(self, value: Any) -> AxesOrigins:
        """Return the origins of a tensor's axes."""
        known = self.origins.get(value) if isinstance(value, Node) else None
        if isinstance(known, tuple) and not any(isinstance(one, tuple) for one in known):
            return known
        return (_NONE,) * _ndim(value)

    def fix(self, axes: Iterable[Reached]) -> None:
        """Note that the program holds at the sizes of the example alone."""
        self.fixed.update(one.place for one in axes)

    def need(self, origin: SizeOrigin, size: int) -> None:
        """Note the least that a size may be."""
        self.fix(one for one in origin if one.steps is None)
        self.needed += [(one, size) for one in origin if one.steps is not None]

    def _all(self, node: Node) -> Iterator[Reached]:
        for origin in _flat(self.origins.get(node, ())):
            yield from origin

    def _rule(self, node: Node) -> _Rule | None:
        if node.target is operator.getitem:
            return _item
        if not isinstance(node.target, torch._ops.OpOverload):
            return None
        name = node.target._schema.name.partition("::")[2].rstrip("_")
        if not str(node.target).startswith("aten."):
            return None
        if name in ("lstm", "gru", "rnn_tanh", "rnn_relu") and self._in_leaf(node):
            return _recurrent
        if name in _RULES:
            return _RULES[name]
        return _pointwise if torch.Tag.pointwise in node.target.tags else None

    def _in_leaf(self, node: Node) -> bool:
        stack = node.meta.get("nn_module_stack") or {}
        return any(path.removeprefix("L['self'].") in self.leaves for path, _ in stack.values())


_Rule: TypeAlias = Callable[[SizeFlow, Node], Any]


def _item(flow: SizeFlow, node: Node) -> Any:
    whole, place = node.args
    known = flow.origins.get(whole)  # type: ignore[arg-type]
    return known[place] if known else _unknown(node)


def _same(flow: SizeFlow, node: Node) -> Any:
    """Take an array and give one of its shape, or several."""
    origins = flow.of(node.args[0])
    return (origins, origins) if isinstance(node.meta.get("val"), (tuple, list)) else origins


def _indexed(flow: SizeFlow, node: Node) -> Any:
    """Keep the whole of an array; torch.export also records so a slice of all in the example."""
    return flow.of(node.args[0]) if is_indexed(node) else None


def _pointwise(flow: SizeFlow, node: Node) -> AxesOrigins:
    """Broadcast, as MLX does at the same sizes."""
    ndim = _ndim(node)
    found = [_NONE] * ndim
    tensors = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    sizes = [1] * ndim
    for tensor in tensors:
        for axis, size in enumerate(tensor.meta["val"].shape, ndim - tensor.meta["val"].ndim):
            found[axis] |= flow.of(tensor)[axis - ndim]
            if not flow.of(tensor)[axis - ndim] and isinstance(size, int):
                sizes[axis] = max(sizes[axis], size)
    for axis, size in enumerate(sizes):
        if size > 1 and found[axis]:  # meets a size that does not change
            flow.fix(found[axis])
    if len(tensors) > 1:
        _fix_ones(flow, tensors, ndim)
    return tuple(found)


def _fix_ones(flow: SizeFlow, tensors: Sequence[Node], ndim: int) -> None:
    """Fix sizes of one, whose axes may be stored anywhere, but for the batch.

    Where arrays of several orders meet, it is not moved for them.
    """
    for tensor in tensors:
        shape, origins = tensor.meta["val"].shape, flow.of(tensor)
        spread = len(shape) < ndim and all(isinstance(size, int) and size == 1 for size in shape)
        for axis, size in enumerate(shape):
            if isinstance(size, int) and size == 1 and (axis > 0 or spread):
                flow.fix(origins[axis])


def _moved(order: Callable[[Node, int], Sequence[int]]) -> _Rule:
    """Put the axes into another order."""

    def rule(flow: SizeFlow, node: Node) -> AxesOrigins:
        origins = flow.of(node.args[0])
        return tuple(origins[axis] for axis in order(node, len(origins)))

    return rule


def _transposed(node: Node, ndim: int) -> list[int]:
    order = list(range(ndim))
    a, b = (_axis(axis, ndim) for axis in node.args[1:3])
    order[a], order[b] = order[b], order[a]
    return order


def _last_two(_: Node, ndim: int) -> list[int]:
    return [*range(ndim - 2), *reversed(range(ndim)[-2:])]


def _movedim(node: Node, ndim: int) -> list[int]:
    given, places = (a if isinstance(a, (list, tuple)) else [a] for a in node.args[1:3])
    moved = {_axis(p, ndim): _axis(a, ndim) for a, p in zip(given, places, strict=True)}
    rest = iter(axis for axis in range(ndim) if axis not in moved.values())
    return [moved[place] if place in moved else next(rest) for place in range(ndim)]


def _unsqueezed(flow: SizeFlow, node: Node) -> AxesOrigins:
    origins = list(flow.of(node.args[0]))
    origins.insert(_axis(node.args[1], len(origins) + 1), _NONE)
    return tuple(origins)


def _selected(flow: SizeFlow, node: Node) -> AxesOrigins:
    """Take the first or last place; of another, the size says whether there is one."""
    origins = list(flow.of(node.args[0]))
    taken = origins.pop(_axis(node.args[1], len(origins)))
    if node.args[2] not in (0, -1):
        flow.fix(taken)
    return tuple(origins)


def _sliced(flow: SizeFlow, node: Node) -> AxesOrigins:
    """Keep a part of an axis."""
    origins = list(flow.of(node.args[0]))
    axis = _axis(_argument(node, "dim", 0), len(origins))
    bounds = [_argument(node, name, None) for name in ("start", "end", "step")]
    if bounds[0] in (0, None) and bounds[1] in (sys.maxsize, None) and bounds[2] in (1, None):
        return tuple(origins)  # whatever there is
    flow.fix(origins[axis])
    origins[axis] = _NONE
    return tuple(origins)


def _squeezed(flow: SizeFlow, node: Node) -> AxesOrigins | None:
    """Drop an axis if its size is one."""
    origins = flow.of(node.args[0])
    place = _argument(node, "dim", None)
    if not isinstance(place, int):
        return None
    axis = _axis(place, len(origins))
    flow.fix(origins[axis])
    stays = _ndim(node) == len(origins)
    return (*origins[:axis], *([_NONE] if stays else []), *origins[axis + 1 :])


def _attended(flow: SizeFlow, node: Node) -> AxesOrigins | None:
    """Attend without a mask."""
    query, key, value = (flow.of(given) for given in node.args[:3])
    names = ("attn_mask", "is_causal", "enable_gqa")
    mask, causal, grouped = (_argument(node, name, None) for name in names)
    if mask is not None or grouped or len({len(query), len(key), len(value)}) > 1:
        return None
    flow.fix(query[-1])  # the scale
    if causal and not query[-2] == key[-2] == value[-2]:
        flow.fix(query[-2] | key[-2] | value[-2])
    return (*query[:-1], value[-1])


def _reduced(flow: SizeFlow, node: Node) -> Any:
    """Reduce over axes that are given, or over all."""
    origins = flow.of(node.args[0])
    value = node.meta["val"]
    several = isinstance(value, (tuple, list))
    ndim = (value[0] if several else value).ndim
    given = _argument(node, "dim", None)
    if len(node.all_input_nodes) > 1:  # of two arrays, the larger
        return _pointwise(flow, node)
    if given is None and "arg" in str(node.target):  # a place among all elements
        return None
    listed = given if isinstance(given, (list, tuple)) else [given]
    gone = {_axis(axis, len(origins)) for axis in listed if axis is not None}
    gone = gone or set(range(len(origins)))
    kept = [_NONE if axis in gone else origin for axis, origin in enumerate(origins)]
    if ndim != len(origins):
        kept = [origin for axis, origin in enumerate(origins) if axis not in gone]
    return (tuple(kept),) * len(value) if several else tuple(kept)


def _joined(new: bool) -> _Rule:
    """Put arrays one after the other along an axis there is, or a new one."""

    def rule(flow: SizeFlow, node: Node) -> AxesOrigins | None:
        arrays: Any = node.args[0]
        found = list(map(flow.of, arrays))
        ndim = _ndim(node)
        if {len(one) for one in found} != {ndim - new}:
            return None
        _fix_ones(flow, arrays, 0)
        axis = _axis(_argument(node, "dim", 0), ndim)
        origins = []
        for place in range(ndim):
            if new and place == axis:
                origins.append(_NONE)
                continue
            source = place - (new and place > axis)
            origins.append(_NONE.union(*(one[source] for one in found)))
            if place == axis and len(found) > 1:
                origins[-1] = _after(origins[-1], None)
            if place != axis and not all(one[source] for one in found):
                flow.fix(origins[-1])  # meets a size that does not change
        return tuple(origins)

    return rule


def _convolved(flow: SizeFlow, node: Node) -> AxesOrigins:
    """Convolve; of too few places for a window, MLX makes one where windows are set apart."""
    origins, lead, spatial = _spatial(flow, node)
    flow.by_weights.update(one.place for one in _exact(flow, node.args[0], lead - 1))
    found = []
    for axis, origin in enumerate(origins[lead:]):
        stride, dilation = (_per_axis(node, name, spatial, 1)[axis] for name in _APART)
        reach = dilation * (_kernel(node)[axis] - 1) + 1
        padding = _argument(node, "padding", 0)
        if padding == "same":
            found.append(origin)
            continue
        added = 0 if padding == "valid" else 2 * _per_axis(node, "padding", spatial, 0)[axis]
        if stride > 1 or reach <= added:
            flow.need(origin, max(reach - added, 1))
        found.append(_after(origin, SizeStep(added - reach, stride)))
    return (*origins[: lead - 1], _NONE, *found)


def _convolved_back(flow: SizeFlow, node: Node) -> AxesOrigins:
    origins, lead, spatial = _spatial(flow, node)
    flow.by_weights.update(one.place for one in _exact(flow, node.args[0], lead - 1))
    names = ("stride", "padding", "output_padding", "dilation")
    settings = [_per_axis(node, name, spatial, int(name in _APART)) for name in names]
    found = [
        _after(origin, SizeStep(dilation * (kernel - 1) - stride - 2 * padding + more, 1, stride))
        for origin, kernel, stride, padding, more, dilation in zip(
            origins[lead:], _kernel(node), *settings, strict=True
        )
    ]
    return (*origins[: lead - 1], _NONE, *found)


_APART = ("stride", "dilation")


def _spatial(flow: SizeFlow, node: Node) -> tuple[AxesOrigins, int, int]:
    """Return the origins of what is convolved, where its spatial axes begin, how many there are."""
    origins, spatial = flow.of(node.args[0]), _ndim(node.args[1]) - 2
    return origins, len(origins) - spatial, spatial


def _kernel(node: Node) -> tuple[int, ...]:
    weight: Any = node.args[1]
    return tuple(weight.meta["val"].shape[2:])


def _pooled(flow: SizeFlow, node: Node) -> AxesOrigins:
    """Pool; where there is no window, MLX's layers raise.

    Of ``ceil_mode`` at least the windows are counted that there are without.
    """
    origins, spatial = flow.of(node.args[0]), int(str(node.target)[-len("1d.default")])
    sizes = _per_axis(node, "kernel_size", spatial, 1)
    strides = _per_axis(node, "stride", spatial, 0)
    paddings = _per_axis(node, "padding", spatial, 0)
    dilations = _per_axis(node, "dilation", spatial, 1)
    found = list(origins)
    for i, axis in enumerate(range(len(origins) - spatial, len(origins))):
        added = 2 * paddings[i] - dilations[i] * (sizes[i] - 1) - 1
        found[axis] = _after(found[axis], SizeStep(added, strides[i] or sizes[i]))
    return tuple(found)


def _after(origin: SizeOrigin, step: SizeStep | None) -> SizeOrigin:
    return frozenset(one.after(step) for one in origin)


def _per_axis(node: Node, name: str, count: int, default: int) -> list[int]:
    """Return a setting of each spatial axis."""
    given = _argument(node, name, None)
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    listed = [default] if listed in ([], [None]) else listed
    return listed * count if len(listed) == 1 else listed


def _linear(flow: SizeFlow, node: Node) -> AxesOrigins:
    origins = flow.of(node.args[0])
    flow.by_weights.update(one.place for one in _exact(flow, node.args[0], -1))
    return (*origins[:-1], _NONE)


def _exact(flow: SizeFlow, node: Any, axis: int) -> SizeOrigin:
    """Return the axis of an input that an axis is; nothing where it only depends on some."""
    while isinstance(node, Node) and node.op != "placeholder" and _keeps_shape(node):
        node = node.args[0]
    is_input = isinstance(node, Node) and node.op == "placeholder"
    return flow.of(node)[axis] if is_input else _NONE


def _keeps_shape(node: Node) -> bool:
    one = len(node.all_input_nodes) == 1 and node.args and isinstance(node.args[0], Node)
    pointwise = isinstance(node.target, torch._ops.OpOverload) and (
        torch.Tag.pointwise in node.target.tags
    )
    return bool(one and pointwise)


def _product(flow: SizeFlow, node: Node) -> AxesOrigins | None:
    """Multiply matrices; both languages raise where the sizes do not go together."""
    a, b = (flow.of(given) for given in node.args[:2])
    if min(len(a), len(b)) < 2:
        return None
    lead = _ndim(node) - 2
    found = []
    for axis in range(lead):
        parts = [x[axis - lead - 2] for x in (a, b) if len(x) - 2 >= lead - axis]
        found.append(_NONE.union(*parts))
        if len(parts) > 1 and not all(parts):
            flow.fix(found[-1])
    return (*found, a[-2], b[-1])


def _normed(axes: Callable[[Node, int], Iterable[int]]) -> _Rule:
    """Give the array's shape; the sizes of some axes are those of the layer."""

    def rule(flow: SizeFlow, node: Node) -> AxesOrigins:
        origins = flow.of(node.args[0])
        for axis in axes(node, len(origins)):
            flow.fix(origins[axis])
        return origins

    return rule


def _channels(_: Node, ndim: int) -> list[int]:
    return [1] if ndim > 1 else []


def _trailing(node: Node, ndim: int) -> range:
    shape: Any = node.args[1]
    return range(ndim - len(shape), ndim)


def _embedded(flow: SizeFlow, node: Node) -> AxesOrigins:
    return (*flow.of(node.args[1]), _NONE)


def _pooled_to(flow: SizeFlow, node: Node) -> AxesOrigins | None:
    """Pool to sizes that are given, but for those of the array itself."""
    x: Any = node.args[0]
    origins, sizes = flow.of(x), node.args[1]
    if not isinstance(sizes, (list, tuple)) or isinstance(node.meta["val"], (list, tuple)):
        return None
    lead = len(origins) - len(sizes)
    for origin, size, given in zip(origins[lead:], sizes, x.meta["val"].shape[lead:], strict=True):
        if size == given and size != 1:  # may stand for whatever size there is
            flow.fix(origin)
    return (*origins[:lead], *(_NONE for _ in sizes))


def _resized(flow: SizeFlow, node: Node) -> AxesOrigins | None:
    """Enlarge by factors; not to sizes."""
    if _argument(node, "output_size", None) is not None:
        return None
    origins, factors = flow.of(node.args[0]), _argument(node, "scale_factors", None)
    lead = len(origins) - len(factors or ())
    found = [
        _after(origin, SizeStep(-1, 1, int(factor)) if factor == int(factor) else None)
        for origin, factor in zip(origins[lead:], factors or (), strict=True)
    ]
    return (*(origins if not factors else origins[:lead]), *found)


def _flattened(flow: SizeFlow, node: Node) -> AxesOrigins:
    origins = flow.of(node.args[0])
    ndim = len(origins)
    first, last = (
        _axis(_argument(node, n, d), ndim) for n, d in (("start_dim", 0), ("end_dim", -1))
    )
    merged = _NONE.union(*origins[first : last + 1])
    flow.fix(merged)  # the columns of a linear layer behind it may have moved
    _fix_ones(flow, [node.args[0]], 0)  # type: ignore[list-item]
    return (*origins[:first], _NONE, *origins[last + 1 :])


def _recurrent(flow: SizeFlow, node: Node) -> Any:
    """Run a recurrent layer, which makes the states it begins with from its input's sizes."""
    given = flow.of(node.args[0])
    batched = len(given) == 3
    batch = given[0 if node.args[-1] is True else 1] if batched else _NONE
    flow.fix(given[-1])
    states = [(_NONE, batch, _NONE) if batched else (_NONE, _NONE)]
    return (tuple([*given[:-1], _NONE]), *states * (len(node.meta["val"]) - 1))


def _argument(node: Node, name: str, default: Any) -> Any:
    """Return an argument of an op by name, however it is given."""
    if name in node.kwargs:
        return node.kwargs[name]
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    place = names.index(name) if name in names else len(node.args)
    return node.args[place] if place < len(node.args) else default


def _axis(axis: Any, ndim: int) -> int:
    return int(axis) % max(ndim, 1)


def _ndim(value: Any) -> int:
    fake = value.meta.get("val") if isinstance(value, Node) else None
    return fake.ndim if isinstance(fake, torch.Tensor) else 0


def _unknown(node: Node) -> Any:
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        return tuple((_NONE,) * (v.ndim if isinstance(v, torch.Tensor) else 0) for v in value)
    return (_NONE,) * _ndim(node)


def _flat(origins: Any) -> Iterator[SizeOrigin]:
    for one in origins:
        if isinstance(one, tuple):
            yield from _flat(one)
        else:
            yield one


def _rules(rule: _Rule, names: str) -> dict[str, _Rule]:
    return dict.fromkeys(names.split(), rule)


_RULES: dict[str, _Rule] = {
    **_rules(
        _same,
        "clone contiguous detach dropout feature_dropout alpha_dropout feature_alpha_dropout flip "
        "lift_fresh_copy to type_as softmax log_softmax cumsum tril triu zeros_like ones_like ",
    ),
    **_rules(_pooled, "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"),
    **_rules(
        _reduced,
        "mean sum amax amin max min argmax argmin var std logsumexp prod any all "
        "linalg_vector_norm norm",
    ),
    **_rules(_convolved, "conv1d conv2d conv3d"),
    **_rules(_convolved_back, "conv_transpose1d conv_transpose2d conv_transpose3d"),
    **_rules(_linear, "linear"),
    **_rules(_product, "matmul mm bmm"),
    **_rules(_normed(_channels), "batch_norm group_norm instance_norm prelu"),
    **_rules(_normed(_trailing), "layer_norm rms_norm"),
    **_rules(_normed(lambda node, ndim: [_axis(_argument(node, "dim", -1), ndim)]), "glu"),
    **_rules(_pooled_to, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
    **_rules(
        _resized,
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d "
        "upsample_bilinear2d upsample_trilinear3d",
    ),
    "alias": _indexed,
    "cat": _joined(new=False),
    "stack": _joined(new=True),
    "embedding": _embedded,
    "flatten": _flattened,
    "movedim": _moved(_movedim),
    "mT": _moved(_last_two),
    "permute": _moved(lambda node, ndim: [_axis(a, ndim) for a in node.args[1]]),  # type: ignore[union-attr]
    "select": _selected,
    "scaled_dot_product_attention": _attended,
    "slice": _sliced,
    "squeeze": _squeezed,
    "t": _moved(lambda node, ndim: list(reversed(range(ndim)))),
    "transpose": _moved(_transposed),
    "unsqueeze": _unsqueezed,
}
