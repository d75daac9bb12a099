"""What it takes to import the package and to print the command line's help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from timing import Table, milliseconds, side_by_side

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import mlxport": [sys.executable, "-c", "import mlxport"],
    "mlxport --help": [str(Path(sys.executable).with_name("mlxport")), "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def tables() -> list[Table]:
    """Measure everything."""
    runs = {
        name: lambda command=command: subprocess.run(command, check=True, capture_output=True)
        for name, command in COMMANDS.items()
    }
    took = side_by_side(runs, seconds=8)
    text = "Milliseconds of a whole process. Neither torch nor mlx is imported before it is needed."
    rows = [[name, milliseconds(seconds)] for name, seconds in took.items()]
    return [Table("Start", text, ["command", "ms"], rows)]
