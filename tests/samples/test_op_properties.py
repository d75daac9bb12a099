"""Ops with random arguments compute in MLX what they compute in PyTorch, or are refused.

By family: shapes with axes of one, of none and no axes at all, dtypes mixed, axes counted from
either end, inputs stored in any order. A few of each by default; `MLXPORT_SWEEP=20` draws hundreds.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import op_parity
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st
from op_database import SWEEP

from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]
Case = tuple[str, Fn, list[torch.Tensor]]
Draw = Callable[..., Any]

FLOATS = [torch.float32, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
DTYPES = [*FLOATS, *INTEGERS, torch.bool]
LARGEST = 600


# -- what is drawn ---------------------------------------------------------------------------------


def a_shape(
    draw: Draw, least: int = 0, most: int = 4, sizes: Sequence[int] = (0, 1, 2, 3, 4)
) -> tuple[int, ...]:
    """A shape; an axis of none is the exception."""
    often = st.sampled_from([*[n for n in sizes if n] * 3, *sizes])
    return tuple(draw(st.lists(often, min_size=least, max_size=most)))


def a_tensor(draw: Draw, shape: Sequence[int], dtype: torch.dtype | None = None) -> torch.Tensor:
    """Quarters between -3 and 3, which every float holds; integers between -5 and 5."""
    dtype = dtype or draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 16)))
    if dtype == torch.bool:
        return torch.randint(0, 2, tuple(shape), generator=generator).bool()
    if not dtype.is_floating_point:
        low = 0 if dtype == torch.uint8 else -5
        return torch.randint(low, 6, tuple(shape), generator=generator).to(dtype)
    return (torch.randint(-12, 13, tuple(shape), generator=generator) / 4).to(dtype)


def broadcast_with(draw: Draw, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape that broadcasts with another."""
    kept = draw(st.integers(0, len(shape)))
    return tuple(draw(st.sampled_from([1, n])) for n in shape[len(shape) - kept :])


def an_axis(draw: Draw, ndim: int) -> int:
    return draw(st.integers(-ndim, ndim - 1)) if ndim else draw(st.sampled_from([0, -1]))


def one_of(draw: Draw, table: dict[str, Fn]) -> tuple[str, Fn]:
    name = draw(st.sampled_from(sorted(table)))
    return name, table[name]


def _named(module: Any, names: str) -> dict[str, Fn]:
    return {name: getattr(module, name) for name in names.split()}


# -- families --------------------------------------------------------------------------------------

BINARY: dict[str, Fn] = {
    **_named(
        torch,
        "add sub mul div floor_divide remainder fmod maximum minimum fmax fmin atan2 pow eq "
        "ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor "
        "hypot copysign logaddexp logaddexp2 xlogy dist isclose gcd lcm heaviside",
    ),
    "trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "add alpha": lambda x, y: torch.add(x, y, alpha=2),
    "sub alpha": lambda x, y: torch.sub(x, y, alpha=2),
    "where": lambda x, y: torch.where(x > 0, x, y),
    "where number": lambda x, y: torch.where(y > 0, x, 2),
    "where numbers": lambda x, y: torch.where(x > y, 1.5, 2),
    "masked_fill": lambda x, y: x.masked_fill(y > 0, 1),
    "masked_fill array": lambda x, y: x.masked_fill(x > 0, y.sum().to(x.dtype)),
    "clamp array": lambda x, y: torch.clamp(x, y),
    "clamp arrays": lambda x, y: torch.clamp(x, y, y + 1),
    "lerp": lambda x, y: torch.lerp(x, y, 0.25),
    "addcmul": lambda x, y: torch.addcmul(x, x, y, value=2),
    "addcdiv": lambda x, y: torch.addcdiv(x, x, y, value=2),
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "in place": lambda x, y: x.clone().mul_(y).add_(1),
    "copy": lambda x, y: x.clone().copy_(y),
}


