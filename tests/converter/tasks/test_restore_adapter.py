"""Adapters that MLX trained go back: as PEFT reads them, and their base as it was."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import mlxport
from mlxport.converter import api
from mlxport.converter.errors import ConversionError, OptionsError, StateDictError

X = torch.linspace(-2, 2, 2 * 3 * 5 * 6).reshape(2, 3, 5, 6)
TARGETS = ["conv", "hidden"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.hidden = nn.Linear(4, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.hidden(torch.relu(self.conv(x)).mean((2, 3)))))


class Tied(nn.Module):
    """A linear layer whose weight is the table's; the adapter is the linear layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids))


@contextmanager
def quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_adapter(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir()
    given = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": TARGETS, **config}
    (folder / "adapter_config.json").write_text(json.dumps(given, indent=3))
    file = folder / "adapter_model.safetensors"
    save_file({f"base_model.model.{name}": t for name, t in tensors.items()}, file)
    return folder


def of_net(folder: Path) -> Path:
    tensors = {
        "conv.lora_A.weight": torch.randn(2, 3, 3, 3),
        "conv.lora_B.weight": torch.randn(4, 2, 1, 1),
        "hidden.lora_A.weight": torch.randn(2, 4),
        "hidden.lora_B.weight": torch.randn(6, 2),
        "hidden.base_layer.bias": torch.randn(6),
        "head.weight": torch.randn(2, 6),
        "head.bias": torch.randn(2),
    }
    return write_adapter(folder, tensors, bias="lora_only", modules_to_save=["head"])


def converted(folder: Path, merge: bool) -> tuple[Net, Path]:
    """Return the base and the folder that base and adapter were converted into."""
    torch.manual_seed(0)
    base = Net().eval()
    torch.save(base.state_dict(), folder / "base.pt")
    adapter = of_net(folder / "adapter")
    out = folder / "out"
    result = api.convert_checkpoint(
        folder / "base.pt", out, model=Net(), inputs=[X], adapter=adapter, merge=merge
    )
    assert result.report is not None
    assert result.report.passed
    return base, out


def train(model: Any, steps: int = 5) -> None:
    """Train what is not frozen."""

    def loss(model: Any, x: mx.array) -> mx.array:
        return mx.mean(mx.square(model(x) - 1))

    optimizer = mlx.optimizers.SGD(0.05)
    model.train()
    for _ in range(steps):
        _, gradients = mlx.nn.value_and_grad(model, loss)(model, mx.array(X.numpy()))
        optimizer.update(model, gradients)
    model.eval()
    mx.eval(model.parameters())


def with_peft(peft: Any, base: nn.Module, folder: Path) -> np.ndarray:
    """Return what PEFT computes with a base and the adapter in a folder."""
    with quietly(), torch.no_grad():
        model = peft.PeftModel.from_pretrained(deepcopy(base), str(folder)).eval()
        return np.asarray(model.double()(X.double()).numpy())


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
def test_untrained_all_of_it_is_as_it_was(merge: bool, tmp_path: Path) -> None:
    base, out = converted(tmp_path, merge)
    first = api.restore(out, tmp_path / "back.safetensors")
    second = api.restore(out, tmp_path / "back", adapter=True)
    assert first.warnings == second.warnings == ()
    found = load_file(tmp_path / "back.safetensors")
    assert found.keys() == base.state_dict().keys()
    assert all(torch.equal(tensor, found[key]) for key, tensor in base.state_dict().items())
    before, after = tmp_path / "adapter", tmp_path / "back"
    assert sorted(f.name for f in after.iterdir()) == sorted(f.name for f in before.iterdir())
    config = "adapter_config.json"
    assert (after / config).read_bytes() == (before / config).read_bytes()
    wanted = load_file(before / "adapter_model.safetensors")
    given = load_file(after / "adapter_model.safetensors")
    assert given.keys() == wanted.keys()
    assert all(torch.equal(tensor, given[key]) for key, tensor in wanted.items())


def test_a_trained_adapter_is_what_peft_reads(peft: Any, tmp_path: Path) -> None:
    base, out = converted(tmp_path, merge=False)
    model = mlxport.load(out)
    train(model)
    model.save_weights(str(tmp_path / "tuned.safetensors"))
    result = api.restore(
        out, tmp_path / "tuned", weights=tmp_path / "tuned.safetensors", adapter=True
    )
    assert result.warnings == ()
    trained = load_file(tmp_path / "tuned" / "adapter_model.safetensors")
    before = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert not any(torch.equal(trained[key], tensor) for key, tensor in before.items())
    got = np.array(model(mx.array(X.numpy())))
    np.testing.assert_allclose(got, with_peft(peft, base, tmp_path / "tuned"), atol=1e-5)
    back = api.restore(out, tmp_path / "base.safetensors", from_live=model)
    assert back.warnings == ()
    found = load_file(tmp_path / "base.safetensors")
    assert all(torch.equal(tensor, found[key]) for key, tensor in base.state_dict().items())
    again = mlxport.convert(base, X, adapter=tmp_path / "tuned", verify=False).model
    assert again is not None
    np.testing.assert_array_equal(np.array(again(mx.array(X.numpy()))), got)


def test_a_base_that_was_trained_too_is_named(tmp_path: Path) -> None:
    _, out = converted(tmp_path, merge=False)
    model = mlxport.load(out)
    model.conv.base_layer.bias = model.conv.base_layer.bias + 1
    result = api.restore(out, tmp_path / "tuned", from_live=model, adapter=True)
    (warning,) = result.warnings
    assert "1 tensors of the base are others" in warning
    assert warning.endswith(": conv.base_layer.bias")


def test_what_was_trained_after_merging_is_the_base_without_the_adapter(
    peft: Any, tmp_path: Path
) -> None:
    _, out = converted(tmp_path, merge=True)
    model = mlxport.load(out)
    train(model)
    back = api.restore(out, tmp_path / "base.safetensors", from_live=model)
    assert back.unmerged == ("conv.weight", "hidden.weight")
    (warning,) = back.warnings
    assert "the weights there are without it, to be used with it: conv.weight" in warning
    base = Net().eval()
    base.load_state_dict(load_file(tmp_path / "base.safetensors"))
    adapter = api.restore(out, tmp_path / "tuned", from_live=model, adapter=True)
    assert "conv.weight" in adapter.trained_base
    got = np.array(model(mx.array(X.numpy())))
    np.testing.assert_allclose(got, with_peft(peft, base, tmp_path / "tuned"), atol=1e-5)


def test_a_tied_weight_is_not_two(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tied = Tied()
    torch.save(tied.state_dict(), tmp_path / "tied.pt")
    tensors = {"head.lora_A.weight": torch.randn(2, 4), "head.lora_B.weight": torch.randn(5, 2)}
    adapter = write_adapter(tmp_path / "adapter", tensors, target_modules=["head"])
    out = tmp_path / "out"
    options: dict[str, Any] = {"model": Tied(), "inputs": ["int64:2,3:0..4"], "adapter": adapter}
    api.convert_checkpoint(tmp_path / "tied.pt", out, merge=True, **options)
    api.restore(out, tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert all(torch.equal(back[key], tensor) for key, tensor in tied.state_dict().items())
    assert back["head.weight"].data_ptr() == back["table.weight"].data_ptr()
    for name in ("table", "head"):
        model = mlxport.load(out)
        getattr(model, name).weight = getattr(model, name).weight + 1
        with pytest.raises(ConversionError, match=r"folded into head.weight, which was trained"):
            api.restore(out, tmp_path / "no.pt", from_live=model)


def test_there_is_no_adapter(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "plain.pt")
    out = tmp_path / "out"
    api.convert_checkpoint(tmp_path / "plain.pt", out, model=nn.Linear(2, 2), inputs=["1,2"])
    with pytest.raises(OptionsError, match=r"converted without an adapter: leave adapter=True out"):
        api.restore(out, tmp_path / "adapter", adapter=True)
    assert not (tmp_path / "adapter").exists()


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    _, out = converted(tmp_path, merge=False)
    before = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    for overwrite in (False, True):  # what PEFT wrote is none of mlxport's to replace
        with pytest.raises(OptionsError, match="exists"):
            api.restore(out, tmp_path / "adapter", adapter=True, overwrite=overwrite)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
def test_quantized_the_adapter_stays_as_it_is(merge: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))  # noqa: E731
    torch.save(make().state_dict(), tmp_path / "base.pt")
    tensors = {"0.lora_A.weight": torch.randn(32, 64), "0.lora_B.weight": torch.randn(64, 32) / 64}
    adapter = write_adapter(tmp_path / "adapter", tensors, target_modules=["0"], r=32)
    result = api.convert_checkpoint(
        tmp_path / "base.pt",
        tmp_path / "out",
        model=make(),
        inputs=["2,64"],
        adapter=adapter,
        merge=merge,
        quantize="bits=4,group_size=32",
    )
    assert result.report is not None
    assert result.report.passed
    done = result.conversion.quantized
    assert done is not None
    assert set(done.layers) == ({"layers.2"} if merge else {"layers.0.base_layer", "layers.2"})
    why = "an adapter was merged into" if merge else "its weight is the adapter's"
    assert all(reason.startswith(why) for reason in done.left.values())
    api.restore(tmp_path / "out", tmp_path / "back", adapter=True)
    wanted = load_file(adapter / "adapter_model.safetensors")
    given = load_file(tmp_path / "back" / "adapter_model.safetensors")
    assert all(torch.equal(tensor, given[key]) for key, tensor in wanted.items())


def test_a_plan_of_both_needs_both(tmp_path: Path) -> None:
    _, out = converted(tmp_path, merge=True)
    with pytest.raises(
        OptionsError, match=r"one of a base with an adapter, and .*base\.pt has none"
    ):
        api.convert_checkpoint(tmp_path / "base.pt", tmp_path / "two", plan=out)
    assert not (tmp_path / "two").exists()


def again_by_plan(folder: Path, adapter: Path, plan: str = "out") -> Path:
    api.convert_checkpoint(folder / "base.pt", folder / "two", plan=folder / plan, adapter=adapter)
    return folder / "two"


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
def test_another_adapter_takes_the_place_of_the_plan_s(
    merge: bool, peft: Any, tmp_path: Path
) -> None:
    base, _ = converted(tmp_path, merge)
    other = of_net(tmp_path / "other")  # other values, and a configuration in other words
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "revision": "two"}))
    two = again_by_plan(tmp_path, other)
    got = np.array(mlxport.load(two)(mx.array(X.numpy())))
    np.testing.assert_allclose(got, with_peft(peft, base, other), atol=1e-5)
    assert api.verify_weights(two).passed
    api.restore(two, tmp_path / "back", adapter=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert load_or_read(tmp_path / "back" / name) == load_or_read(other / name)
    api.restore(two, tmp_path / "base.safetensors")
    found = load_file(tmp_path / "base.safetensors")
    assert found.keys() == base.state_dict().keys()
    assert all(torch.equal(tensor, found[key]) for key, tensor in base.state_dict().items())


def load_or_read(file: Path) -> Any:
    if file.suffix == ".json":
        return file.read_text()
    return {key: tensor.tolist() for key, tensor in load_file(file).items()}


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "scale": ({"lora_alpha": 4}, r"conv: expected scale 1\.5, got 2\n.*hidden: expected scale"),
    "dropout": ({"lora_dropout": 0.5}, r"conv: expected dropout 0, got 0\.5"),
}


