"""What the workflows run, in which order, and what they keep of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def steps_on_a_mac() -> list[dict[str, Any]]:
    """The steps of the one job that has an Apple GPU."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    (job,) = (job for job in jobs.values() if job["runs-on"].startswith("macos"))
    assert "continue-on-error" not in job
    steps: list[dict[str, Any]] = job["steps"]
    return steps


def place(steps: list[dict[str, Any]], text: str) -> int:
    """The place of the one step that runs a command, or takes an action."""
    (found,) = (i for i, s in enumerate(steps) if text in f"{s.get('run', '')} {s.get('uses', '')}")
    return found


def test_metal_is_proved_first_and_the_proof_kept_whatever_the_tests_say() -> None:
    steps = steps_on_a_mac()
    order = [place(steps, text) for text in ("make verify-metal", "upload-artifact", "make pytest")]
    assert order == sorted(order)
    proof, kept, tests = (steps[i] for i in order)
    assert kept["if"] == "always()"
    assert tests["if"] == "${{ !cancelled() }}", "tests run too where the proof fails"
    assert "if" not in proof
    assert "continue-on-error" not in {*proof, *kept, *tests}
    assert not any("test" in step.get("run", "") for step in steps[: order[0]])


@pytest.mark.parametrize("kind", ["json", "html"])
def test_what_is_kept_is_what_the_proof_writes(kind: str) -> None:
    steps = steps_on_a_mac()
    kept = steps[place(steps, "upload-artifact")]["with"]["path"]
    assert re.search(r"^DEVICE \?= metal$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f'f"{{device}}-report.{kind}"' in (ROOT / "benchmarks/proof.py").read_text()
    assert Path(f"metal-report.{kind}").match(kept)
