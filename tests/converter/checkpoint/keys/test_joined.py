"""Tensors joined and split for an MLX model, by the rules that verify takes as well."""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
import torch
from safetensors.torch import load_file, save_file

import mlxport
from mlxport.converter.errors import OptionsError, StateDictError
from mlxport.converter.tasks.verify_weights import verify_weights

SIZES = (8, 4, 4)  # of queries, keys and values, as of grouped queries


class Apart(torch.nn.Module):
    """Queries, keys and values of three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (torch.nn.Linear(6, size) for size in SIZES)
        self.act = torch.nn.ReLU()
        self.out = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.act(self.q(x)[..., :4] * self.k(x) + self.v(x)))


class Together(torch.nn.Module):
    """The same of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.act, self.out = (
            torch.nn.Linear(6, 16),
            torch.nn.ReLU(),
            torch.nn.Linear(4, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).split(SIZES, -1)
        return self.out(self.act(q[..., :4] * k + v))


class MlxTogether(nn.Module):
    """One layer, in MLX."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.relu, self.head = nn.Linear(6, 16), nn.ReLU(), nn.Linear(4, 3)
        self.eval()

    def __call__(self, x: mx.array) -> mx.array:
        q, k, v = mx.split(self.qkv(x), [8, 12], axis=-1)
        return self.head(self.relu(q[..., :4] * k + v))


class MlxApart(nn.Module):
    """Three layers, in MLX."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, size) for size in SIZES)
        self.relu, self.head = nn.ReLU(), nn.Linear(4, 3)
        self.eval()

    def __call__(self, x: mx.array) -> mx.array:
        return self.head(self.relu(self.q(x)[..., :4] * self.k(x) + self.v(x)))


WAYS = {
    "joined": (Apart, MlxTogether, {"q + k + v": "qkv"}),
    "split": (Together, MlxApart, {"qkv": "q + k + v"}),
    "renamed before": (Apart, MlxTogether, {"re:([qk])": r"\1", "q + k + v": "qkv"}),
    "joined by stars": (Apart, MlxTogether, {"q**  +  k** + v**": "qkv**"}),
}
OTHERS = {"act": "relu", "out": "top", "top": "head"}


@pytest.mark.parametrize("way", ["joined", "split"])
def test_one_set_of_names_serves_both(way: str) -> None:
    theirs, ours, rule = WAYS[way]
    module, model, names = theirs(), ours(), {**rule, **OTHERS}
    loaded = mlxport.load_weights(model, module.state_dict(), rename=names)
    assert any("joined or split along axis 0" in note for note in loaded.notes)
    report = mlxport.verify(model, module, torch.randn(5, 6), names=names)
    assert report.passed, report.to_text()
    judged = {entry.path: entry.target for entry in report.entries if not entry.skipped}
    assert judged == {"act": "relu", "out": "head"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", ["joined", "split", "joined by stars"])
def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path, way: str, dtype: torch.dtype) -> None:
    theirs, ours, rule = WAYS[way]
    state = theirs().to(dtype).state_dict()
    save_file(state, tmp_path / "net.safetensors")
    names, out = {**rule, **OTHERS}, tmp_path / "out"
    model = ours()
    mlxport.convert_checkpoint(tmp_path / "net.safetensors", out, target=model, rename=names)
    expected = torch.cat(
        [state[f"{one}.weight"] for one in "qkv"] if "q.weight" in state else [state["qkv.weight"]]
    )
    found = (
        [model.qkv.weight] if way != "split" else [model.q.weight, model.k.weight, model.v.weight]
    )
    values = mx.concatenate(found).astype(mx.float32)
    assert torch.equal(torch.tensor(values.tolist()), expected.float())
    assert verify_weights(out).passed
    mlxport.restore(out, tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], state[k]) and back[k].dtype == dtype for k in state)
    # other weights by the same plan, and trained ones back
    other = theirs().to(dtype).state_dict()
    arrays = mlxport.convert_state_dict(other, out)
    model.load_weights(list(arrays.items()))
    mlxport.restore(out, tmp_path / "tuned.safetensors", from_live=model)
    tuned = load_file(tmp_path / "tuned.safetensors")
    assert all(torch.equal(tuned[k], other[k]) for k in other)


def test_the_axis_follows_from_the_shapes() -> None:
    """Outputs of a transposed convolution are its second axis."""
    module = torch.nn.ModuleDict({one: torch.nn.ConvTranspose1d(6, 3, 2) for one in "ab"})
    model = nn.Module()
    model.both = nn.ConvTranspose1d(6, 6, 2)
    mlxport.load_weights(model, module.state_dict(), rename={"a + b": "both"})
    joined = torch.cat([module["a"].weight, module["b"].weight], 1)
    assert torch.equal(torch.tensor(model.both.weight.tolist()), joined.permute(1, 2, 0))


def test_inspect_says_what_is_joined(tmp_path: Path) -> None:
    save_file(Apart().state_dict(), tmp_path / "net.safetensors")
    rows = mlxport.inspect(
        tmp_path / "net.safetensors", target=MlxTogether(), rename={**WAYS["joined"][2], **OTHERS}
    ).tensors
    (row,) = [row for row in rows if row.target == "qkv.weight"]
    assert "joined from q.weight, k.weight, v.weight" in row.evidence


def state_of(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("_", "."): torch.ones(shape) for name, shape in shapes.items()}


