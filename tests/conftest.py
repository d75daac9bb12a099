"""What every test runs under: exact float32, few threads, one seed, repeatable examples.

``--fast`` (`make test-fast`) runs what a change most likely breaks, by the table ``FAST``.
"""

import os
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

# Each of these is read once, at the first import of mlx and of torch.
os.environ["MLX_ENABLE_TF32"] = os.environ["MLX_CONV_WINOGRAD"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the test processes already share the cores

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent

# Folder or file -> how many tests of each file `--fast` runs, evenly spread over it; the nearest
# entry counts. All where a room's tests are quick, none where they are whole networks.
# CONTRIBUTING.md tells what each folder takes in full; measure before raising a number.
FAST: dict[str, int] = {
    ".": 1000,
    "converter": 2,
    "converter/checkpoint/formats": 3,
    "converter/checkpoint/keys": 1000,
    "converter/checkpoint/test_rooms.py": 12,
    "converter/checkpoint/writing": 2,
    "converter/graph/capture": 2,
    "converter/graph/ir": 4,
    "converter/graph/lowering": 4,
    "converter/graph/ops": 3,
    "converter/graph/source": 3,
    "converter/plan": 1000,
    "converter/rules": 5,
    "converter/torch_model": 5,
    "examples": 1,
    "layers": 2,
    "models": 0,
    "samples": 0,
    "test_cli.py": 10,
    "test_cli_dynamic.py": 1,
    "test_cli_progress.py": 1,
    "test_extending.py": 1,
    "test_hostile_environments.py": 1,
    "test_hostile_records.py": 6,
    "test_untrusted_folder.py": 4,
    "testing": 1,
}

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,  # the first call of a kernel is slow, and no test here asserts time
    suppress_health_check=[HealthCheck.too_slow],  # nor how long an example takes to draw
)
settings.register_profile("explore", settings.get_profile("ci"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="run a part of each folder's tests")


def fast_tests_of(file: Path) -> int:
    """How many tests of a file ``--fast`` runs at most."""
    place = file.relative_to(TESTS)
    return next(FAST[str(p)] for p in (place, *place.parents) if str(p) in FAST)


def spread(tests: list[pytest.Item], number: int) -> list[pytest.Item]:
    """Return so many of a file's tests, the first and the last of them and what lies between."""
    if number >= len(tests):
        return tests
    step = (len(tests) - 1) / max(number - 1, 1)
    return [tests[round(i * step)] for i in range(number)]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not read files of which ``--fast`` runs nothing."""
    inside = collection_path.suffix == ".py" and collection_path.is_relative_to(TESTS)
    if inside and config.getoption("--fast") and not fast_tests_of(collection_path):
        return True
    return None


def pytest_configure() -> None:
    """Run MLX on the device of ``MLXPORT_TEST_DEVICE`` (``cpu`` or ``gpu``), if it is given."""
    if device := os.environ.get("MLXPORT_TEST_DEVICE"):
        import mlx.core as mx

        if not mx.is_available(getattr(mx, device)):
            raise pytest.UsageError(f"MLXPORT_TEST_DEVICE={device}: MLX has no such device here")
        mx.set_default_device(mx.Device(getattr(mx, device)))


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Take the part that ``--fast`` runs; skip what needs Metal where there is none."""
    if config.getoption("--fast"):
        part = fast_part(items)
        config.hook.pytest_deselected(items=sorted({*items} - {*part}, key=str))
        items[:] = part
    marked = [item for item in items if item.get_closest_marker("metal")]
    if not marked:
        return
    import mlx.core as mx  # only now: a run without such tests need not load it

    if not mx.metal.is_available():
        reason = "needs an Apple GPU: not run here"
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def fast_part(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the tests that ``--fast`` runs, in their order."""
    files: dict[Path, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if not item.get_closest_marker("slow"):
            files[item.path].append(item)
    return [item for file, tests in files.items() for item in spread(tests, fast_tests_of(file))]


# Where every call that layers and emitted code make of MLX has to be one that Metal takes.
WATCHED = ("layers", "converter/rules", "converter/graph/ops", "samples")


@pytest.fixture(autouse=True)
def _no_metal_obstacle(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test of a layer or an op that makes MLX call what its Metal backend refuses."""
    place = request.path.relative_to(TESTS).as_posix()
    if not place.startswith(WATCHED):
        yield
        return
    from mlxport.converter.parity.run.metal_calls import watching
    from mlxport.converter.parity.run.metal_table import Effect, PrimitiveCall, rows_of

    obstacles: dict[str, None] = {}

    def observe(call: PrimitiveCall, frame: FrameType) -> None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(TESTS) or file.is_relative_to(TESTS.parent / "converter"):
            return  # the test's own arithmetic
        for row in rows_of(call):
            # float64 reaches layers in tests alone: no model is converted to it
            if row.effect is Effect.REFUSED and row.primitives:
                obstacles[f"{file}:{frame.f_lineno}: {call}: {row.reason}"] = None

    with watching(observe, lambda name: None, shapes=False, compiling=True):
        yield
    if obstacles:
        pytest.fail("refused on Metal: " + "; ".join(obstacles), pytrace=False)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Let what a file makes at its import depend on no other file."""
    if isinstance(collector, pytest.Module):
        seed()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from the same random state, whatever ran before it in this process."""
    seed()


def seed() -> None:
    """Seed every generator of the libraries that are imported."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    if mlx_random := sys.modules.get("mlx.core"):
        mlx_random.random.seed(0)


@pytest.fixture
def write_nets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], object]]:
    """Make an empty folder the current one, and write the module ``nets`` there by its text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("nets", None)
    yield (tmp_path / "nets.py").write_text
    sys.modules.pop("nets", None)  # that the next test's is not taken for
