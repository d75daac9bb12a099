"""Records of an output folder with anything in them: read or refused, and nothing else happens.

Every command that reads a record gets it changed: other types, other numbers, other names, parts
left out, text that a terminal would obey. ``MLXPORT_SWEEP=500`` tries so many changes of each
record instead of a few, and text in every field.
"""

import copy
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from changed_records import OBEYED, at, changed, places
from click.testing import CliRunner, Result
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

import mlxport
from mlxport.cli import main

SWEEP = int(os.environ.get("MLXPORT_SWEEP", "0"))
CHANGES = SWEEP or 8

COMMANDS = {
    "verify": ("verify", "m"),
    "verify, JSON": ("verify", "m", "--json"),
    "verify --weights": ("verify", "m", "--weights"),
    "verify --check-code": ("verify", "m", "--check-code"),
    "restore": ("restore", "m", "-o", "back.safetensors", "--overwrite"),
    "restore --partial": ("restore", "m", "-o", "back.pt", "--overwrite", "--partial"),
    "convert --plan": ("convert", "net.pt", "--plan", "m", "-o", "two", "--overwrite"),
    "inspect --plan": ("inspect", "net.pt", "--plan", "m"),
    "export": ("export", "m", "-o", "f.mlxfn", "--overwrite"),
    "report": ("report", "m", "-o", "page.html", "--overwrite"),
    "report, Markdown": ("report", "m", "-o", "page.md", "--overwrite"),
}
READS = {
    "conversion.json": [name for name in COMMANDS if not name.startswith("report")],
    "parity.json": ["report", "report, Markdown"],
    "reference.safetensors": ["verify", "export"],
    "config.json": ["verify", "convert --plan", "export"],
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 4, 3))
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2)
        self.linear = nn.Linear(64, 32)
        self.rest = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor, limit: float = 1.0) -> dict[str, Any]:
        y = self.up(self.norm(self.conv(x))).clamp(max=limit)
        return {"image": y, "rest": (self.linear(y.flatten(2)[..., :64]), [y.mean(), None])}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversion that uses most of what records may hold."""
    folder = tmp_path_factory.mktemp("written")
    torch.manual_seed(0)
    model = Net().eval()
    torch.save(model.state_dict(), folder / "net.pt")
    mlxport.convert_checkpoint(
        folder / "net.pt",
        folder / "out",
        model=model,
        inputs=["2,2,10,10"],
        kwargs={"limit": 1e9},
        quantize={"bits": 8, "group_size": 32},
    )
    return folder


@pytest.fixture
def run(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Any, str], Result]:
    """Run a command on a copy of the folder with a record of it changed."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(written / "net.pt", "net.pt")

    def invoke(record: str, data: Any, command: str) -> Result:
        shutil.rmtree("m", ignore_errors=True)
        shutil.copytree(written / "out", "m")
        write(Path("m", record), data)
        return CliRunner().invoke(main, COMMANDS[command])

    return invoke


def read(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return json.loads(header_of(path.read_bytes())[0]["__metadata__"]["mlxport"])


def write(path: Path, data: Any) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(data))
        return
    header, rest = header_of(path.read_bytes())
    header["__metadata__"]["mlxport"] = json.dumps(data)
    text = json.dumps(header).encode()
    path.unlink()  # it may still be mapped
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def assert_refused_or_read(result: Result) -> None:
    assert result.exit_code in (0, 1, 3), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    said = result.stdout + result.stderr
    assert said.replace("\n", "").isprintable()
    for blame in ("nobody foresaw", "your own code", "the system refuses", "Traceback"):
        assert blame not in said
    assert result.exit_code == 0 or "Error: " in result.stderr


@pytest.mark.parametrize("record", READS)
@pytest.mark.parametrize("seed", range(CHANGES))
def test_a_changed_record_is_read_or_refused(
    record: str, seed: int, written: Path, run: Callable[[str, Any, str], Result]
) -> None:
    data = changed(read(written / "out" / record), random.Random(f"{record} {seed}"))
    for command in READS[record]:
        assert_refused_or_read(run(record, data, command))


# What was found at depth: places in conversion.json and what stood there.
FOUND: dict[str, tuple[tuple[Any, ...], Any]] = {
    "an unknown dtype": (("modules", -1, "inputs", 0, "dtype"), f"float32{OBEYED}"),
    "an order of another axis": (("modules", -1, "inputs", 0, "order"), [-1, 2, 3, 1]),
    "no arguments": (("inputs",), []),
    "an unknown alias": (("plan", "aliases"), {"a": "nothing"}),
    "a size of quantisation": (("plan", "entries", 8, "steps", 0, "group_size"), 31),
    "an axis out of range": (("plan", "entries", 0, "steps", -1, "axes"), [0, 2, 3, 9]),
    "no groups": (("plan", "entries", 6, "steps", 0, "groups"), 0),
}


@pytest.mark.parametrize("place", FOUND.values(), ids=FOUND)
def test_a_finding_is_one_error_that_names_the_file(
    place: tuple[tuple[Any, ...], Any], written: Path, run: Callable[[str, Any, str], Result]
) -> None:
    (*above, last), value = place
    data = read(written / "out/conversion.json")
    at(data, above)[last] = value
    results = [run("conversion.json", data, command) for command in READS["conversion.json"]]
    refused = [result for result in results if result.exit_code]
    assert refused
    for result in results:
        assert_refused_or_read(result)
    assert any("conversion.json" in result.stderr for result in refused)


