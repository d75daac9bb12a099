"""Plant faults in a room, one at a time, and see whether its tests notice.

    python tests/mutants/mutants.py layers --sample 40

A sample of the room's faults is drawn. Each is planted in a copy of the tree; the tests that call
the function it is in are run, and those of the file that mirrors its own, up to the first that
fails. What was seen is kept in ``.mutants/``, and the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from mutant_rooms import ROOMS, ROOT, Room
from planted_faults import Fault, faults_of

KEPT = ROOT / ".mutants"
LIVED, FAILED, HUNG = "lived", "failed", "hung"


def main() -> None:
    """Read the arguments, plant the sample, print the rate."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("--sample", type=int, default=40, help="how many faults (40)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (0)")
    parser.add_argument("--only", help="plant faults whose name holds this text, drawn or not")
    parser.add_argument(
        "--beside",
        action="store_true",
        help="run the mirroring file's tests alone, or its folder's: at once, and less is noticed",
    )
    parser.add_argument("--again", action="store_true", help="try again what lived")
    options = parser.parse_args()
    room = ROOMS[options.room]
    faults = drawn(room, options.sample, options.seed, options.only)
    if not faults:
        parser.error("no such fault")
    results = Results(KEPT / f"{options.room}{'-beside' * options.beside}.jsonl")
    tree = Tree.copied(KEPT / options.room / "mlxport")
    tests = Tests(room, {}) if options.beside else Tests.seen(options.room, room, tree)
    for number, fault in enumerate(faults, 1):
        known = results.of(fault)
        if known is None or (options.again and known == LIVED):
            known = tried(fault, tree, tests)
            results.keep(fault, known)
        print(f"{number:3}/{len(faults)} {known:6} {fault.name}", flush=True)
    lived = [fault for fault in faults if results.of(fault) == LIVED]
    print(f"{options.room}: {len(faults) - len(lived)} of {len(faults)} faults noticed")


def drawn(room: Room, sample: int, seed: int, only: str | None) -> list[Fault]:
    """The faults of a sample, in the order in which they are drawn: of each kind in turn.

    Half of all faults that can be planted are swapped arguments, which hardly a test lets pass.
    A larger sample begins with the smaller one.
    """
    faults = [f for file in room.files() for f in faults_of((ROOT / file).read_text(), file)]
    if only:
        return [fault for fault in faults if only in fault.name]
    random.Random(seed).shuffle(faults)
    of_kind: dict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        of_kind[fault.kind].append(fault)
    turns = zip_longest(*(of_kind[kind] for kind in sorted(of_kind)))
    return [fault for turn in turns for fault in turn if fault][:sample]


@dataclass
class Results:
    """What was seen so far, a line of JSON per fault, the latest counting."""

    path: Path

    def of(self, fault: Fault) -> str | None:
        """What became of a fault, if its file is still what it was."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        seen = {line["fault"]: line for line in map(json.loads, lines)}.get(fault.name)
        return seen["result"] if seen and seen["digest"] == digest(fault.file) else None

    def keep(self, fault: Fault, result: str) -> None:
        """Add a line."""
        line = {"fault": fault.name, "digest": digest(fault.file), "result": result}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def digest(file: str) -> str:
    """SHA-256 of a file of the tree."""
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()


@dataclass
class Tree:
    """A copy of the tree, in a folder that bears the package's name."""

    root: Path

    @classmethod
    def copied(cls, root: Path) -> Tree:
        """Copy what git knows, as it stands."""
        shutil.rmtree(root, ignore_errors=True)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, root / name)
        return cls(root)

    def pytest(self, arguments: list[str], limit: float, **variables: str) -> int | None:
        """Run pytest in the copy; the exit code, None where it was not done within ``limit`` s."""
        path = [str(self.root.parent), str(ROOT / "tests" / "mutants")]
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONDONTWRITEBYTECODE": "1",  # files change within a second
            **variables,
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        with (self.root.parent / "pytest.txt").open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                return None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with the processes of its tests
                    process.wait()


