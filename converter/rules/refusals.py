"""The torch.nn classes without a rule, each with the reason.

Every class of torch.nn is either in the registry or here; a test compares both with torch's list.
"""

from __future__ import annotations

import torch.nn as nn

_ABSTRACT = "a base class that computes nothing; its subclasses have rules"
_PARALLEL = "runs a module on several GPUs and computes nothing; convert its .module"

WITHOUT_RULE: dict[type, str] = {
    nn.Module: _ABSTRACT,
    nn.Container: _ABSTRACT,
    nn.RNNBase: _ABSTRACT,
    nn.RNNCellBase: _ABSTRACT,
    nn.DataParallel: _PARALLEL,
}


def why_no_rule(module: nn.Module) -> str:
    """Return why a module has no rule, in one line."""
    for cls in type(module).__mro__:
        if cls in WITHOUT_RULE:
            if cls is nn.Module or type(module) is not cls:
                return "no rule is registered for it (a class of its own)"
            return WITHOUT_RULE[cls]
    return "no rule is registered for it"
