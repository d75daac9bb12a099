"""Record the random numbers PyTorch draws while a model runs, and replay them in further runs.

What is recorded is the standard draw (a normal of mean 0 and deviation 1, a uniform from 0 to 1)
and not what the model makes of it, so that mean, deviation, bounds and probabilities are computed
anew in each run, in its own dtype, and a wrong one shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.verdict.reference_data import Draw

_HALF = (torch.float16, torch.bfloat16)

_OpArguments = Mapping[str, Any]
# makes a standard draw of a shape, rounded to a dtype
DrawNumbers = Callable[[Sequence[int], torch.dtype], torch.Tensor]


class TorchDraws:
    """The random draws of one run of a model, in the order of execution."""

    def __init__(self) -> None:
        self.recorded: list[Draw] = []
        self._next: int | None = None  # number of the draw to replay next; None while recording

    @property
    def position(self) -> int:
        """How many draws the present run has made."""
        return len(self.recorded) if self._next is None else self._next

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Let PyTorch draw, and record what it draws.

        Raises:
            ParityError: it draws by an op whose draws cannot be replayed.
        """
        with _Sampling(self):
            yield

    @contextmanager
    def replayed(self, start: int = 0, stop: int | None = None) -> Iterator[None]:
        """Answer with the recorded draws (from ``start`` to before ``stop``), in their order.

        Raises:
            ParityError: the run draws others, more or fewer.
        """
        stop = len(self.recorded) if stop is None else stop
        self._next = start
        try:
            with _Sampling(self):
                yield
            if self._next != stop:
                raise ParityError(
                    f"PyTorch made {stop - start} random draws when the model ran first and "
                    f"{self._next - start} when it ran again. Parity needs a model that draws the "
                    "same way at every call."
                )
        finally:
            self._next = None

    def take(
        self, kind: str, like: torch.Tensor, dtype: torch.dtype, make: DrawNumbers
    ) -> torch.Tensor:
        """Return the next standard draw, in float64.

        Args:
            kind: function of ``mx.random`` that draws such numbers.
            like: of the shape and on the device of the draw.
            dtype: what the numbers are rounded to when they are drawn.
            make: draws them.
        """
        if self._next is None:
            values = make(like.shape, dtype).double()
            name = str(dtype).removeprefix("torch.")
            self.recorded.append(Draw(kind, tuple(like.shape), name, values.numpy()))
            return values.to(like.device)
        draw = self.recorded[self._next] if self._next < len(self.recorded) else None
        self._next += 1
        if draw is None or (draw.kind, draw.shape) != (kind, tuple(like.shape)):
            first = "nothing" if draw is None else f"{draw.kind} {draw.shape}"
            raise ParityError(
                f"random draw {self._next}: PyTorch drew {first} when the model ran first and "
                f"{kind} {tuple(like.shape)} when it ran again. Parity needs a model that draws "
                "the same way at every call."
            )
        return torch.from_numpy(draw.values).to(like.device)

    def nudge(self, number: int, values: torch.Tensor) -> None:
        """Replace the numbers of a draw while recording."""
        if self._next is None:
            draw = self.recorded[number]
            self.recorded[number] = Draw(draw.kind, draw.shape, draw.dtype, values.cpu().numpy())


class _Sampling(TorchDispatchMode):
    """Let random ops take their numbers from `TorchDraws`."""

    def __init__(self, draws: TorchDraws) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws = draws

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        sample = _SAMPLES.get(func.overloadpacket.__name__.removesuffix("_"))
        if sample is None:
            return _undrawn(func, args, kwargs)
        arguments = {
            name: value.clone() if isinstance(value, torch.Tensor) else value
            for name, value in _arguments(func, args, kwargs).items()
        }
        result = func(*args, **kwargs)  # PyTorch's checks, shape, dtype and memory format
        if result.is_complex():
            raise ParityError("PyTorch draws complex random numbers, which parity cannot replay.")
        return result.copy_(sample(self.draws, result, arguments))


