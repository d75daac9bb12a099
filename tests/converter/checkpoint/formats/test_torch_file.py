import argparse
import collections
import contextlib
import datetime
import enum
import pathlib
import pickle
import types

import numpy as np
import pytest
import torch

from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import CheckpointError, ConversionError
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE


def save_zip(content, path) -> None:
    torch.save(content, path)


def save_legacy(content, path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content, path) -> None:
    path.write_bytes(pickle.dumps(content))


SAVE = {"zip": save_zip, "legacy": save_legacy, "pickle": save_pickle}


@pytest.fixture(params=SAVE)
def save(request):
    return SAVE[request.param]


class Config:
    """A class of the user's, with a tensor in it."""

    def __init__(self) -> None:
        self.lr, self.betas = 0.1, (0.9, 0.99)
        self.weights = torch.ones(3)


class DictConfig(dict):
    """As OmegaConf's: a mapping class with attributes of its own."""

    def __init__(self, **items) -> None:
        super().__init__(items)
        self._metadata, self._parent = "x", None


class Phase(enum.Enum):
    TRAIN = 1


# Pickled by name: the tests run under a module name that nothing else can import.
Config.__module__ = DictConfig.__module__ = Phase.__module__ = "users_own"


@pytest.fixture(autouse=True)
def users_own(monkeypatch):
    module = types.ModuleType("users_own")
    module.Config, module.DictConfig, module.Phase = Config, DictConfig, Phase
    monkeypatch.setitem(__import__("sys").modules, "users_own", module)
    return module


STATE = {
    "conv.weight": torch.randn(2, 3, 3, 3),
    "conv.bias": torch.zeros(2, dtype=torch.bfloat16),
    "bn.num_batches_tracked": torch.tensor(3),
}


def assert_holds(checkpoint, state) -> None:
    assert list(checkpoint.tensors) == list(state)
    for name, tensor in state.items():
        read = checkpoint.tensors[name]
        assert TORCH_DTYPE[read.dtype] == tensor.dtype
        expected = tensor.detach().contiguous().resolve_conj().resolve_neg()
        assert read.shape == tuple(expected.shape)
        raw = expected.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert np.ascontiguousarray(read.bits).tobytes() == raw


