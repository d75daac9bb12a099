"""Text for a terminal, and the streams it goes to."""

import json
import subprocess
import sys

import pytest

from mlxport.converter.terminal import cleaned, cleaned_lines, json_text

OBEYED = {
    "escape": "\x1b[2J",
    "carriage return": "\r",
    "bell": "\x07",
    "one-byte CSI": "\x9b2J",
    "delete": "\x7f",
    "tab": "\t",
    "right to left": "\u202e",
    "isolate": "\u2066",
    "line separator": "\u2028",
    "next line": "\x85",
    "half of a pair": "\udcff",
}


@pytest.mark.parametrize("text", OBEYED.values(), ids=OBEYED)
def test_what_a_terminal_obeys_is_escaped(text: str) -> None:
    assert cleaned(f"a{text}b").isprintable()
    assert cleaned_lines(f"a{text}\nb").count("\n") == 1
    shown = json_text({f"a{text}": [text]})
    assert shown.replace("\n", "").isprintable()
    assert json.loads(shown) == {f"a{text}": [text]}


def test_other_text_stays_as_it_is() -> None:
    assert cleaned_lines("größer 層 🙂\n  2") == "größer 層 🙂\n  2"


CLOSED = """
import os, sys
from mlxport.converter.terminal import open_standard_streams
open_standard_streams()
print(sys.stdin.read(), "…")
print("…", file=sys.stderr)
sys.stdout.flush()
sys.exit(7 if os.open(os.devnull, os.O_RDONLY) > 2 else 8)
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_closed_streams_are_opened(closed: str, encoding: str) -> None:
    command = f"'{sys.executable}' -c '{CLOSED}' {closed}"
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        ["sh", "-c", command], env=environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 7, done.stderr
