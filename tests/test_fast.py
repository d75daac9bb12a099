"""`make test-fast` leaves out no room by accident, and stays a part."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("test_*.py"))


@pytest.fixture(scope="module")
def conftest(pytestconfig: pytest.Config) -> ModuleType:
    return pytestconfig.pluginmanager.get_plugin(str(TESTS / "conftest.py"))


def test_the_table_names_what_is_there(conftest: ModuleType) -> None:
    assert [place for place in conftest.FAST if not (TESTS / place).exists()] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(TESTS)))
def test_only_whole_networks_and_samples_are_left_out(conftest: ModuleType, file: Path) -> None:
    left_out = file.relative_to(TESTS).parts[0] in ("models", "samples")
    assert (conftest.fast_tests_of(file) == 0) == left_out


def test_the_large_rooms_give_a_small_part(conftest: ModuleType) -> None:
    parts = [n for n in map(conftest.fast_tests_of, FILES) if n < 1000]
    assert sum(parts) <= 900


@pytest.mark.parametrize(
    ("length", "number", "taken"),
    [
        pytest.param(9, 3, [0, 4, 8], id="evenly"),
        pytest.param(9, 2, [0, 8], id="the ends"),
        pytest.param(9, 1, [0], id="one"),
        pytest.param(9, 0, [], id="none"),
        pytest.param(3, 8, [0, 1, 2], id="all"),
        pytest.param(7, 5, [0, 2, 3, 4, 6], id="unevenly"),
    ],
)
def test_a_part_is_spread_over_the_file(
    conftest: ModuleType, length: int, number: int, taken: list[int]
) -> None:
    assert conftest.spread([*range(length)], number) == taken


def test_a_part_is_of_each_file_and_holds_no_slow_test(conftest: ModuleType) -> None:
    def item(file: str, slow: bool = False) -> SimpleNamespace:
        return SimpleNamespace(path=TESTS / file, get_closest_marker=lambda name: slow)

    slow = item("layers/test_a.py", slow=True)
    one, two = item("layers/test_a.py"), item("layers/test_b.py")
    whole = [item("models/test_c.py"), slow, one, two]
    assert conftest.fast_part(whole) == [one, two]
