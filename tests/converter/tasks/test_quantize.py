"""Quantised weights: MLX's own, loaded as MLX users load them, judged and their cost told."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as mlx_nn
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from mlx.utils import tree_flatten
from safetensors.torch import save_file
from torch import nn

import mlxport
from mlxport.cli import main
from mlxport.converter import api
from mlxport.converter.errors import ConversionError, OptionsError
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.verdict.reference_file import load_reference
from mlxport.converter.plan.json_data import from_data, to_data
from mlxport.converter.plan.quantize_step import Quantize, Settings, parse_settings
from mlxport.converter.plan.steps import Step
from mlxport.converter.plan.tensor import Tensor, TensorSpec
from mlxport.converter.plan.weight_plan import Entry

INPUT = "int64:2,6:0..49"


class Tagger(nn.Module):
    """An embedding tied to the output, layers that divide into groups and one that does not."""

    def __init__(self, width: int = 64, *, outside: bool = False, normed: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(50, width)
        self.first = nn.Linear(width, 96)
        self.second = nn.Linear(96, width)
        self.narrow = nn.Linear(40, width, bias=False)
        self.out = nn.Linear(width, 50, bias=False)
        self.out.weight = self.table.weight
        self.outside = outside
        if normed:
            nn.utils.parametrizations.weight_norm(self.first)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        x = x + self.second(torch.relu(self.first(x))) + self.narrow(x[..., :40])
        if self.outside:
            x = x + self.second.weight.sum(1)
        return self.out(x)


def tagger(**options: Any) -> Tagger:
    torch.manual_seed(2)
    return Tagger(**options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save(tagger().state_dict(), tmp_path / "tagger.pt")
    return tmp_path / "tagger.pt"


def convert(source: Path, quantize: Any = "bits=4,group_size=32", **options: Any) -> Any:
    made = options.pop("made", {})
    return api.convert_checkpoint(
        source,
        source.parent / "out",
        model=tagger(**made),
        inputs=[INPUT],
        quantize=quantize,
        overwrite=True,
        **options,
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with 4 bits in groups of 32, and what its conversion gave; not to be changed."""
    folder = tmp_path_factory.mktemp("quantized")
    torch.save(tagger().state_dict(), folder / "tagger.pt")
    return folder, convert(folder / "tagger.pt")


MODES = {
    "affine 4 bits": "bits=4,group_size=32",
    "affine 3 bits": "bits=3,group_size=32",
    "affine 8 bits": "bits=8,group_size=64,mode=affine",
    "mxfp4": "mode=mxfp4",
    "mxfp8": "mode=mxfp8",
    "nvfp4": "mode=nvfp4",
}


@pytest.mark.parametrize("mode", ["affine 3 bits", "mxfp4", "nvfp4"])
def test_the_weights_are_those_of_mlx_nn_quantize(source: Path, mode: str) -> None:
    settings = parse_settings(MODES[mode])
    result = convert(source, MODES[mode])
    assert result.report.passed, result.report.to_text()
    plain = live_model_of(source)
    left = {"narrow"} if settings.mode == "affine" else {"narrow", "table"}
    mlx_nn.quantize(
        plain,
        **settings.to_json(),
        class_predicate=lambda path, layer: hasattr(layer, "to_quantized") and path not in left,
    )
    expected, live = (dict(tree_flatten(m.parameters())) for m in (plain, result.model))
    written = mx.load(str(source.parent / "out/weights.safetensors"))
    for found in (live, written):
        assert {*found} == {*expected}
        assert all(mx.array_equal(found[name], expected[name]) for name in expected)
    assert {*result.conversion.quantized.left} == left


def live_model_of(source: Path) -> mlx_nn.Module:
    """The MLX model with the checkpoint's weights, not quantised: every layer is MLX's own."""
    state = {key: mx.array(value.numpy()) for key, value in torch.load(source).items()}
    model = mlx_nn.Module()
    model.table = mlx_nn.Embedding(50, 64)
    model.first, model.second = mlx_nn.Linear(64, 96), mlx_nn.Linear(96, 64)
    model.narrow = mlx_nn.Linear(40, 64, bias=False)
    state.pop("out.weight")
    model.load_weights([*state.items()])
    return model


