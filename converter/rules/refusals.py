"""The torch.nn classes that have no rule, each with the reason.

A class of torch.nn stands either in the registry or here; a test holds the two to torch's list.
"""

from __future__ import annotations

import torch.nn as nn

_ABSTRACT = "a base class that computes nothing; its subclasses have rules"
_CONTAINER = "holds modules and computes nothing; whole models keep it as a Python {}"

REFUSED: dict[type, str] = {
    nn.Module: _ABSTRACT,
    nn.Container: _ABSTRACT,
    nn.RNNBase: _ABSTRACT,
    nn.RNNCellBase: _ABSTRACT,
    nn.ModuleList: _CONTAINER.format("list"),
    nn.ModuleDict: _CONTAINER.format("dict"),
    nn.ParameterList: _CONTAINER.format("list of arrays"),
    nn.ParameterDict: _CONTAINER.format("dict of arrays"),
}


def reason_against(module: nn.Module) -> str:
    """Return why a module has no rule, in one line."""
    for cls in type(module).__mro__:
        if cls in REFUSED:
            if cls is nn.Module or type(module) is not cls:
                return "no rule is registered for it (a class of its own)"
            return REFUSED[cls]
    return "no rule is registered for it"