@dataclass
class Tests:
    """Test -> its seconds and the functions it calls, as ``file:first line``.

    Without a table, the tests of a fault are those beside it.
    """

    room: Room
    table: dict[str, tuple[float, set[str]]]

    @classmethod
    def seen(cls, name: str, room: Room, tree: Tree) -> Tests:
        """Run the room's tests without a fault and note what each calls; once per state."""
        state = hashlib.sha256()
        for file in sorted(p for place in room.tests for p in (ROOT / place).rglob("*.py")):
            state.update(file.read_bytes())
        for file in room.files():
            state.update((ROOT / file).read_bytes())
        kept = KEPT / f"{name}-calls-{state.hexdigest()[:16]}.json"
        if not kept.exists():
            print("running the tests without a fault, to see what each calls", flush=True)
            plugin = ["-p", "calls_of_tests", "-o", "timeout=0", *room.tests]
            variables = {"MUTANTS_CALLS": str(kept), "MUTANTS_TREE": str(tree.root)}
            code = tree.pytest(plugin, 7200, **variables)
            if code != 0:
                kept.unlink(missing_ok=True)
                raise SystemExit(f"the tests fail without a fault: {tree.root.parent}/pytest.txt")
        loaded = json.loads(kept.read_text())
        table = {test: (entry["seconds"], {*entry["calls"]}) for test, entry in loaded.items()}
        return cls(room, table)

    def of(self, fault: Fault) -> list[str]:
        """The tests to run: of the mirroring file first, then what calls the function, by time."""
        mirror = mirroring(fault.file)
        if not self.table:
            return [mirror if (ROOT / mirror).exists() else mirror.rpartition("/")[0]]
        functions = function_of(fault)
        chosen = []
        for test, (seconds, called) in self.table.items():
            beside = test.startswith(f"{mirror}::")
            calls = bool(functions & called)
            if beside or calls:
                chosen.append(((not (beside and calls), not calls, seconds), test))
        return [test for _, test in sorted(chosen)]

    def limit(self, tests: list[str]) -> float:
        """Seconds in which some tests have to be done."""
        return 120 + 6 * sum(self.table[test][0] if self.table else 100 for test in tests)


def mirroring(file: str) -> str:
    """The test file that bears a source file's name."""
    folder, _, name = file.rpartition("/")
    return "/".join(filter(None, ["tests", folder, f"test_{name}"]))


def function_of(fault: Fault) -> set[str]:
    """The innermost function around a fault, or every function of the file outside of any."""
    tree = ast.parse((ROOT / fault.file).read_text())
    functions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]

    def places(nodes: list[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]) -> set[str]:
        # a decorated function's code begins with its first decorator
        first = [
            min([n.lineno, *(d.lineno for d in getattr(n, "decorator_list", []))]) for n in nodes
        ]
        return {f"{fault.file}:{line}" for line in first}

    around = [n for n in functions if n.lineno <= fault.line <= (n.end_lineno or n.lineno)]
    innermost = max(around, key=lambda n: n.lineno, default=None)
    return places([innermost] if innermost else functions)


def tried(fault: Fault, tree: Tree, tests: Tests) -> str:
    """Plant a fault, run its tests, take it out again."""
    chosen = tests.of(fault)
    if not chosen:
        return LIVED
    file = tree.root / fault.file
    sound = file.read_text()
    listed = tree.root.parent / "tests.txt"
    listed.write_text("\n".join(chosen))
    file.write_text(fault.planted(sound))
    began = time.perf_counter()
    try:
        code = tree.pytest(["-x", f"@{listed}"], tests.limit(chosen))
    finally:
        file.write_text(sound)
    print(f"        {len(chosen)} tests, {time.perf_counter() - began:.0f} s", flush=True)
    if code is None:
        return HUNG
    return LIVED if code == 0 else FAILED


if __name__ == "__main__":
    main()
