"""Models with code of their own that loads checkpoints: what it makes is what is converted."""

from __future__ import annotations

import copy
import json
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.checkpoint.formats.in_memory import checkpoint_of
from mlxport.converter.errors import ConversionError, StateDictError
from mlxport.converter.tasks.loading.load_into_model import load_into_model

State = dict[str, Any]


class Around(nn.Module):
    """Puts the module to be loaded below another, behind a layer that is loaded as it is."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.first(x))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.q(x)


class Versioned(nn.Module):
    _version = 3

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(3))
        self.register_buffer("running_var", torch.ones(3))

    def _load_from_state_dict(self, state, prefix, metadata, *rest) -> None:
        if (metadata.get("version") or 0) < 3:
            state[f"{prefix}running_var"] = state[f"{prefix}running_var"] - 0.1
        super()._load_from_state_dict(state, prefix, metadata, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.running_mean) * (self.running_var + 0.1).rsqrt()


class Turning(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(Turning.turn)

    def turn(self, state, prefix, *rest) -> None:
        key = f"{prefix}q.weight"
        state[key] = state[key].view(2, 2, 3).transpose(0, 1).reshape(4, 3)


class InPlace(Plain):
    def __init__(self) -> None:
        super().__init__()
        self._register_load_state_dict_pre_hook(self.scale_up)

    def scale_up(self, state, prefix, *rest) -> None:
        state[f"{prefix}q.weight"].mul_(2)


class WithModule(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.factor = 3.0
        hook = lambda module, state, prefix, *rest: state.update(  # noqa: E731
            {f"{prefix}q.bias": state[f"{prefix}q.bias"] * module.factor}
        )
        self._register_load_state_dict_pre_hook(hook, with_module=True)


class OnLayer(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.q.register_load_state_dict_pre_hook(
            lambda module, state, prefix, *rest: state.update(
                {f"{prefix}weight": state[f"{prefix}weight"].flip(0)}
            )
        )


class Normalising(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(Normalising.normalise)

    def normalise(self, keys) -> None:
        self.q.weight.data /= self.q.weight.data.norm()


class Merged(nn.Module):
    """Older checkpoints have one weight for both."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)

    def _load_from_state_dict(self, state, prefix, *rest) -> None:
        if f"{prefix}qk.weight" in state:
            both = state.pop(f"{prefix}qk.weight")
            state[f"{prefix}q.weight"], state[f"{prefix}k.weight"] = both.chunk(2)
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.q(x) - self.k(x) * 2


class Dequantizing(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(Dequantizing.dequantize)

    def dequantize(self, state, prefix, *rest) -> None:
        scale = state.pop(f"{prefix}q.scale")
        state[f"{prefix}q.weight"] = state[f"{prefix}q.weight"] * scale


class Resizing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 3))

    def _load_from_state_dict(self, state, prefix, *rest) -> None:
        old = state[f"{prefix}table"]
        state[f"{prefix}table"] = nn.functional.interpolate(old.T[None], 6, mode="linear")[0].T
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., None, :] + self.table


class Assigning(Plain):
    def _load_from_state_dict(self, state, prefix, *rest) -> None:
        for child in (self.q,):
            child.weight = nn.Parameter(state.pop(f"{prefix}q.weight") + 1)
            state[f"{prefix}q.weight"] = child.weight.detach()
        super()._load_from_state_dict(state, prefix, *rest)


class Overriding(Plain):
    """Takes no ``strict``; doubles."""

    def load_state_dict(self, state):  # type: ignore[override]
        return super().load_state_dict({key: value * 2 for key, value in state.items()})


class Swapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_load_state_dict_pre_hook(Swapping.swap)

    def swap(self, state, prefix, *rest) -> None:
        for name in ("weight", "bias"):
            a, b = f"{prefix}a.{name}", f"{prefix}b.{name}"
            state[a], state[b] = state[b], state[a]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) - self.b(x) * 2


