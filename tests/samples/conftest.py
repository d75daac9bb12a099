"""What the tests of PyTorch's samples share: one seed, no kernels compiled, and the tally."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

_TITLES = {
    "test_forward": "outputs, float32",
    "test_gradients": "gradients, float32",
    "test_half_precision": "outputs, float16 and bfloat16",
    "test_error_inputs": "inputs torch rejects",
    "test_operations": "operations",
}


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """MLX compiles a kernel for each constant and dtype, which would take minutes."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let torch warn of what its own samples ask of it."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore::UserWarning:torch"))
            for message in ("enable_nested_tensor is True", "Possible nested set"):  # by its caller
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many samples passed, and what the tests noted about them."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    notes: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            name = report.nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")
            if "tests/samples/" not in report.nodeid or name not in _TITLES:
                continue
            if not isinstance(report, pytest.TestReport):
                continue  # the module itself could not be imported
            outcomes[name][outcome] += 1
            notes[name].update(str(v) for key, v in report.user_properties if key == "note")
    if not outcomes:
        return
    terminalreporter.section("PyTorch's samples of its layers")
    for name in outcomes:
        shown = {"passed": 0, "failed": 0, **outcomes[name]}
        counts = ", ".join(f"{n:,} {outcome}" for outcome, n in shown.items())
        terminalreporter.line(f"{_TITLES[name]}: {counts}")
        for note, count in notes[name].most_common():
            terminalreporter.line(f"    {count:,} {note}")