def binary(draw: Draw) -> Case:
    name, fn = one_of(draw, BINARY)
    shape = a_shape(draw)
    x, y = a_tensor(draw, shape), a_tensor(draw, broadcast_with(draw, shape))
    if draw(st.booleans()):
        x, y = y, x
    return name, fn, [x, y]


NUMBERS: dict[str, Fn] = _named(
    operator, "add sub mul truediv floordiv mod pow eq ne lt le gt ge and_ or_ xor"
) | {
    "maximum": lambda x, n: torch.clamp_min(x, n),
    "minimum": lambda x, n: torch.clamp_max(x, n),
    "full_like": lambda x, n: torch.full_like(x, n),
    "fill": lambda x, n: x.clone().fill_(n),
    "add_": lambda x, n: x.clone().add_(n),
    "div_": lambda x, n: x.clone().div_(n),
    "where": lambda x, n: torch.where(x > 0, x, n),
    "masked": lambda x, n: x.masked_fill(x > 0, n),
    "clamp": lambda x, n: torch.clamp(x, n, 2.5),
    "remainder": lambda x, n: torch.remainder(x, n),
    "fmod": lambda x, n: torch.fmod(x, n),
    "trunc": lambda x, n: torch.div(x, n, rounding_mode="trunc"),
    "threshold": lambda x, n: F.threshold(x, n, 7),
}


def with_number(draw: Draw) -> Case:
    name, fn = one_of(draw, NUMBERS)
    number = draw(st.sampled_from([0, 1, -1, 2, 3, True, 0.5, -1.5, 2.0, 200, 70000, 1e-6]))
    flipped = draw(st.booleans()) and name in [
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
    ]
    x = a_tensor(draw, a_shape(draw))
    return f"{name} {number} {flipped}", lambda x: fn(number, x) if flipped else fn(x, number), [x]


UNARY: dict[str, Fn] = _named(
    torch,
    "abs neg sign sgn square exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal "
    "sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid erf erfc ceil "
    "floor round trunc frac isnan isinf isfinite isposinf isneginf logical_not "
    "bitwise_not relu signbit nan_to_num positive logit sinc i0 digamma lgamma deg2rad "
    "rad2deg selu celu",
) | _named(
    F,
    "gelu silu mish softplus softsign elu leaky_relu hardtanh hardswish hardsigmoid relu6 "
    "logsigmoid hardshrink softshrink tanhshrink",
)


def unary(draw: Draw) -> Case:
    name, fn = one_of(draw, UNARY)
    return name, fn, [a_tensor(draw, a_shape(draw))]


