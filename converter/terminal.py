"""What may reach a terminal: text that files and names have no power over. Standard library alone.

A terminal obeys what is written to it: escape sequences move the cursor, set titles, paste; marks
of direction turn the order of what is read. Files come from strangers.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import IO, Any

_logger = logging.getLogger(__name__)


def cleaned(text: str) -> str:
    """Return one line of text with escapes in place of what a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def cleaned_lines(text: str) -> str:
    """Return text with escapes in place of what a terminal would obey; lines stay lines."""
    return "\n".join(map(cleaned, text.split("\n")))


def shortened(text: str, width: int) -> str:
    """Return a name or path of at most so many characters: its middle goes, numbers at last.

    ``encoder.layer.11.attention.output.dense`` becomes ``encoder.….11.….output.dense``. A word is
    broken only where the last one alone is too long.
    """
    for short in (text, *_without_middle(text), *_without_middle(text, numbers=True)):
        if len(short) <= width:
            return short
    kept = max(width - 1, 0)
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def least_width(text: str) -> int:
    """Return how short a name or path can be with its numbers and its last word whole."""
    return min(map(len, (text, *_without_middle(text))))


def _without_middle(text: str, *, numbers: bool = False) -> Iterator[str]:
    """Yield a name with fewer and fewer of its parts; the first goes last, numbers if need be."""
    mark = "/" if "/" in text else "."
    parts = text.split(mark)
    words = [k for k, part in enumerate(parts[:-1]) if numbers or not part.isdigit()]
    for place in (*words[1:], *words[:1]):
        parts[place] = "…"
        yield mark.join(part for part, _ in groupby(parts))


def fitted(text: str, width: int) -> str:
    """Return text with lines broken between words, the rest of each indented by two more.

    Args:
        text: as `cleaned_lines` gives it.
        width: columns; a longer word is a line of its own.
    """
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent=" " * (len(line) - len(line.lstrip()) + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def json_text(data: Any) -> str:
    """Return JSON for a terminal or a program: ASCII, without a control character."""
    return json.dumps(data, indent=1, allow_nan=False).replace("\x7f", "\\u007f")


def open_standard_streams() -> None:
    """Give the process the three standard streams where some are closed.

    The first file that is opened would otherwise take the place of one, and get what is meant for
    it. What an encoding has not is escaped: a message never fails for a character in it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def discard_output(stream: IO[Any]) -> None:
    """Let nothing more that is written to a stream, or waits in it, go anywhere."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    except (OSError, ValueError) as error:  # a stream that is no file
        _logger.debug("%r goes on as it is: %s", stream, error)