@pytest.mark.parametrize("dtype", TORCH_DTYPE.values(), ids=str)
@pytest.mark.parametrize("beside", [None, np.float64(1)], ids=["weights only", "placeholders"])
def test_reads_every_dtype_by_bits(dtype, beside, save, tmp_path) -> None:
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (3, 16), dtype=torch.uint8)
    state = {"a.x": raw.view(dtype), "a.empty": torch.zeros(0, dtype=dtype)}
    save({"state_dict": state, "beside": beside}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert_holds(checkpoint, state)
    assert any("numpy" in note for note in checkpoint.notes) == (beside is not None)


BESIDE = {
    "numpy scalar": (lambda: np.float64(0.9), "numpy._core.multiarray.scalar"),
    "numpy array": (lambda: np.ones(3), "numpy._core.multiarray._reconstruct"),
    "numpy scalar list": (lambda: {"dice": [np.float32(1), np.int64(2)]}, "multiarray.scalar"),
    "Namespace": (lambda: argparse.Namespace(lr=0.1), "argparse.Namespace"),
    "path": (lambda: pathlib.PurePosixPath("a/b"), "pathlib.PurePosixPath"),
    "datetime": (lambda: datetime.datetime(2024, 1, 1), "datetime.datetime"),
    "user's class": (Config, "users_own.Config"),
    "user's mapping": (lambda: DictConfig(lr=0.1, nested=DictConfig()), "users_own.DictConfig"),
    "user's enum": (lambda: Phase.TRAIN, "users_own.Phase"),
    "enum as key": (lambda: {Phase.TRAIN: 1}, "users_own.Phase"),
    "pickled module": (lambda: [torch.nn.ReLU()], "torch.nn.modules.activation.ReLU"),
    "range": (lambda: range(3), "range"),
    "bytes and sets": (lambda: (b"\xff", bytearray(b"x"), {1}, frozenset({2}), 1j), None),
    "defaultdict": (lambda: collections.defaultdict(list, a=[1]), None),
    "Counter": (lambda: collections.Counter("aab"), None),
}


@pytest.mark.parametrize(("make", "named"), BESIDE.values(), ids=BESIDE)
def test_reads_the_tensors_beside_anything(make, named, save, tmp_path) -> None:
    save({"state_dict": STATE, "beside": make(), "epoch": 3}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert_holds(checkpoint, STATE)
    assert checkpoint.key == "state_dict"
    assert "beside it, left out: beside, epoch" in checkpoint.notes[-1]
    if named:
        assert named in checkpoint.notes[0]
        assert "code from a checkpoint never runs" in checkpoint.notes[0]


SPELLINGS = {"NumPy 1": b"numpy.core.multiarray", "NumPy 2": b"numpy._core.multiarray"}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_reads_numpy_scalars_in_both_spellings(spelling, tmp_path) -> None:
    # protocol 2 writes a global as a line of text, so the spelling can be changed in place
    path = tmp_path / "checkpoint_final.pth"
    save_legacy({"network_weights": STATE, "logging": {"ema": [np.float32(1)]}}, path)
    raw = path.read_bytes()
    assert SPELLINGS["NumPy 2"] in raw
    path.write_bytes(raw.replace(SPELLINGS["NumPy 2"], spelling))
    checkpoint = open_checkpoint(path)
    assert_holds(checkpoint, STATE)
    assert f"{spelling.decode()}.scalar" in checkpoint.notes[0]


@pytest.mark.parametrize("beside", [None, np.float64(1)], ids=["weights only", "placeholders"])
def test_one_tensor_under_four_names_has_one_identity(beside, save, tmp_path) -> None:
    weight, other = torch.randn(4, 4), torch.randn(4, 4)
    names = ["encoder.stages.0.conv", "encoder.stages.0.all_modules.0", "decoder.encoder.conv"]
    state = {f"{name}.weight": weight for name in names}
    state |= {"same.weight": weight, "t.weight": weight.t(), "row.weight": weight[0]}
    state |= {"copy.weight": weight.clone(), "other.weight": other, "e": torch.zeros(0)}
    state |= {"f": torch.zeros(0)}
    save({"network_weights": state, "beside": beside}, tmp_path / "x.pth")
    checkpoint = open_checkpoint(tmp_path / "x.pth")
    assert_holds(checkpoint, state)
    groups = collections.defaultdict(set)
    for name, identity in checkpoint.storage.items():
        groups[identity].add(name)
    shared = {f"{name}.weight" for name in names} | {"same.weight"}
    if save is save_pickle:  # plain pickle keeps a tensor that is one object, but not its views
        assert shared in groups.values()
    else:
        alone = [{name} for name in state if name not in shared]
        assert sorted(map(sorted, groups.values())) == sorted(map(sorted, [shared, *alone]))


VIEWS = {
    "transposed": lambda t: t.t(),
    "strided": lambda t: t[::2, 1::3],
    "offset": lambda t: t[2:],
    "expanded": lambda t: t[:1].expand(5, 6),
    "conjugated": lambda t: torch.complex(t, t).conj(),
    "negated": lambda t: torch.complex(t, t).conj().imag,
    "parameter": torch.nn.Parameter,
    "parameter with state": lambda t: with_attribute(torch.nn.Parameter(t)),
    "tensor with attribute": lambda t: with_attribute(t.clone()),
    "needs gradient": lambda t: t.clone().requires_grad_(),
}


def with_attribute(tensor):
    tensor.note = "x"
    return tensor


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("beside", [None, np.float64(1)], ids=["weights only", "placeholders"])
def test_reads_views_and_parameters(view, beside, save, tmp_path) -> None:
    state = {"a.weight": view(torch.randn(4, 6))}
    save({"model": state, "beside": beside}, tmp_path / "x.pt")
    assert_holds(open_checkpoint(tmp_path / "x.pt"), state)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_reads_every_pickle_protocol(protocol, legacy, tmp_path) -> None:
    torch.save(
        {"state_dict": STATE},
        tmp_path / "x.pt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    assert_holds(open_checkpoint(tmp_path / "x.pt"), STATE)


def test_a_zip_is_mapped_and_not_read(tmp_path) -> None:
    save_zip(STATE, tmp_path / "x.pt")
    with (tmp_path / "x.pt").open("rb") as file:
        content = file.read()
    weight = open_checkpoint(tmp_path / "x.pt").tensors["conv.weight"]
    at = content.index(STATE["conv.weight"].numpy().tobytes())
    with (tmp_path / "x.pt").open("r+b") as file:
        file.seek(at)
        file.write(np.float32(42).tobytes())
    assert weight.bits.flat[0] == 42


UNREADABLE = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "to_dense"),
    "meta": (lambda: torch.empty(3, device="meta"), "meta"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "complex128"),
}


@pytest.mark.parametrize(("make", "why"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("beside", [None, np.float64(1)], ids=["weights only", "placeholders"])
def test_tensors_that_are_not_plain_are_all_listed(make, why, beside, tmp_path) -> None:
    state = {"good": torch.ones(1), "bad.a": make(), "bad.b": make()}
    save_zip({"state_dict": state, "beside": beside}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="2 of 3 tensors cannot be read") as error:
        open_checkpoint(tmp_path / "x.pt")
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("  ")] == ["  bad.a", "  bad.b"]
    if beside is None:
        assert why in str(error.value)


def test_cut_short_anywhere_is_an_error(save, tmp_path) -> None:
    path = tmp_path / "x.pt"
    save({"state_dict": STATE, "beside": 1}, path)
    content = path.read_bytes()
    for end in range(0, len(content) - 1, max(1, len(content) // 60)):
        path.unlink()  # an earlier mapping must not see the change
        path.write_bytes(content[:end])
        with pytest.raises(CheckpointError, match=r"x\.pt"):
            open_checkpoint(path)


def test_changed_bytes_raise_nothing_but_conversion_errors(save, tmp_path) -> None:
    path = tmp_path / "x.pt"
    save({"state_dict": STATE, "beside": np.float64(1)}, path)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(content)
        for at in generator.integers(0, len(content), 3):
            changed[at] = generator.integers(256)
        path.unlink()
        path.write_bytes(changed)
        with contextlib.suppress(ConversionError):
            for tensor in open_checkpoint(path).tensors.values():
                tensor.bits.tobytes()