REDUCTIONS: dict[str, Fn] = _named(
    torch,
    "sum mean amax amin all any var std logsumexp nansum nanmean count_nonzero",
)
ALONG: dict[str, Fn] = _named(
    torch,
    "prod argmax argmin cumsum cumprod softmax log_softmax logcumsumexp cummax cummin sum "
    "mean unbind diff flip sort median mode",
) | {
    "max": lambda x, dim: torch.max(x, dim)[0],
    "min": lambda x, dim: torch.min(x, dim)[0],
    "median": lambda x, dim: torch.median(x, dim)[0],
    "mode": lambda x, dim: torch.mode(x, dim)[0],
    "sort": lambda x, dim: torch.sort(x, dim)[0],
    "stable sort": lambda x, dim: torch.sort(x, dim=dim, stable=True, descending=True),
    "cummax": lambda x, dim: torch.cummax(x, dim)[0],
    "cummin": lambda x, dim: torch.cummin(x, dim)[0],
    "softmin": lambda x, dim: F.softmin(x, dim),
    "normalize": lambda x, dim: F.normalize(x, dim=dim),
    "norm": lambda x, dim: torch.linalg.vector_norm(x, 2, dim),
    "norm 1": lambda x, dim: torch.linalg.vector_norm(x, 1, dim, keepdim=True),
    "norm inf": lambda x, dim: torch.linalg.vector_norm(x, math.inf, dim),
    "glu": F.glu,
    "sum in float": lambda x, dim: torch.sum(x, dim, dtype=torch.float32),
    "cumsum in float": lambda x, dim: torch.cumsum(x, dim, dtype=torch.float32),
    "argmax kept": lambda x, dim: torch.argmax(x, dim, keepdim=True),
    "aminmax": lambda x, dim: torch.aminmax(x, dim=dim),
    "var unbiased": lambda x, dim: torch.var(x, dim, correction=0),
    "std kept": lambda x, dim: torch.std(x, dim, keepdim=True),
    "flip": lambda x, dim: torch.flip(x, [dim]),
    "roll": lambda x, dim: torch.roll(x, 2, dim),
    "topk": lambda x, dim: torch.topk(x, 2, dim)[0],
    "kthvalue": lambda x, dim: torch.kthvalue(x, 1, dim)[0],
    "chunk": lambda x, dim: torch.chunk(x, 2, dim),
    "split": lambda x, dim: torch.split(x, 2, dim),
    "narrow": lambda x, dim: x.narrow(dim, 1, 1),
    "select": lambda x, dim: x.select(dim, -1),
    "repeat_interleave": lambda x, dim: torch.repeat_interleave(x, 2, dim),
    "index_select": lambda x, dim: torch.index_select(x, dim, torch.tensor([0, 1, 0])),
    "cat": lambda x, dim: torch.cat([x, x + 1], dim),
    "cat of two dtypes": lambda x, dim: torch.cat([x, x.float()], dim),
    "stack": lambda x, dim: torch.stack([x, x * 2], dim),
    "take_along": lambda x, dim: torch.take_along_dim(x, torch.argsort(x, dim, stable=True), dim),
    "unsqueeze": lambda x, dim: x.unsqueeze(dim),
    "squeeze": lambda x, dim: x.squeeze(dim),
    "movedim": lambda x, dim: x.movedim(dim, 0),
    "transpose": lambda x, dim: x.transpose(0, dim) * 1,
    "unfold": lambda x, dim: x.unfold(dim, 2, 1),
    "swapped mean": lambda x, dim: x.transpose(0, dim).mean(-1),
    "index_fill": lambda x, dim: x.index_fill(dim, torch.tensor([0]), 2),
    "index_copy": lambda x, dim: x.index_copy(dim, torch.tensor([0]), x.narrow(dim, 0, 1) + 1),
    "index_add": lambda x, dim: x.index_add(dim, torch.tensor([0]), x.narrow(dim, 0, 1)),
    "select_scatter": lambda x, dim: x.select_scatter(x.select(dim, 0) + 1, dim, 0),
    "scatter": lambda x, dim: x.scatter(dim, torch.zeros_like(x, dtype=torch.int64), 2),
    "scatter_add": lambda x, dim: x.scatter_add(dim, torch.zeros_like(x, dtype=torch.int64), x),
    "gather": lambda x, dim: x.gather(dim, torch.zeros_like(x, dtype=torch.int64)),
    "cosine": lambda x, dim: F.cosine_similarity(x, x + 1, dim),
    "one axis unflattened": lambda x, dim: x.unflatten(dim, (1, -1)),
    "nanmedian": lambda x, dim: torch.nanmedian(x, dim)[0],
    "quantile": lambda x, dim: torch.quantile(x, 0.25, dim),
}


def reduction(draw: Draw) -> Case:
    name, fn = one_of(draw, REDUCTIONS)
    x = a_tensor(draw, a_shape(draw))
    axes = draw(st.lists(st.integers(0, max(x.ndim - 1, 0)), unique=True, max_size=max(x.ndim, 1)))
    dims = [axis - draw(st.sampled_from([0, max(x.ndim, 1)])) for axis in axes]
    keep = {} if name == "count_nonzero" else {"keepdim": draw(st.booleans())}
    return f"{name} {dims} {keep}", lambda x: fn(x, dims, **keep), [x]


def along(draw: Draw) -> Case:
    name, fn = one_of(draw, ALONG)
    x = a_tensor(draw, a_shape(draw))
    dim = an_axis(draw, x.ndim)
    return f"{name} {dim}", lambda x: fn(x, dim), [x]


