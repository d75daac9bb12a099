"""Other weights of an architecture that was converted before: no model code, no torch."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from safetensors.torch import load_file, save_file
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.errors import ConversionError, OptionsError, StateDictError
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.examples.unet3d import UNet3d

State = dict[str, torch.Tensor]
INPUT = "1,1,4,6,5"


class Scaled(nn.Module):
    """A model with a constant no checkpoint holds, a tied tensor and a head for training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(0, 1, 5), persistent=False)
        self.table = nn.Embedding(7, 5)
        self.out = nn.Linear(5, 7, bias=False)
        self.out.weight = self.table.weight
        self.unused = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.table(x) * self.grid)


def unet() -> nn.Module:
    return UNet3d(widths=(2, 4))


def weights(make: Callable[[], nn.Module], seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = make().state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.1)
        else:
            tensor.fill_(seed)
    return state


def convert(make: Callable[[], nn.Module], folder: Path, given: str) -> Path:
    torch.save(weights(make, 1), folder / "first.pt")
    api.convert_checkpoint(folder / "first.pt", folder / "first", model=make(), inputs=[given])
    return folder / "first"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(unet, tmp_path_factory.mktemp("unet"), INPUT)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(Scaled, tmp_path_factory.mktemp("scaled"), "int64:1,4")


def arrays(path: Path) -> dict[str, list[float]]:
    return {name: array.tolist() for name, array in mx.load(str(path)).items()}


def by_model(state: State, make: Callable[[], nn.Module], given: str, folder: Path) -> Path:
    """Convert with the model: what converting by the plan has to come to."""
    torch.save(state, folder / "whole.pt")
    api.convert_checkpoint(folder / "whole.pt", folder / "whole", model=make(), inputs=[given])
    return folder / "whole"


def test_gives_what_the_model_would(first: Path, tmp_path: Path) -> None:
    state = weights(unet, 2)
    torch.save({"epoch": 3, "net": state}, tmp_path / "second.pt")
    result = mlxport.convert_checkpoint(tmp_path / "second.pt", tmp_path / "out", plan=first)
    whole = by_model(state, unet, INPUT, tmp_path)
    for name in ("weights.safetensors", "left_out.safetensors"):
        assert arrays(tmp_path / "out" / name) == arrays(whole / name)
    assert (tmp_path / "out/model.py").read_text() == (whole / "model.py").read_text()
    assert result.report is None
    assert not (tmp_path / "out/parity.json").exists()
    assert not (tmp_path / "out/reference.safetensors").exists()
    assert "parity was not judged" in result.notes[-1]
    # and the note's advice works
    model = unet().eval()
    model.load_state_dict(state)
    assert result.model is not None
    assert mlxport.verify(result.model, model, torch.randn(1, 1, 4, 6, 5)).passed


@pytest.mark.parametrize("stem", ["../precious/victim", "/tmp/victim", "a\0b", "", 1, "weights/.."])
def test_files_are_written_into_the_output_alone(stem: object, first: Path, tmp_path: Path) -> None:
    torch.save(weights(unet, 2), tmp_path / "second.pt")
    record = json.loads((first / "conversion.json").read_text())
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan/conversion.json").write_text(json.dumps({**record, "stem": stem}))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/victim.safetensors").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConversionError, match=r"conversion\.json is damaged: stem: "):
        api.convert_checkpoint(tmp_path / "second.pt", tmp_path / "out", plan=tmp_path / "plan")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "precious/victim.safetensors").read_text() == "precious"


@pytest.mark.parametrize("linked", ["model.py", "layers", "layers/secret.py"])
def test_links_beside_a_plan_are_not_followed(linked: str, first: Path, tmp_path: Path) -> None:
    torch.save(weights(unet, 2), tmp_path / "second.pt")
    shutil.copytree(first, tmp_path / "plan")
    link = tmp_path / "plan" / linked
    if link.exists():
        link.rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").write_text("SECRET = 1")
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConversionError, match=f"links(.|\n)*{linked}"):
        api.convert_checkpoint(tmp_path / "second.pt", tmp_path / "out", plan=tmp_path / "plan")
    assert not (tmp_path / "out").exists()


def test_its_output_restores_to_its_own_checkpoint(first: Path, tmp_path: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in weights(unet, 2).items()}
    torch.save(state, tmp_path / "second.pt")
    api.convert_checkpoint(tmp_path / "second.pt", tmp_path / "out", plan=first / "conversion.json")
    api.restore(tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert list(back) == list(state)
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())


