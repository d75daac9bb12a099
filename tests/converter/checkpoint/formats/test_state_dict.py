import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.formats.state_dict import find_state_dict, metadata_of
from mlxport.converter.errors import StateDictError

PATH = Path("x.pt")


def state(*names: str) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict((name, torch.ones(2)) for name in names or ("conv.weight", "conv.bias"))


def optimizer() -> dict[str, object]:
    parameter = torch.nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([parameter])
    parameter.sum().backward()
    adam.step()
    return adam.state_dict()


STATE = state()
NESTED = {
    "bare": (STATE, "."),
    "state_dict": ({"state_dict": STATE, "epoch": 3}, "state_dict"),
    "any name": ({"what_i_trained": STATE}, "what_i_trained"),
    "two levels": ({"nets": {"generator": STATE}}, "nets/generator"),
    "in a list": ({"models": [STATE]}, "models/0"),
    "in a tuple": ((STATE, 3), "0"),
    "Lightning": (
        {
            "epoch": 1,
            "state_dict": STATE,
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}},
            "loops": {"fit_loop": {"weights": torch.ones(3)}},
            "optimizer_states": [optimizer()],
            "lr_schedulers": [],
        },
        "state_dict",
    ),
    "nnU-Net": (
        {
            "network_weights": STATE,
            "optimizer_state": optimizer(),
            "grad_scaler_state": {"scale": torch.ones(1)},
            "logging": {"losses": [1.0, 2.0]},
            "init_args": {"plans": {"a": [1]}},
        },
        "network_weights",
    ),
    "optimiser under any name": ({"net": STATE, "o": optimizer()}, "net"),
    "optimisers under any name": ({"net": STATE, "os": [optimizer(), optimizer()]}, "net"),
    "best value beside": ({"arch": "x", "net": STATE, "best_acc1": torch.ones(1)}, "net"),
    "random state beside": ({"model": STATE, "rng_state": torch.ones(9).byte()}, "model"),
    "random states": ({"model": STATE, "rng": {"cpu": torch.ones(9).byte()}}, "model"),
    "zero-dimensional metrics": ({"m": STATE, "scores": {"dice": torch.tensor(1.0)}}, "m"),
    "extra state": (
        {**STATE, "bn._extra_state": {"scale": torch.ones(2)}},
        ".",
    ),
    "the same mapping twice": ({"model": STATE, "state_dict": STATE}, "model"),
    "names without dots": (state("weight", "bias"), "."),
    "bare parameters": ({"alpha": torch.ones(2), "beta": torch.ones(2)}, "."),
    "only zero-dimensional": ({"state_dict": {"scale": torch.tensor(1.0)}}, "state_dict"),
    "parameters": ({"model": {"a.weight": torch.nn.Parameter(torch.ones(2))}}, "model"),
}  # fmt: skip


@pytest.mark.parametrize(("loaded", "key"), NESTED.values(), ids=NESTED)
def test_finds_the_state_dict(loaded, key) -> None:
    found = find_state_dict(loaded, PATH)
    assert found.key == key
    inner = loaded
    for part in [] if key == "." else key.split("/"):
        inner = inner[int(part) if isinstance(inner, (list, tuple)) else part]
    assert list(found.entries) == [k for k, v in inner.items() if isinstance(v, torch.Tensor)]


AMBIGUOUS = {
    "EMA": ({"params": STATE, "params_ema": state()}, ["params", "params_ema"]),
    "several networks": (
        {"encoder": state(), "decoder": state(), "epoch": 1},
        ["encoder", "decoder"],
    ),
    "nested": ({"nets": {"g": state(), "d": state()}}, ["nets/g", "nets/d"]),
    "a state dict around another": (
        {"conv.weight": torch.ones(2), "ema": state()},
        [".", "ema"],
    ),
    "more values outside than in": (
        {"alpha": torch.ones(2), "beta": torch.ones(2), "config": {"class_weights": torch.ones(2)}},
        [".", "config"],
    ),
}