def test_the_config_is_that_of_mlx_lm(converted: tuple[Path, Any]) -> None:
    config = json.loads((converted[0] / "out/config.json").read_text())
    assert config["quantization"] == {"group_size": 32, "bits": 4, "mode": "affine"}
    assert config["quantization_config"] == config["quantization"]


def test_what_is_quantized_and_what_is_not_is_told(converted: tuple[Path, Any]) -> None:
    folder, result = converted
    done = result.conversion.quantized
    assert {*done.layers} == {"table", "first", "second"}
    assert done.left == {"narrow": "rows of 40 do not divide into groups of 32"}
    assert done.nbytes[1] < done.nbytes[0] / 2
    assert done.before.startswith("parity holds")
    (cost,) = done.costs
    moved = f"moves output by {cost.error:.1e}, {cost.snr_db:.1f} dB (measured, not judged)"
    said = f"both with weights quantized to 4 bits in groups of 32 (affine), which {moved}"
    assert result.report.verdict.endswith(said)
    text = result.report.to_text(width=200)
    for said in ("3 layers quantized to 4 bits in groups of 32", "narrow (rows of 40", "dB"):
        assert said in text, said
    read = ParityReport.from_json(json.loads((folder / "out/parity.json").read_text()))
    assert (read.notes, read.verdict) == (result.report.notes, result.report.verdict)


def test_the_cost_is_that_of_the_dequantized_weights(converted: tuple[Path, Any]) -> None:
    folder, result = converted
    reference, dequantized = tagger().double().eval(), tagger().double().eval()
    for name, layer in result.model.named_modules():
        if isinstance(layer, mlx_nn.QuantizedLinear | mlx_nn.QuantizedEmbedding):
            whole = mx.dequantize(layer.weight, layer.scales, layer.biases, 32, 4)
            dequantized.get_submodule(name).weight.data = torch.tensor(np.array(whole)).double()
    dequantized.out.weight = dequantized.table.weight
    given = load_reference(folder / "out/reference.safetensors").inputs[0]
    ids = torch.tensor(given.bits)
    with torch.no_grad():
        before, after = reference(ids), dequantized(ids)
    error = ((after - before).norm() / before.norm()).item()
    (cost,) = result.conversion.quantized.costs
    assert cost.name == "output"
    assert cost.error == pytest.approx(error, rel=1e-6)
    assert cost.snr_db == pytest.approx(-20 * np.log10(error), rel=1e-6)
    assert 0.01 < error < 0.3
    layers = {one.name: one.error for one in result.conversion.quantized.layer_costs}
    assert layers["first"] > 0.01
    assert f"{error:.1e}" in result.report.to_text(width=200)


def test_it_loads_everywhere(converted: tuple[Path, Any]) -> None:
    folder, result = converted
    out = folder / "out"
    x = mx.array([[1, 2, 3, 4, 5, 6]])
    expected = result.model(x)
    assert mx.array_equal(mlxport.load(out)(x), expected)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'mlxport')))\n"
        "import mlx.core as mx, model\n"
        "print(model.load()(mx.array([[1, 2, 3, 4, 5, 6]])).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # that process has the BLAS of MLX itself, which adds up in another order
    error = np.array(json.loads(done.stdout)) - np.array(expected)
    assert np.linalg.norm(error) < 1e-6 * np.linalg.norm(np.array(expected))


def test_verify_judges_the_quantized_model_without_torch(converted: tuple[Path, Any]) -> None:
    folder, _ = converted
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mlxport.cli import main\n"
        "main(['verify', 'out'], standalone_mode=False)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "\nparity holds" in run.stdout
    said = "the dequantized weights; what quantization costs is measured, not judged"
    assert said in " ".join(run.stdout.split())


def test_the_folder_is_one_as_any_other(converted: tuple[Path, Any]) -> None:
    folder, _ = converted
    assert api.verify_weights(folder / "out").passed
    exported = api.export_function(folder / "out", folder / "tagger.mlxfn")
    assert "bit-identical" in str(exported)