MOVES = ("permute", "reshape", "flatten", "expand", "narrow", "step", "select", "squeeze", "new")


def a_move(draw: Draw, x: torch.Tensor) -> tuple[str, Fn]:
    """A view of an array with at least one axis."""
    kind = draw(st.sampled_from(MOVES))
    axis = an_axis(draw, x.ndim)
    if kind == "permute":
        dims = draw(st.permutations(range(x.ndim)))
        return f"permute {dims}", lambda x: x.permute(dims)
    if kind == "reshape" and x.numel():
        first = draw(st.sampled_from([n for n in range(1, x.numel() + 1) if x.numel() % n == 0]))
        return f"reshape {first}, -1", lambda x: x.reshape(first, -1)
    if kind == "flatten":
        return "flatten", lambda x: x.flatten(axis % x.ndim)
    if kind == "expand":
        return "expand", lambda x: x.expand(2, *x.shape)
    if kind == "step":
        return f"step {axis}", lambda x: x.movedim(axis, 0)[::2].movedim(0, axis)
    if kind == "narrow" and x.shape[axis]:
        start = draw(st.integers(-x.shape[axis], x.shape[axis] - 1))
        return f"slice {axis} {start}", lambda x: x.movedim(axis, 0)[start:].movedim(0, axis)
    if kind == "select" and x.shape[axis] and x.ndim > 1:
        return f"select {axis}", lambda x: x.select(axis, -1)
    if kind == "squeeze" and x.squeeze().ndim:
        return "squeeze", lambda x: x.squeeze()
    if kind == "new":
        return f"unsqueeze {axis}", lambda x: x.unsqueeze(axis)
    return "+", lambda x: x + x.flip(0)


def moves(draw: Draw) -> Case:
    x = a_tensor(draw, a_shape(draw, 1, 4))
    y, names, chain = x, [], []
    for _ in range(draw(st.integers(1, 5))):
        name, fn = a_move(draw, y)
        y = fn(y)
        assume(y.numel() <= LARGEST and 0 < y.ndim <= 6)
        names.append(name)
        chain.append(fn)

    def run(x: torch.Tensor) -> torch.Tensor:
        for fn in chain:
            x = fn(x)
        return x

    return "; ".join(names), run, [x]


def an_index(draw: Draw, shape: Sequence[int]) -> tuple[list[Any], list[torch.Tensor]]:
    """What stands in brackets behind an array; arrays of places become inputs."""
    entries: list[Any] = []
    places: list[torch.Tensor] = []
    common = a_shape(draw, 0, 2, (1, 2, 3))
    for size in shape[: draw(st.integers(0, len(shape)))]:
        kind = draw(st.sampled_from(["all", "slice", "number", "places", "places", "new"]))
        if kind == "new":
            entries.append(None)
        if kind == "slice":
            start, stop = (draw(st.integers(-size - 1, size + 1)) for _ in range(2))
            entries.append(slice(start, stop, draw(st.integers(1, 2))))
        elif kind == "number" and size:
            entries.append(draw(st.integers(-size, size - 1)))
        elif kind == "places" and size:
            wanted = broadcast_with(draw, common)
            number = math.prod(wanted)
            drawn = draw(st.lists(st.integers(-size, size - 1), min_size=number, max_size=number))
            places.append(torch.tensor(drawn, dtype=torch.int64).reshape(wanted))
            entries.append(places[-1])
        else:
            entries.append(slice(None))
    return entries, places


