"""Restoring gives back the very checkpoint: keys, shapes, dtypes, bits and ties."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx import optimizers
from mlx.utils import tree_flatten, tree_map
from safetensors.torch import load_file
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import ConversionError, OptionsError, StateDictError
from mlxport.converter.output.contents import write_json
from mlxport.converter.plan.record import Conversion
from mlxport.converter.plan.steps import (
    Cast,
    FoldSpectralNorm,
    FoldWeightNorm,
    Permute,
    Step,
    conv_transpose_weight,
    conv_weight,
)
from mlxport.converter.plan.tensor import STORAGE, Tensor, TensorSpec
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.examples.unet3d import UNet3d

State = dict[str, torch.Tensor]


def unet() -> nn.Module:
    return UNet3d(widths=(2, 4))


def trained(make: Callable[[], nn.Module]) -> State:
    """A state dict in which no tensor is as its layer begins, the counters included."""
    generator = torch.Generator().manual_seed(3)
    state = make().state_dict()
    for number, tensor in enumerate(state.values()):
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        else:
            tensor.fill_(number + 1)
    return state


def bits(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes()


def same(one: State, other: State) -> None:
    assert list(one) == list(other)
    assert {key: bits(t) for key, t in one.items()} == {key: bits(t) for key, t in other.items()}


def converted(state: State, folder: Path, make: Callable[[], nn.Module], *inputs: str) -> Path:
    torch.save(state, folder / "model.pt")
    api.convert_checkpoint(folder / "model.pt", folder / "out", model=make(), inputs=inputs)
    return folder / "out"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(trained(unet), tmp_path_factory.mktemp("unet"), unet, "1,1,4,6,5")


def test_gives_back_the_torch_checkpoint(out: Path, tmp_path: Path) -> None:
    result = api.restore(out, tmp_path / "back.pt")
    state = torch.load(tmp_path / "back.pt", weights_only=True)
    same(state, trained(unet))
    assert any(key.endswith("num_batches_tracked") for key in state)
    unet().load_state_dict(state, strict=True)
    assert result.keys == tuple(state)
    assert result.warnings == ()


def test_gives_back_safetensors_where_there_is_no_torch(out: Path, tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None  # importing it would fail
from mlxport.converter import api
api.restore(sys.argv[1], "back.safetensors")
"""
    subprocess.run([sys.executable, "-c", code, str(out)], check=True, cwd=tmp_path)
    state, expected = load_file(tmp_path / "back.safetensors"), trained(unet)
    same(dict(sorted(state.items())), dict(sorted(expected.items())))
    unet().load_state_dict(state, strict=True)


def test_the_record_may_be_named_instead_of_its_folder(out: Path, tmp_path: Path) -> None:
    api.restore(out / "conversion.json", tmp_path / "back.pt")
    same(torch.load(tmp_path / "back.pt"), trained(unet))


TIED = "table.weight", "out.weight"


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.table.weight
        self.unused = nn.Conv2d(2, 3, 3)  # a head for training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.table(x))


def test_tied_tensors_share_their_memory_again(tmp_path: Path) -> None:
    out = converted(trained(Tied), tmp_path, Tied, "int64:1,5")
    api.restore(out, tmp_path / "back.pt")
    state = torch.load(tmp_path / "back.pt")
    same(state, trained(Tied))
    assert state["out.weight"].data_ptr() == state["table.weight"].data_ptr()
    model = Tied()
    model.load_state_dict(state, strict=True)
    assert model.out.weight is model.table.weight


def test_tied_tensors_stand_under_all_names_in_safetensors(tmp_path: Path) -> None:
    out = converted(trained(Tied), tmp_path, Tied, "int64:1,5")
    api.restore(out, tmp_path / "back.safetensors")
    state = load_file(tmp_path / "back.safetensors")
    same(dict(sorted(state.items())), dict(sorted(trained(Tied).items())))


