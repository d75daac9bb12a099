"""What a malicious pickle may try. Each payload would leave a trace if it ran."""

import contextlib
import importlib
import io
import os
import pickle
import pickletools
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch.serialization import StorageType

from mlxport.converter.checkpoint.formats.inert_pickle import InertPickle, Placeholder
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import CheckpointError, StateDictError

STATE = OrderedDict({"conv.weight": torch.arange(6.0).reshape(2, 3)})


class Runs:
    """Pickles as a call."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class WithState:
    """Pickles as an object whose state is given."""

    def __init__(self, base, state) -> None:
        self.base, self.state = base, state

    def __reduce__(self):
        return self.base, (), self.state


def payloads(trace: str) -> dict[str, object]:
    command = f"touch {trace}"
    runs = Runs(os.system, command)
    return {
        "os.system": runs,
        "eval": Runs(eval, f"__import__('os').system({command!r})"),
        "exec": Runs(exec, f"__import__('os').system({command!r})"),
        "open": Runs(open, trace, "w"),
        "os.open": Runs(os.open, trace, os.O_CREAT | os.O_WRONLY),
        "in a list": [1, [runs]],
        "as a key": {runs: 1},
        "in a state": WithState(Config, {"a": runs}),
        "in a state of slots": WithState(Config, (None, {"a": runs})),
        "in the arguments of a call": Runs(list, [runs]),
        "in a tensor's place": {"conv.bias": runs},
        "in an OrderedDict's state": WithState(OrderedDict, {"_metadata": runs}),
        "torch.load": Runs(torch.load, trace),
        "getattr": Runs(getattr, runs, "real"),
    }


class Config:
    def __setstate__(self, state) -> None:
        raise AssertionError("the user's own code ran")


PAYLOADS = list(payloads("x"))


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "trace"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Let the payloads be pickled by name."""
    module = type(sys)("payload_classes")
    module.Config = Config
    monkeypatch.setattr(Config, "__module__", "payload_classes")
    monkeypatch.setitem(sys.modules, "payload_classes", module)


def save_zip(content, path) -> None:
    torch.save(content, path)