class Consuming(Plain):
    """Keeps one of the checkpoint's tensors as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0
        self.register_load_state_dict_pre_hook(Consuming.consume)

    def consume(self, state, prefix, *rest) -> None:
        self.scale = float(state.pop(f"{prefix}scale"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.q(x) * self.scale


class Extra(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.scale: Any = 1.0

    def get_extra_state(self) -> Any:
        return self.scale

    def set_extra_state(self, state: Any) -> None:
        self.scale = state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.scale
        while isinstance(scale, (dict, set, tuple)):
            scale = next(iter(scale.values() if isinstance(scale, dict) else scale))
        return self.q(x) * float(scale)


class Renaming(nn.Module):
    """Calls its tensors by other names on disk, both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3)
        self.register_load_state_dict_pre_hook(Renaming.to_ours)
        self._register_state_dict_hook(Renaming.to_theirs)

    def to_ours(self, state, prefix, *rest) -> None:
        for old, new in (("gamma", "weight"), ("beta", "bias")):
            if f"{prefix}norm.{old}" in state:
                state[f"{prefix}norm.{new}"] = state.pop(f"{prefix}norm.{old}")

    @staticmethod
    def to_theirs(module, state, prefix, *rest) -> None:
        for old, new in (("gamma", "weight"), ("beta", "bias")):
            state[f"{prefix}norm.{old}"] = state.pop(f"{prefix}norm.{new}")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


def drawn(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(shape, generator=generator) + 0.3 for shape in shapes]


def plain_state(**more: Any) -> State:
    weight, bias = drawn((4, 3), (4,))
    return {"q.weight": weight, "q.bias": bias, **more}


NORMS = dict(zip(("running_mean", "running_var"), drawn((3,), (3,)), strict=True))
PAIR = dict(
    zip(
        ("a.weight", "a.bias", "b.weight", "b.bias"), drawn((3, 3), (3,), (3, 3), (3,)), strict=True
    )
)
INT8 = plain_state() | {"q.weight": torch.arange(12, dtype=torch.int8).view(4, 3)}
CASES: dict[str, tuple[Callable[[], nn.Module], State]] = {
    "without a version": (Versioned, NORMS),
    "pre-hook": (Turning, plain_state()),
    "pre-hook, old, in place": (InPlace, plain_state()),
    "pre-hook, old, with its module": (WithModule, plain_state()),
    "pre-hook of a layer": (OnLayer, plain_state()),
    "post-hook": (Normalising, plain_state()),
    "one tensor made two": (Merged, {"qk.weight": drawn((6, 3))[0]}),
    "integers made floats": (Dequantizing, INT8 | {"q.scale": torch.tensor([[0.25]])}),
    "another shape": (Resizing, {"table": drawn((4, 3))[0]}),
    "assigned": (Assigning, plain_state()),
    "names swapped": (Swapping, PAIR),
    "kept as a number": (Consuming, plain_state(scale=torch.tensor(3.0))),
    "extra state, a tensor": (Extra, plain_state(_extra_state=torch.tensor([3.0]))),
    "extra state, a number": (Extra, plain_state(_extra_state=3.0)),
    "extra state, nested": (Extra, plain_state(_extra_state={"a": ({5.0},)})),
    "names renamed": (
        Renaming,
        dict(zip(("norm.gamma", "norm.beta"), drawn((3,), (3,)), strict=True)),
    ),
}


def below(state: State, prefix: str = "") -> State:
    weight, bias = drawn((3, 3), (3,))
    first = {"first.weight": weight, "first.bias": bias}
    return {prefix + k: v for k, v in (first | {f"inner.{k}": v for k, v in state.items()}).items()}


def loaded(model: nn.Module, state: State) -> nn.Module:
    model.load_state_dict(copy.deepcopy(state))
    return model.eval()


def convert(model: Any, state: Any, folder: Path, name: str = "net.pt", **options: Any) -> Any:
    save = save_file if name.endswith(".safetensors") else torch.save
    save(state, folder / name)
    return mlxport.convert_checkpoint(
        folder / name, folder / "out", model=model, inputs=["2,3"], **options
    )


def assert_gives(converted: Any, model: nn.Module) -> None:
    """Hold the folder's model to PyTorch's, in all it computes."""
    x = torch.randn(2, 3)
    expected = model.double()(x.double()).detach().numpy()
    got = np.array(converted(mx.array(x.numpy())))
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


def content(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path)


def assert_same(one: State, other: State) -> None:
    assert list(one) == list(other)
    for key, value in one.items():
        assert value.dtype == other[key].dtype, key
        assert torch.equal(value, other[key]), key


PREFIXED = {"pre-hook, old, in place", "one tensor made two", "names renamed"}