def test_a_tensor_that_stands_once_comes_back_once(tmp_path: Path) -> None:
    state = trained(Tied)
    del state["out.weight"]  # as safetensors has it
    out = converted(state, tmp_path, Tied, "int64:1,5")
    api.restore(out, tmp_path / "back.safetensors")
    same(
        dict(sorted(load_file(tmp_path / "back.safetensors").items())), dict(sorted(state.items()))
    )


def test_tied_tensors_are_trained_as_one(tmp_path: Path) -> None:
    out = converted(trained(Tied), tmp_path, Tied, "int64:1,5")
    weights = mx.load(str(out / "weights.safetensors"))
    assert "out.weight" not in weights
    weights["table.weight"] = weights["table.weight"] + 1
    mx.save_safetensors(str(out / "weights.safetensors"), weights)
    api.restore(out, tmp_path / "back.pt")
    state = torch.load(tmp_path / "back.pt")
    assert torch.equal(state["table.weight"], trained(Tied)["table.weight"] + 1)
    assert torch.equal(state["out.weight"], state["table.weight"])


def give_each_its_own(out: Path, source: str) -> None:
    """Let the plan say that MLX has two tensors where PyTorch has one (a user's rule may)."""
    record = json.loads((out / "conversion.json").read_text())
    plan = record["plan"]
    plan["entries"].append({"sources": [source], "targets": ["out.weight"], "steps": []})
    plan["aliases"] = {}
    plan["ties"] = {"out.weight": "table.weight"} if source == "out.weight" else {}
    (out / "conversion.json").write_text(json.dumps(record))


@pytest.mark.parametrize("once", [False, True], ids=["under two names", "under one name"])
def test_tied_tensors_that_were_trained_apart_are_refused(tmp_path: Path, once: bool) -> None:
    state = trained(Tied)
    if once:
        del state["out.weight"]
    out = converted(state, tmp_path, Tied, "int64:1,5")
    give_each_its_own(out, "table.weight" if once else "out.weight")
    weights = mx.load(str(out / "weights.safetensors"))
    weights["out.weight"] = weights["table.weight"] + 1
    mx.save_safetensors(str(out / "weights.safetensors"), weights)
    with pytest.raises(StateDictError, match=r"table\.weight: out\.weight differs"):
        api.restore(out, tmp_path / "back.pt")
    weights["table.weight"] = weights["out.weight"]
    mx.save_safetensors(str(out / "weights.safetensors"), weights)
    api.restore(out, tmp_path / "back.pt")
    same(torch.load(tmp_path / "back.pt"), state | {k: state[k] + 1 for k in TIED if k in state})


def test_keys_are_those_of_the_checkpoint_not_of_the_model(tmp_path: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in trained(unet).items()}
    state |= {"n_averaged": torch.tensor(5)}
    out = converted(state, tmp_path, unet, "1,1,4,6,5")
    api.restore(out, tmp_path / "back.pt")
    same(torch.load(tmp_path / "back.pt"), state)


def test_what_lies_beside_the_prefix_is_named_as_lost(tmp_path: Path) -> None:
    state = {f"net.{key}": tensor for key, tensor in trained(unet).items()}
    torch.save(state | {"other.weight": torch.ones(2)}, tmp_path / "model.pt")
    api.convert_checkpoint(
        tmp_path / "model.pt", tmp_path / "out", model=unet(), inputs=["1,1,4,6,5"], prefix="net."
    )
    result = api.restore(tmp_path / "out", tmp_path / "back.pt")
    same(torch.load(tmp_path / "back.pt"), state)
    assert list(result.lost) == ["other.weight"]
    assert "prefix" in result.warnings[0]


# dtypes of a mixed checkpoint are cast to the model's: exactly where that is wider
def test_a_mixed_checkpoint_gets_its_dtypes_back(tmp_path: Path) -> None:
    state = {
        key: tensor.half() if tensor.ndim == 5 else tensor for key, tensor in trained(unet).items()
    }
    out = converted(state, tmp_path, unet, "1,1,4,6,5")
    assert not api.restore(out, tmp_path / "back.pt").warnings
    same(torch.load(tmp_path / "back.pt"), state)


