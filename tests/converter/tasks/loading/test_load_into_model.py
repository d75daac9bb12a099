import copy

import numpy as np
import pytest
import torch

from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE
from mlxport.converter.tasks.loading.dtypes import _holds
from mlxport.converter.tasks.loading.load_into_model import NonFiniteWarning, load_into_model


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.ConvTranspose3d(2, 3, 2)
        self.norm = torch.nn.BatchNorm3d(3)
        self.register_buffer("table", torch.full((2,), 0.5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) * self.table.sum()


@pytest.fixture
def checkpoint(tmp_path):
    """Save a state dict and open it again."""

    def save(state, **beside):
        torch.save({"state_dict": state, **beside}, tmp_path / "x.pt")
        return open_checkpoint(tmp_path / "x.pt")

    return save


def trained() -> Net:
    net = Net()
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(2, 2, 4, 4, 4))
    return net


def assert_equal(model, expected) -> None:
    ours, theirs = model.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype, name
        assert torch.equal(ours[name], theirs[name]), name


def test_loads_all_of_it(checkpoint) -> None:
    source, model = trained(), Net()
    keys = load_into_model(model, checkpoint(source.state_dict(), epoch=1)).keys
    assert keys == {name: name for name in source.state_dict()}
    assert_equal(model, source)
    x = torch.randn(1, 2, 4, 4, 4)
    assert torch.equal(model.eval()(x), source.eval()(x))


def test_returns_the_checkpoints_keys(checkpoint) -> None:
    source, model = trained(), Net()
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    keys = load_into_model(model, checkpoint(state)).keys
    assert keys["conv.weight"] == "module.conv.weight"
    assert_equal(model, source)


def test_a_prefix_chooses(checkpoint) -> None:
    source, model = trained(), Net()
    state = {f"{p}.{k}": v for p in ("a", "b") for k, v in source.state_dict().items()}
    with pytest.raises(StateDictError, match=r"prefix='a\.'"):
        load_into_model(model, checkpoint(state))
    assert load_into_model(model, checkpoint(state), prefix="b").keys["conv.bias"] == "b.conv.bias"
    assert_equal(model, source)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("ours", [torch.float16, torch.float32, torch.float64], ids=str)
def test_the_model_takes_on_the_one_dtype_of_the_checkpoint(dtype, ours, checkpoint) -> None:
    source, model = trained().to(dtype), Net().to(ours)
    load_into_model(model, checkpoint(source.state_dict()))
    assert_equal(model, source)
    assert model.norm.num_batches_tracked.dtype == torch.int64


def mixed(low: torch.dtype) -> dict[str, torch.Tensor]:
    state = trained().state_dict()
    state["conv.weight"] = state["conv.weight"].to(low)
    return state


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16, torch.float8_e5m2], ids=str)
def test_mixed_dtypes_widen_to_the_models(low, checkpoint) -> None:
    state, model = mixed(low), Net()
    load_into_model(model, checkpoint(state))
    assert model.conv.weight.dtype == torch.float32
    assert torch.equal(model.conv.weight, state["conv.weight"].float())
    assert torch.equal(model.conv.bias, state["conv.bias"])


def test_a_cast_that_could_round_is_refused_and_all_are_listed(checkpoint) -> None:
    state, model = mixed(torch.bfloat16), Net().half()
    before = copy.deepcopy(model)
    with pytest.raises(StateDictError, match="allow_lossy_cast=True") as error:
        load_into_model(model, checkpoint(state))
    assert "  conv.weight: torch.bfloat16 to torch.float16\n" in str(error.value)
    assert "  norm.running_var: torch.float32 to torch.float16\n" in str(error.value)
    assert_equal(model, before)


def test_a_cast_that_rounds_can_be_asked_for(checkpoint) -> None:
    state, model = mixed(torch.bfloat16), Net().half()
    load_into_model(model, checkpoint(state), allow_lossy_cast=True)
    assert torch.equal(model.conv.bias, state["conv.bias"].half())