def _undrawn(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an op that may draw (attention with a dropout, say); it must not."""
    state = torch.get_rng_state()
    result = func(*args, **kwargs)
    if not torch.equal(state, torch.get_rng_state()):
        raise ParityError(
            f"PyTorch draws random numbers by {func}, which parity cannot replay in MLX. Draw them "
            "by torch.randn, torch.rand or the like, or pass them to forward() as an input."
        )
    return result


def _arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an op's arguments by the names of its schema, defaults included."""
    schema = func._schema.arguments
    defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
    names = [a.name for a in schema]
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


# -- what each op makes of a standard draw -------------------------------------------------------


def _rounded(draw: Callable[..., torch.Tensor]) -> DrawNumbers:
    return lambda shape, dtype: draw(shape, dtype=torch.float64).to(dtype)


def _uniform_numbers(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    return torch.rand(shape, dtype=dtype)  # below 1 in its own dtype, where rounding may give 1


def _gumbel_numbers(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    return -torch.empty(shape, dtype=torch.float64).exponential_().log().to(dtype)


def _wide(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) else value


def _normal(draws: TorchDraws, result: torch.Tensor, given: _OpArguments) -> torch.Tensor:
    drawn: torch.Tensor = draws.take("normal", result, result.dtype, _rounded(torch.randn))
    values: torch.Tensor = drawn * _wide(given.get("std", 1)) + _wide(given.get("mean", 0))
    return values


def _uniform(draws: TorchDraws, result: torch.Tensor, given: _OpArguments) -> torch.Tensor:
    low, high = float(given.get("from", 0)), float(given.get("to", 1))
    drawn: torch.Tensor = draws.take("uniform", result, result.dtype, _uniform_numbers)
    return low + (high - low) * drawn


def _exponential(draws: TorchDraws, result: torch.Tensor, given: _OpArguments) -> torch.Tensor:
    dtype = torch.float32 if result.dtype in _HALF else result.dtype
    drawn: torch.Tensor = draws.take("uniform", result, dtype, _uniform_numbers)
    return -torch.log1p(-drawn) / float(given["lambd"])


def _randint(draws: TorchDraws, result: torch.Tensor, given: _OpArguments) -> torch.Tensor:
    low = given.get("low", given.get("from", 0))
    high = given.get("high", given.get("to"))
    if not isinstance(high, int) or not isinstance(low, int):
        raise ParityError("PyTorch draws integers without a bound, which parity cannot replay.")
    parts = draws.take("randint", result, torch.float64, _uniform_numbers)
    return low + torch.floor(parts * (high - low))


def _bernoulli(draws: TorchDraws, result: torch.Tensor, given: _OpArguments) -> torch.Tensor:
    p = given["self"] if given.get("p") is None else given["p"]
    p = torch.as_tensor(_wide(p), dtype=torch.float64, device=result.device).expand(result.shape)
    number = draws.position
    parts = draws.take("bernoulli", result, torch.float64, _uniform_numbers)
    # A probability that rounds another way must not draw another number.
    gap = _gap(result.dtype)
    below = torch.minimum(parts, p - torch.clamp(p / 2, max=gap))
    above = torch.maximum(parts, p + torch.clamp((1 - p) / 2, max=gap))
    draws.nudge(number, torch.where(parts < p, below, above))
    return parts < p


def _multinomial(draws: TorchDraws, result: torch.Tensor, given: _OpArguments) -> torch.Tensor:
    p = given["self"].double()
    if given["num_samples"] > 1 and not given["replacement"]:
        noise = draws.take("gumbel", p, torch.float32, _gumbel_numbers)
        return torch.topk(p.log() + noise, given["num_samples"]).indices
    number = draws.position
    parts = draws.take("categorical", result, torch.float64, _uniform_numbers)
    edges = (p / p.sum(-1, keepdim=True)).cumsum(-1)
    chosen = torch.searchsorted(edges, parts, right=True).clamp(max=p.shape[-1] - 1)
    upper = edges.gather(-1, chosen)
    lower = torch.where(chosen > 0, edges.gather(-1, (chosen - 1).clamp(min=0)), 0.0)
    gap = torch.clamp((upper - lower) / 4, max=_gap(given["self"].dtype))
    draws.nudge(number, torch.clamp(parts, lower + gap, upper - gap))
    return chosen


def _randperm(draws: TorchDraws, result: torch.Tensor, given: _OpArguments) -> torch.Tensor:
    return torch.argsort(draws.take("permutation", result, torch.float64, _uniform_numbers))


def _gap(dtype: torch.dtype) -> float:
    """How far a number stays from the probability it is compared with: half the digits."""
    return math.sqrt(torch.finfo(dtype if dtype.is_floating_point else torch.float32).eps)


_SAMPLES: dict[str, Callable[[TorchDraws, torch.Tensor, _OpArguments], torch.Tensor]] = {
    "randn": _normal,
    "randn_like": _normal,
    "normal": _normal,
    "rand": _uniform,
    "rand_like": _uniform,
    "uniform": _uniform,
    "exponential": _exponential,
    "randint": _randint,
    "randint_like": _randint,
    "random": _randint,
    "bernoulli": _bernoulli,
    "multinomial": _multinomial,
    "randperm": _randperm,
}