def test_rounded_values_are_named(tmp_path: Path) -> None:
    state = trained(unet)
    state["head.weight"] = state["head.weight"].double() + 2**-40
    torch.save(state, tmp_path / "model.pt")
    api.convert_checkpoint(
        tmp_path / "model.pt",
        tmp_path / "out",
        model=unet(),
        inputs=["1,1,4,6,5"],
        allow_lossy_cast=True,
    )
    result = api.restore(tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert result.rounded == ("head.weight",)
    assert back["head.weight"].dtype == torch.float64
    same({"w": back["head.weight"]}, {"w": state["head.weight"].float().double()})


def test_values_that_were_trained_in_a_wider_dtype_are_named(tmp_path: Path) -> None:
    state = {"weight": torch.ones(3, 2).half(), "bias": torch.ones(3).half()}
    torch.save(state, tmp_path / "model.pt")
    out = tmp_path / "out"
    make = nn.Linear(2, 3)
    api.convert_checkpoint(tmp_path / "model.pt", out, model=make, inputs=["1,2"], dtype="float32")
    assert api.restore(out, tmp_path / "back.pt").warnings == ()
    model = mlxport.load(out)
    model.weight = model.weight + 2**-12
    result = api.restore(out, tmp_path / "tuned.pt", from_live=model)
    assert result.narrowed == ("weight",)
    (warning,) = result.warnings
    assert warning.startswith("1 tensors were trained in a wider dtype and are rounded")
    same(torch.load(tmp_path / "tuned.pt"), state)


# Plans and folders made by hand


def folder_of(tmp_path: Path, plan: WeightPlan, state: dict[str, Tensor]) -> Path:
    """Write what a conversion leaves of a plan, as far as restoring goes."""
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    write_safetensors(folder / "weights.safetensors", dict(plan.apply(state)))
    write_json(folder / "conversion.json", Conversion(plan=plan, modules=(), inputs=()).to_json())
    return folder


def weight_normed() -> tuple[WeightPlan, dict[str, Tensor]]:
    def values(*shape: int) -> Tensor:
        return Tensor(np.full(shape, 2, np.float32), "F32")

    fold = Entry(("a_g", "a_v"), ("a",), (FoldWeightNorm(0),))
    state = {"a_g": values(3, 1), "a_v": values(3, 2), "b": values(4)}
    specs = {key: TensorSpec.of(tensor) for key, tensor in state.items()}
    return WeightPlan((fold, Entry(("b",), ("b",))), specs=specs), state


def spectral_normed() -> tuple[WeightPlan, dict[str, Tensor]]:
    def values(*shape: int) -> Tensor:
        return Tensor(np.full(shape, 2, np.float32), "F32")

    fold = Entry(("a", "u", "v"), ("a",), (FoldSpectralNorm(0),))
    state = {"a": values(3, 2), "u": values(3), "v": values(2), "b": values(4)}
    specs = {key: TensorSpec.of(tensor) for key, tensor in state.items()}
    return WeightPlan((fold, Entry(("b",), ("b",))), specs=specs), state


def test_folded_norms_that_were_not_kept_are_refused_and_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *spectral_normed())
    with pytest.raises(ConversionError, match=r"(?s)\n  a, u, v: folded into a.*partial=True"):
        api.restore(folder, tmp_path / "back.safetensors")
    assert not (tmp_path / "back.safetensors").exists()


def test_the_rest_is_written_when_asked_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *spectral_normed())
    result = api.restore(folder, tmp_path / "back.safetensors", partial=True)
    assert list(load_file(tmp_path / "back.safetensors")) == ["b"]
    assert list(result.lost) == ["a", "u", "v"]