@pytest.mark.parametrize(
    ("make", "state", "prefix"),
    [
        pytest.param(*case, prefix, id=name + ", prefixed" * bool(prefix))
        for name, case in CASES.items()
        for prefix in ("", "module.")
        if not prefix or name in PREFIXED or "extra state, n" in name
    ],
)
def test_what_it_makes_is_converted_and_the_files_tensors_come_back(
    make, state, prefix, tmp_path
) -> None:
    expected = loaded(Around(make()), below(state))
    model = Around(make())
    before = copy.deepcopy(model).state_dict()
    result = convert(model, below(state, prefix), tmp_path)
    assert result.report.passed
    assert_gives(mlxport.load(tmp_path / "out"), expected)
    assert repr(before) == repr(model.state_dict())  # a guest

    assert api.verify_weights(tmp_path / "out").passed
    api.restore(tmp_path / "out", tmp_path / "back.pt")
    tensors = {k: v for k, v in below(state, prefix).items() if isinstance(v, torch.Tensor)}
    back = content(tmp_path / "back.pt")
    assert_same(dict(sorted(back.items())), dict(sorted(tensors.items())))


BY_PLAN = {
    "without a version": (Versioned, NORMS, "inner.running_var: by Versioned._load_from_state"),
    "pre-hook": (Turning, plain_state(), "inner.q.weight: by .*pre-hook Turning.turn of inner"),
    "one tensor made two": (Merged, CASES["one tensor made two"][1], "inner.k.weight: by Merged"),
    "kept as a number": (Consuming, plain_state(scale=torch.tensor(3.0)), "inner.scale: changed"),
}


@pytest.mark.parametrize(("make", "state", "named"), BY_PLAN.values(), ids=BY_PLAN)
def test_a_plan_refuses_what_it_cannot_repeat(make, state, named, tmp_path) -> None:
    convert(Around(make()), below(state), tmp_path)
    with pytest.raises(StateDictError, match=rf"(?s){named}.*convert with model="):
        mlxport.convert_checkpoint(tmp_path / "net.pt", tmp_path / "again", plan=tmp_path / "out")
    with pytest.raises(StateDictError, match=named):
        mlxport.convert_state_dict(tmp_path / "net.pt", tmp_path / "out")
    assert not (tmp_path / "again").exists()


def test_a_plan_repeats_names_that_a_hook_changes(tmp_path) -> None:
    convert(Around(Swapping()), below(PAIR), tmp_path)
    other = below({key: value + 1 for key, value in PAIR.items()}, "module.")
    torch.save(other, tmp_path / "other.pt")
    mlxport.convert_checkpoint(tmp_path / "other.pt", tmp_path / "again", plan=tmp_path / "out")
    bare = {key.removeprefix("module."): value for key, value in other.items()}
    assert_gives(mlxport.load(tmp_path / "again"), loaded(Around(Swapping()), bare))


def test_names_are_followed_where_values_are_the_same(tmp_path) -> None:
    zeros = {key: torch.zeros_like(value) for key, value in PAIR.items()}
    convert(Around(Swapping()), below(zeros), tmp_path)
    torch.save(below(PAIR), tmp_path / "other.pt")
    mlxport.convert_checkpoint(tmp_path / "other.pt", tmp_path / "again", plan=tmp_path / "out")
    assert_gives(mlxport.load(tmp_path / "again"), loaded(Around(Swapping()), below(PAIR)))


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_versions_come_from_the_file(name, tmp_path) -> None:
    trained = loaded(Around(Versioned()), below(NORMS))
    state = trained.state_dict()  # which says that it is of version 3
    convert(Around(Versioned()), state, tmp_path, name)
    if name == "net.safetensors":  # which holds no versions
        trained = loaded(Around(Versioned()), dict(state))
    assert_gives(mlxport.load(tmp_path / "out"), trained)


@pytest.mark.parametrize("prefix", ["", "module."], ids=["bare", "prefixed"])
@pytest.mark.parametrize("foreign", [{}, {"config": pytest}], ids=["plain", "with an object"])
def test_versions_are_found_wherever_the_state_dict_lies(prefix, foreign, tmp_path) -> None:
    trained = loaded(Around(Versioned()), below(NORMS))
    state = OrderedDict((prefix + k, v) for k, v in trained.state_dict().items())
    noted = {(prefix + k).strip("."): v for k, v in trained.state_dict()._metadata.items()}
    state._metadata = noted
    foreign = {key: _Foreign() for key in foreign}
    convert(Around(Versioned()), {"net": state, **foreign}, tmp_path)
    assert_gives(mlxport.load(tmp_path / "out"), trained)


class _Foreign:
    """An object for which torch refuses a file."""


