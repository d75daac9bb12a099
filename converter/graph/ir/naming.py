"""Names in the emitted source: the attribute path in MLX of each torch module and parameter.

PyTorch's attribute names are kept, so that parameters are called as in the state dict. A name that
MLX's ``Module`` (a dict with methods) cannot bear gets a trailing underscore.
"""

from __future__ import annotations

import ast
import keyword
import re
import unicodedata
from dataclasses import dataclass, field
from enum import Enum

import mlx.nn as mlx_nn
import torch

RESERVED = frozenset(dir(mlx_nn.Module)) | {"self", "training"}


class ModuleKind(Enum):
    """What a torch module becomes in the emitted model."""

    CLASS = "class"  # an nn.Module with attributes
    LIST = "list"  # a plain list (ModuleList, Sequential, ParameterList)
    DICT = "dict"  # a plain dict (ModuleDict, ParameterDict)


def kind_of(module: torch.nn.Module) -> ModuleKind:
    """Return what a torch module becomes."""
    names = children_of(module)
    counted = names == [str(i) for i in range(len(names))]
    own_forward = type(module).forward is not torch.nn.Sequential.forward
    if isinstance(module, (torch.nn.ModuleDict, torch.nn.ParameterDict)):
        # one that computes has to be called, which a dict cannot be
        computes = type(module).forward is not torch.nn.Module.forward
        return ModuleKind.CLASS if computes else ModuleKind.DICT
    if isinstance(module, (torch.nn.ModuleList, torch.nn.ParameterList)) and counted:
        return ModuleKind.LIST
    if isinstance(module, torch.nn.Sequential) and not own_forward and counted:
        return ModuleKind.LIST
    return ModuleKind.CLASS


def children_of(module: torch.nn.Module) -> list[str]:
    """Return the names of a module's children and parameters, also those of one object twice."""
    return [*module._modules, *module._parameters]


def is_inlined(module: torch.nn.Module) -> bool:
    """Whether a called module gets no class: its graph is written into the body of its caller."""
    return kind_of(module) is ModuleKind.LIST or type(module).__module__.startswith("torch.nn.")


@dataclass
class ModelNames:
    """The attribute paths in MLX of the modules and parameters of a torch model.

    Attributes:
        model: the torch model.
    """

    model: torch.nn.Module
    _taken: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def root_is_list(self) -> bool:
        """Whether the model is itself a list of layers, which MLX keeps under ``layers``."""
        return kind_of(self.model) is ModuleKind.LIST

    def target(self, path: str) -> str:
        """Return the attribute path in the MLX model of a torch path (``"enc1.conv.weight"``)."""
        segments = path.split(".") if path else []
        named = [self.segment(".".join(segments[:i]), name) for i, name in enumerate(segments)]
        return ".".join(["layers", *named] if self.root_is_list and segments else named)

    def segment(self, parent: str, name: str) -> str:
        """Return the name of a child of the module at ``parent``."""
        taken = self._taken.setdefault(parent, {})
        if name not in taken:
            new = self._choose(self._kind(parent), name)
            while new in taken.values():
                new += "_"
            taken[name] = new
        return taken[name]

    def reference(self, owner: str, path: str) -> ast.expr:
        """Return the expression that reads ``path`` in the class of ``owner``: ``self.enc[0]``.

        Raises:
            ValueError: ``path`` is not below ``owner``.
        """
        if owner and not path.startswith(owner + "."):
            raise ValueError(f"{path} is not below {owner}")
        tree: ast.expr = ast.Name("self")
        if not owner and self.root_is_list:
            tree = ast.Attribute(tree, "layers")
        parent = owner
        for name in path[len(owner) + 1 if owner else 0 :].split("."):
            named = self.segment(parent, name)
            kind = self._kind(parent)
            if kind is ModuleKind.CLASS:
                tree = ast.Attribute(tree, named)
            else:
                tree = ast.Subscript(
                    tree, ast.Constant(int(named) if kind is ModuleKind.LIST else named)
                )
            parent = f"{parent}.{name}" if parent else name
        return tree

    def _kind(self, path: str) -> ModuleKind:
        try:
            return kind_of(self.model.get_submodule(path))
        except AttributeError:
            return ModuleKind.CLASS

    def _choose(self, kind: ModuleKind, name: str) -> str:
        if kind is ModuleKind.LIST:
            return name
        if kind is ModuleKind.DICT:
            return f"layer_{name}" if _is_index(name) else name.replace(".", "_")
        return attribute_name(name)


def attribute_name(name: str) -> str:
    """Return a name an attribute of ``mlx.nn.Module`` can bear: a leading ``_`` hides it there."""
    new = identifier(re.sub(r"^_?lifted_tensor_", "constant_", name))
    if new.startswith("_"):
        new = f"{public_identifier(new)}_"
    return f"{new}_" if new in RESERVED else new


def identifier(name: str) -> str:
    """Return a Python identifier that resembles a name, in the form in which Python reads it."""
    letters = unicodedata.normalize("NFKC", name)
    new = "".join(c if f"a{c}".isidentifier() else "_" for c in letters) or "x"
    if not new[0].isidentifier():
        new = f"layer_{new}"
    return f"{new}_" if keyword.iskeyword(new) else new


def public_identifier(name: str) -> str:
    """Return a Python identifier that resembles a name and does not begin with ``_``."""
    return identifier(identifier(name).lstrip("_"))


def argument_name(name: str) -> str:
    """Return what to call an argument of ``__call__``."""
    new = identifier(name)
    return f"{new}_" if new in {"self", "mx", "nn"} else new


def class_name(module: torch.nn.Module) -> str:
    """Return what to call the class of a torch module."""
    name = identifier(type(module).__name__).lstrip("_")
    name = identifier(name) if name else "Block"
    return identifier(name[0].upper() + name[1:])


def variable_name(path: str, otherwise: str = "y") -> str:
    """Name a module's result after the module: ``enc1``, or ``down0`` for the first of ``down``."""
    match = re.search(r"([^.]*[^.\d][^.]*)(?:\.(\d+))?[.\d]*$", path)
    return identifier(match[1] + (match[2] or "")) if match else otherwise


def _is_index(key: str) -> bool:
    """Whether MLX takes a key for the index of a list when it loads weights by their names."""
    return re.fullmatch(r"\s*[+-]?\d+(_\d+)*\s*", key) is not None