def test_weight_norms_that_were_not_kept_come_back_as_equivalents(tmp_path: Path) -> None:
    plan, state = weight_normed()
    folder = folder_of(tmp_path, plan, state)
    result = api.restore(folder, tmp_path / "back.safetensors")
    assert result.equivalent == ("a_g", "a_v")
    back = {key: Tensor(t.numpy(), "F32") for key, t in load_file(result.path).items()}
    one, other = (dict(plan.apply(tensors))["a"].bits for tensors in (state, back))
    np.testing.assert_allclose(one, other, rtol=1e-6)


NORMED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": nn.utils.parametrizations.weight_norm,
    "weight norm over all": partial(nn.utils.parametrizations.weight_norm, dim=None),
    "weight norm by a hook": nn.utils.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
}


def normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hook is deprecated
        layers = norm(nn.Conv1d(3, 4, 3)), norm(nn.ConvTranspose1d(4, 4, 4))
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.Conv1d(4, 2, 1)).eval()


@pytest.fixture(scope="module", params=NORMED)
def folded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    torch.manual_seed(2)
    folder, norm = tmp_path_factory.mktemp("normed"), NORMED[request.param]
    state = normed(norm).state_dict()
    torch.save(state, folder / "model.pt")
    api.convert_checkpoint(
        folder / "model.pt", folder / "out", model=normed(norm), inputs=["2,3,9"]
    )
    return request.param, folder / "out"


def test_folded_norms_come_back_bit_for_bit(folded: tuple[str, Path], tmp_path: Path) -> None:
    _, out = folded
    assert api.verify_weights(out).passed
    result = api.restore(out, tmp_path / "back.pt")
    assert result.warnings == ()
    same(torch.load(out.parent / "model.pt"), torch.load(tmp_path / "back.pt"))


def test_trained_weights_come_back_as_what_folds_into_them(
    folded: tuple[str, Path], tmp_path: Path
) -> None:
    kind, out = folded
    model = mlxport.load(out)
    model.update(tree_map(lambda array: array * 1.25, model.parameters()))
    if not kind.startswith("weight norm"):
        with pytest.raises(ConversionError, match=r"folded into layers\.0\.weight, which"):
            api.restore(out, tmp_path / "tuned.pt", from_live=model)
        return
    result = api.restore(out, tmp_path / "tuned.pt", from_live=model)
    assert len(result.equivalent) == 4
    assert "folds into the weights there are" in result.warnings[0]
    back = normed(NORMED[kind])
    back.load_state_dict(torch.load(tmp_path / "tuned.pt"))
    x = torch.randn(2, 3, 9)
    expected = back(x).detach().numpy()
    np.testing.assert_allclose(model(mx.array(x.numpy())), expected, rtol=1e-4, atol=1e-6)


def tuned(out: Path, tmp_path: Path) -> tuple[Any, State]:
    """Return the model of an output folder with other weights, and these as PyTorch has them."""
    model = mlxport.load(out)
    model.update(tree_map(lambda array: array * 1.5, model.parameters()))
    key = "head.weight"
    changed = {key: torch.load(out.parent / "model.pt")[key] * 1.5}
    return model, changed


def check_tuned(file: Path, changed: State) -> None:
    state = torch.load(file)
    unet().load_state_dict(state)
    for key, value in changed.items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0)


def test_a_live_model_goes_back(out: Path, tmp_path: Path) -> None:
    model, changed = tuned(out, tmp_path)
    api.restore(out, tmp_path / "tuned.pt", from_live=model)
    check_tuned(tmp_path / "tuned.pt", changed)


def test_what_came_to_a_live_model_is_not_left_out_in_silence(out: Path, tmp_path: Path) -> None:
    model, changed = tuned(out, tmp_path)
    model.scale = mx.ones(3)
    with pytest.raises(StateDictError, match=r"unexpected  scale\n.*partial=True"):
        api.restore(out, tmp_path / "tuned.pt", from_live=model)
    assert not (tmp_path / "tuned.pt").exists()
    result = api.restore(out, tmp_path / "tuned.pt", from_live=model, partial=True)
    assert result.added == ("scale",)
    assert "1 parameters came to the model since it was converted" in result.warnings[0]
    check_tuned(tmp_path / "tuned.pt", changed)


