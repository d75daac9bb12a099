"""Draw the README's pictures, a terminal of 80 columns and the parity page: ``make pictures``.

Needs Chromium or Chrome.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import torch
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from mlxport.examples.demo import CONVERT, train

DOCS = Path(__file__).parent
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), "chromium")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")
COLUMNS, WIDTH = 80, 985
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 16px; width: max-content }}
body {{ background: {background}; color: {foreground} }}
pre {{ font: 15px/1.35 "DejaVu Sans Mono", monospace; margin: 0 }} {stylesheet}</style>
<pre>{code}</pre>"""
HEIGHT = "<script>onload = () => document.title = document.documentElement.{side}</script>"


def on_a_terminal(command: str, folder: Path) -> str:
    """Run a command where it has a terminal, and return what is left on it, with its colours."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, COLUMNS, 0, 0))
    words = [sys.executable, "-m", "mlxport", *command.split()[1:]]
    left_out = ("COLUMNS", "NO_COLOR")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    env["TERM"] = "xterm-256color"
    with subprocess.Popen(words, cwd=folder, env=env, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 1 << 16):
                shown += part
        except OSError:  # Linux: the other side is closed
            pass
    if process.returncode:
        raise SystemExit(shown.decode())
    return shown.decode().replace("\r", "").rpartition("\x1b[2K")[2]


def drawn(text: str) -> str:
    """Return a terminal's text as a page."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    console.print(Text.from_ansi(text), soft_wrap=True)
    return console.export_html(theme=DIMMED_MONOKAI, code_format=TERMINAL)


def photograph(page: str, picture: Path, width: int | None = None) -> None:
    """Write a picture of a whole page, as wide as it is itself or as said."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "page.html")
        browser = [BROWSER, *FLAGS, f"--user-data-dir={folder}/profile"]

        def measured(side: str) -> int:
            file.write_text(page + HEIGHT.format(side=side))
            command = [*browser, f"--window-size={width or 1600},100", "--dump-dom", file.as_uri()]
            found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            title = re.findall(r"<title>(\d+)</title>", found.stdout)
            return int(title[-1])

        sizes = (
            f"{width or measured('querySelector(`body`).offsetWidth')},{measured('offsetHeight')}"
        )
        file.write_text(page)
        command = [*browser, f"--window-size={sizes}", f"--screenshot={picture}", file.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def draw(folder: Path) -> None:
    """Convert the demo's network, and draw what that prints and the page that it writes."""
    torch.save(train(steps=30)[0].state_dict(), folder / "unet3d.pt")
    (folder / "examples").mkdir()
    shutil.copy(DOCS.parent / "examples" / "unet3d.py", folder / "examples")
    shown = on_a_terminal(CONVERT, folder)
    photograph(drawn(f"$ {CONVERT}\n{shown}"), DOCS / "terminal.png")
    text = (folder / "out" / "parity.html").read_text()
    style = "<style>figure ~ *, .stack { display: none }</style>"
    photograph(text.replace("</head>", f"{style}</head>"), DOCS / "parity.png", WIDTH)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder))
