"""Pair the modules of a torch model with those of an MLX model written by hand, by their names.

Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxport.converter.checkpoint.keys.rename import ModuleNames, fits, joins, new_names, text_of
from mlxport.converter.errors import OptionsError, ParityError
from mlxport.converter.plan.mlx_layouts import without_sequences


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
    paths: Sequence[str],
    model: nn.Module,
    names: ModuleNames | None = None,
    tensors: Iterable[str] = (),
) -> Pairing:
    """Pair the modules of one model with those of another.

    A module whose name fits a pattern in ``names`` pairs with the module of the new name, any other
    with the module of the same name, where an MLX ``Sequential`` may add its ``layers``. A module
    whose children all pair with the children of one module pairs with that module.

    Args:
        paths: the modules PyTorch can call, ``""`` (the model) left out.
        model: the MLX model.
        names: patterns as ``load_weights`` takes them in ``rename``, for paths of modules. Modules
            whose tensors are joined or split have no counterpart.
        tensors: the keys of PyTorch's state dict: a pattern may fit one of these alone.

    Raises:
        OptionsError: a pattern is not valid, fits no module of PyTorch, or leads to none in MLX.
        ParityError: nothing pairs.
    """
    found = _callable_paths(model)
    by_torch_name = _by_torch_name(model, found)
    by_name = by_torch_name | {path: path for path in found}
    chosen = {
        old: new for old, new in (names or {}).items() if new is not None and not joins(old, new)
    }
    dropped = _left_out(paths, names or {}, set(tensors))
    of_tensors = {old for old in chosen if any(fits(old, key) for key in tensors)}
    found_names = new_names(
        [p for p in paths if p not in dropped],
        chosen,
        what="module of PyTorch",
        idle=of_tensors.__contains__,
    )
    renamed = {origin.keys[0]: name for name, origin in found_names.items()}
    pairs, alone = {}, dict(dropped)
    for path, name in renamed.items():
        if name in by_name:
            pairs[path] = by_name[name]
        else:
            alone[path] = f"the MLX model has no {name}"
    parameters: dict[str, Any] = dict(tree_flatten(model.parameters()))
    _check_used(chosen, renamed, pairs, parameters if of_tensors else ())
    for path, target in _containers(alone.keys() - dropped.keys(), pairs, by_torch_name).items():
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


def _left_out(paths: Sequence[str], names: ModuleNames, tensors: Set[str]) -> dict[str, str]:
    """Return the modules that are not judged, and why."""
    dropped: dict[str, str] = {}
    idle = []
    for pattern, new in names.items():
        if new is not None and not joins(pattern, new):
            continue
        fitting = [path for path in paths if fits(pattern, path)]
        why = "left out by names" if new is None else f"joined or split: {text_of(pattern)} = {new}"
        dropped |= {path: why for path in fitting if path not in dropped}
        if not fitting and not any(fits(pattern, key) for key in tensors):
            idle.append(text_of(pattern))
    if idle:
        raise OptionsError.listing("names leaves out what PyTorch does not have:", idle)
    return dropped


def _check_used(
    chosen: Mapping[str | re.Pattern[str], str],
    renamed: Mapping[str, str],
    pairs: Mapping[str, str],
    parameters: Iterable[str],
) -> None:
    """Refuse patterns none of whose new names is a module of the MLX model."""
    problems = []
    for pattern, new in chosen.items():
        fitting = [path for path in renamed if fits(pattern, path)]
        if any(name.startswith(f"{renamed[path]}.") for path in fitting for name in parameters):
            continue  # a module to PyTorch, in the MLX model only a place of parameters
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
