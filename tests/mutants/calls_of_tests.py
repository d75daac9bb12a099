"""A pytest plugin that writes down which functions of the package each test calls.

``MUTANTS_CALLS`` names the file it writes: test -> its seconds, and the functions as
``file:first line``. What a test runs in another process is not seen.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

# the copy of the tree that the tests are run in
ROOT = os.environ["MUTANTS_TREE"] + os.sep
INSIDE = tuple(ROOT + place for place in ("converter" + os.sep, "layers" + os.sep, "cli.py"))

calls: dict[str, dict[str, object]] = {}
called: set[tuple[str, int]] = set()
of_fixtures: dict[Path, set[tuple[str, int]]] = defaultdict(set)


def _note(frame: FrameType, event: str, argument: object) -> None:
    code = frame.f_code
    if code.co_filename.startswith(INSIDE):
        called.add((code.co_filename, code.co_firstlineno))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note the calls of a test."""
    called.clear()
    began = time.perf_counter()
    threading.settrace(_note)
    sys.settrace(_note)
    try:
        return (yield)
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        calls[item.nodeid] = {
            "seconds": time.perf_counter() - began,
            "calls": _written(called),
            "file": str(item.path),
        }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Note what fixtures call: every test of the file may depend on it."""
    yield
    of_fixtures[item.path] |= called


def _written(places: set[tuple[str, int]]) -> list[str]:
    return sorted(f"{file.removeprefix(ROOT)}:{line}" for file, line in places)


def pytest_sessionfinish() -> None:
    """Write the table."""
    for entry in calls.values():
        shared = _written(of_fixtures[Path(str(entry.pop("file")))])
        entry["calls"] = sorted({*entry["calls"], *shared})  # type: ignore[misc]
    Path(os.environ["MUTANTS_CALLS"]).write_text(json.dumps(calls))
