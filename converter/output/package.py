"""What makes an output folder a Python package: by plain import, or installed by pip."""

from __future__ import annotations

import ast
import json
from importlib.metadata import version
from pathlib import Path

_PYPROJECT = """\
# pip install . installs this folder as the package {name}.
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = {quoted}
version = "1.0.0"
description = {description}
requires-python = ">=3.10"
dependencies = [{mlx}]

[tool.setuptools]
packages = {packages}
package-dir = {{ {name} = "." }}

[tool.setuptools.package-data]
{name} = {data}
"""


def package_text(source: str) -> str:
    """Return the ``__init__.py`` of an output folder.

    Args:
        source: the text of ``model.py``.
    """
    lines = [f'"""{_title(source)}"""', "", "from .model import Model, load", ""]
    return "\n".join([*lines, '__all__ = ["Model", "load"]', ""])


def write_package(folder: Path, name: str, source: str, stem: str) -> None:
    """Write what pip needs to install an output folder, and what tells of its type hints.

    Args:
        folder: the output folder, with its code.
        name: of the package.
        source: the text of ``model.py``.
        stem: what the files of the weights are called before their ending.
    """
    below = sorted(file.parent.relative_to(folder) for file in folder.rglob("*/__init__.py"))
    packages = [name, *(".".join((name, *path.parts)) for path in below)]
    text = _PYPROJECT.format(
        name=name,
        quoted=json.dumps(name),
        description=json.dumps(_title(source)),
        mlx=json.dumps(f"mlx>={version('mlx')}"),
        packages=json.dumps(packages),
        data=json.dumps(["py.typed", f"{stem}*.safetensors", "config.json"]),
    )
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    (folder / "py.typed").write_text("", encoding="utf-8")


def _title(source: str) -> str:
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