def test_verify_finds_a_wrong_quantized_weight(source: Path) -> None:
    convert(source)
    path = source.parent / "out/weights.safetensors"
    weights = dict(mx.load(str(path)))
    weights["first.scales"] = weights["first.scales"] * 1.01
    mx.save_safetensors(str(path), weights, {"format": "mlx"})
    report = api.verify_folder(source.parent / "out")
    assert not report.passed
    assert report.culprit == "first"


def test_the_live_model_is_held_to_the_same_weights_in_pytorch(
    converted: tuple[Path, Any],
) -> None:
    result = converted[1]
    model = tagger()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.tensor([[1, 5, 9, 13, 17, 49]])
    assert mlxport.verify(result.model, model, ids.expand(2, 6)).passed
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(OptionsError, match="quantized"):
        mlxport.verify(result.model, model, ids.expand(2, 6), gradients=True)


def test_a_plan_quantizes_other_weights_alike_without_torch(converted: tuple[Path, Any]) -> None:
    folder, _ = converted
    torch.manual_seed(9)
    save_file({k: v.clone() for k, v in Tagger().state_dict().items()}, folder / "b.safetensors")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mlxport.cli import main\n"
        "main(['convert', 'b.safetensors', '--plan', 'out', '-o', 'b'], standalone_mode=False)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    model = mlxport.load(folder / "b")
    torch.manual_seed(9)
    weight = mx.array(Tagger().second.weight.detach().numpy())
    assert mx.array_equal(model.second.weight, mx.quantize(weight, 32, 4)[0])
    record = json.loads((folder / "b/conversion.json").read_text())["quantized"]
    assert record["costs"] == []


def test_restore_gives_what_is_left_and_says_so(
    converted: tuple[Path, Any],
) -> None:
    folder, _ = converted
    back = folder / "back.pt"
    result = mlxport.restore(folder / "out", back)
    assert {*result.quantized} == {
        "table.weight", "out.weight", "first.weight", "second.weight"
    }  # fmt: skip
    assert "were quantized when they were converted" in result.warnings[0]
    state, original = torch.load(back), torch.load(folder / "tagger.pt")
    assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
        k: (v.shape, v.dtype) for k, v in original.items()
    }
    assert torch.equal(state["narrow.weight"], original["narrow.weight"])
    assert state["table.weight"].data_ptr() == state["out.weight"].data_ptr()
    quantized = mx.quantize(mx.array(original["first.weight"].numpy()), 32, 4)
    expected = np.array(mx.dequantize(*quantized, 32, 4))
    np.testing.assert_array_equal(state["first.weight"].numpy(), expected)
    Tagger().load_state_dict(state, strict=True)


def test_a_layer_whose_weight_others_read_stays(source: Path) -> None:
    result = convert(source, made={"outside": True})
    assert result.report.passed
    left = result.conversion.quantized.left
    assert left["second"] == "model.py reads its weight besides calling it"


