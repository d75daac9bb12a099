"""The rooms that faults are planted in, each with the tests that are to notice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Room:
    """Source files of a room, and where its tests are; paths from the root."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()

    def files(self) -> list[str]:
        """The source files, sorted; a package's list of names holds no code."""
        found = {
            path.relative_to(ROOT).as_posix()
            for place in self.sources
            for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
            if path.name != "__init__.py"
        }
        return sorted(file for file in found if not file.startswith(self.without or ("\0",)))


ROOMS = {
    "layers": Room(("layers",), ("tests/layers",)),
    "ops": Room(("converter/graph/ops",), ("tests/converter/graph/ops",)),
    "graph": Room(
        ("converter/graph",),
        ("tests/converter/graph",),
        without=("converter/graph/ops/",),
    ),
    "parity": Room(("converter/parity",), ("tests/converter/parity",)),
    "checkpoint": Room(
        ("converter/checkpoint", "converter/plan"),
        ("tests/converter/checkpoint", "tests/converter/plan"),
    ),
    "rules": Room(("converter/rules",), ("tests/converter/rules",)),
    "tasks": Room(
        ("converter/tasks", "cli.py"),
        (
            "tests/converter/tasks",
            "tests/test_cli.py",
            "tests/test_cli_dynamic.py",
            "tests/test_cli_names.py",
            "tests/test_cli_progress.py",
        ),
    ),
}