KINDS = {
    "integer for float": ("conv.weight", torch.int8),
    "complex for float": ("conv.weight", torch.complex64),
    "float for integer": ("norm.num_batches_tracked", torch.float32),
    "bool for integer": ("norm.num_batches_tracked", torch.bool),
}


@pytest.mark.parametrize(("name", "dtype"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("lossy", [False, True])
def test_a_dtype_of_another_kind_is_refused(name, dtype, lossy, checkpoint) -> None:
    state = trained().state_dict()
    state[name] = state[name].to(dtype)
    with pytest.raises(StateDictError, match=f"  {name}: expected .*, got {dtype}"):
        load_into_model(Net(), checkpoint(state), allow_lossy_cast=lossy)


def test_integers_widen(checkpoint) -> None:
    state, model = trained().state_dict(), Net()
    state["norm.num_batches_tracked"] = state["norm.num_batches_tracked"].to(torch.int16)
    load_into_model(model, checkpoint(state))
    assert model.norm.num_batches_tracked.dtype == torch.int64
    assert model.norm.num_batches_tracked == 2


FLOATS = [name for name in TORCH_DTYPE if name[0] in "BF" and name != "BOOL"]


@pytest.mark.parametrize("wide", ["F16", "BF16", "F32", "F64"])
@pytest.mark.parametrize("narrow", [name for name in FLOATS if name not in ("F32", "F64")])
def test_a_cast_counts_as_lossless_only_if_it_is(wide, narrow) -> None:
    # all values of 8 and of 16 bits, there and back
    bits = 8 if narrow.startswith("F8") else 16
    codes = torch.arange(2**bits, dtype=torch.int32)
    values = codes.to(getattr(torch, f"uint{bits}")).view(TORCH_DTYPE[narrow])
    exact, there = values.double(), values.to(TORCH_DTYPE[wide]).double()
    lossless = bool(((exact == there) | (exact.isnan() & there.isnan())).all())
    assert _holds(TORCH_DTYPE[wide], TORCH_DTYPE[narrow]) == lossless


NARROWING = [("F32", "F64"), ("F16", "F32"), ("BF16", "F32"), ("F8_E5M2", "F16"), ("I32", "I64")]


@pytest.mark.parametrize(("wide", "narrow"), [*NARROWING, ("I8", "U8"), ("U32", "I8")])
def test_a_narrowing_cast_counts_as_lossy(wide, narrow) -> None:
    assert not _holds(TORCH_DTYPE[wide], TORCH_DTYPE[narrow])


def test_ties_and_identities_stay(checkpoint) -> None:
    model = torch.nn.Module()
    model.embed = torch.nn.Embedding(5, 3)
    model.head = torch.nn.Linear(3, 5, bias=False)
    model.head.weight = model.embed.weight
    kept = model.embed.weight
    new = torch.randn(5, 3)
    keys = load_into_model(model, checkpoint({"head.weight": new})).keys
    assert keys == {"embed.weight": "head.weight", "head.weight": "head.weight"}
    assert model.head.weight is model.embed.weight is kept
    assert torch.equal(kept, new)


@pytest.mark.parametrize("same", [True, False])
def test_two_values_for_one_tensor_must_agree(same, checkpoint) -> None:
    model = torch.nn.Sequential(torch.nn.PReLU(), torch.nn.PReLU())
    model[1].weight = model[0].weight
    state = {"0.weight": torch.ones(1), "1.weight": torch.ones(1) if same else torch.zeros(1)}
    if same:
        load_into_model(model, checkpoint(state))
        assert model[1].weight.item() == 1
    else:
        with pytest.raises(StateDictError, match=r"two that differ:\n  0.weight and 1.weight"):
            load_into_model(model, checkpoint(state))


class Doubled(torch.nn.Linear):
    """Two times the weight of its file, and its bias."""

    def _load_from_state_dict(self, state, prefix, *args):
        state[f"{prefix}weight"] = 2 * state[f"{prefix}weight"]
        super()._load_from_state_dict(state, prefix, *args)


def test_what_a_models_code_makes_is_told_from_what_it_leaves(checkpoint) -> None:
    source, model = torch.nn.Linear(3, 2), Doubled(3, 2)
    loaded = load_into_model(model, checkpoint(source.state_dict()))
    assert loaded.keys == {"weight": "weight", "bias": "bias"}
    assert [*loaded.loading.computed] == ["weight"]
    assert torch.equal(model.weight, 2 * source.weight)
    assert torch.equal(model.bias, source.bias)


def test_each_name_of_one_tensor_keeps_its_own_key(checkpoint) -> None:
    model = torch.nn.ModuleList([torch.nn.PReLU(3), torch.nn.PReLU(3), Doubled(2, 1)])
    shared = torch.randn(3)
    state = {**model.state_dict(), "0.weight": shared, "1.weight": shared}
    loaded = load_into_model(model, checkpoint(state))
    assert loaded.keys == {name: name for name in state}
    assert [*loaded.loading.computed] == ["2.weight"]
    assert torch.equal(model[1].weight, shared)


def test_recurrent_weights_reach_the_kernel(checkpoint) -> None:
    # an LSTM keeps its parameters in a list as well
    source, model = torch.nn.LSTM(2, 3), torch.nn.LSTM(2, 3)
    load_into_model(model, checkpoint(source.state_dict()))
    x = torch.randn(4, 1, 2)
    assert torch.equal(model(x)[0], source(x)[0])


def test_weight_norm_loads_from_either_name(checkpoint) -> None:
    new = torch.nn.utils.parametrizations.weight_norm(torch.nn.ConvTranspose1d(2, 3, 4))
    state = new.state_dict()
    old = {"bias": state["bias"]}
    for index, part in enumerate("gv"):
        old[f"weight_{part}"] = torch.randn_like(state[f"parametrizations.weight.original{index}"])
    load_into_model(new, checkpoint(old))
    assert torch.equal(new.parametrizations.weight.original1, old["weight_v"])


def test_the_model_shares_nothing_with_the_checkpoint(checkpoint, tmp_path) -> None:
    source, model = trained(), Net()
    opened = checkpoint(source.state_dict())
    load_into_model(model, opened)
    with torch.no_grad():
        model.conv.weight.fill_(7)
    assert opened.tensors["conv.weight"].bits.max() < 7
    assert not torch.equal(model.conv.weight, source.conv.weight)


def test_gradients_stay_as_the_model_has_them(checkpoint) -> None:
    model = Net()
    model.conv.bias.requires_grad_(False)
    load_into_model(model, checkpoint(trained().state_dict()))
    assert model.conv.weight.requires_grad
    assert not model.conv.bias.requires_grad
    assert isinstance(model.conv.weight, torch.nn.Parameter)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(value, checkpoint) -> None:
    state = trained().state_dict()
    state["conv.bias"][1] = state["norm.running_var"][0] = value
    with pytest.warns(NonFiniteWarning, match=r"infinity: conv\.bias, norm\.running_var$"):
        load_into_model(Net(), checkpoint(state))


def test_a_misfit_changes_nothing(checkpoint) -> None:
    state, model = trained().state_dict(), Net()
    del state["norm.weight"]
    state["norm.bias"] = torch.zeros(9)
    before = copy.deepcopy(model)
    with pytest.raises(StateDictError, match="1 missing, 0 unexpected, 1 misshapen"):
        load_into_model(model, checkpoint(state))
    assert_equal(model, before)


def test_a_model_without_values_is_refused(checkpoint) -> None:
    with torch.device("meta"):
        model = Net()
    with pytest.raises(StateDictError, match=r"table.*no values.*not on the meta device"):
        load_into_model(model, checkpoint(trained().state_dict()))


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_model_is_refused(checkpoint) -> None:
    with pytest.raises(StateDictError, match="call it once"):
        load_into_model(torch.nn.LazyLinear(3), checkpoint({"weight": torch.ones(3, 2)}))