def save_legacy(content, path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content, path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle])
@pytest.mark.parametrize("name", PAYLOADS)
def test_nothing_in_a_checkpoint_runs(name, save, trace, tmp_path) -> None:
    payload = payloads(str(trace))[name]
    save({"state_dict": STATE, "evil": payload}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert checkpoint.tensors["conv.weight"].bits.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not trace.exists()


def test_the_payloads_would_run(trace) -> None:
    # or the tests above would prove nothing
    pickle.loads(pickle.dumps(payloads(str(trace))["os.system"]))
    assert trace.exists()


def test_a_payload_as_the_whole_file(trace, tmp_path) -> None:
    save_zip(Runs(os.system, f"touch {trace}"), tmp_path / "x.pt")
    with pytest.raises(StateDictError, match="no state dict"):
        open_checkpoint(tmp_path / "x.pt")
    assert not trace.exists()


def test_a_payload_in_the_state_dict_is_named(trace, tmp_path) -> None:
    state = {**STATE, "extra": Runs(os.system, f"touch {trace}")}
    save_zip(state, tmp_path / "x.pt")
    notes = open_checkpoint(tmp_path / "x.pt").notes
    assert "posix.system" in notes[0]
    assert notes[1].endswith("extra")
    assert not trace.exists()


def pickled(*ops: bytes) -> bytes:
    """Write a pickle opcode by opcode, for what the pickler would not write."""
    return b"\x80\x02" + b"".join(ops) + b"."


def glob(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def change(name: str) -> bytes:
    """Set an attribute to another function: BUILD of ``(None, {name: value})``."""
    return b"N}" + text(name) + glob("collections", "Counter") + b"s\x86b"


TARGETS = {
    "a rebuild function": ("torch._utils", "_rebuild_tensor_v2"),
    "Parameter": ("torch.nn.parameter", "Parameter"),
    "OrderedDict": ("collections", "OrderedDict"),
    "UntypedStorage": ("torch.storage", "UntypedStorage"),
    "Size": ("torch", "Size"),
    "the loader of storages": ("torch.storage", "_load_from_bytes"),
    "set": ("builtins", "set"),
    "a placeholder's class": ("os", "system"),
    "a dtype": ("torch", "float32"),
}


@pytest.mark.parametrize("attribute", ["planted", "_function", "__class__", "source", "__new__"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_pickle_cannot_change_what_it_calls(target, attribute, tmp_path) -> None:
    from mlxport.converter.checkpoint.formats.inert_pickle import _ALLOWED, Placeholder

    raw = pickled(glob(*target), change(attribute))
    before = {name: getattr(value, "_function", None) for name, value in _ALLOWED.items()}
    assert list(pickletools.genops(raw))[-1][0].name == "STOP"  # well formed
    # a storage's type is made anew for each global: what is set on it is gone with it
    with contextlib.suppress(pickle.UnpicklingError, TypeError, AttributeError):
        InertPickle().load(io.BytesIO(raw))
    module, name = target
    assert not hasattr(getattr(importlib.import_module(module), name), "planted")
    assert not hasattr(InertPickle().resolve(*target), "planted")
    after = {name: getattr(value, "_function", None) for name, value in _ALLOWED.items()}
    assert after == before
    assert Placeholder.source == ""
    assert type(Placeholder()) is Placeholder


INSTANCES = {
    "an OrderedDict": ("collections", "OrderedDict"),
    "a defaultdict": ("collections", "defaultdict"),
    "a placeholder": ("users", "Class"),
}


@pytest.mark.parametrize("target", INSTANCES.values(), ids=INSTANCES)
def test_a_state_never_becomes_attributes(target) -> None:
    change = b"}" + text("items") + glob("os", "system") + b"sb"
    loaded = InertPickle().load(io.BytesIO(pickled(glob(*target), b")R", change)))
    assert dict(loaded.items() if isinstance(loaded, dict) else loaded.items) == {}


EXTENSION = b"\x82\x01"  # EXT1: a class by a number registered in copyreg


def test_registered_extensions_are_placeholders_too(monkeypatch) -> None:
    import copyreg

    monkeypatch.setitem(copyreg._inverted_registry, 1, ("os", "system"))
    loaded = InertPickle().load(io.BytesIO(pickled(EXTENSION, b")R")))
    assert isinstance(loaded, Placeholder)


PERSISTENT = {
    "no tuple": text("x"),
    "a tuple of one": text("module") + b"\x85",
    "a storage of no type": text("storage") + b"\x85",
    "of an unknown kind": text("file") + text("/etc/passwd") + b"\x86",
    "a storage of a placeholder": text("storage") + glob("os", "system") + b"\x86",
}


@pytest.mark.parametrize("pid", PERSISTENT.values(), ids=PERSISTENT)
def test_references_to_anything_but_storages_are_refused(pid, tmp_path) -> None:
    path = tmp_path / "x.pt"
    save_zip(STATE, path)
    replace_pickle(path, pickled(glob("numpy", "x"), b"0", pid, b"Q"))
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(path)


def replace_pickle(path, raw: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, raw if name.endswith("/data.pkl") else member)


def test_the_source_of_a_module_class_is_not_compared(tmp_path, monkeypatch) -> None:
    # the old format names a file and its text, and torch would write a patch beside it
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    save_legacy({"a": STATE, "b": np.float64(1)}, path)
    raw = path.read_bytes()
    module = text("module") + glob("torch.nn", "Linear") + text("f.py") + text("x") + b"t"
    start = raw.index(b"\x80\x02}", raw.index(b"type_sizes"))  # the object itself
    evil = raw[:start] + b"\x80\x02}" + text("m") + b"(" + module + b"Qs0" + raw[start + 2 :]
    path.write_bytes(evil)
    assert list(open_checkpoint(path).tensors) == ["conv.weight"]
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


def rebuild(offset=0, size=(2, 3), stride=(3, 1), storage=None):
    storage = torch.storage.TypedStorage(6, dtype=torch.float32) if storage is None else storage
    function = InertPickle().resolve("torch._utils", "_rebuild_tensor_v2")
    return function(storage, offset, size, stride, False, OrderedDict())


BOUNDS = {
    "offset": {"offset": 1},
    "size": {"size": (3, 3)},
    "stride": {"stride": (4, 1)},
    "negative offset": {"offset": -1},
    "negative stride": {"stride": (-3, 1)},
    "negative size": {"size": (-2, 3)},
    "axes": {"size": (6,)},
    "text": {"size": ("2", 3)},
    "boolean": {"offset": False},
    "storage": {"storage": "x"},
    "placeholder": {"storage": Placeholder()},
}


@pytest.mark.parametrize("arguments", BOUNDS.values(), ids=BOUNDS)
def test_a_tensor_outside_its_storage_is_refused(arguments) -> None:
    assert rebuild().shape == (2, 3)
    assert rebuild(size=(0, 9)).shape == (0, 9)
    with pytest.raises(pickle.UnpicklingError):
        rebuild(**arguments)


@pytest.mark.parametrize("marks", [None, {}, {"neg": True}, {"other": True}, "neg"])
def test_marks_stand_behind_the_dtype(marks) -> None:
    storage = torch.storage.TypedStorage(6, dtype=torch.uint8)
    function = InertPickle().resolve("torch._utils", "_rebuild_tensor_v3")
    more = () if marks is None else (marks,)
    tensor = function(storage, 0, (3,), (1,), False, OrderedDict(), torch.int16, *more)
    assert (tensor.dtype, tensor.shape) == (torch.int16, (3,))
    assert tensor.is_neg() is (marks == {"neg": True})


def test_every_allowed_global_is_closed_to_change() -> None:
    from mlxport.converter.checkpoint.formats.inert_pickle import _ALLOWED

    for name, value in _ALLOWED.items():
        assert isinstance(value, torch.dtype) or not hasattr(value, "__dict__"), name
        assert not isinstance(value, (type, StorageType)), name


def test_storages_in_a_plain_pickle_must_be_of_the_old_format() -> None:
    load = InertPickle().resolve("torch.storage", "_load_from_bytes")
    for data in (b"PK\3\4", b"", "x", None, 3):
        with pytest.raises(pickle.UnpicklingError, match="torch did not write"):
            load(data)


def test_deep_nesting_does_not_exhaust(tmp_path) -> None:
    depth = 200_000
    path = tmp_path / "x.pkl"
    path.write_bytes(pickled(b"]" * depth, b"a" * (depth - 1)))
    with pytest.raises(StateDictError, match="no state dict"):
        open_checkpoint(path)


def test_modules_that_hold_each_other_twice_do_not_exhaust(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mlxport.converter.checkpoint.formats.state_dict._MOST_MODULES", 1000)
    module = torch.nn.Sequential(torch.nn.Linear(1, 1))
    for _ in range(40):  # 2^40 paths
        module = torch.nn.Sequential(module, module)
    save_zip(module, tmp_path / "y.pt")
    with pytest.raises(StateDictError, match="claims more than 1000 modules"):
        open_checkpoint(tmp_path / "y.pt")
