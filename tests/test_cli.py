"""The command line: exit codes, what it says where, and that failures leave nothing behind."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click
import mlx.core as mx
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from mlxport.cli import _log_to_stderr, main
from mlxport.converter import api
from mlxport.examples.unet3d import UNet3d

Invoke = Callable[..., Result]

WIDTHS = (2, 4)
UNET = ("--model", "nets:unet", "--input", "1,1,8,6,7", "-o", "out")
NETS = f"""
import torch
from torch import nn
from mlxport.examples.unet3d import UNet3d


def unet(in_channels=1):
    return UNet3d(in_channels, widths={WIDTHS})


class Unsupported(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.inner = Inner()

    def forward(self, x):
        x = torch.as_strided_scatter(x, x * self.weight, x.shape, (4, 1))
        return self.inner(torch.as_strided_scatter(x, x, x.shape, (4, 1)))


class Inner(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x @ x.T)


not_callable = 3


def no_module():
    return "a string"


def broken():
    raise RuntimeError("no such configuration")
"""


@pytest.fixture
def invoke(write_nets: Callable[[str], object]) -> Invoke:
    """Run mlxport in an empty folder with a module of networks and a checkpoint."""
    write_nets(NETS)
    save(UNet3d(widths=WIDTHS))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    return run


def save(model: nn.Module, path: str = "unet.pt") -> None:
    torch.save({"state_dict": model.state_dict(), "dice": np.float64(0.5)}, path)


def convert(invoke: Invoke, *flags: str) -> Result:
    result = invoke("convert", "unet.pt", *UNET, *flags)
    assert result.exit_code == 0, result.stderr
    return result


def everything() -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in Path().rglob("*")}


def assert_fails(invoke: Invoke, code: int, *arguments: str) -> str:
    """Run a command that has to fail, leave the folder as it was and print nothing on stdout."""
    before = everything()
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert everything() == before
    return result.stderr


# -- what works ----------------------------------------------------------------------------------


def test_convert_and_verify(invoke: Invoke) -> None:
    result = convert(invoke)
    assert "\nparity holds" in result.stdout
    written = {path.name for path in Path("out").iterdir()} - {"layers"}
    assert written == {
        "__init__.py",
        "model.py",
        "weights.safetensors",
        "weights.safetensors.index.json",
        "conversion.json",
        "left_out.safetensors",
        "parity.json",
        "parity.html",
        "reference.safetensors",
    }
    assert "\nparity holds" in invoke("verify", "out").stdout


EXPLAIN = ("explain", "unet.pt", "--model", "nets:unet", "--input", "1,1,8,6,7")


def test_explain_one_module_and_all(invoke: Invoke) -> None:
    before = everything()
    every = invoke(*EXPLAIN)
    assert every.exit_code == 0, every.stderr
    assert every.stdout.startswith("UNet3d: ")
    one = invoke(*EXPLAIN, "stem.0")
    assert one.stdout.startswith("stem.0: Conv3d -> layers.Conv3d\n")
    assert everything() == before
    data = json.loads(invoke(*EXPLAIN, "stem.0", "--json").stdout)
    assert [module["path"] for module in data["modules"]] == ["stem.0"]


def test_explain_lists_the_modules_close_to_an_unknown_one(invoke: Invoke) -> None:
    assert "stem.0" in assert_fails(invoke, 2, *EXPLAIN, "stem0")


VERBOSE = {
    "silent": ((), False, False),
    "stages": (("-v",), True, False),
    "everything": (("-vv",), True, True),
}


@pytest.mark.parametrize(("flags", "stages", "details"), VERBOSE.values(), ids=VERBOSE)
def test_what_is_logged_goes_to_stderr_where_asked_for(
    invoke: Invoke, flags: tuple[str, ...], stages: bool, details: bool
) -> None:
    result = convert(invoke, *flags)
    assert ("mlxport.converter.timings: capture/torch.export took " in result.stderr) is stages
    node = (
        "mlxport.converter.graph.lowering.op_lowering: aten.cat.default in the model itself gives "
    )
    assert (node in result.stderr) is details
    assert "\nparity holds" in result.stdout
    logger = logging.getLogger("mlxport")
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    assert logger.level == logging.NOTSET


def test_what_is_logged_holds_no_control_characters(invoke: Invoke) -> None:
    logged = logging.getLogger("mlxport.converter.tests")

    @click.command()
    @click.pass_context
    def hostile(context: click.Context) -> None:
        _log_to_stderr(context, context.command, 2)
        logged.debug("%s", "a\x1b[2Jb")

    assert CliRunner().invoke(hostile).stderr == "mlxport.converter.tests: a\\x1b[2Jb\n"


def test_reports_side_by_side(invoke: Invoke) -> None:
    convert(invoke)
    invoke("verify", "out", "--device", "cpu", "-o", "parity-cpu.json")
    again = invoke("verify", "out", "-o", "parity-cpu.json")
    assert again.exit_code == 2
    assert "parity-cpu.json exists" in again.stderr
    shown = invoke("report", "out", "parity-cpu.json", "-o", "page.html")
    assert [line.partition(": ")[0] for line in shown.stdout.splitlines()] == [
        "parity",
        "parity-cpu",
    ]
    assert "parity-cpu" in Path("page.html").read_text()
    report = json.loads(Path("parity-cpu.json").read_text())
    report["outputs"][0]["verdicts"]["whole"]["problems"] = ["made up"]
    Path("failed.json").write_text(json.dumps(report))
    failed = invoke("report", "out", "failed.json")
    assert failed.exit_code == 3
    assert "parity failed: failed" in failed.stderr
    assert "made up" in failed.stdout


def test_gradients_where_they_are_asked_for(invoke: Invoke) -> None:
    assert "gradient" not in convert(invoke).stdout
    result = convert(invoke, "--gradients", "--overwrite", "--full")
    assert re.search(r"\nparity holds: 1 output, \d+ layer calls and \d+ gradients", result.stdout)
    assert "gradient of encoder.0.0.weight" in result.stdout
    stored = json.loads(Path("out/parity.json").read_text())
    assert {"gradient"} == {mode for entry in stored["gradients"] for mode in entry["verdicts"]}
    assert "gradient" not in invoke("verify", "out").stdout


def test_json_is_all_there_is_on_stdout(invoke: Invoke) -> None:
    converted = convert(invoke, "--json")
    verified = invoke("verify", "out", "--json")
    written = json.loads(Path("out/parity.json").read_text())
    assert json.loads(converted.stdout) == written
    assert written["passed"] is True
    assert json.loads(verified.stdout)["passed"] is True
    assert "Written to out" in converted.stderr


def test_timings_stand_on_stderr_and_in_the_json(invoke: Invoke) -> None:
    result = convert(invoke, "--timings", "--json")
    stages = json.loads(result.stdout)["timings"]["stages"]
    assert {"imports", "capture", "lower", "plan", "emit", "weights", "verify"} <= stages.keys()
    assert "verify/in place" in stages
    assert re.search(r"^stage +s +share$", result.stderr, re.MULTILINE)
    assert re.search(r"^  in place +\d+\.\d+ +\d+%$", result.stderr, re.MULTILINE)

    result = invoke("convert", "unet.pt", "--plan", "out", "-o", "two", "--timings", "--json")
    assert result.exit_code == 0, result.stderr
    assert "weights" in json.loads(result.stdout)["timings"]["stages"]


def test_folding_says_what_it_did(invoke: Invoke) -> None:
    result = convert(invoke, "--fold-batchnorm")
    assert "Note: 6 BatchNorms were folded into the layers before them\n" in result.stderr
    assert "BatchNorm(" not in Path("out/model.py").read_text()
    result = invoke("restore", "out", "-o", "back.pt")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "40 tensors written to back.pt\n"


def test_without_timings_none_are_told(invoke: Invoke) -> None:
    result = convert(invoke, "--json")
    assert "timings" not in json.loads(result.stdout)
    assert "stage" not in result.stderr


def test_model_args_reach_the_factory(invoke: Invoke) -> None:
    save(UNet3d(3, widths=WIDTHS))
    arguments = ["--model", "nets:unet", "--input", "1,3,8,6,7", "-o", "out"]
    result = invoke("convert", "unet.pt", *arguments, "--model-args", '{"in_channels": 3}')
    assert result.exit_code == 0, result.stderr


def test_overwrite_replaces_an_output(invoke: Invoke) -> None:
    convert(invoke)
    Path("out/left_over.txt").touch()
    convert(invoke, "--overwrite")
    assert not Path("out/left_over.txt").exists()


def test_converts_to_the_same_bytes_in_any_process(invoke: Invoke) -> None:
    outputs = []
    for seed in "12":
        arguments = ["convert", "unet.pt", *UNET, "--overwrite"]
        command = [sys.executable, "-m", "mlxport.cli", *arguments]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        outputs.append({p: p.read_bytes() for p in Path("out").rglob("*") if p.is_file()})
        del outputs[-1][Path("out/parity.json")]  # the last bits of a sum may depend on threads
    assert outputs[0] == outputs[1]
    assert Path("out/weights.safetensors") in outputs[0]


def test_channels_last_needs_no_transpose(invoke: Invoke) -> None:
    convert(invoke, "--layout", "channels_last")
    assert "transpose(" not in Path("out/model.py").read_text()


def test_nan_in_the_weights_warns_and_is_compared(invoke: Invoke) -> None:
    model = UNet3d(widths=WIDTHS)
    with torch.no_grad():
        model.head.bias[1] = torch.nan
    save(model)
    result = convert(invoke)
    assert "Warning: these weights hold NaN or infinity: head.bias" in result.stderr
    # The same NaN in MLX alone is a fault.
    save(UNet3d(widths=WIDTHS))
    convert(invoke, "--overwrite")
    tamper("head.bias", mx.array([0.0, float("nan")]))
    result = invoke("verify", "out")
    assert result.exit_code == 3
    assert "NaN" in result.stderr


# -- what does not -------------------------------------------------------------------------------


def test_missing_file(invoke: Invoke) -> None:
    assert "no_such.pt" in assert_fails(invoke, 1, "convert", "no_such.pt", *UNET)


@pytest.mark.parametrize("name", ["unet.pt", "unet.safetensors"])
def test_truncated_file(invoke: Invoke, name: str) -> None:
    if name.endswith(".safetensors"):
        from safetensors.torch import save_file

        save_file(UNet3d(widths=WIDTHS).state_dict(), name)
    Path(name).write_bytes(Path(name).read_bytes()[:-500])
    assert name in assert_fails(invoke, 1, "convert", name, *UNET)


def test_weights_that_do_not_fit_are_all_listed(invoke: Invoke) -> None:
    weights = UNet3d(3, widths=WIDTHS).state_dict()
    del weights["head.bias"], weights["stem.1.running_mean"]
    torch.save({**weights, "extra.weight": torch.zeros(2)}, "unet.pt")
    message = assert_fails(invoke, 1, "convert", "unet.pt", *UNET)
    assert "missing     head.bias (2,)" in message
    assert "missing     stem.1.running_mean (2,)" in message
    assert "unexpected  extra.weight (2,)" in message
    assert "misshapen   stem.0.weight: expected (2, 1, 3, 3, 3), got (2, 3, 3, 3, 3)" in message


BAD_FACTORIES = {
    "nets": "expected pkg.mod:factory",
    "no_such_module:unet": "No module named 'no_such_module'",
    "nets:no_such_factory": "has no attribute 'no_such_factory'",
    "nets:not_callable": "expected a class or function, got 3",
    "nets:no_module": "expected a torch.nn.Module, got a str",
    "nets:broken": "no such configuration",
}


@pytest.mark.parametrize(("factory", "reason"), BAD_FACTORIES.items(), ids=BAD_FACTORIES)
def test_factory_that_gives_no_model(invoke: Invoke, factory: str, reason: str) -> None:
    arguments = ["--model", factory, "--input", "1,1,8,6,7", "-o", "out"]
    message = assert_fails(invoke, 2, "convert", "unet.pt", *arguments)
    assert f"--model {factory}" in message
    assert reason in message


def test_input_the_model_rejects(invoke: Invoke) -> None:
    arguments = ["--model", "nets:unet", "--input", "1,2,8,6,7", "-o", "out"]
    message = assert_fails(invoke, 1, "convert", "unet.pt", *arguments)
    assert "UNet3d itself rejects the example input x=float32 (1, 2, 8, 6, 7)" in message


@pytest.mark.parametrize("spec", ["1,one,8", "float8:1,1,8", "1x1x8", "1,-1,8", "1,,8"])
def test_input_that_cannot_be_read(invoke: Invoke, spec: str) -> None:
    arguments = ["--model", "nets:unet", "--input", spec, "--input", "no", "-o", "out"]
    message = assert_fails(invoke, 2, "convert", "unet.pt", *arguments)
    assert repr(spec) in message
    assert "'no'" in message


def test_operations_without_support_are_all_listed(invoke: Invoke) -> None:
    torch.save({"weight": torch.ones(4)}, "unet.pt")
    arguments = ["--model", "nets:Unsupported", "--input", "2,4", "-o", "out"]
    message = assert_fails(invoke, 1, "convert", "unet.pt", *arguments)
    lines = NETS.splitlines()
    twice = next(n for n, line in enumerate(lines, 1) if "torch.as_strided_scatter(" in line)
    once = next(n for n, line in enumerate(lines, 1) if "torch.linalg.eigvals(" in line)
    assert "2 kinds of operation" in message
    assert message.count(f"nets.py:{twice})") == message.count(f"nets.py:{once})") == 1
    row = next(line for line in message.splitlines() if "aten.as_strided_scatter." in line)
    assert "x2" in row
    row = next(line for line in message.splitlines() if "aten.linalg_eigvals." in line)
    assert "x1" in row
    assert "inner" in row


@pytest.mark.parametrize("flags", [(), ("--overwrite",)], ids=["plain", "overwrite"])
def test_a_folder_of_the_users_own_is_never_replaced(
    invoke: Invoke, flags: tuple[str, ...]
) -> None:
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("years of work")
    message = assert_fails(invoke, 2, "convert", "unet.pt", *UNET, *flags)
    assert "out exists" in message


def test_an_output_is_not_replaced_unasked(invoke: Invoke) -> None:
    convert(invoke)
    assert "--overwrite" in assert_fails(invoke, 2, "convert", "unet.pt", *UNET)


def test_a_failure_leaves_the_old_output(invoke: Invoke) -> None:
    convert(invoke)
    torch.save({"weight": torch.ones(4)}, "unet.pt")
    assert_fails(invoke, 1, "convert", "unet.pt", *UNET, "--overwrite")


@pytest.mark.parametrize("text", ["{", "[1]", "in_channels=3"])
def test_model_args_that_are_no_json_object(invoke: Invoke, text: str) -> None:
    message = assert_fails(invoke, 2, "convert", "unet.pt", *UNET, "--model-args", text)
    assert "--model-args" in message


@pytest.mark.parametrize("command", ["verify", "report"], ids=["in a child process", "in its own"])
def test_usage_names_the_command(command: str) -> None:
    arguments = [sys.executable, "-m", "mlxport", command, "--nonsense"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Usage: mlxport {command} [OPTIONS]")


def test_what_nobody_reads_is_dropped() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "mlxport", "layers"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_verify_a_folder_that_is_no_output(invoke: Invoke) -> None:
    message = assert_fails(invoke, 1, "verify", ".")
    assert "mlxport convert" in message


# -- dry runs -----------------------------------------------------------------------------------

DRY = ("convert", "unet.pt", "--model", "nets:unet", "--input", "1,1,8,6,7", "--dry-run")


def test_a_dry_run_writes_nothing(invoke: Invoke) -> None:
    before = everything()
    result = invoke(*DRY)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("UNet3d: everything has an MLX counterpart")
    assert everything() == before


def test_a_dry_run_prints_json(invoke: Invoke) -> None:
    data = json.loads(invoke(*DRY, "--json").stdout)
    assert data["covered"] is True
    assert data["parameters_covered"]["covered"] == data["parameters_covered"]["total"] > 0


def test_a_dry_run_exits_1_where_something_is_unsupported(invoke: Invoke) -> None:
    torch.save({"weight": torch.ones(4)}, "unet.pt")
    arguments = ["convert", "unet.pt", "--model", "nets:Unsupported", "--input", "2,4"]
    result = invoke(*arguments, "--dry-run")
    assert result.exit_code == 1
    assert "aten.as_strided_scatter." in result.stdout
    assert json.loads(invoke(*arguments, "--dry-run", "--json").stdout)["covered"] is False


def test_a_dry_run_finds_weights_that_do_not_fit(invoke: Invoke) -> None:
    save(UNet3d(3, widths=WIDTHS))
    assert "stem.0.weight" in assert_fails(invoke, 1, *DRY)


def test_a_dry_run_takes_the_names_and_the_dtype_of_the_conversion(invoke: Invoke) -> None:
    state = {k.replace("stem", "first"): v for k, v in UNet3d(widths=WIDTHS).state_dict().items()}
    torch.save(state, "unet.pt")
    assert "first.0.weight" in assert_fails(invoke, 1, *DRY)
    data = json.loads(invoke(*DRY, "--rename", "first=stem", "--dtype", "float16", "--json").stdout)
    assert data["covered"] is True
    assert [output["dtype"] for output in data["outputs"]] == ["float16"]


def test_a_conversion_needs_somewhere_to_go(invoke: Invoke) -> None:
    result = invoke(*DRY[:-1])
    assert result.exit_code == 2
    assert "Missing option '-o'" in result.stderr


def test_a_dry_run_takes_no_plan(invoke: Invoke) -> None:
    message = assert_fails(invoke, 2, "convert", "unet.pt", "--plan", "out", "--dry-run")
    assert "--dry-run analyzes a model" in message


# -- parity and devices --------------------------------------------------------------------------


def tamper(name: str, value: mx.array) -> None:
    path = "out/weights.safetensors"
    weights = dict(mx.load(path))
    assert weights[name].shape == value.shape
    mx.save_safetensors(path, {**weights, name: value}, {"format": "mlx"})


def test_verify_finds_tampered_weights(invoke: Invoke) -> None:
    convert(invoke)
    weights = dict(mx.load("out/weights.safetensors"))
    tamper("upsample.0.weight", mx.flip(weights["upsample.0.weight"], 1))
    result = invoke("verify", "out")
    assert result.exit_code == 3
    assert "parity FAILED at upsample.0" in result.stderr
    assert "FAIL" in result.stdout


def test_verify_finds_swapped_statistics(invoke: Invoke) -> None:
    model = UNet3d(widths=WIDTHS)
    nn.init.uniform_(model.stem[1].running_mean, 0.1, 0.9)
    save(model)
    convert(invoke)
    weights = dict(mx.load("out/weights.safetensors"))
    tamper("stem.1.running_mean", weights["stem.1.running_var"])
    tamper("stem.1.running_var", weights["stem.1.running_mean"])
    result = invoke("verify", "out")
    assert result.exit_code == 3
    assert "parity FAILED at stem.1" in result.stderr


def test_a_failed_conversion_is_written_with_the_evidence(invoke: Invoke) -> None:
    result = invoke("convert", "unet.pt", *UNET, "--noise-multiple", "1e-9")
    assert result.exit_code == 3
    assert json.loads(Path("out/parity.json").read_text())["passed"] is False


@pytest.mark.parametrize("device", ["metal", "cuda"])
def test_a_device_that_is_not_there(
    invoke: Invoke, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(invoke)
    monkeypatch.setattr(getattr(mx, device), "is_available", lambda: False)
    message = assert_fails(invoke, 4, "verify", "out", "--device", device)
    assert f"mlxport verify OUT --device {device}" in message
    where = ("-o", "other", "--device", device)
    assert f"--device {device}" in assert_fails(invoke, 4, "convert", "unet.pt", *UNET, *where)
    assert not Path("other").exists()


def test_the_table_of_metal_is_repeated(invoke: Invoke) -> None:
    assert invoke("convert", "unet.pt", *UNET, "-o", "out", "--device", "cpu").exit_code == 0
    stored = json.loads(Path("out/parity.json").read_text())["metal"]
    table = invoke("verify", "out", "--metal-table")
    assert table.exit_code == 0
    found = f"Metal: {stored['kinds']} kinds of call, no known obstacle in MLX"
    assert table.stdout.startswith(found)
    assert json.loads(invoke("verify", "out", "--metal-table", "--json").stdout) == stored


# -- help ----------------------------------------------------------------------------------------

COMMANDS = {"mlxport": (), **{name: (name,) for name in main.commands}}


@pytest.mark.parametrize("path", COMMANDS.values(), ids=COMMANDS)
def test_help_ends_in_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="mlxport")
    assert result.exit_code == 0
    assert "Example:\n" in result.stdout
    assert f"  mlxport {' '.join(path)}".rstrip() in result.stdout.partition("Example:")[2]


@pytest.mark.parametrize("command", main.commands.values(), ids=main.commands)
def test_every_option_is_explained(command: click.Command) -> None:
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_help_loads_neither_torch_nor_mlx() -> None:
    code = (
        "import sys\nfrom mlxport.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'mlx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flag", ["--fast-math", "--tf32"])
def test_fast_math_is_set_before_mlx_is_loaded(flag: str, tmp_path: Path, invoke: Invoke) -> None:
    net = torch.nn.Linear(3, 4)
    torch.save(net.state_dict(), tmp_path / "linear.pt")
    api.convert_checkpoint(tmp_path / "linear.pt", tmp_path / "made", model=net, inputs=["2,3"])
    code = "import sys; sys.modules['torch'] = None; from mlxport.cli import main; main()"
    command = [sys.executable, "-c", code, "verify", str(tmp_path / "made"), flag, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    environment = json.loads(done.stdout)["environment"]
    assert environment["MLX_ENABLE_TF32"] == environment["MLX_CONV_WINOGRAD"] == "1"
    late = invoke("verify", str(tmp_path / "made"), flag)
    assert late.exit_code == 2
    assert "too late" in late.stderr


# -- what the errors offer ----------------------------------------------------------------------


def test_a_prefix_leaves_other_keys_out(invoke: Invoke) -> None:
    state = {f"net.{k}": v for k, v in UNet3d(widths=WIDTHS).state_dict().items()}
    torch.save({**state, "ema.step": torch.ones(1)}, "unet.pt")
    assert "--prefix net. leaves" in assert_fails(invoke, 1, "convert", "unet.pt", *UNET)
    convert(invoke, "--prefix", "net.")


def test_a_lossy_cast_is_made_only_when_allowed(invoke: Invoke) -> None:
    state = UNet3d(widths=WIDTHS).state_dict()
    state["head.bias"] = state["head.bias"].double() + 1e-12
    torch.save(state, "unet.pt")
    message = assert_fails(invoke, 1, "convert", "unet.pt", *UNET)
    assert "--allow-lossy-cast" in message
    assert "head.bias" in message
    convert(invoke, "--allow-lossy-cast")


def test_restore_gives_the_checkpoint_back(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("convert", "unet.pt", *UNET).exit_code == 0
    result = invoke("restore", "out", "-o", "back.pt")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "tensors written to back.pt" in result.stderr
    state, expected = (
        torch.load(tmp_path / "back.pt"),
        torch.load(tmp_path / "unet.pt", weights_only=False),
    )
    assert {k: t.tolist() for k, t in state.items()} == {
        k: t.tolist() for k, t in expected["state_dict"].items()
    }
    assert invoke("restore", "out", "-o", "back.pt").exit_code == 2
    assert invoke("restore", "out", "-o", "back.pt", "--overwrite").exit_code == 0


def test_other_weights_go_through_the_plan(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("convert", "unet.pt", *UNET).exit_code == 0
    save(UNet3d(widths=WIDTHS), "other.pt")
    result = invoke("convert", "other.pt", "--plan", "out", "-o", "others")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Note: parity was not judged" in result.stderr
    assert {"model.py", "layers"} <= {path.name for path in (tmp_path / "others").iterdir()}
    assert not (tmp_path / "others/parity.json").exists()


def test_inspect_lists_what_is_open(invoke: Invoke) -> None:
    result = invoke("inspect", "unet.pt")
    assert result.exit_code == 0
    assert "head.weight=Conv3d | ConvTranspose3d:1" in result.stdout
    assert "Note: state dict found under 'state_dict'" in result.stderr
    data = json.loads(invoke("inspect", "unet.pt", "--json").stdout)
    assert data["key"] == "state_dict"


def test_weights_alone_are_converted_where_the_layers_are_said(invoke: Invoke) -> None:
    assert invoke("convert", "unet.pt", "-o", "out").exit_code == 1
    layers = ("--layer", "*=Conv", "--layer", "upsample.*=ConvTranspose", "--rename", "stem=first")
    result = invoke("convert", "unet.pt", "-o", "out", *layers, "--max-shard-size", "1KB")
    assert result.exit_code == 0, result.stderr
    assert "weights alone were converted" in result.stderr
    assert len([*Path("out").glob("weights-*.safetensors")]) > 1


def test_a_dry_run_needs_the_model(invoke: Invoke) -> None:
    result = invoke("convert", "unet.pt", "--dry-run", "--layer", "*=Conv", "--plan", "out")
    assert result.exit_code == 2
    assert "--plan, --layer" in result.stderr


@pytest.mark.parametrize(
    ("names", "told"),
    [(["one"], ["holds"]), (["one", "two"], ["one: holds", "two: holds"])],
    ids=["one", "two"],
)
def test_reports_are_named_where_there_are_several(
    names: list[str], told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = {name: SimpleNamespace(verdict="holds", passed=True) for name in names}
    monkeypatch.setattr(api, "report", lambda *args, **kwargs: reports)
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == told
