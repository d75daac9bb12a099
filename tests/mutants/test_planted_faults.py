"""The faults that `make mutants` plants, and how it tells what became of them."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calls_of_tests
import mutant_rooms
import mutants
import planted_faults
import pytest
from mutant_rooms import ROOMS, ROOT, Room
from planted_faults import Fault, faults_of

SOURCE = '''"""Text with 1 < 2."""
from __future__ import annotations


def clamp(x: int, low: int = 0, *, high: int | None = None) -> int:
    """Not 3 either."""
    if high is not None and x > high:
        raise ValueError(f"{x} above {high + 1}")
    return max(x, low) if not x == 7 else pair(x, low, high=high)  # ümlaut: 5


def pair(x: int, y: int, high: int | None = None) -> int:
    return x - y
'''
EXPECTED = {
    "boundary: x > high -> (x >= high)",
    "comparison: high is not None -> (high is None)",
    "condition: high is not None and x > high -> (high is not None or x > high)",
    "term dropped: high is not None and x > high -> (high is not None)",
    "term dropped: high is not None and x > high -> (x > high)",
    "one off: 0 -> 1",
    "one off: 7 -> 8",
    "one off: 7 -> 6",
    "comparison: x == 7 -> (x != 7)",
    "not dropped: not x == 7 -> (x == 7)",
    "arguments swapped: pair(x, low, high=high) -> pair(low, x, high=high)",
    "setting left out: pair(x, low, high=high) -> pair(x, low)",
    "operator: x - y -> (x + y)",
}


def test_each_kind_of_fault_is_found_and_no_text_is_touched() -> None:
    found = {fault.name.split(": ", 1)[1] for fault in faults_of(SOURCE, "a.py")}
    swapped = {text for text in found if text.startswith("branches swapped")}
    assert found - swapped == EXPECTED
    assert len(swapped) == 1


@pytest.mark.parametrize("fault", faults_of(SOURCE, "a.py"), ids=lambda fault: fault.name)
def test_a_planted_fault_changes_one_place(fault: Fault) -> None:
    before, after = SOURCE.splitlines(), fault.planted(SOURCE).splitlines()
    assert len(before) == len(after)
    changed = [i for i, pair in enumerate(zip(before, after, strict=True), 1) if len({*pair}) > 1]
    assert changed == [fault.line]
    assert "# ümlaut: 5" in after[8]
    ast.parse("\n".join(after))


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_has_its_files_and_tests(name: str) -> None:
    room = ROOMS[name]
    assert room.files()
    assert all((ROOT / place).exists() for place in room.tests)
    assert all((ROOT / place).exists() for place in (*room.sources, *room.without))


def test_no_file_is_in_two_rooms() -> None:
    files = [file for room in ROOMS.values() for file in room.files()]
    assert len(files) == len(set(files))


def test_a_larger_sample_begins_with_the_smaller() -> None:
    small, large = (mutants.drawn(ROOMS["rules"], number, 0, None) for number in (6, 15))
    assert large[:6] == small
    every = {fault.kind for fault in mutants.drawn(ROOMS["rules"], 10**6, 0, None)}
    assert {fault.kind for fault in large} == every  # every kind in turn
    assert mutants.drawn(ROOMS["rules"], 6, 1, None) != small


def test_a_change_elsewhere_leaves_the_order_of_the_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutant_rooms, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    room = Room(("a.py", "b.py"), ())
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text("")
    before = [(f.before, f.after) for f in mutants.drawn(room, 99, 0, None)]
    (tmp_path / "a.py").write_text("\n" + SOURCE)
    (tmp_path / "b.py").write_text("x = not y\n")
    after = [(f.before, f.after) for f in mutants.drawn(room, 99, 0, None)]
    assert [f for f in after if f != ("not y", "(y)")] == before


def test_functions_have_qualified_names_and_note_their_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = (
        "class A:\n    def f(self):\n        'Text.'\n        return lambda: 2\n"
        "def g():\n    yield 3\n"
    )
    seen: list[str] = []
    monkeypatch.setattr(builtins, "_note_call", seen.append, raising=False)
    space: dict[str, Any] = {}
    exec(compile(calls_of_tests.noting(source, "a.py"), "a.py", "exec"), space)
    assert space["A"]().f()() == 2
    assert [*space["g"]()] == [3]
    assert seen == ["a.py:A.f", "a.py:A.f.<lambda>", "a.py:g"]
    assert space["A"].f.__doc__ == "Text."


def test_the_notes_of_a_test_file_are_taken_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "mlxport"
    (place / "converter").mkdir(parents=True)
    (place / "tests").mkdir()
    (place / "__init__.py").write_text("")
    (place / "converter" / "__init__.py").write_text("")
    (place / "converter" / "a.py").write_text("def f():\n    pass\ndef g():\n    pass\n")
    test = place / "tests" / "test_a.py"
    head = "from mlxport.converter.a import f, g\ndef test_broken():\n    assert 0\n"
    monkeypatch.setattr(mutants, "ROOT", place)
    monkeypatch.setattr(mutants, "KEPT", tmp_path)
    runs = []
    monkeypatch.setattr(mutants.Tree, "pytest", _counted(mutants.Tree.pytest, runs))
    for name in ("f", "f", "g"):
        test.write_text(head + f"def test_one():\n    {name}()\n")
        table = mutants.noted("room", Room((), ("tests",)), mutants.Tree(place))
        assert {key: entry[1] for key, entry in table.items()} == {
            "tests/test_a.py::test_one": {f"converter/a.py:{name}"}
        }
    assert runs == [1, 1]  # a test fails


def _counted(run: Callable[..., int | None], codes: list[int | None]) -> Callable[..., int | None]:
    def counted(*arguments: Any, **options: Any) -> int | None:
        codes.append(run(*arguments, **options))
        return codes[-1]

    return counted


def test_the_tests_that_are_run_call_the_function_or_lie_beside_it() -> None:
    fault = mutants.drawn(ROOMS["rules"], 1, 0, "rules/padding.py")[0]
    (function,) = mutants.function_of(fault)
    assert function.startswith("converter/rules/padding.py:")
    table = {
        "tests/converter/rules/test_padding.py::beside": (1.0, set()),
        "tests/converter/rules/test_shape.py::slow": (9.0, {function}),
        "tests/converter/rules/test_shape.py::quick": (0.1, {function}),
        "tests/converter/rules/test_shape.py::another": (0.1, {"converter/rules/shape.py:another"}),
        "tests/converter/rules/test_padding.py::both": (5.0, {function}),
    }
    beside = mutants.Tests(ROOMS["rules"], {}, 60).of(fault)
    assert beside == ["tests/converter/rules/test_padding.py"]
    for seconds, names in ((60, ["both", "quick", "slow", "beside"]), (5, ["both"])):
        chosen = mutants.Tests(ROOMS["rules"], table, seconds).of(fault)
        assert [test.split("::")[1] for test in chosen] == names


def test_beside_a_fault_lies_what_its_copy_of_the_tree_has(tmp_path: Path) -> None:
    fault = mutants.drawn(ROOMS["rules"], 1, 0, "rules/padding.py")[0]
    tests = mutants.Tests(ROOMS["rules"], {}, 60, root=tmp_path)
    assert tests.of(fault) == ["tests/converter/rules"]
    file = tmp_path / "tests/converter/rules/test_padding.py"
    file.parent.mkdir(parents=True)
    file.touch()
    assert tests.of(fault) == ["tests/converter/rules/test_padding.py"]


def test_what_is_seen_of_a_fault_is_kept_until_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text(SOURCE)
    fault, other = faults_of(SOURCE, "a.py")[:2]
    results = mutants.Results(tmp_path / "kept.jsonl")
    assert results.of(fault) is None
    results.keep(fault, mutants.LIVED)
    results.keep(fault, mutants.FAILED)
    assert (results.of(fault), results.of(other)) == (mutants.FAILED, None)
    (tmp_path / "a.py").write_text(SOURCE + "\n")
    assert results.of(fault) is None


NOTICING = {
    "assert subtract(5, 2) == 3": mutants.FAILED,
    "assert subtract(5, 0) == 5": mutants.LIVED,
    "assert subtract(5, 2) == 3 or [x for x in iter(int, 1)]": mutants.OUT_OF_TIME,
}


@pytest.mark.parametrize(("line", "result"), NOTICING.items(), ids=NOTICING.values())
def test_a_fault_fails_a_test_or_runs_out_of_time_or_lives(
    line: str, result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = mutants.Tree(tmp_path / "tree")
    tree.root.mkdir()
    sound = "def subtract(x, y):\n    return x - y\n"
    (tree.root / "a.py").write_text(sound)
    (tree.root / "test_a.py").write_text(f"from a import subtract\ndef test():\n    {line}\n")
    monkeypatch.setattr(mutants, "ROOT", tree.root)
    monkeypatch.setattr(
        mutants.Tests, "limit", lambda *_: 10 if result == mutants.OUT_OF_TIME else 60
    )
    (fault,) = faults_of(sound, "a.py")
    tests = mutants.Tests(ROOMS["rules"], {"test_a.py::test": (0.1, {"a.py:subtract"})}, 60)
    assert mutants.tried(fault, tree, tests) == result
    assert (tree.root / "a.py").read_text() == sound


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([mutants.FAILED, mutants.LIVED], "1 of 2 faults noticed"),
        (
            [mutants.OUT_OF_TIME, mutants.FAILED, None],
            "1 of 3 faults noticed; 1 ran out of time: try --again with --slack",
        ),
    ],
    ids=["in time", "out of time"],
)
def test_what_ran_out_of_time_is_not_noticed(found: list[str | None], text: str) -> None:
    assert mutants.rate(found) == text


def test_slack_lengthens_the_limit() -> None:
    table: mutants.Table = {"a": (10.0, set())}
    short, long = (mutants.Tests(ROOMS["rules"], table, 60, slack) for slack in (1, 3))
    assert 60 < short.limit(["a"]) == long.limit(["a"]) / 3


def test_a_limit_of_the_suite_fails_no_test(tmp_path: Path) -> None:
    tree = mutants.Tree(tmp_path / "tree")
    tree.root.mkdir()
    (tree.root / "pytest.ini").write_text("[pytest]\ntimeout = 0.1\n")
    slow = "import time\ndef test():\n    time.sleep(0.5)\n"
    (tree.root / "test_a.py").write_text(slow)
    assert tree.pytest(["test_a.py"], 120) == 0


def test_comparisons_are_replaced_in_pairs() -> None:
    table = planted_faults.OTHER_COMPARISON
    assert all(table[table[kind]] is kind for kind in table)