def indexing(draw: Draw) -> Case:
    x = a_tensor(draw, a_shape(draw, 1, 4))
    entries, places = an_index(draw, x.shape)
    slots = [i for i, e in enumerate(entries) if isinstance(e, torch.Tensor)]
    write = draw(st.sampled_from(["read", "put", "add", "put array", "accumulate"]))

    def run(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        index: list[Any] = list(entries)
        for slot, tensor in zip(slots, given, strict=True):
            index[slot] = tensor
        at = tuple(index)
        if write == "read":
            return x[at]
        y = x.clone()
        if write == "put":
            y[at] = 1
        elif write == "add":
            y[at] += 1
        elif write == "put array":
            y[at] = y[at] + 1
        else:
            only = tuple(e for e in at if isinstance(e, torch.Tensor))
            y = y.index_put(only, torch.ones((), dtype=y.dtype), accumulate=True)
        return y

    if write != "read" and slots:  # several writes into one place have no order
        for place in places:
            assume(place.unique().numel() == place.numel() and (place >= 0).all())
    shown = [list(e.shape) if isinstance(e, torch.Tensor) else e for e in entries]
    return f"{write} {shown} {places}", run, [x, *places]


MATMUL: dict[str, Fn] = {
    "matmul": torch.matmul,
    "transposed": lambda x, y: torch.matmul(y.transpose(-1, -2), x.transpose(-1, -2)),
    "linear": lambda x, y: F.linear(x, y.transpose(-1, -2)),
    "einsum": lambda x, y: torch.einsum("...ij,...jk->...ki", x, y),
    "einsum sums": lambda x, y: torch.einsum("...ij,...jk->...i", x, y),
    "tensordot": lambda x, y: torch.tensordot(x, y, dims=([-1], [-2])),
    "addmm": lambda x, y: torch.addmm(x[:, :1], x, y, beta=0.5, alpha=2.0),
    "baddbmm": lambda x, y: torch.baddbmm(x[..., :1], x, y, beta=2.0),
    "bmm": torch.bmm,
    "mm": torch.mm,
    "outer": lambda x, y: torch.outer(x.flatten(), y.flatten()),
    "kron": torch.kron,
    "cdist": lambda x, y: torch.cdist(x, y.transpose(-1, -2)),
}


def products(draw: Draw) -> Case:
    name, fn = one_of(draw, MATMUL)
    batch = a_shape(draw, 0, 2)
    n, m, k = (draw(st.sampled_from([0, 1, 2, 3, 4])) for _ in range(3))
    dtype = draw(st.sampled_from([*FLOATS, torch.float32, torch.int64]))
    x = a_tensor(draw, (*batch, n, m), dtype)
    y = a_tensor(draw, (*broadcast_with(draw, batch), m, k), dtype)
    return name, fn, [x, y]


WINDOWS = ("conv", "transpose", "max", "avg", "lp", "adaptive_avg", "adaptive_max", "pad", "unfold")
WINDOWS += ("nearest", "exact", "linear", "cubic")


def windows(draw: Draw) -> Case:
    """Convolutions, pools, paddings and resampling over one to three axes."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2]))
    channels, outputs = 2 * groups, 2 * groups
    batch = draw(st.sampled_from([(), (1,), (2,)]))
    sizes = [draw(st.integers(3, 6)) for _ in range(rank)]

    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(rank)]

    given: tuple[Any, ...]
    kernel, stride, padding, dilation = each(1, 3), each(1, 3), each(0, 1), each(1, 2)
    x = a_tensor(draw, (*batch, channels, *sizes), draw(st.sampled_from(FLOATS)))
    kind = draw(st.sampled_from(WINDOWS))
    if kind == "conv":
        w = a_tensor(draw, (outputs, channels // groups, *kernel), x.dtype)
        conv, given = getattr(F, f"conv{rank}d"), (None, stride, padding, dilation, groups)
        return f"conv {kernel} {given}", lambda x, w: conv(x, w, *given), [x, w]
    if kind == "transpose":
        w = a_tensor(draw, (channels, outputs // groups, *kernel), x.dtype)
        extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
        up = getattr(F, f"conv_transpose{rank}d")
        given = (None, stride, padding, extra, groups, dilation)
        return f"up {kernel} {given}", lambda x, w: up(x, w, *given), [x, w]
    if kind in ("max", "avg"):
        ceil = draw(st.booleans())
        padding = [min(p, k // 2) for p, k in zip(padding, kernel, strict=True)]
        last = (dilation, ceil) if kind == "max" else (ceil, draw(st.booleans()))
        pool, given = getattr(F, f"{kind}_pool{rank}d"), (kernel, stride, padding, *last)
        return f"{kind} {given}", lambda x: pool(x, *given), [x]
    if kind == "lp":
        pool = (F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)[rank - 1]
        return f"lp {kernel}", lambda x: pool(x, 2.0, kernel if rank > 1 else kernel[0]), [x]
    if kind.startswith("adaptive"):
        wanted = each(1, 4)
        pool = getattr(F, f"{kind}_pool{rank}d")
        return f"{kind} {wanted}", lambda x: pool(x, wanted), [x]
    if kind == "pad":
        mode = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
        amounts = [draw(st.integers(-1 if mode == "constant" else 0, 2)) for _ in range(2 * rank)]
        return f"pad {mode} {amounts}", lambda x: F.pad(x, amounts, mode), [x]
    if kind == "unfold":
        assume(rank == 2)
        return f"unfold {kernel}", lambda x: F.unfold(x, kernel, dilation, padding, stride), [x]
    assume(batch)
    scale, wanted = draw(st.sampled_from([0.5, 1.5, 2.0, None])), each(1, 7)
    target: dict[str, Any] = {"scale_factor": scale} if scale else {"size": wanted}
    if kind in ("nearest", "exact"):
        mode = "nearest" if kind == "nearest" else "nearest-exact"
        return f"{mode} {target}", lambda x: F.interpolate(x, mode=mode, **target), [x]
    assume(kind == "linear" or rank == 2)
    mode = "bicubic" if kind == "cubic" else ("linear", "bilinear", "trilinear")[rank - 1]
    corners = draw(st.booleans())
    return (
        f"{mode} {target} {corners}",
        lambda x: F.interpolate(x, mode=mode, align_corners=corners, **target),
        [x],
    )


def norms(draw: Draw) -> Case:
    x = a_tensor(draw, a_shape(draw, 2, 5, (1, 2, 4)), draw(st.sampled_from(FLOATS)))
    channels = x.shape[1]
    w, b = (a_tensor(draw, (channels,), x.dtype) for _ in range(2))
    kind = draw(st.sampled_from(["layer", "group", "instance", "batch", "rms", "response"]))
    if kind in ("layer", "rms"):
        dims = x.shape[draw(st.integers(0, x.ndim - 1)) :]
        w, b = (a_tensor(draw, dims, x.dtype) for _ in range(2))
        if kind == "rms":
            return f"rms {dims}", lambda x, w: F.rms_norm(x, dims, w), [x, w]
        return f"layer {dims}", lambda x, w, b: F.layer_norm(x, dims, w, b), [x, w, b]
    if kind == "group":
        groups = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
        return f"group {groups}", lambda x, w, b: F.group_norm(x, groups, w, b), [x, w, b]
    if kind == "instance":
        return "instance", lambda x, w, b: F.instance_norm(x, None, None, w, b), [x, w, b]
    if kind == "batch":
        mean, var = (a_tensor(draw, (channels,), torch.float32).to(x.dtype) for _ in range(2))
        return (
            "batch",
            lambda x, m, v, w, b: F.batch_norm(x, m, v.abs() + 1, w, b),
            [x, mean, var, w, b],
        )
    return "response", lambda x: F.local_response_norm(x, 2), [x]


def attention(draw: Draw) -> Case:
    batch = a_shape(draw, 0, 2, (1, 2, 3))
    heads = draw(st.integers(1, 2))
    queries, keys, size, width = (draw(st.integers(1, 5)) for _ in range(4))
    dtype = draw(st.sampled_from(FLOATS))
    q = a_tensor(draw, (*batch, heads, queries, size), dtype)
    k = a_tensor(draw, (*batch, heads, keys, size), dtype)
    v = a_tensor(draw, (*batch, heads, keys, width), dtype)
    kind = draw(st.sampled_from(["none", "causal", "bool", "float"]))
    scale = draw(st.sampled_from([None, 0.5]))
    dot = F.scaled_dot_product_attention
    if kind in ("none", "causal"):
        causal = kind == "causal"
        return (
            f"attention {kind} {scale}",
            lambda q, k, v: dot(q, k, v, is_causal=causal, scale=scale),
            [q, k, v],
        )
    shape = broadcast_with(draw, (*batch, heads, queries, keys))
    shape = (1,) * (2 - len(shape)) + shape
    mask = a_tensor(draw, shape, torch.bool if kind == "bool" else dtype)
    return (
        f"attention {kind} {list(shape)} {scale}",
        lambda q, k, v, m: dot(q, k, v, attn_mask=m, scale=scale),
        [q, k, v, mask],
    )


def casts(draw: Draw) -> Case:
    a, b = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES))
    x = a_tensor(draw, a_shape(draw))
    x = x if x.dtype == torch.bool else x.abs()  # which unsigned integers hold
    kind = draw(
        st.sampled_from(["to", "sum", "prod", "cumsum", "type_as", "new", "chain", "cat", "stack"])
    )
    table: dict[str, Fn] = {
        "to": lambda x: x.to(a),
        "sum": lambda x: x.to(a).sum(dtype=b),
        "prod": lambda x: x.to(a).prod(dtype=b),
        "cumsum": lambda x: x.to(a).flatten().cumsum(0, dtype=b),
        "type_as": lambda x: x.type_as(torch.zeros((), dtype=a)),
        "new": lambda x: x.new_full((2, 2), 3) + x.to(a).sum(),
        "chain": lambda x: (x.to(a) + x.to(b)).to(a),
        "cat": lambda x: torch.cat([x.to(a).flatten(), x.to(b).flatten()]),
        "stack": lambda x: torch.stack([x.to(a), x.to(b)], -1),
    }
    kind, fn = one_of(draw, table)
    return f"{kind} {a} {b}", fn, [x]


FAMILIES: dict[str, Callable[[Draw], Case]] = {
    "binary": binary,
    "number": with_number,
    "unary": unary,
    "reduction": reduction,
    "along an axis": along,
    "views": moves,
    "indexing": indexing,
    "products": products,
    "windows": windows,
    "norms": norms,
    "attention": attention,
    "casts": casts,
}


# -- what has to hold ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of how it is used here
@pytest.mark.parametrize("family", FAMILIES)
def test_right_or_refused(family: str) -> None:
    suppressed = [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large]

    @hypothesis.given(st.data())
    @settings(
        max_examples=40 * SWEEP or 12,
        suppress_health_check=suppressed,
        phases=[Phase.generate],  # shrinking would export hundreds of programs
    )
    def holds(data: st.DataObject) -> None:
        name, fn, inputs = FAMILIES[family](data.draw)
        assume(all(x.numel() <= LARGEST for x in inputs))
        orders = [tuple(data.draw(st.permutations(range(x.ndim)))) for x in inputs]
        shown = [f"{x.dtype} {tuple(x.shape)}" for x in inputs]
        _check(f"{name}: {', '.join(shown)}, stored {orders}", fn, inputs, orders)

    holds()


def _check(name: str, fn: Fn, inputs: list[torch.Tensor], orders: list[Any]) -> None:
    """Hold an op to PyTorch; what either of them refuses is left aside."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fn(*(x.clone() for x in inputs))
            program = op_parity.exported(fn, inputs)
        except Exception:
            assume(False)
        if op_parity.unhandled(program.graph):
            return
        try:
            wide = fn(*(x.double() if x.is_floating_point() else x.clone() for x in inputs))
            exact = wide is not None
        except Exception:
            exact = False
        try:
            op_parity.assert_op_parity(fn, *inputs, orders=orders, exact=exact, program=program)
        except Unsupported:
            return
        except Exception as error:
            raise AssertionError(f"{name}\n{type(error).__name__}: {error}") from error