REST = {"head_weight": (3, 4), "head_bias": (3,)}
WHOLE = {"q_weight": (8, 6), "k_weight": (4, 6), "v_weight": (4, 6)}
BIASES = {"q_bias": (8,), "k_bias": (4,), "v_bias": (4,)}
JOIN = {"q + k + v": "qkv"}
REFUSED = {
    "a bias is missing": (
        {**WHOLE, "q_bias": (8,), "v_bias": (4,)},
        JOIN,
        r"q\.bias: there is no k\.bias \(q \+ k \+ v\)",
    ),
    "the sizes do not add up": (
        {**WHOLE, **BIASES, "v_weight": (5, 6)},
        JOIN,
        r"qkv\.weight \(16, 6\): \(8, 6\) \+ \(4, 6\) \+ \(5, 6\) .* give none along one axis",
    ),
    "no such parameters": (
        {"qkv_weight": (16, 6), "qkv_bias": (16,)},
        {"qkv": "q + x"},
        "the MLX model has no parameter q.weight, x.weight",
    ),
    "nothing to join": ({**WHOLE, **BIASES}, {"a + b": "qkv"}, r"rename no key.*\n  a \+ b"),
    "both at once": ({**WHOLE, **BIASES}, {"q + k": "a + b"}, "joins or splits, it does not"),
    "twice": ({**WHOLE, **BIASES}, {**JOIN, "qkv + head": "x"}, "joined or split already"),
    "the same twice": ({**WHOLE, **BIASES}, {"q + q": "qkv"}, "stands there twice"),
    "stars on one side": ({**WHOLE, **BIASES}, {"q* + k": "x"}, "as many stars on every side"),
}


@pytest.mark.parametrize(("shapes", "rename", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(
    shapes: dict[str, tuple[int, ...]], rename: dict[str, str], message: str
) -> None:
    model = MlxTogether()
    with pytest.raises((OptionsError, StateDictError), match=message):
        mlxport.load_weights(model, state_of(**shapes, **REST), rename=rename)


def test_dtypes_that_differ_are_not_joined() -> None:
    state = state_of(**WHOLE, **BIASES, **REST)
    state["k.weight"] = state["k.weight"].half()
    with pytest.raises(StateDictError, match=r"dtypes differ: F32, F16, F32"):
        mlxport.load_weights(MlxTogether(), state, rename=JOIN)


def test_a_folded_norm_is_not_joined() -> None:
    module = Apart()
    torch.nn.utils.parametrizations.weight_norm(module.k)
    with pytest.raises(StateDictError, match="a norm is folded"):
        mlxport.load_weights(MlxTogether(), module.state_dict(), rename=JOIN)


class Tied(torch.nn.Module):
    """Keys tied to queries, and the table of words to what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(9, 64)
        self.q, self.k, self.v = (torch.nn.Linear(64, 64) for _ in range(3))
        self.top = torch.nn.Linear(64, 9, bias=False)
        self.k.weight, self.top.weight = self.q.weight, self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        return self.top(self.q(x) * self.k(x) + self.v(x))


class MlxTied(nn.Module):
    """The same in MLX, which has one array for the table, and of queries and keys one each."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.qkv = nn.Embedding(9, 64), nn.Linear(64, 192)
        self.eval()

    def __call__(self, ids: mx.array) -> mx.array:
        q, k, v = mx.split(self.qkv(self.words(ids)), 3, axis=-1)
        return self.words.as_linear(q * k + v)


def test_tied_tensors_are_joined_and_come_back(tmp_path: Path) -> None:
    module, model = Tied(), MlxTied()
    state = module.state_dict()
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(
        StateDictError, match=r"unexpected  top\.weight\n[^=]*=[^=]*\ndrop=\['top\.weight'\]"
    ):
        mlxport.load_weights(model, state, rename=JOIN)
    mlxport.convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "out", target=model, rename=JOIN, drop=["top.weight"]
    )
    report = mlxport.verify(model, module, torch.randint(0, 9, (2, 5)), names=JOIN)
    assert report.passed, report.to_text()
    mlxport.restore(tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_what_is_joined_is_quantized_afterwards() -> None:
    """A quantized layer takes no weights; behind that, MLX quantizes what was joined."""
    model, state = MlxTied(), Tied().state_dict()
    mlxport.load_weights(model, state, rename=JOIN, strict=False)
    joined = model.qkv.weight
    nn.quantize(model, bits=4, group_size=64)
    expected = mx.quantize(joined, bits=4, group_size=64)
    found = (model.qkv.weight, model.qkv.scales, model.qkv.biases)
    assert all(mx.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    reason = "it is quantised: load the weights first, then quantise"
    with pytest.raises(StateDictError, match=f"qkv.weight: {reason}"):
        mlxport.load_weights(model, state, rename=JOIN)


def test_a_quantized_layer_takes_no_part_of_a_tensor() -> None:
    model = nn.Module()
    model.a, model.b = nn.Linear(64, 8), nn.QuantizedLinear(64, 8)
    state = {"ab.weight": torch.ones(16, 64), "ab.bias": torch.ones(16)}
    with pytest.raises(StateDictError) as caught:
        mlxport.load_weights(model, state, rename={"ab": "a + b"})
    assert "  b.weight: it is quantised: load the weights first, then quantise" in str(caught.value)
    assert "a.weight" not in str(caught.value)


def test_a_part_that_does_not_fit_leaves_the_others_as_they_were() -> None:
    model = MlxApart()
    before = model.q.weight
    model.v = nn.LSTM(6, 4)  # takes nothing of PyTorch's
    state = Together().state_dict()
    with pytest.raises(StateDictError, match=r"no parameter v\.weight"):
        mlxport.load_weights(model, state, rename={"qkv": "q + k + v", **OTHERS}, strict=False)
    assert mx.array_equal(before, model.q.weight)


def test_where_a_torch_model_says_the_names_nothing_is_joined(tmp_path: Path) -> None:
    save_file(Apart().state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(OptionsError, match="for an MLX model of your own alone"):
        mlxport.convert_checkpoint(
            tmp_path / "net.safetensors", tmp_path / "out", layers=["*=Linear"], rename=JOIN
        )