def test_what_was_trained_computes_the_same_both_ways(tmp_path: Path) -> None:
    """Trained in MLX, in PyTorch by a strict load, and from there in MLX once more."""

    def make() -> nn.Module:
        normed = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(4, 6, 3, stride=2))
        up = nn.ConvTranspose1d(6, 4, 3, groups=2)
        return nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), normed, up).eval()

    x = torch.linspace(-2, 2, 2 * 2 * 9).reshape(2, 2, 9)
    out = converted(trained(make), tmp_path, make, "2,2,9")
    model, given = mlxport.load(out), mx.array(x.numpy())

    def loss(model: Any, x: mx.array) -> mx.array:
        return mx.mean(mx.square(model(x) - 1))

    optimizer = optimizers.SGD(0.01)
    before = np.array(model(given))
    model.train()
    for _ in range(5):
        _, gradients = mlx.nn.value_and_grad(model, loss)(model, given)
        optimizer.update(model, gradients)
    model.eval()
    want = np.array(model(given))
    assert np.abs(want - before).max() > 1e-2
    back = api.restore(out, tmp_path / "tuned.pt", from_live=model)
    assert set(back.equivalent) == {f"3.parametrizations.weight.original{n}" for n in (0, 1)}
    torch_model = make()
    torch_model.load_state_dict(torch.load(tmp_path / "tuned.pt"), strict=True)
    with torch.no_grad():
        found = torch_model.double()(x.double()).numpy()
    np.testing.assert_allclose(want, found, rtol=2e-5, atol=1e-5)
    again = tmp_path / "again"
    api.convert_checkpoint(tmp_path / "tuned.pt", again, plan=out)
    np.testing.assert_allclose(np.array(mlxport.load(again)(given)), want, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["file", "folder", "index"])
def test_other_weights_go_back(kind: str, out: Path, tmp_path: Path) -> None:
    model, changed = tuned(out, tmp_path)
    (tmp_path / "w").mkdir()
    path = tmp_path / "w" / "weights.safetensors"
    model.save_weights(str(path))
    if kind == "folder":
        path = path.parent
    elif kind == "index":
        names = {name: path.name for name, _ in tree_flatten(model.parameters())}
        path = path.with_suffix(".safetensors.index.json")
        path.write_text(json.dumps({"weight_map": names}))
    command = [sys.executable, "-m", "mlxport.cli", "restore", out, "--weights", path]
    subprocess.run([*command, "-o", tmp_path / "tuned.pt"], check=True)
    check_tuned(tmp_path / "tuned.pt", changed)


def test_weights_and_a_live_model_are_one_too_many(out: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="both say which weights go back"):
        api.restore(out, tmp_path / "b.pt", weights=out, from_live=mlxport.load(out))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"b": np.zeros(5, np.float32), "a": np.zeros((3, 2), np.float32)}, r"F32 \(5,\) for b"),
        ({"b": np.zeros(4, np.float16), "a": np.zeros((3, 2), np.float32)}, r"F16 \(4,\) for b"),
        ({"a": np.zeros((3, 2), np.float32)}, "missing     b"),
    ],
    ids=["another shape", "another dtype", "missing"],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, weights: dict[str, Any], message: str
) -> None:
    folder = folder_of(tmp_path, *weight_normed())
    names = {np.dtype("float32"): "F32", np.dtype("float16"): "F16"}
    tensors = {name: Tensor(array, names[array.dtype]) for name, array in weights.items()}
    write_safetensors(folder / "weights.safetensors", tensors)
    with pytest.raises(StateDictError, match=message):
        api.restore(folder, tmp_path / "back.pt", partial=True)


