"""Ways of reading sizes in a model's own code, and networks made of some of them at random."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

TABLE = 24  # rows of every table of positions
Reader = Callable[[torch.Tensor, int, torch.Tensor], torch.Tensor]

READERS: dict[str, Reader] = {}


def reader(function: Reader) -> Reader:
    """Enter a function of an array, one of its axes, and a table ``(24, 24)``."""
    READERS[function.__name__] = function
    return function


def _along(x: torch.Tensor, axis: int, line: torch.Tensor) -> torch.Tensor:
    """Shape a line so that it lies along an axis."""
    shape = [1] * x.ndim
    shape[axis] = -1
    return line.reshape(shape)


@reader
def sum_over_shape(x, axis, table):
    return x - x.sum(axis, keepdim=True) / x.shape[axis]


@reader
def scaled_by_size(x, axis, table):
    return x * x.size(axis) ** -0.5


@reader
def divided_by_numel(x, axis, table):
    return x + x.sum() / x.numel()


@reader
def divided_by_length(x, axis, table):
    return x / len(x)


@reader
def there_and_back(x, axis, table):
    return x.reshape(-1).mul(2).view(x.shape)


@reader
def viewed_with_sizes(x, axis, table):
    n = x.shape[0]
    return x.view(n, -1).softmax(-1).view_as(x)


@reader
def in_one_line(x, axis, table):
    return x.reshape(x.shape[0], -1)


@reader
def halves_on_an_axis(x, axis, table):
    n = x.shape[axis]
    y = x.movedim(axis, 0)
    return y.reshape(2, n // 2, *y.shape[1:]).sum(0).movedim(0, axis)


@reader
def counted(x, axis, table):
    return x + _along(x, axis, torch.arange(x.shape[axis], dtype=x.dtype))


@reader
def even_steps(x, axis, table):
    return x * _along(x, axis, torch.linspace(0, 1, x.shape[axis]))


@reader
def sliced_table(x, axis, table):
    return x + _along(x, axis, table[: x.shape[axis], 3])


@reader
def end_of_the_table(x, axis, table):
    return x + _along(x, axis, table[-x.shape[axis] :, 1])


@reader
def looked_up_table(x, axis, table):
    return x + _along(x, axis, table[torch.arange(x.shape[axis]), 2])


@reader
def embedded_positions(x, axis, table):
    places = torch.arange(x.shape[axis]) + 2
    return x * _along(x, axis, F.embedding(places, table)[:, 0])


@reader
def row_of_the_size(x, axis, table):
    return x + table[x.shape[axis] - 1, 0]


@reader
def relative_positions(x, axis, table):
    n = x.shape[axis]
    places = torch.arange(n)[:, None] - torch.arange(n)[None] + 5
    return x + _along(x, axis, table.flatten()[places].sum(1))


@reader
def last_of_an_axis(x, axis, table):
    return x - x.select(axis, x.shape[axis] - 1).unsqueeze(axis)


@reader
def third_of_an_axis(x, axis, table):
    return x - x.select(axis, 2).unsqueeze(axis)


@reader
def chosen_places(x, axis, table):
    return x.index_select(axis, torch.tensor([0, 3, 1]))


@reader
def indexed_from_the_end(x, axis, table):
    return x.movedim(axis, 0)[torch.tensor([-1, -3])].movedim(0, axis)


@reader
def every_other(x, axis, table):
    return x.index_select(axis, torch.arange(0, x.shape[axis], 2))


@reader
def reversed_by_index(x, axis, table):
    return x.index_select(axis, torch.arange(x.shape[axis] - 1, -1, -1))


@reader
def first_half(x, axis, table):
    return x.narrow(axis, 0, x.shape[axis] // 2)


@reader
def first_four(x, axis, table):
    return x.narrow(axis, 0, 4) if axis else x[:4]


@reader
def first_at_most_five(x, axis, table):
    return x.movedim(axis, 0)[:5].movedim(0, axis)


@reader
def without_the_last(x, axis, table):
    return x.movedim(axis, 0)[:-1].movedim(0, axis)


@reader
def chunks(x, axis, table):
    first = x.chunk(2, axis)[0]
    return first * 2


@reader
def split_by_size(x, axis, table):
    first, second = x.split([1, x.shape[axis] - 1], axis)
    return torch.cat([second, first], axis)


@reader
def split_in_threes(x, axis, table):
    return torch.cat(list(reversed(x.split(3, axis))), axis)


@reader
def rows_one_by_one(x, axis, table):
    return torch.stack([row * i for i, row in enumerate(x.unbind(axis))], axis)


@reader
def looped(x, axis, table):
    total = torch.zeros_like(x)
    for i in range(x.shape[axis]):
        total = total + x.select(axis, i).unsqueeze(axis) * (i + 1)
    return total


@reader
def expanded(x, axis, table):
    return x.mean(axis, keepdim=True).expand(x.shape) + x


@reader
def expanded_as(x, axis, table):
    return x.amax(axis, keepdim=True).expand_as(x) - x


@reader
def repeated(x, axis, table):
    times = [1] * x.ndim
    times[axis] = x.shape[axis]
    return x.mean(axis, keepdim=True).repeat(times)


@reader
def new_zeros(x, axis, table):
    return torch.cat([x, x.new_zeros(x.shape)], axis)


@reader
def filled(x, axis, table):
    return x * torch.full(tuple(x.size()), 0.5)


@reader
def rolled_by_half(x, axis, table):
    return x.roll(x.size(axis) // 2, axis)


@reader
def masked_by_triangle(x, axis, table):
    n = x.shape[-1]
    return x.unsqueeze(-2).masked_fill(torch.ones(n, n).tril() == 0, 0).sum(-1)


@reader
def pooled_over_all(x, axis, table):
    if x.ndim != 3:
        return x
    return F.avg_pool1d(x, x.shape[-1])


@reader
def pooled_by_half(x, axis, table):
    if x.ndim != 3:
        return x
    return F.max_pool1d(x, x.shape[-1] // 2)


@reader
def pooled_by_two(x, axis, table):
    return F.avg_pool1d(x, 2) if x.ndim == 3 else x


@reader
def pooled_to_three(x, axis, table):
    return F.adaptive_avg_pool1d(x, 3) if x.ndim == 3 else x


@reader
def enlarged_to_sizes(x, axis, table):
    return F.interpolate(x, size=x.shape[-1] * 2) if x.ndim == 3 else x


@reader
def enlarged_by_two(x, axis, table):
    return F.interpolate(x, scale_factor=2.0, mode="linear") if x.ndim == 3 else x


@reader
def padded_to_a_multiple(x, axis, table):
    return F.pad(x, (0, -x.shape[-1] % 4))


@reader
def padded(x, axis, table):
    return F.pad(x, (1, 2))


@reader
def branched(x, axis, table):
    return x + 1 if x.shape[axis] > 4 else x - 1


@reader
def branched_on_one(x, axis, table):
    return x * 3 if x.shape[axis] == 1 else x * 2


@reader
def even_or_odd(x, axis, table):
    return x + (x.shape[axis] % 2)


@reader
def normalised(x, axis, table):
    return F.layer_norm(x, x.shape[-1:])


@reader
def unit_length(x, axis, table):
    return F.normalize(x, dim=axis)


@reader
def outer(x, axis, table):
    return x.unsqueeze(-1).mul(x.unsqueeze(-2)).mean(-1)


@reader
def attended(x, axis, table):
    return F.scaled_dot_product_attention(x, x, x, is_causal=True) if x.ndim > 2 else x


@reader
def contracted(x, axis, table):
    return torch.einsum("...i,...i->...i", x, x) / x.shape[-1]


@reader
def flattened(x, axis, table):
    return x.flatten(0, 1) if x.ndim > 2 else x


@reader
def squeezed(x, axis, table):
    return x.mean(axis, keepdim=True).squeeze() if x.ndim > 2 else x


@reader
def largest_half(x, axis, table):
    return x.topk(max(x.shape[-1] // 2, 1))[0]


@reader
def gathered(x, axis, table):
    return x.gather(axis, x.argsort(axis))


@reader
def met_with_the_table(x, axis, table):
    return x + table[0, :6]


@reader
def activated(x, axis, table):
    return F.gelu(x) * 0.5


@reader
def summed_up(x, axis, table):
    return x.cumsum(axis) - x.amin(axis, keepdim=True)


@reader
def turned(x, axis, table):
    return x.transpose(axis, -1)


@reader
def convolved_apart(x, axis, table):
    if x.ndim != 3:
        return x
    return F.conv1d(x, table[: x.shape[1], None, :3], stride=2, padding=1, groups=x.shape[1])


@reader
def patched(x, axis, table):
    return F.conv2d(x[:, None], table[None, None, :2, :4], stride=(2, 4)) if x.ndim == 3 else x


@reader
def unpacked(x, axis, table):
    *_, n = x.shape
    return x / n


@reader
def last_sizes(x, axis, table):
    return x / x.shape[axis:].numel()


@reader
def whole_shape(x, axis, table):
    return x / x.size().numel() + math.prod(x.shape) + int(np.prod(x.shape))


@reader
def largest_size(x, axis, table):
    return x * max(x.shape)


@reader
def same_as_turned(x, axis, table):
    return x * 2 if x.shape == x.transpose(axis, -1).shape else x * 3


@reader
def same_object(x, axis, table):
    return x * 2 if x.is_same_size(x.mT) else x * 3


@reader
def compared_from_the_left(x, axis, table):
    return x * 2 if torch.Size([4] * x.ndim) == x.shape else x * 3


@reader
def compared_in_part(x, axis, table):
    return x * 2 if x.shape[1:] == x.mT.shape[1:] else x * 3


@reader
def joined_from_the_left(x, axis, table):
    return x.reshape(torch.Size([1]) + x.shape).mul(2).reshape(x.shape + torch.Size([1]))


@reader
def sizes_of_a_sum(x, axis, table):
    sizes = torch.Size([1]) + x.shape
    return x * sizes[axis]


@reader
def looked_up_shape(x, axis, table):
    return x * {(4,) * x.ndim: 2.0, (4, 4): 2.5}.get(x.shape, 3.0)


@functools.lru_cache
def _weight(shape: Any) -> int:
    return sum(shape)


@reader
def cached_by_shape(x, axis, table):
    return x * _weight(x.shape)


@reader
def contained(x, axis, table):
    return x * 2 if 4 in x.shape else x * 3


@reader
def counted_sizes(x, axis, table):
    return x + x.shape.count(4)


@reader
def spelled(x, axis, table):
    return x * len(f"{x.shape}") + len("%d" * x.ndim % x.shape)


@reader
def matched(x, axis, table):
    match x.shape:
        case (_, 4):
            return x * 2
        case (_, 4 | 6, *_):
            return x * 3
    return x


@reader
def written_in_part(x, axis, table):
    y = x.clone()
    y.movedim(axis, 0)[:4] = 0
    return y


@reader
def written_at_a_place(x, axis, table):
    y = x.clone()
    y[:4, 0] = 1
    return y


@reader
def bounded_and_taken(x, axis, table):
    return x[:4, 0] if x.ndim > 2 else x[:4]


@reader
def bounded_at_the_end(x, axis, table):
    return x[..., :4] * 2


@reader
def bounded_by_another(x, axis, table):
    return x[..., : x.shape[0]]


@reader
def all_of_it(x, axis, table):
    return x[...] + x[:] * 2


@reader
def typed_as(x, axis, table):
    return x * sum(type(x.shape)(n + 1 for n in x.shape))


@reader
def one_size_among_several(x, axis, table):
    shape = x.shape
    return x.mean(axis, keepdim=True) * shape[axis]


class Readers(nn.Module):
    """Applies ways of reading sizes one after the other."""

    def __init__(self, steps: list[tuple[str, int]], *, second: str = "") -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(TABLE, TABLE, generator=_generator(0)))
        self.steps = steps
        self.second = second

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        if y is not None:
            x = getattr(self, self.second)(x, y)
        for name, axis in self.steps:
            x = READERS[name](x, axis % x.ndim, self.table)
        return x

    def added(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def rows_of(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y[torch.arange(x.shape[0])]

    def joined(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, y], -1)

    def last_row(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y[x.shape[0] - 1]

    def scaled(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y.shape[1] + y.mean() / y.shape[0]

    def compared(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape == y.shape else x * 3 + y.mean()

    def zipped(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * sum(a == b for a, b in zip(x.shape, y.shape, strict=True)) + y.mean()

    def first_of_second(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y.amax(0) * y.shape[0]

    def expanded_to(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.mean(0, keepdim=True).expand_as(y) + y

    def viewed_as(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.reshape_as(y)


SECONDS = (
    *("added", "rows_of", "joined", "last_row", "scaled", "compared"),
    *("zipped", "first_of_second", "expanded_to", "viewed_as"),
)


@dataclass(frozen=True)
class Try:
    """A network of some readers, its example, what is dynamic, and other inputs.

    Attributes:
        model: the network.
        example: the inputs it is converted on.
        dynamic: the axes whose sizes are dynamic; None for none.
        others: calls to try.
    """

    model: Readers
    example: tuple[torch.Tensor, ...]
    dynamic: tuple[int, ...] | None
    others: tuple[tuple[torch.Tensor, ...], ...]

    def __str__(self) -> str:
        shapes = " ".join(str(tuple(x.shape)) for x in self.example)
        return f"{self.model.second} {self.model.steps} {shapes} dynamic={self.dynamic}"


def draw(seed: int, calls: int) -> Try:
    """Draw a network and calls of it."""
    chance = random.Random(seed)
    ndim = chance.choice((2, 3, 3, 4))
    shape = [chance.choice((1, 2, 4, 4, 6, 8)) for _ in range(ndim)]
    steps = [
        (chance.choice(list(READERS)), chance.randrange(4)) for _ in range(chance.choice((1, 1, 2)))
    ]
    second = chance.choice(SECONDS) if chance.random() < 0.3 else ""
    dynamic = None
    if chance.random() < 0.5:
        wide = [axis for axis in range(ndim) if shape[axis] > 1]
        dynamic = tuple(axis for axis in wide if chance.random() < 0.7) or tuple(wide[:1]) or None
    model = Readers(steps, second=second)
    others = []
    for _ in range(calls):
        moved = [axis for axis in range(ndim) if chance.random() < 0.5]
        other = [_size(chance, n) if axis in moved else n for axis, n in enumerate(shape)]
        two = other if chance.random() < 0.6 else [_size(chance, n) for n in other]
        others.append(_inputs(chance.randrange(99), other, two if second else None))
    example = _inputs(seed, shape, shape if second else None)
    return Try(model.eval(), example, dynamic, tuple(others))


def _size(chance: random.Random, size: int) -> int:
    return chance.choice((1, 2, 3, 5, 7, 12, 26, size * 2, max(size // 2, 1), size + 1))


def _inputs(seed: int, *shapes: list[int] | None) -> tuple[torch.Tensor, ...]:
    generator = _generator(seed)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes if shape is not None)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(model: nn.Module, inputs: tuple[Any, ...]) -> torch.Tensor | Exception:
    """Return what a torch model gives, or the error it raises."""
    try:
        with torch.no_grad():
            given: torch.Tensor = model(*inputs)
    except Exception as error:  # whatever torch refuses
        return error
    return given