@pytest.mark.parametrize(("loaded", "keys"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_several_candidates_are_listed_and_key_chooses(loaded, keys) -> None:
    with pytest.raises(StateDictError, match=r"(?s)could be the state dict.*key='NAME'") as error:
        find_state_dict(loaded, PATH)
    shown = re.findall(r"^  (\S+): \d+ tensors \(", str(error.value), re.MULTILINE)
    assert shown == keys
    for key in keys:
        assert find_state_dict(loaded, PATH, key).key == key


@pytest.mark.parametrize("key", ["nets/generator", "generator"], ids=["path", "last name"])
def test_a_key_may_be_the_path_or_its_end(key) -> None:
    loaded = {"nets": {"generator": STATE, "critic": state("a.b")}}
    assert list(find_state_dict(loaded, PATH, key).entries) == list(STATE)


def test_a_key_reaches_what_training_keeps() -> None:
    loaded = {"model": STATE, "scheduler": {"net": state("a.b")}}
    assert find_state_dict(loaded, PATH).key == "model"
    assert list(find_state_dict(loaded, PATH, "scheduler/net").entries) == ["a.b"]


WRONG_KEYS = {
    "unknown": ("nett", "(?s)no mappings of tensors stand under key 'nett'.*  a/net: 2 tensors"),
    "not unique": ("net", "(?s)2 mappings .* stand under key 'net'.*  a/net.*  b/net"),
}


@pytest.mark.parametrize(("key", "message"), WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_a_wrong_key_is_an_error(key, message) -> None:
    with pytest.raises(StateDictError, match=message):
        find_state_dict({"a": {"net": state()}, "b": {"net": state()}}, PATH, key)


NOTHING = {
    "empty": {},
    "numbers": {"epoch": 3, "loss": [1.0]},
    "a tensor": torch.ones(3),
    "a list of tensors": [torch.ones(3)],
    "an optimiser": {"optimizer": optimizer()},
    "names that are no text": {0: torch.ones(3)},
    "None": None,
}


@pytest.mark.parametrize("loaded", NOTHING.values(), ids=NOTHING)
def test_no_state_dict_is_an_error(loaded) -> None:
    with pytest.raises(StateDictError, match=r"x\.pt: no state dict in it"):
        find_state_dict(loaded, PATH)


def test_a_mapping_that_holds_itself_ends() -> None:
    loaded: dict[str, object] = {"state_dict": STATE}
    loaded["self"] = loaded
    assert find_state_dict(loaded, PATH).key == "state_dict"


def test_what_is_left_out_is_noted() -> None:
    inner = {**STATE, "config": {"a": 1}, "version": 2, 3: torch.ones(1)}
    notes = find_state_dict({"state_dict": inner, "epoch": 1, "args": None}, PATH).notes
    assert notes == (
        "state dict found under 'state_dict'; beside it, left out: epoch, args",
        "entries of the state dict that are no tensors, left out: config, version, 3",
    )


def test_many_left_out_are_counted() -> None:
    loaded = {**STATE, **{f"n{i}": i for i in range(20)}}
    (note,) = find_state_dict(loaded, PATH).notes
    assert note.endswith("n7 and 12 more")


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 1, bias=False)
        self.again = self.conv
        self.gamma = torch.nn.Parameter(torch.randn(3))
        self.norm = torch.nn.BatchNorm2d(3)
        self.register_buffer("table", torch.ones(4), persistent=False)
        self.register_buffer("none", None)


def test_a_pickled_module_gives_its_state_dict(tmp_path, monkeypatch) -> None:
    module = type(pytest)("users_model")
    module.Block = Block
    monkeypatch.setattr(Block, "__module__", "users_model")
    with monkeypatch.context() as patched:
        patched.setitem(__import__("sys").modules, "users_model", module)
        model = torch.nn.Sequential(Block(), torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1)}))
        torch.save({"model": model, "epoch": 1}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    expected = model.state_dict()
    assert sorted(checkpoint.tensors) == sorted(expected)
    for name, tensor in expected.items():
        assert checkpoint.tensors[name].bits.tobytes() == tensor.numpy().tobytes()
    storage = checkpoint.storage
    assert storage["0.conv.weight"] == storage["0.again.weight"] != storage["0.gamma"]
    assert checkpoint.key == "model"
    assert "users_model.Block" in checkpoint.notes[0]
    assert "pickled torch.nn.modules.container.Sequential" in checkpoint.notes[1]


NOTED = {
    "as PyTorch notes it": ({"": {"version": 1}, "norm": {"version": 2}}, True),
    "nothing of any module": ({}, True),
    "one module's is none": ({"": {"version": 1}, "norm": None}, False),
    "text": ("version 1", False),
}


@pytest.mark.parametrize(("noted", "is_read"), NOTED.values(), ids=NOTED)
def test_metadata_is_read_where_it_has_pytorchs_form(noted, is_read) -> None:
    found = state()
    assert metadata_of(found) is None
    found._metadata = noted
    metadata = metadata_of(found)
    assert metadata == (noted if is_read else None)
    assert not is_read or metadata is not noted