def test_an_existing_file_is_kept_unless_asked(out: Path, tmp_path: Path) -> None:
    (tmp_path / "back.pt").write_text("mine")
    with pytest.raises(OptionsError, match="exists already"):
        api.restore(out, tmp_path / "back.pt")
    assert (tmp_path / "back.pt").read_text() == "mine"
    api.restore(out, tmp_path / "back.pt", overwrite=True)
    same(torch.load(tmp_path / "back.pt"), trained(unet))


@pytest.mark.parametrize("name", ["back.onnx", "back", "no/such/folder.pt"])
def test_a_file_that_cannot_be_written_is_refused_at_once(
    out: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(OptionsError):
        api.restore(out, tmp_path / name)


def test_a_damaged_record_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "conversion.json").write_text(json.dumps({"format": "x"}))
    with pytest.raises(ConversionError, match="expected mlxport-conversion"):
        api.restore(tmp_path, tmp_path / "back.pt")


sizes = st.integers(1, 4)
endings = st.sampled_from([".pt", ".safetensors"])
kinds = st.sampled_from(["conv", "transposed", "linear", "permuted", "cast"])


@st.composite
def entries(draw: st.DrawFn) -> tuple[tuple[Step, ...], TensorSpec]:
    """A layer's weight: steps of its plan, and its dtype and PyTorch shape."""
    kind, rank = draw(kinds), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([d for d in STORAGE if d != "BOOL"]))
    kernel = draw(st.tuples(*[sizes] * rank))
    groups, inner, outer = draw(sizes), draw(sizes), draw(sizes)
    steps: dict[str, tuple[Step, ...]] = {
        "conv": conv_weight(rank),
        "transposed": conv_transpose_weight(groups),
        "linear": (),
        "permuted": (Permute(tuple(draw(st.permutations(range(rank + 2))))),),
        "cast": (Cast(("F16",), ("F32",)), *conv_weight(rank)),
    }
    dtype = "F16" if kind == "cast" else dtype
    return steps[kind], TensorSpec(dtype, (groups * inner, outer, *kernel))


def finite(spec: TensorSpec, seed: int) -> Tensor:
    """Random bits; for the cast no NaN, as a signalling one would come back quiet."""
    storage = STORAGE[spec.dtype]
    data = np.random.default_rng(seed).bytes(spec.nbytes)
    raw = np.frombuffer(data, storage).reshape(spec.shape)
    if spec.dtype == "F16":
        raw = np.nan_to_num(raw, nan=1.0)
    return Tensor(raw, spec.dtype)


@settings(max_examples=60)
@given(
    st.lists(entries(), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([".pt", ".safetensors"]),
)
def test_any_plan_is_undone_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[tuple[Step, ...], TensorSpec]],
    tied: bool,
    ending: str,
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    state = {f"{i}.weight": finite(spec, i) for i, (_, spec) in enumerate(drawn)}
    plan = WeightPlan(
        tuple(
            Entry((key,), (f"layers.{key}",), steps)
            for key, (steps, _) in zip(state, drawn, strict=True)
        ),
        aliases={"tied": "0.weight"} if tied else {},
        specs={key: TensorSpec.of(tensor) for key, tensor in state.items()},
    )
    out = folder_of(folder, WeightPlan.from_json(json.loads(json.dumps(plan.to_json()))), state)
    api.restore(out, folder / f"back{ending}")
    if ending == ".pt":
        restored = torch.load(folder / "back.pt")
    else:
        restored = load_file(folder / "back.safetensors")
    if tied:
        assert torch.equal(
            restored["tied"].view(torch.uint8), restored.pop("0.weight").view(torch.uint8)
        )
        restored["0.weight"] = restored.pop("tied")
    assert restored.keys() == state.keys()
    for key, tensor in state.items():
        back = restored[key]
        assert tuple(back.shape) == tensor.shape
        assert back.contiguous().view(torch.uint8).numpy().tobytes() == tensor.bits.tobytes()