def test_a_plan_refuses_another_version(tmp_path) -> None:
    state = loaded(Around(Versioned()), below(NORMS)).state_dict()
    convert(Around(Versioned()), state, tmp_path)
    torch.save(state, tmp_path / "same.pt")
    mlxport.convert_checkpoint(tmp_path / "same.pt", tmp_path / "same", plan=tmp_path / "out")
    save_file(dict(state), tmp_path / "old.safetensors")
    with pytest.raises(StateDictError, match=r'metadata of inner: {"version": 3} there, null here'):
        mlxport.convert_checkpoint(
            tmp_path / "old.safetensors", tmp_path / "old", plan=tmp_path / "out"
        )


def test_a_state_dict_in_memory_has_its_versions_too(tmp_path) -> None:
    state = loaded(Around(Versioned()), below(NORMS)).state_dict()
    convert(Around(Versioned()), state, tmp_path)
    assert mlxport.convert_state_dict(state, tmp_path / "out")
    with pytest.raises(StateDictError, match="metadata of inner"):
        mlxport.convert_state_dict(dict(state), tmp_path / "out")
    trained = Around(Extra())
    convert(trained, trained.state_dict(), tmp_path, overwrite=True)
    assert mlxport.convert_state_dict(trained.state_dict(), tmp_path / "out")
    trained.inner.scale = 2.0
    with pytest.raises(StateDictError, match=r"extra state inner._extra_state: another value"):
        mlxport.convert_state_dict(trained.state_dict(), tmp_path / "out")
    extra = trained.state_dict()
    convert(Around(Extra()), extra, tmp_path, overwrite=True)
    with pytest.raises(StateDictError, match=r"inner\.scale: changed by Extra.set_extra_state"):
        mlxport.convert_state_dict(extra, tmp_path / "out")


def test_numbers_that_are_one_object_are_told_apart(tmp_path) -> None:
    convert(Around(Extra()), below(plain_state(_extra_state=3)) | {"epoch": 3}, tmp_path)
    loading = json.loads((tmp_path / "out/conversion.json").read_text())["plan"]["loading"]
    assert [*loading["read"]] == ["inner._extra_state"]


@pytest.mark.parametrize("state", [3.0, {"a": [3.0]}, torch.tensor([3.0])], ids=str)
def test_what_is_no_tensor_is_said_before_it_is_lost(state: Any, tmp_path) -> None:
    class Named(Extra):
        def set_extra_state(self, state: Any) -> None:
            pass

    given = below(plain_state(_extra_state=state))
    result = convert(Around(Named()), given, tmp_path)
    by_plan = mlxport.convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "two", plan=tmp_path / "out"
    )
    restored = mlxport.restore(tmp_path / "out", tmp_path / "restored.pt")
    is_tensor = isinstance(state, torch.Tensor)
    for notes in (result.notes, by_plan.notes):
        said = [note for note in notes if note.startswith("no tensor, and so not in the output")]
        assert ["inner._extra_state" in note for note in said] == [True] * (not is_tensor)
    assert ("inner._extra_state" in restored.keys) is is_tensor
    assert ("inner._extra_state" in restored.lost) is not is_tensor


SHARED = Around(Turning())


def test_a_model_that_is_imported_is_a_guest_too(tmp_path, monkeypatch) -> None:
    before = copy.deepcopy(SHARED).state_dict()
    monkeypatch.setitem(sys.modules, "shared_model", sys.modules[__name__])
    convert("shared_model:SHARED", below(plain_state()), tmp_path)
    assert repr(before) == repr(SHARED.state_dict())


def test_the_plan_of_a_model_that_loaded_nothing_is_refused(tmp_path) -> None:
    result = mlxport.convert(Around(Turning()), torch.randn(2, 3))
    with pytest.raises(StateDictError, match=r"(?s)without a checkpoint.*Turning.turn of inner"):
        mlxport.convert_state_dict(below(plain_state()), result.conversion)


def test_extra_state_has_to_be_the_same_for_a_plan(tmp_path) -> None:
    class Named(Extra):  # whose numbers are none of a tensor's
        def set_extra_state(self, state: Any) -> None:
            pass

    convert(Around(Named()), below(plain_state(_extra_state={"a": 3.0})), tmp_path)
    for number in (3.0, 4.0):
        torch.save(below(plain_state(_extra_state={"a": number})), tmp_path / f"{number}.pt")
    mlxport.convert_checkpoint(tmp_path / "3.0.pt", tmp_path / "same", plan=tmp_path / "out")
    with pytest.raises(StateDictError, match=r"the extra state inner._extra_state: another value"):
        mlxport.convert_checkpoint(tmp_path / "4.0.pt", tmp_path / "other", plan=tmp_path / "out")