@pytest.mark.parametrize(("change", "message"), OTHERS.values(), ids=OTHERS)
def test_an_adapter_that_computes_otherwise_needs_the_model(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    converted(tmp_path, merge=False)
    adapter = tmp_path / "adapter" / "adapter_config.json"
    adapter.write_text(json.dumps({**json.loads(adapter.read_text()), **change}))
    with pytest.raises(StateDictError, match=f"(?s){message}.*model=.* and adapter="):
        again_by_plan(tmp_path, adapter.parent)
    assert not (tmp_path / "two").exists()


def test_an_adapter_of_other_tensors_needs_the_model(tmp_path: Path) -> None:
    converted(tmp_path, merge=False)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors["base_model.model.head.bias"]
    tensors["base_model.model.stem.bias"] = torch.ones(2)
    tensors["base_model.model.head.weight"] = torch.ones(2, 5)
    save_file(tensors, file)
    with pytest.raises(StateDictError) as caught:
        again_by_plan(tmp_path, file.parent)
    for line in (
        "base_model.model.head.bias is missing",
        "base_model.model.stem.bias is unexpected",
        "base_model.model.head.weight: expected (2, 6), got (2, 5)",
    ):
        assert line in str(caught.value)


def test_a_plan_of_a_base_alone_takes_no_adapter(tmp_path: Path) -> None:
    _, _ = converted(tmp_path, merge=False)
    api.convert_checkpoint(tmp_path / "base.pt", tmp_path / "plain", model=Net(), inputs=[X])
    with pytest.raises(OptionsError, match=r"without an adapter: .* model=.* and adapter="):
        again_by_plan(tmp_path, tmp_path / "adapter", "plain")


def test_a_prefix_is_the_base_s_alone(tmp_path: Path) -> None:
    base, _ = converted(tmp_path, merge=False)
    wrapped = {f"net.{key}": tensor for key, tensor in base.state_dict().items()}
    torch.save({**wrapped, "loss.weight": torch.ones(2)}, tmp_path / "base.pt")
    options: dict[str, Any] = {"adapter": tmp_path / "adapter", "prefix": "net"}
    two = tmp_path / "two"
    api.convert_checkpoint(tmp_path / "base.pt", two, plan=tmp_path / "out", **options)
    x = mx.array(X.numpy())
    np.testing.assert_array_equal(
        np.array(mlxport.load(two)(x)), np.array(mlxport.load(tmp_path / "out")(x))
    )


def test_the_explanation_of_an_adapted_model_and_its_analysis(tmp_path: Path) -> None:
    base = Net().eval()
    before = dict(base.named_modules())
    adapter = of_net(tmp_path / "adapter")
    explanation = mlxport.explain(base, X, "hidden", adapter=adapter)
    assert "LoRALinear" in str(explanation)
    assert "LoRALinear" in str(mlxport.analyze(base, X, adapter=adapter))
    assert "LoRALinear" not in str(mlxport.analyze(base, X, adapter=adapter, merge=True))
    assert dict(base.named_modules()) == before
