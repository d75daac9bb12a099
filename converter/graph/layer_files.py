"""The layers that go beside an emitted model: copies of just those files it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files

_OURS = re.compile(r"^(\s*from )mlxport\.layers\.(\w+)( import )", re.MULTILINE)


def layer_files(names: Iterable[str]) -> dict[str, str]:
    """Return file name -> text of layer files and of those they import, fit to lie in ``layers/``.

    Args:
        names: modules of ``mlxport.layers`` (``"conv_transpose"``).
    """
    found: dict[str, str] = {}
    pending = sorted(set(names))
    while pending:
        name = pending.pop()
        if f"{name}.py" in found:
            continue
        text = files("mlxport.layers").joinpath(f"{name}.py").read_text(encoding="utf-8")
        pending += [match[2] for match in _OURS.finditer(text)]
        found[f"{name}.py"] = _OURS.sub(r"\1layers.\2\3", text)
    return dict(sorted(found.items()))