def test_inspect_tells_what_the_plan_makes_of_each_tensor(first: Path, tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in weights(unet, 2).items()}
    save_file(state, tmp_path / "second.safetensors")
    found = mlxport.inspect(tmp_path / "second.safetensors", plan=first)
    rows = {row.name: row for row in found.tensors}
    assert {*rows} == {*state}
    made = api.convert_checkpoint(
        tmp_path / "second.safetensors", tmp_path / "out", plan=first
    ).conversion.plan
    shapes = {name: spec.shape for name, spec in made.target_specs(made.specs).items()}
    for entry in made.entries:
        row = rows[entry.sources[0]]
        assert (row.target, row.becomes) == (entry.targets[0], shapes[entry.targets[0]])
        assert row.kind == "by the plan"
    assert rows["module.upsample.0.weight"].evidence == "transposed conv weight"
    assert rows["module.stem.1.num_batches_tracked"].kind == "left out"
    del state["module.head.weight"]
    save_file(state, tmp_path / "second.safetensors")
    with pytest.raises(StateDictError, match=r"missing     head\.weight"):
        mlxport.inspect(tmp_path / "second.safetensors", plan=first)


def test_needs_no_torch_for_safetensors(first: Path, tmp_path: Path) -> None:
    save_file(weights(unet, 2), tmp_path / "second.safetensors")
    code = """
import sys
sys.modules["torch"] = None  # importing it would fail
from mlxport.cli import main
main(["convert", "second.safetensors", "-o", "out", "--plan", sys.argv[1]])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(first)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "parity was not judged" in done.stderr
    whole = by_model(weights(unet, 2), unet, INPUT, tmp_path)
    assert arrays(tmp_path / "out/weights.safetensors") == arrays(whole / "weights.safetensors")


def test_everything_that_does_not_fit_is_listed_at_once(first: Path, tmp_path: Path) -> None:
    state = weights(unet, 2)
    del state["head.bias"]
    state["extra.weight"] = torch.ones(2)
    state["head.weight"] = torch.ones(2, 3, 1, 1, 1)
    state["stem.0.weight"] = state["stem.0.weight"].squeeze(1)
    torch.save(state, tmp_path / "second.pt")
    with pytest.raises(StateDictError) as error:
        api.convert_checkpoint(tmp_path / "second.pt", tmp_path / "out", plan=first)
    for line in (
        "missing     head.bias (2,)",
        "unexpected  extra.weight (2,)",
        "misshapen   head.weight: expected (2, 2, 1, 1, 1), got (2, 3, 1, 1, 1)",
        "misshapen   stem.0.weight: expected (2, 1, 3, 3, 3), got (2, 3, 3, 3)",
    ):
        assert line in str(error.value)
    assert not (tmp_path / "out").exists()


def test_constants_of_the_model_come_along(scaled: Path, tmp_path: Path) -> None:
    state = weights(Scaled, 2)
    torch.save(state, tmp_path / "second.pt")
    api.convert_checkpoint(tmp_path / "second.pt", tmp_path / "out", plan=scaled)
    whole = by_model(state, Scaled, "int64:1,4", tmp_path)
    assert arrays(tmp_path / "out/weights.safetensors") == arrays(whole / "weights.safetensors")


def test_constants_are_asked_for_where_they_are_not(scaled: Path, tmp_path: Path) -> None:
    (tmp_path / "conversion.json").write_bytes((scaled / "conversion.json").read_bytes())
    torch.save(weights(Scaled, 2), tmp_path / "second.pt")
    with pytest.raises(ConversionError, match=r"(?s)its weights do not hold them.*grid"):
        api.convert_checkpoint(tmp_path / "second.pt", tmp_path / "out", plan=tmp_path)


def test_a_plan_alone_gives_weights_alone(first: Path, tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan/conversion.json").write_bytes((first / "conversion.json").read_bytes())
    torch.save(weights(unet, 2), tmp_path / "second.pt")
    result = api.convert_checkpoint(
        tmp_path / "second.pt", tmp_path / "out", plan=tmp_path / "plan"
    )
    assert result.model is None
    assert "weights alone" in result.notes[-1]
    names = {"weights.safetensors", "conversion.json", "left_out.safetensors"}
    names |= {"weights.safetensors.index.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


@pytest.mark.parametrize("missing", ["table.weight", "out.weight"])
def test_a_tied_tensor_may_stand_once(scaled: Path, tmp_path: Path, missing: str) -> None:
    state = weights(Scaled, 2)
    expected = mlxport.convert_state_dict(state, scaled)
    del state[missing], state["unused.weight"]  # what the model does not use may be missing
    found = mlxport.convert_state_dict(state, scaled)
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in expected.items()}


def test_tied_tensors_that_differ_are_refused(scaled: Path) -> None:
    state = weights(Scaled, 2)
    state["out.weight"] = state["out.weight"] + 1
    with pytest.raises(StateDictError, match="has one tensor where the checkpoint has two"):
        mlxport.convert_state_dict(state, scaled)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrower_weights_are_widened_as_the_plan_computes(
    first: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in weights(unet, 2).items()}
    torch.save(state, tmp_path / "second.pt")
    api.convert_checkpoint(tmp_path / "second.pt", tmp_path / "out", plan=first)
    wide = {key: tensor.float() for key, tensor in state.items()}
    expected = {k: v.tolist() for k, v in mlxport.convert_state_dict(wide, first).items()}
    assert arrays(tmp_path / "out/weights.safetensors") == expected
    assert not api.restore(tmp_path / "out", tmp_path / "back.pt").warnings
    assert all(torch.equal(t, state[k]) for k, t in torch.load(tmp_path / "back.pt").items())


def test_wider_weights_are_rounded_only_when_asked(first: Path) -> None:
    state = {k: t.double() if t.is_floating_point() else t for k, t in weights(unet, 2).items()}
    state["head.bias"] += 2**-40
    with pytest.raises(StateDictError, match=r"(?s)head\.bias: F64 to F32.*allow_lossy_cast=True"):
        mlxport.convert_state_dict(state, first)
    found = mlxport.convert_state_dict(state, first, allow_lossy_cast=True)
    assert found["head.bias"].tolist() == state["head.bias"].float().tolist()


def test_weights_of_another_kind_are_refused(first: Path) -> None:
    state = weights(unet, 2) | {"head.bias": torch.ones(2, dtype=torch.int32)}
    with pytest.raises(StateDictError, match=r"another kind than the plan's:\n  head\.bias: I32"):
        mlxport.convert_state_dict(state, first)


def test_not_a_number_is_warned_of(first: Path, tmp_path: Path) -> None:
    state = weights(unet, 2)
    state["head.bias"][0] = torch.nan
    torch.save(state, tmp_path / "second.pt")
    result = api.convert_checkpoint(tmp_path / "second.pt", tmp_path / "out", plan=first)
    assert result.warnings == ("these weights hold NaN or infinity: head.bias",)


def test_a_state_dict_of_arrays_in_memory(first: Path) -> None:
    state = {key: tensor.numpy() for key, tensor in weights(unet, 2).items()}
    conversion = mlxport.convert(unet().eval(), torch.ones(1, 1, 4, 6, 5), verify=False).conversion
    found = mlxport.convert_state_dict(state, conversion)
    model = mlxport.load(first)
    model.load_weights(list(found.items()), strict=True)
    shapes = {name: array.shape for name, array in tree_flatten(model.parameters())}
    assert shapes == {name: array.shape for name, array in found.items()}
    kernel = np.moveaxis(state["upsample.0.weight"], 0, -1)
    assert found["upsample.0.weight"].tolist() == kernel.tolist()


def test_what_is_no_tensor_is_named(first: Path) -> None:
    state = weights(unet, 2) | {"head.bias": [1, 2], "stem.0.weight": np.array(["a"])}
    with pytest.raises(StateDictError, match=r"(?s)stem\.0\.weight: numpy's .*head\.bias: .*list"):
        mlxport.convert_state_dict(state, first)


def test_a_plan_of_one_layer_does_not_do() -> None:
    plan = WeightPlan((Entry(("a",), ("a",)),))
    with pytest.raises(StateDictError, match="does not say which tensors it expects"):
        mlxport.convert_state_dict({"a": torch.ones(1)}, plan)
    with pytest.raises(ConversionError, match="leaves these to the model"):
        mlxport.convert_state_dict({}, replace(plan, constants={"grid": "made there"}))


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": [INPUT]},
        {"plan": "out", "layers": ["*=Conv"]},
        {"plan": "out", "dtype": "float16"},
        {"model": "x:y", "inputs": [INPUT], "plan": "out"},
        {"plan": "out", "inputs": [INPUT]},
        {"plan": "out", "channels_last": True},
        {"model": "x:y"},
    ],
    ids=[
        "inputs alone",
        "plan with layers",
        "plan with a dtype",
        "both",
        "plan with inputs",
        "plan with a layout",
        "model without inputs",
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(OptionsError):
        api.convert_checkpoint("x.pt", tmp_path / "out", **options)  # type: ignore[arg-type]


def test_the_record_names_its_own_source(first: Path, tmp_path: Path) -> None:
    save_file(weights(unet, 2), tmp_path / "second.safetensors")
    api.convert_checkpoint(tmp_path / "second.safetensors", tmp_path / "out", plan=first)
    source = json.loads((tmp_path / "out/conversion.json").read_text())["source"]
    assert source["path"] == "second.safetensors"
    assert (
        source["sha256"] != json.loads((first / "conversion.json").read_text())["source"]["sha256"]
    )
    api.restore(tmp_path / "out", tmp_path / "back.safetensors")
    assert load_file(tmp_path / "back.safetensors").keys() == weights(unet, 2).keys()
