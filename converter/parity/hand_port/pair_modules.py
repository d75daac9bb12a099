"""Pair the modules of a torch model with those of an MLX model written by hand, by their names.

Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias

import mlx.nn as nn

from mlxport.converter.checkpoint.keys.rename import fits, rename_keys
from mlxport.converter.errors import OptionsError, ParityError
from mlxport.converter.plan.mlx_layouts import without_sequences

# torch pattern -> MLX pattern; None leaves what fits unpaired
ModuleNames: TypeAlias = (
    "Mapping[str, str] | Mapping[str, str | None] | Mapping[str | re.Pattern[str], str | None]"
)


@dataclass(frozen=True)
class Pairing:
    """Which modules correspond, and which have no counterpart.

    Attributes:
        pairs: path in PyTorch -> path in the MLX model.
        in_torch: paths only in PyTorch -> why.
        in_mlx: paths only in the MLX model.
    """

    pairs: Mapping[str, str]
    in_torch: Mapping[str, str]
    in_mlx: tuple[str, ...]


def pair_modules(
    paths: Sequence[str], model: nn.Module, names: ModuleNames | None = None
) -> Pairing:
    """Pair the modules of one model with those of another.

    A module whose name fits a pattern in ``names`` pairs with the module of the new name, any other
    with the module of the same name, where an MLX ``Sequential`` may add its ``layers``. A module
    whose children all pair with the children of one module pairs with that module.

    Args:
        paths: the modules PyTorch can call, ``""`` (the model) left out.
        model: the MLX model.
        names: patterns as ``load_weights`` takes them in ``rename``, for paths of modules.

    Raises:
        OptionsError: a pattern is not valid, fits no module of PyTorch, or leads to none in MLX.
        ParityError: nothing pairs.
    """
    found = _callable_paths(model)
    by_torch_name = _by_torch_name(model, found)
    by_name = by_torch_name | {path: path for path in found}
    chosen = {old: new for old, new in (names or {}).items() if new is not None}
    dropped = _left_out(paths, names or {})
    renamed = rename_keys([p for p in paths if p not in dropped], chosen, what="module of PyTorch")
    pairs, alone = {}, dict.fromkeys(dropped, "left out by names")
    for path, name in renamed.items():
        if name in by_name:
            pairs[path] = by_name[name]
        else:
            alone[path] = f"the MLX model has no {name}"
    _check_used(chosen, renamed, pairs)
    for path, target in _containers(alone.keys() - dropped, pairs, by_torch_name).items():
        pairs[path] = target
        del alone[path]
    taken = set(pairs.values())
    if paths and found and not pairs:
        raise _nothing_pairs(paths, found)
    ordered = {path: pairs[path] for path in paths if path in pairs}
    left = {path: alone[path] for path in paths if path in alone}
    return Pairing(ordered, left, tuple(path for path in found if path not in taken))


def _callable_paths(model: nn.Module) -> list[str]:
    paths = [path for path, module in model.named_modules() if path and callable(module)]
    return sorted(paths, key=lambda path: [_natural(part) for part in path.split(".")])


def _natural(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (-1, part)


def _by_torch_name(model: nn.Module, paths: Sequence[str]) -> dict[str, str]:
    modules = model.named_modules()
    sequences = [path for path, module in modules if isinstance(module, nn.Sequential)]
    return {without_sequences(path, sequences): path for path in paths}


def _left_out(paths: Sequence[str], names: ModuleNames) -> set[str]:
    dropped = {
        pattern: {path for path in paths if fits(pattern, path)}
        for pattern, new in names.items()
        if new is None
    }
    if idle := [str(pattern) for pattern, fitting in dropped.items() if not fitting]:
        raise OptionsError.listing("names leaves out what PyTorch does not have:", idle)
    return set().union(*dropped.values())


def _check_used(
    chosen: Mapping[str | re.Pattern[str], str],
    renamed: Mapping[str, str],
    pairs: Mapping[str, str],
) -> None:
    """Refuse patterns none of whose new names is a module of the MLX model."""
    problems = []
    for pattern, new in chosen.items():
        fitting = [path for path in renamed if fits(pattern, path)]
        if fitting and not any(path in pairs for path in fitting):
            examples = ", ".join(f"{path} -> {renamed[path]}" for path in fitting[:3])
            problems.append(f"{pattern} -> {new} ({examples})")
    if problems:
        raise OptionsError.listing("names leads to no module of the MLX model:", problems)


def _containers(
    alone: Set[str], pairs: Mapping[str, str], by_torch_name: Mapping[str, str]
) -> dict[str, str]:
    """Return the modules that pair because their children do, the innermost first."""
    names = {target: name for name, target in by_torch_name.items()}
    found: dict[str, str] = {}
    for path in sorted(alone, key=lambda path: -path.count(".")):
        known = {**pairs, **found}
        inside = {p[len(path) :]: names[t] for p, t in known.items() if p.startswith(f"{path}.")}
        above = {
            name.removesuffix(rest) if name.endswith(rest) else "" for rest, name in inside.items()
        }
        target = by_torch_name.get(next(iter(above))) if len(above) == 1 else None
        if target is not None and target not in known.values():
            found[path] = target
    return found


def _nothing_pairs(paths: Sequence[str], found: Sequence[str]) -> ParityError:
    def some(names: Sequence[str]) -> str:
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    return ParityError(
        "no module of the MLX model has the name of one of PyTorch's, so no layer can be judged.\n"
        f"  in PyTorch: {some(paths)}\n  in MLX: {some(found)}\n"
        'Say which is which: names={"encoder.*": "enc.*"} (PyTorch\'s name first).'
    )