def test_a_layer_with_a_folded_norm_stays(source: Path) -> None:
    torch.save(tagger(normed=True).state_dict(), source)
    result = convert(source, made={"normed": True})
    assert result.report.passed
    assert "norm was folded" in result.conversion.quantized.left["first"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(source: Path, dtype: str) -> None:
    result = convert(source, dtype=dtype)
    assert result.report.passed, result.report.to_text()
    assert str(result.model.first.scales.dtype) == f"mlx.core.{dtype}"


def test_shards_and_sizes_that_change(source: Path) -> None:
    result = convert(source, max_shard_size="4KB", dynamic=(0, 1))
    assert result.report.passed
    assert result.report.others
    out = source.parent / "out"
    index = json.loads((out / "weights.safetensors.index.json").read_text())["weight_map"]
    assert "first.scales" in index
    assert {*index.values()} == {file.name for file in out.glob("weights*.safetensors")}
    assert api.verify_folder(out).passed
    assert mx.array_equal(mlxport.load(out).first.weight, result.model.first.weight)


def test_a_conversion_that_fails_is_not_quantized(source: Path) -> None:
    result = convert(source, noise_multiple=1e-9)
    assert not result.report.passed
    assert result.conversion.quantized is None
    assert any("not quantized" in warning for warning in result.warnings)
    assert not (source.parent / "out/config.json").exists()
    mlxport.load(source.parent / "out")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.only(x)


def test_nothing_to_quantize_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    torch.save(Small().state_dict(), tmp_path / "small.pt")
    with pytest.raises(ConversionError, match=r"(?s)no Linear or Embedding.*only: rows of 7"):
        api.convert_checkpoint(
            tmp_path / "small.pt",
            tmp_path / "out",
            model=Small(),
            inputs=["2,7"],
            quantize="bits=4",
        )
    assert not (tmp_path / "out").exists()


# -- options -------------------------------------------------------------------------------------

READ: dict[str, tuple[Any, Settings]] = {
    "all": ("bits=8,group_size=32,mode=affine", Settings(8, 32, "affine")),
    "bits": ("bits=8", Settings(8, 64)),
    "mode": ("mode=nvfp4", Settings(4, 16, "nvfp4")),
    "spaces": ("bits = 4, group_size = 128", Settings(4, 128)),
    "a dict": ({"bits": 4, "group_size": 32}, Settings(4, 32)),
}


@pytest.mark.parametrize(("given", "settings"), READ.values(), ids=READ)
def test_settings_are_read(given: Any, settings: Settings) -> None:
    assert parse_settings(given) == settings


@pytest.mark.parametrize(
    "given",
    ["", "4", "bits=four", "bit=4", "bits=7", "bits=-4", "group_size=48", "mode=int4",
     "mode=mxfp4,bits=8", {"bits": 4, "groups": 2}, {"bits": 4.5}, {"bits": float("inf")},
     {"bits": True}, {"group_size": float("nan")}, f"group_size={2**40}", f"bits={10**30}"],
    ids=str,
)  # fmt: skip
def test_settings_that_mlx_does_not_have(given: Any) -> None:
    with pytest.raises(OptionsError, match="quantize="):
        parse_settings(given)


def test_the_command_line(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("quantized_nets.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Linear(64, 32))"
    )
    torch.save(nn.Sequential(nn.Linear(64, 32)).state_dict(), "net.pt")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["convert", "net.pt", "-o", "q", *arguments])

    model = ("--model", "quantized_nets:net", "--input", "2,64")
    result = run(*model, "--quantize", "bits=8,group_size=64")
    assert result.exit_code == 0, result.stderr
    assert "1 layer quantized to 8 bits" in result.stdout.replace("\n", " ")
    for wrong in (("--plan", "q"), ("--layer", "*=Linear"), ()):
        refused = run("--quantize", "bits=8", *wrong, "--overwrite")
        assert refused.exit_code == 2
        assert "--quantize needs --model" in refused.stderr
    sys.modules.pop("quantized_nets", None)


# -- the step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", MODES.values(), ids=MODES)
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_an_outline_tells_the_shapes(text: str, dtype: str) -> None:
    settings = parse_settings(text)
    step = Quantize(settings.bits, settings.group_size, settings.mode, (1,), (dtype,))
    kept = Tensor(np.arange(3, dtype=np.float32), "F32")
    values = np.random.default_rng(0).normal(size=(4, 64)).astype(dtype.replace("F", "float"))
    given = (kept, Tensor(values, dtype))
    made = step.apply(given)
    outlines = step.apply(tuple(TensorSpec.of(t).outline() for t in given))
    assert [TensorSpec.of(t) for t in made] == [TensorSpec.of(t) for t in outlines]
    assert [TensorSpec.of(t) for t in step.invert(made)] == [TensorSpec.of(t) for t in given]
    assert [TensorSpec.of(t) for t in step.invert(outlines)] == [TensorSpec.of(t) for t in given]
    assert from_data(Step, json.loads(json.dumps(to_data(step)))) == step


def test_a_damaged_plan_is_refused() -> None:
    entry = Entry(("a",), ("w",), (Quantize(4, 32, "affine", (0,), ("F32",)),))
    with pytest.raises(ConversionError, match="damaged"):
        entry.invert((Tensor(np.zeros((2, 4), np.uint32), "U32"),))
