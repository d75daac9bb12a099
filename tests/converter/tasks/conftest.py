"""What tests of tasks share: PEFT."""

from __future__ import annotations

import warnings
from typing import Any

import pytest


@pytest.fixture(scope="session")
def peft() -> Any:
    """PEFT, which imports transformers, which imports torchvision; skips without it."""
    import import_torchvision  # noqa: F401  # of tests/models, which is on the path

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("peft", reason="PEFT needs transformers, so Python 3.11")