@pytest.mark.parametrize("command", READS["reference.safetensors"])
def test_a_reference_without_its_inputs_is_named(
    command: str, written: Path, run: Callable[[str, Any, str], Result]
) -> None:
    data = read(written / "out/reference.safetensors")
    data["inputs"] = []
    result = run("reference.safetensors", data, command)
    assert_refused_or_read(result)
    assert result.exit_code == 1
    assert "reference.safetensors is a damaged reference: inputs: 0 tensors" in result.stderr


PARTS = {
    "no JSON": b"{",
    "no UTF-8": b'{"a": "\xff"}',
    "nested": b"[" * 10**5,
    "nested in objects": b'{"a":' * 10**5,
    "NaN": b'{"a": NaN}',
    "another": b'"text"',
    "empty": b"",
}


@pytest.mark.parametrize("content", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("record", ["conversion.json", "parity.json", "config.json"])
def test_what_is_no_record_is_named(
    record: str, content: bytes, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(written / "net.pt", "net.pt")
    shutil.copytree(written / "out", "m")
    Path("m", record).write_bytes(content)
    command = COMMANDS[READS[record][0]]
    result = CliRunner().invoke(main, command)
    assert_refused_or_read(result)
    assert result.exit_code == 1
    assert record in result.stderr or "model.py cannot load its weights" in result.stderr


def texts(data: Any) -> list[tuple[Any, ...]]:
    """Return the places of all text, and of what stands under a name, in a record."""
    return [p for p in places(data) if isinstance(at(data, p), str) or isinstance(p[-1], str)]


def spread(found: list[Any], number: int) -> list[Any]:
    """Return so many of some things, evenly spread; all of them in a sweep."""
    step = 1 if SWEEP else max(1, len(found) // number)
    return found[::step]


@pytest.mark.parametrize("record", READS)
def test_text_of_a_record_moves_no_cursor(
    record: str, written: Path, run: Callable[[str, Any, str], Result]
) -> None:
    data = read(written / "out" / record)
    for place in spread(texts(data), 10):
        other = copy.deepcopy(data)
        *above, last = place
        inside = at(other, above)
        if isinstance(inside[last], str):
            inside[last] += OBEYED
        else:
            inside[last + OBEYED] = inside.pop(last)
        for command in READS[record]:
            assert_refused_or_read(run(record, other, command))


HOSTILE = f"a{OBEYED}b.weight"


def _index(folder: Path) -> None:
    save_file({HOSTILE: torch.ones(2)}, folder / "x.safetensors")
    files = {HOSTILE: f"{OBEYED}.safetensors"}
    (folder / "x.index.json").write_text(json.dumps({"weight_map": files}))


FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "safetensors": (
        "x.safetensors",
        lambda folder: save_file({HOSTILE: torch.ones(4, 4, 3, 3)}, folder / "x.safetensors"),
    ),
    "torch.save": (
        "x.pt",
        lambda folder: torch.save({HOSTILE: torch.ones(4, 4, 3, 3)}, folder / "x.pt"),
    ),
    "nested twice": (
        "x.pt",
        lambda folder: torch.save(
            {OBEYED: {"a.weight": torch.ones(3)}, f"{OBEYED}2": {"b.weight": torch.ones(3)}},
            folder / "x.pt",
        ),
    ),
    "two of one storage": (
        "x.pt",
        lambda folder: torch.save(dict.fromkeys((HOSTILE, "b"), torch.ones(3)), folder / "x.pt"),
    ),
    "no tensors": ("x.pt", lambda folder: torch.save({OBEYED: OBEYED}, folder / "x.pt")),
    "index": ("x.index.json", _index),
    "a name on the disk": (
        f"{OBEYED}.safetensors",
        lambda folder: save_arrays({}, folder / f"{OBEYED}.safetensors"),
    ),
    "no such file": (f"{OBEYED}.pt", lambda folder: None),
    "text": ("x.pt", lambda folder: (folder / "x.pt").write_text(OBEYED)),
}
WITH_A_CHECKPOINT = {
    "inspect": (),
    "inspect, JSON": ("--json",),
    "inspect --layer": ("--layer", "*=Conv"),
    "convert": ("-o", "two"),
    "convert --layer": ("-o", "two", "--layer", "*=Conv"),
    "convert --model": ("-o", "two", "--model", "torch.nn:Identity", "--input", "2,3"),
    "convert --rename": ("-o", "two", "--rename", "**=same"),
    "convert --plan": ("-o", "two", "--plan", "plan"),
    "explain": ("--model", "torch.nn:Identity", "--input", "2,3"),
}


@pytest.mark.parametrize("options", WITH_A_CHECKPOINT.values(), ids=WITH_A_CHECKPOINT)
@pytest.mark.parametrize(("name", "make"), FILES.values(), ids=FILES)
def test_names_in_a_checkpoint_move_no_cursor(
    name: str,
    make: Callable[[Path], object],
    options: tuple[str, ...],
    written: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    if "plan" in options:
        shutil.copytree(written / "out", "plan")
    verb = request.node.callspec.id.rpartition("-")[2].partition(" ")[0].rstrip(",")
    result = CliRunner().invoke(main, [verb, name, *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    said = result.stdout + result.stderr
    assert said.replace("\n", "").isprintable()
    assert "nobody foresaw" not in said
