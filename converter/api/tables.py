"""The tables of supported layers and ops: as text, as JSON, as documentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from mlxport.converter.api.boundary import public
from mlxport.converter.environment import prepare


@public
def support(
    search: str = "",
    *,
    form: Literal["text", "json", "markdown"] = "text",
    imports: Sequence[str] = (),
) -> str:
    """Return the table of supported torch.nn classes and ATen operations.

    Args:
        search: show only the rows that hold this text (``form="text"`` only).
        form: ``"text"`` for a terminal, ``"json"``, or ``"markdown"`` (``docs/supported.md``).
        imports: modules that register rules and handlers of their own.

    Raises:
        OptionsError: a module cannot be imported.
    """
    prepare()
    if imports:
        from mlxport.converter.torch_model.factory import import_registrations

        import_registrations(imports)
    from mlxport.converter.tasks.support import as_json, as_markdown, as_text

    if form == "json":
        return json.dumps(as_json(), indent=1)
    return as_markdown() if form == "markdown" else as_text(search)
