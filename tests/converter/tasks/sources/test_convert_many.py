"""Many checkpoints at once: one plan where architectures agree, going on after failures, again."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import mlxport
from mlxport.cli import main
from mlxport.converter.errors import OptionsError, StateDictError
from mlxport.converter.tasks.sources.convert_many import jobs_of

Run = Callable[[str], Result]

NETS = """
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))
"""
FLAGS = "--model nets:net --input 2,1,6,5"


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1))


@pytest.fixture
def run(write_nets: Callable[[str], object]) -> Run:
    """Run a command in a folder with runs of one model, a damaged one among them."""
    write_nets(NETS)
    for name in ("a", "b", "c"):
        Path("runs", name).mkdir(parents=True)
        torch.save(net().state_dict(), Path("runs", name, "best.pt"))
    Path("runs/b/best.pt").write_bytes(b"damaged")
    return lambda command: CliRunner().invoke(main, command.split()[1:])


def test_one_plan_serves_all_and_each_is_judged(run: Run) -> None:
    result = run(f"mlxport convert runs/*/best.pt -o outs {FLAGS} --json")
    assert result.exit_code == 1, result.stderr
    assert result.stderr.endswith("Error: not converted: b-best\n")
    rows = json.loads(result.stdout)
    assert [(row["name"], row["how"], row["passed"]) for row in rows] == [
        ("a-best", "converted", True),
        ("b-best", "failed", None),
        ("c-best", "by the plan of a-best", True),
    ]
    assert "not a checkpoint mlxport knows" in rows[1]["verdict"]
    assert sorted(path.name for path in Path("outs").iterdir()) == [
        *("a-best", "c-best", "parity.html", "parity.json")
    ]
    assert json.loads(Path("outs/parity.json").read_text()).keys() == {"a-best", "c-best"}
    assert mlxport.converter.api.verify_folder("outs/c-best").passed
    for name in ("a-best", "c-best"):
        assert f" s  {name}: verify\n" in result.stderr
    # what failed is mended, and the same command goes on where it was
    torch.save(net().state_dict(), "runs/b/best.pt")
    written = {path: path.stat().st_mtime_ns for path in Path("outs").glob("[ac]-best/*")}
    again = run(f"mlxport convert runs/*/best.pt -o outs {FLAGS}")
    assert again.exit_code == 0, again.stderr
    assert [line.partition("parity holds")[0].strip() for line in again.stdout.splitlines()] == [
        "a-best  there already",
        "b-best  by the plan of a-best",
        "c-best  there already",
    ]
    assert re.findall("(.-best): verify\n", again.stderr) == ["b-best"]
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    assert json.loads(Path("outs/parity.json").read_text()).keys() == {"a-best", "b-best", "c-best"}


def test_weights_of_another_run_do_not_pass_for_those_that_are_there(run: Run) -> None:
    Path("list.txt").write_text("# the best\nruns/a/best.pt\n\n")
    assert run(f"mlxport convert list.txt -o outs {FLAGS}").exit_code == 0
    torch.save(net().state_dict(), "runs/a/best.pt")
    result = run(f"mlxport convert list.txt -o outs {FLAGS}")
    assert result.exit_code == 1
    assert "is the output of another source than runs/a/best.pt: pass --overwrite" in result.stdout


def test_what_a_plan_does_not_fit_is_converted_by_itself(run: Run) -> None:
    Path("runs/b/best.pt").unlink()
    Path("nets.py").write_text(NETS.replace("def net", "SIZES = iter((3, 4, 4))\n\n\ndef net"))
    text = Path("nets.py").read_text().replace("    return", "    n = next(SIZES)\n    return")
    Path("nets.py").write_text(text.replace("(1, 3, 3)", "(1, n, 3)").replace("(3, 2", "(n, 2"))
    wide = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    torch.save(wide.state_dict(), "runs/c/best.pt")
    result = run(f"mlxport convert runs/*/best.pt -o outs {FLAGS}")
    assert result.exit_code == 0, result.output
    assert "c-best  converted  parity holds" in result.stdout


def test_a_reference_is_kept_where_the_torch_model_is_named(run: Run) -> None:
    assert run(f"mlxport convert runs/a/best.pt -o one {FLAGS}").exit_code == 0
    plain = run("mlxport convert runs/c/best.pt -o two --plan one")
    assert plain.exit_code == 0
    assert "there is no reference to verify by later" in plain.stderr
    assert "--verify-with pkg.mod:factory" in plain.stderr
    refused = run("mlxport verify two")
    assert refused.exit_code == 1
    assert "two holds no reference to compare with" in refused.stderr
    judged = run(
        "mlxport convert runs/c/best.pt -o three --plan one --verify-with nets:net --input 2,1,6,5"
    )
    assert judged.exit_code == 0, judged.stderr
    assert "parity holds" in judged.stdout
    assert run("mlxport verify three").exit_code == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--verify-with nets:net --input 2,1,6,5", "--verify-with goes with --plan"),
        ("--plan one --verify-with nets:net", "--verify-with needs an example input"),
        (
            "--plan one --verify-with nets:net --input 2,1,6,5 --dynamic 0 --gradients",
            "--plan keeps what its own conversion chose: leave out --dynamic, --gradients",
        ),
    ],
    ids=["no plan", "no input", "decided by the plan"],
)
def test_what_does_not_go_with_a_plan_is_refused(run: Run, flags: str, said: str) -> None:
    result = run(f"mlxport convert runs/a/best.pt -o two {flags}")
    assert result.exit_code == 2
    assert said in result.stderr


def test_other_weights_than_the_models_fail_though_the_plan_is_right(run: Run) -> None:
    """What is judged is the folder that was written, by the checkpoint that was named."""
    assert run(f"mlxport convert runs/a/best.pt -o one {FLAGS}").exit_code == 0
    Path("nets.py").write_text(NETS.replace("ReLU", "Tanh"))
    sys.modules.pop("nets")
    result = run(
        "mlxport convert runs/c/best.pt -o two --plan one --verify-with nets:net --input 2,1,6,5"
    )
    assert result.exit_code == 3


def test_names_tell_sources_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "x" / "fold_0" / "best.pt", tmp_path / "y" / "fold_0" / "best.pt"]
    assert list(jobs_of(paths, described=False)) == ["x-fold_0-best", "y-fold_0-best"]
    with pytest.raises(OptionsError, match="a source is given twice"):
        jobs_of([paths[0], paths[0]], described=False)
    with pytest.raises(OptionsError, match="no file or folder fits this pattern"):
        jobs_of([tmp_path / "*.pt"], described=False)


def test_the_reference_of_a_plan_needs_its_model(run: Run) -> None:
    assert run("mlxport convert runs/a/best.pt -o weights --layer *=Conv").exit_code == 0
    with pytest.raises((OptionsError, StateDictError), match=r"no model\.py beside the plan"):
        mlxport.convert_checkpoint(
            "runs/c/best.pt", "two", plan="weights", verify_with=net(), inputs=["2,1,6,5"]
        )
