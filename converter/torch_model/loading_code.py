"""Find what a torch model holds in its state dict, and its code that runs where one is loaded."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class LoadingCode:
    """A method or hook that takes part in ``load_state_dict``.

    Attributes:
        path: of the module it belongs to.
        name: as its source has it, and what it is.
        is_torchs: whether it is PyTorch's own, which changes nothing it is given.
    """

    path: str
    name: str
    is_torchs: bool

    def __str__(self) -> str:
        return f"{self.name} of {self.path}" if self.path else self.name


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return path -> parameter or persistent buffer, in the order of ``state_dict()``.

    That may have other names and further entries, where the model says so.
    """
    found: dict[str, torch.Tensor] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        temporary = module._non_persistent_buffers_set
        buffers = {k: v for k, v in module._buffers.items() if k not in temporary}
        for name, tensor in (*module._parameters.items(), *buffers.items()):
            if tensor is not None:
                found[prefix + name] = tensor
    return found


def extra_states(model: torch.nn.Module) -> list[str]:
    """Return the keys of the extra state that modules of the model take."""
    taking = torch.nn.Module.set_extra_state
    return [
        f"{path}._extra_state".lstrip(".")
        for path, module in model.named_modules(remove_duplicate=False)
        if getattr(type(module), "set_extra_state", taking) is not taking
    ]


def loading_code(model: torch.nn.Module) -> tuple[LoadingCode, ...]:
    """Return all that takes part in loading a state dict besides ``torch.nn.Module``'s methods.

    Not among it is what norms do for files of before they counted batches.
    """
    return tuple(
        LoadingCode(path, name, _is_torchs(code) and not name.endswith("set_extra_state"))
        for path, module in model.named_modules()
        for name, code in _code_of(module, is_root=not path)
    )


def listed_code(code: Sequence[LoadingCode]) -> tuple[str, ...]:
    """Return the names of code, one for all modules that have the same."""
    found: dict[str, list[LoadingCode]] = {}
    for one in code:
        found.setdefault(one.name, []).append(one)
    return tuple(
        f"{group[0]}" + (f" and {len(group) - 1} more" if len(group) > 1 else "")
        for group in found.values()
    )


_IGNORED = {
    torch.nn.Module._load_from_state_dict,
    torch.nn.modules.batchnorm._NormBase._load_from_state_dict,
    torch.nn.modules.instancenorm._InstanceNorm._load_from_state_dict,
    torch.nn.Module.load_state_dict,
    torch.nn.Module.set_extra_state,
}


def _code_of(module: torch.nn.Module, *, is_root: bool) -> Iterator[tuple[str, Any]]:
    methods = ["_load_from_state_dict", "set_extra_state"]
    for name in (*methods, "load_state_dict") if is_root else methods:
        code = vars(module).get(name) or getattr(type(module), name, None)
        if code is not None and code not in _IGNORED:
            yield f"{type(module).__name__}.{name}", code
    for wrapped in module._load_state_dict_pre_hooks.values():
        hook = getattr(wrapped, "hook", wrapped)
        yield f"the load_state_dict pre-hook {_name_of(hook)}", hook
    for hook in module._load_state_dict_post_hooks.values():
        yield f"the load_state_dict post-hook {_name_of(hook)}", hook


def _name_of(hook: Any) -> str:
    plain = _unwrapped(hook)
    return str(getattr(plain, "__qualname__", type(plain).__qualname__))


def _unwrapped(code: Any) -> Any:
    while isinstance(code, functools.partial):
        code = code.func
    return code


def _is_torchs(code: Any) -> bool:
    plain = _unwrapped(code)
    module = getattr(plain, "__module__", None) or type(plain).__module__
    return module == "torch" or module.startswith("torch.")
