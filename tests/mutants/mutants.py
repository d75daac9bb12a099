"""Plant faults in a room, one at a time, and see whether its tests notice.

    python tests/mutants/mutants.py layers --sample 40

A sample of the room's faults is drawn. Each is planted in a copy of the tree; the tests that call
the function it is in are run, and those of the file that mirrors its own, up to the first that
fails or to ``--seconds``. What was seen is kept in ``.mutants/``, and the same command goes on
where it was.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from calls_of_tests import functions_of
from mutant_rooms import ROOMS, ROOT, Room
from planted_faults import Fault, faults_of

KEPT = ROOT / ".mutants"
Table = dict[str, tuple[float, set[str]]]  # test -> seconds, and functions as file:name
# What a fault that hangs and a machine that is slow have in common is no failing test.
LIVED, FAILED, OUT_OF_TIME = "lived", "failed", "ran out of time"


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
    parser.add_argument(
        "--seconds", type=float, default=60, help="of tests to run of a fault, beside the file (60)"
    )
    parser.add_argument(
        "--again", action="store_true", help="try again what lived or ran out of time"
    )
    parser.add_argument(
        "--slack", type=float, default=1, help="how many times as long tests may take (1)"
    )
    options = parser.parse_args()
    room = ROOMS[options.room]
    faults = drawn(room, options.sample, options.seed, options.only)
    if not faults:
        parser.error("no such fault")
    results = Results(KEPT / f"{options.room}{'-beside' * options.beside}.jsonl")
    tree = Tree.copied(KEPT / options.room / "mlxport")
    table = {} if options.beside else noted(options.room, room, tree)
    tests = Tests(room, table, options.seconds, options.slack, tree.root)
    for number, fault in enumerate(faults, 1):
        known = results.of(fault)
        if known is None or (options.again and known != FAILED):
            known = tried(fault, tree, tests)
            results.keep(fault, known)
        print(f"{number:3}/{len(faults)} {known:6} {fault.name}", flush=True)
    print(f"{options.room}: {rate([results.of(fault) for fault in faults])}")


def rate(found: list[str | None]) -> str:
    """What the tests noticed; what ran out of time counts as neither, and is said apart."""
    text = f"{found.count(FAILED)} of {len(found)} faults noticed"
    late = found.count(OUT_OF_TIME)
    return f"{text}; {late} ran out of time: try --again with --slack" if late else text


def drawn(room: Room, sample: int, seed: int, only: str | None) -> list[Fault]:
    """The faults of a sample, in the order in which they are drawn: of each kind in turn.

    Half of all faults that can be planted are swapped arguments, which hardly a test lets pass.
    A larger sample begins with the smaller one, and a change of the source changes no more of a
    sample than it has to: what a fault says decides on its turn, not the line it stands on.
    """
    faults = [f for file in room.files() for f in faults_of((ROOT / file).read_text(), file)]
    if only:
        return [fault for fault in faults if only in fault.name]
    alike: dict[str, int] = defaultdict(int)
    turn = {}
    for fault in faults:
        text = f"{fault.file}: {fault.kind}: {fault.before} -> {fault.after}"
        alike[text] += 1
        turn[fault] = hashlib.sha256(f"{seed}: {alike[text]}: {text}".encode()).digest()
    faults.sort(key=turn.__getitem__)
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

    @property
    def output(self) -> Path:
        """What pytest wrote last."""
        return self.root.parent / "pytest.txt"

    def pytest(self, arguments: list[str], limit: float, **variables: str) -> int | None:
        """Run pytest in the copy; the exit code, None where it was not done within ``limit`` s."""
        path = [str(self.root.parent), str(Path(__file__).parent)]
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONDONTWRITEBYTECODE": "1",  # files change within a second
            **variables,
        }
        # one limit, that of all tests together: the suite's limit of a test would say "failed"
        unlimited = ["-o", "timeout=0", "-o", "faulthandler_timeout=0"]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *unlimited]
        with self.output.open("w") as output:
            process = subprocess.Popen(
                [*command, *arguments],
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


def noted(name: str, room: Room, tree: Tree) -> Table:
    """Run the room's tests without a fault and note what each calls.

    Of a test file once, until it changes. A change of the source leaves the notes as they are.
    """
    kept = KEPT / f"{name}-calls.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    files = [
        file.relative_to(ROOT).as_posix()
        for place in map(ROOT.joinpath, room.tests)
        for file in ([place] if place.is_file() else sorted(place.rglob("test_*.py")))
    ]
    known = {file: known[file] for file in files if known.get(file, {}).get("of") == digest(file)}
    missing = [file for file in files if file not in known]
    if missing:
        print(f"running {len(missing)} test files without a fault", flush=True)
        seen = tree.root.parent / "calls.json"
        seen.unlink(missing_ok=True)
        variables = {"MUTANTS_CALLS": str(seen), "MUTANTS_TREE": str(tree.root)}
        code = tree.pytest(["-p", "calls_of_tests", *missing], 7200, **variables)
        if code != 0:
            print(f"tests fail without a fault, and are left out: {tree.output}", flush=True)
        table = json.loads(seen.read_text()) if seen.exists() else {}
        for file in missing:
            of_file = {test: entry for test, entry in table.items() if _file_of(test) == file}
            if of_file:
                known[file] = {"of": digest(file), "tests": of_file}
        kept.write_text(json.dumps(known))
    return {
        test: (entry["seconds"], {*entry["calls"]})
        for of_file in known.values()
        for test, entry in of_file["tests"].items()
    }


def _file_of(test: str) -> str:
    return test.partition("::")[0]


@dataclass
class Tests:
    """The tests of a room by what they call; without a table, those beside a fault are run.

    Of more than ``seconds`` of tests the quickest are run, and the mirroring file in any case.
    """

    room: Room
    table: Table
    seconds: float
    slack: float = 1
    root: Path = ROOT

    def of(self, fault: Fault) -> list[str]:
        """The tests to run: of the mirroring file first, then what calls the function, by time."""
        mirror = mirroring(fault.file)
        if not self.table:
            # in the copy: a file that came later would be an error of pytest, and seem to notice
            return [mirror if (self.root / mirror).exists() else mirror.rpartition("/")[0]]
        functions = function_of(fault)
        chosen = []
        for test, (seconds, called) in self.table.items():
            beside = _file_of(test) == mirror
            calls = bool(functions & called)
            if beside or calls:
                chosen.append(((not (beside and calls), not calls, seconds), test))
        tests, total = [], 0.0
        for (not_first, _, seconds), test in sorted(chosen):
            if not not_first or total < self.seconds:
                tests.append(test)
                total += seconds
        return tests

    def limit(self, tests: list[str]) -> float:
        """Seconds in which some tests have to be done."""
        expected = sum(self.table[test][0] if self.table else 100 for test in tests)
        return self.slack * (120 + 6 * expected)


def mirroring(file: str) -> str:
    """The test file that bears a source file's name."""
    folder, _, name = file.rpartition("/")
    return "/".join(filter(None, ["tests", folder, f"test_{name}"]))


def function_of(fault: Fault) -> set[str]:
    """The innermost function around a fault, or every function of the file outside of any."""
    functions = [*functions_of(ast.parse((ROOT / fault.file).read_text()))]
    around = [
        (node.lineno, name)
        for name, node in functions
        if node.lineno <= fault.line <= (node.end_lineno or node.lineno)
    ]
    names = {max(around)[1]} if around else {name for name, _ in functions}
    return {f"{fault.file}:{name}" for name in names}


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
        return OUT_OF_TIME
    return LIVED if code == 0 else FAILED


if __name__ == "__main__":
    main()