class Failing(Plain):
    def _load_from_state_dict(self, state, prefix, *rest) -> None:
        self.scale = state[f"{prefix}nowhere"]


REFUSED: dict[str, tuple[Callable[[], nn.Module], State, str]] = {
    "its code fails": (Failing, plain_state(), r"Failing._load_from_state_dict.*KeyError: .*nowhe"),
    "strict": (Turning, plain_state(more=torch.ones(1)), r'Unexpected.*"inner.more".*drop='),
    "still missing": (Merged, {"q.weight": torch.ones(3, 3)}, r'Missing.*"inner.k.weight"'),
    "no extra state": (Extra, plain_state(), r'Missing.*"inner._extra_state"'),
    "an unknown object": (Extra, plain_state(_extra_state=_Foreign()), r"never runs.*_extra_state"),
}


@pytest.mark.parametrize(("make", "state", "said"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("prefix", ["", "module."], ids=["bare", "prefixed"])
def test_its_refusal_is_ours_and_leaves_nothing(make, state, said, prefix, tmp_path) -> None:
    model = Around(make())
    before, attributes = copy.deepcopy(model).state_dict(), dict(vars(model.inner))
    with pytest.raises(StateDictError, match=rf"(?s){said}"):
        convert(model, below(state, prefix), tmp_path)
    assert repr(before) == repr(model.state_dict())
    assert attributes == vars(model.inner)
    assert not (tmp_path / "out").exists()


def test_a_model_may_have_a_load_state_dict_of_its_own(tmp_path) -> None:
    convert(Overriding(), plain_state(), tmp_path)
    assert_gives(mlxport.load(tmp_path / "out"), loaded(Overriding(), plain_state()))


def test_what_may_be_missing_is_as_the_model_was_built_and_named(tmp_path) -> None:
    class Lenient(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.register_load_state_dict_post_hook(lambda _, keys: keys.missing_keys.clear())

    model = Around(Lenient())
    state = below({"q.weight": plain_state()["q.weight"]})
    result = convert(model, state, tmp_path)
    assert any("as the model was built: inner.q.bias" in text for text in result.warnings)
    expected = copy.deepcopy(model)
    expected.load_state_dict(state)
    assert_gives(mlxport.load(tmp_path / "out"), expected)
    with pytest.raises(StateDictError, match=r"inner.q.bias: it is not in the checkpoint"):
        mlxport.convert_state_dict(state, tmp_path / "out")


def test_the_record_says_what_was_computed(tmp_path) -> None:
    convert(Around(Turning()), below(plain_state(), "module."), tmp_path)
    loading = json.loads((tmp_path / "out/conversion.json").read_text())["plan"]["loading"]
    hook = "the load_state_dict pre-hook Turning.turn of inner"
    assert loading["computed"] == {"module.inner.q.weight": f"by {hook}"}
    assert loading["code"] == [hook]
    assert loading["modules"] == {"module.inner": "null"}


def test_weights_trained_since_are_not_given_back_as_the_files(tmp_path) -> None:
    convert(Around(Turning()), below(plain_state()), tmp_path)
    path = tmp_path / "out/weights.safetensors"
    weights = mx.load(str(path))
    weights["inner.q.weight"] = weights["inner.q.weight"] + 1
    mx.save_safetensors(str(path), weights, {"format": "mlx"})
    with pytest.raises(ConversionError, match=r"inner.q.weight: computed, and trained"):
        api.restore(tmp_path / "out", tmp_path / "back.pt")
    result = api.restore(tmp_path / "out", tmp_path / "back.pt", partial=True)
    assert "inner.q.weight" not in result.keys
    assert "inner.q.bias" in result.keys


class HalfComputed(nn.Module):
    """Of the two tensors that are folded into one its code computes one."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
        self.register_load_state_dict_pre_hook(HalfComputed.twice)

    def twice(self, state, prefix, *rest) -> None:
        key = f"{prefix}q.parametrizations.weight.original0"
        state[key] = state[key] * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.q(x)


def test_what_is_folded_with_computed_tensors_comes_back(tmp_path) -> None:
    state = {key: value + 1 for key, value in HalfComputed().state_dict().items()}
    convert(HalfComputed(), state, tmp_path)
    model = mlxport.load(tmp_path / "out")
    assert_gives(model, loaded(HalfComputed(), state))
    api.restore(tmp_path / "out", tmp_path / "back.pt")
    assert_same(content(tmp_path / "back.pt"), state)

    model.q.weight = model.q.weight + 1
    with pytest.raises(
        ConversionError, match=r"original1: folded into q.weight, which was trained"
    ):
        api.restore(tmp_path / "out", tmp_path / "tuned.pt", from_live=model)
    result = api.restore(tmp_path / "out", tmp_path / "tuned.pt", from_live=model, partial=True)
    assert {*result.keys} == {"q.bias"}


def test_computed_weights_are_quantized_too(tmp_path) -> None:
    class Net(Normalising):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(64, 4)

    state = {"q.weight": torch.rand(4, 64), "q.bias": torch.rand(4)}
    torch.save(state, tmp_path / "net.pt")
    result = mlxport.convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "out", model=Net(), inputs=["2,64"], quantize="bits=8"
    )
    assert result.report.passed
    assert result.conversion.quantized.layers == ("q",)
    assert api.verify_weights(tmp_path / "out").passed
    api.restore(tmp_path / "out", tmp_path / "back.pt")
    assert_same(content(tmp_path / "back.pt"), state)


def test_torchs_own_code_stands_in_no_record(tmp_path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.norm(x))

    convert(Net(), Net().state_dict(), tmp_path)
    assert "loading" not in json.loads((tmp_path / "out/conversion.json").read_text())["plan"]


class Chain(nn.Module):
    """Modules whose loading code is drawn."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Drawn(kind) for kind in kinds)


class Drawn(nn.Module):
    _version = 2

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        if kind == "tied":
            self.b.weight = self.a.weight
        if kind in ("renames", "swaps", "doubles", "in place"):
            self.register_load_state_dict_pre_hook(Drawn.before)
        if kind in ("halves", "copies"):
            self.register_load_state_dict_post_hook(Drawn.after)

    def before(self, state, prefix, *rest) -> None:
        a, b = f"{prefix}a.weight", f"{prefix}b.weight"
        if self.kind == "renames" and f"{prefix}old" in state:
            state[a] = state.pop(f"{prefix}old")
        elif self.kind == "swaps":
            state[a], state[b] = state[b], state[a]
        elif self.kind == "doubles":
            state[a] = state[a] * 2
        elif self.kind == "in place":
            state[b] += state[a]

    def after(self, keys) -> None:
        with torch.no_grad():
            if self.kind == "halves":
                self.a.bias.div_(2)
            else:
                self.b.weight.data = self.a.weight.data

    def _load_from_state_dict(self, state, prefix, metadata, *rest) -> None:
        if self.kind == "versioned" and metadata.get("version", 1) < 2:
            state[f"{prefix}b.bias"] = state[f"{prefix}b.bias"] + 1
        super()._load_from_state_dict(state, prefix, metadata, *rest)


KINDS = ["plain", "tied", "renames", "swaps", "doubles", "in place", "halves", "copies"]


@given(
    kinds=st.lists(st.sampled_from([*KINDS, "versioned"]), min_size=1, max_size=3).map(tuple),
    prefix=st.sampled_from(["", "module.", "net.model."]),
    has_versions=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_model_holds_what_pytorch_loads(kinds, prefix, has_versions, dtype, seed) -> None:
    torch.manual_seed(seed)
    state = Chain(kinds).to(dtype).state_dict()
    for number, kind in enumerate(kinds):
        at = f"layers.{number}."
        if kind == "renames" and seed % 2:
            state[f"{at}old"] = state.pop(f"{at}a.weight")
    file = state if has_versions else dict(state)
    named = OrderedDict((prefix + key, value) for key, value in file.items())
    if has_versions:
        noted = state._metadata.items()
        named._metadata = {(prefix + path).strip("."): versions for path, versions in noted}
    expected, model = Chain(kinds).to(dtype), Chain(kinds)
    expected.load_state_dict(copy.deepcopy(file))
    before = copy.deepcopy(dict(named))
    found = load_into_model(model, checkpoint_of(named))
    assert_same(model.state_dict(), expected.state_dict())
    assert_same(named, before)
    # what counts as the file's is, and the rest has a reason
    computed = found.loading.computed if found.loading else {}
    for path, value in model.state_dict().items():
        key = found.keys[path]
        assert (key in computed) != (key in named and torch.equal(before[key], value)), path
    assert {*named} == {*found.keys.values(), *found.ignored} & {*named}
