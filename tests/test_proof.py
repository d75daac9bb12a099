"""`benchmarks/proof.py`: what it keeps, what it goes on with, what it writes; on the CPU here."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = ("proof", "proof_page", "proof_steps", "conv_transpose", "timing", "networks")
MACHINE = {"device": "a <chip>", "mlx": "0"}
HOLDS = {"passed": True, "verdict": "parity holds", "worst": 1.5, "took": 1.0}
FAILS = {"passed": False, "verdict": "parity fails", "worst": None, "failed": ["up <1>"]}
CRASHED = {"failed to run": "ended with -6: command buffer"}
TIMED = {
    "dtype": "float32",
    "torch on": "cpu",
    "seconds": {"native": 0.2, "ours": 0.01, "torch": 0.02},
    "errors": {"compiled": "RuntimeError: no"},
}
HAND_PORT, LAYER = "a port by hand", "1-D k16 s8 p4"

Proof = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module `proof`, and what it imports from its folder, for one test."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("proof")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def proof(modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proof:
    """`proof(outcomes, *arguments)` runs it with steps that end so; the exit code, the report."""
    monkeypatch.setattr(modules, "machine_of", lambda _: dict(MACHINE))

    def run(outcomes: dict[str, Any], *arguments: str) -> tuple[int, dict[str, Any]]:
        def step(name: str, *_: Any) -> Any:
            found = outcomes[name]
            if found is KeyboardInterrupt:
                raise KeyboardInterrupt
            return dict(found)

        monkeypatch.setattr(modules, "run", step)
        given = ["--device", "cpu", "--folder", str(tmp_path), *arguments]
        monkeypatch.setattr(sys, "argv", ["proof.py", *given])
        with pytest.raises(SystemExit) as ended:
            modules.main()
        code = ended.value.code
        assert isinstance(code, int)
        return code, json.loads((tmp_path / "cpu-report.json").read_text())

    return run


STEPS = ("--steps", HAND_PORT, "BERT", LAYER)


@pytest.mark.parametrize(
    ("bert", "code"), [(HOLDS, 0), (FAILS, 3), (CRASHED, 1)], ids=["holds", "fails", "crashed"]
)
def test_the_exit_code_says_what_came_of_it(proof: Proof, bert: Any, code: int) -> None:
    outcomes = {HAND_PORT: HOLDS, "BERT": bert, LAYER: TIMED}
    assert proof(outcomes, *STEPS)[0] == code


def test_an_interruption_keeps_what_was_found(proof: Proof, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        proof({HAND_PORT: HOLDS, "BERT": KeyboardInterrupt}, *STEPS)
    assert list(json.loads((tmp_path / "cpu-report.json").read_text())["steps"]) == [HAND_PORT]
    # the first step is not run again, which would fail
    code, report = proof({"BERT": HOLDS, LAYER: TIMED}, *STEPS)
    assert code == 0
    assert list(report["steps"]) == [HAND_PORT, "BERT", LAYER]
    assert report["left"] == []


def test_without_time_steps_are_left_and_run_the_next_time(proof: Proof) -> None:
    code, report = proof({}, *STEPS, "--minutes", "0")
    assert code == 1
    assert report["left"] == [HAND_PORT, "BERT", LAYER]
    assert proof({HAND_PORT: HOLDS, "BERT": HOLDS, LAYER: TIMED}, *STEPS)[0] == 0


def test_what_crashed_is_run_again(proof: Proof) -> None:
    assert proof({HAND_PORT: HOLDS, "BERT": CRASHED, LAYER: TIMED}, *STEPS)[0] == 1
    assert proof({"BERT": HOLDS}, *STEPS)[0] == 0


def test_results_of_other_versions_are_not_taken(
    proof: Proof, modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = {HAND_PORT: HOLDS, "BERT": HOLDS, LAYER: TIMED}
    proof(outcomes, *STEPS)
    monkeypatch.setattr(modules, "machine_of", lambda _: {**MACHINE, "mlx": "1"})
    code, report = proof({name: FAILS for name in outcomes} | {LAYER: TIMED}, *STEPS)
    assert code == 3
    assert report["machine"]["mlx"] == "1"


def test_the_page_is_stamped_and_shows_every_step(proof: Proof, tmp_path: Path) -> None:
    proof({HAND_PORT: CRASHED, "BERT": FAILS, LAYER: TIMED}, *STEPS)
    page = (tmp_path / "cpu-report.html").read_text()
    assert "<h1>mlxport on cpu: a &lt;chip&gt;</h1>" in page
    for text in ("command buffer", "FAILS", "up &lt;1&gt;", "20x", "2x", "RuntimeError: no"):
        assert text in page, text


def test_a_device_that_is_not_there(
    modules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "machine_of", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["proof.py", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        modules.main()
    assert ended.value.code == 4
    assert list(tmp_path.iterdir()) == []


def test_its_networks_are_those_of_the_tests(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "models"))
    steps = sys.modules["proof_steps"]
    known = importlib.import_module("networks").NETWORKS
    assert {*steps.EXAMPLES, *steps.NETWORKS} <= known.keys()
    assert len(steps.NETWORKS) == 6


@pytest.mark.slow
def test_from_start_to_end_on_the_cpu(tmp_path: Path) -> None:
    steps = ["UNet3d", HAND_PORT, LAYER, "pytorch 192213: Conv3d k3, 512 channels"]
    command = [sys.executable, str(BENCHMARKS / "proof.py"), "--device", "cpu"]
    command += ["--folder", str(tmp_path), "--steps", *steps]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / "cpu-report.json").read_text())
    network, by_hand, layer, large = (report["steps"][name] for name in steps)
    assert network["passed"]
    assert network["environment"]["backend"] == "cpu"
    assert by_hand["passed"]
    assert layer["seconds"].keys() == {"native", "ours", "compiled", "torch"}
    assert layer["errors"] == {}
    assert "for a GPU" in large["skipped"]
    assert "mlxport on cpu" in (tmp_path / "cpu-report.html").read_text()
