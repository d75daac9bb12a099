import hashlib
import os
import pickle
import sys

import numpy as np
import pytest
import torch

import mlxport
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError, OptionsError
from mlxport.converter.plan.tensor import Tensor

ONE = {"weight": Tensor(np.ones(3, np.float32), "F32")}


def write(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        if name.endswith(".safetensors"):
            write_safetensors(folder / name, ONE)
        elif name in (".metadata", "__0_0.distcp", "conversion.json"):
            (folder / name).touch()
        else:
            torch.save({"weight": torch.ones(3)}, folder / name)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize("kind", [str, None], ids=["text", "path"])
def test_opens_a_file(name, kind, tmp_path) -> None:
    write(tmp_path, name)
    path = tmp_path / name
    checkpoint = open_checkpoint(str(path) if kind else path)
    assert checkpoint.path == path
    assert checkpoint.tensors["weight"].bits.tolist() == [1, 1, 1]
    assert checkpoint.notes == ()


def test_the_digest_is_that_of_the_file(tmp_path) -> None:
    write(tmp_path, "x.pt")
    expected = hashlib.sha256((tmp_path / "x.pt").read_bytes()).hexdigest()
    assert open_checkpoint(tmp_path / "x.pt").digest() == expected


def test_the_digest_of_several_files_is_that_of_sha256sum(tmp_path) -> None:
    write(tmp_path, "a.safetensors")
    index = tmp_path / "x.safetensors.index.json"
    index.write_text('{"weight_map": {"weight": "a.safetensors"}}')
    lines = "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in (tmp_path / "a.safetensors", index)
    )
    assert open_checkpoint(index).digest() == hashlib.sha256(lines.encode()).hexdigest()


def test_the_digest_of_a_file_that_is_gone_is_an_error(tmp_path) -> None:
    write(tmp_path, "x.safetensors")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.digest()


FOLDERS = {
    "one safetensors": (["model.safetensors"], "model.safetensors", 0),
    "one torch file": (["model.bin"], "model.bin", 0),
    "safetensors beside torch": (["model.safetensors", "model.bin"], "model.safetensors", 1),
    "training state beside": (["m.safetensors", "optimizer.pt", "x.bin"], "m.safetensors", 1),
}


@pytest.mark.parametrize(("names", "chosen", "notes"), FOLDERS.values(), ids=FOLDERS)
def test_opens_the_one_checkpoint_in_a_folder(names, chosen, notes, tmp_path) -> None:
    write(tmp_path, *names)
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path.name == chosen
    assert len(checkpoint.notes) == notes
    assert all(name in checkpoint.notes[0] for name in names if name != chosen)


REFUSED = {
    "two safetensors": (["a.safetensors", "b.safetensors"], "(?s)2 checkpoints.*a.saf.*b.saf"),
    "two torch files": (["a.pt", "b.ckpt"], r"(?s)2 checkpoints.*a\.pt.*b\.ckpt"),
    "nothing": ([], r"no checkpoint in this folder\.\nThe files of one end in .*\.pth, "),
    "something else": (["notes.md", "a.npz"], r"folder, only:\n  a\.npz\n  notes\.md\nThe files"),
    "much": (
        [f"{k:02}.npz" for k in range(12)],
        r"only:\n  00\.npz\n(.*\n){8}  09\.npz\n  2 more\n",
    ),
    "within": (["step_9/model.pt", "log"], r"  log\n  step_9/\nName a folder .*/step_9$"),
    "distributed": ([".metadata", "__0_0.distcp"], "not the metadata of a distributed"),
    "an output of mlxport": (["conversion.json", "weights.safetensors"], "mlxport restore"),
}


@pytest.mark.parametrize(("names", "message"), REFUSED.values(), ids=REFUSED)
def test_a_folder_without_just_one_is_refused(names, message, tmp_path) -> None:
    write(tmp_path, *names)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt: there is no such file or folder"):
        open_checkpoint(tmp_path / "gone.pt")


def test_a_key_for_a_flat_format_is_an_error(tmp_path) -> None:
    write(tmp_path, "x.safetensors")
    with pytest.raises(OptionsError, match="Leave out key='ema'"):
        open_checkpoint(tmp_path / "x.safetensors", key="ema")


def test_a_key_chooses_in_a_torch_file(tmp_path) -> None:
    torch.save({"a": {"w": torch.ones(1)}, "b": {"w": torch.zeros(1)}}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt", key="b")
    assert (checkpoint.key, checkpoint.tensors["w"].bits.tolist()) == ("b", [0])


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_the_source_is_never_modified(name, tmp_path) -> None:
    write(tmp_path, name)
    before = (tmp_path / name).read_bytes()
    bits = open_checkpoint(tmp_path / name).tensors["weight"].bits
    if bits.flags.writeable:
        bits[:] = 7
    assert (tmp_path / name).read_bytes() == before


def test_a_torch_file_named_safetensors_is_told(tmp_path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"x\.safetensors was written by torch\.save: rename"):
        open_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["Größe.pt", "模型.safetensors", "a b.pt"])
def test_any_file_name_will_do(name, tmp_path) -> None:
    folder = tmp_path / "Ordner für Modelle"
    folder.mkdir()
    write(folder, name)
    assert list(open_checkpoint(folder / name).tensors) == ["weight"]


def test_a_checkpoint_prints_its_tensors_without_their_values(tmp_path) -> None:
    write_safetensors(tmp_path / "a.safetensors", ONE)
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    path = tmp_path / "a.safetensors"
    assert repr(checkpoint) == f"Checkpoint({str(path)!r}, 1 tensors)"
    assert str(checkpoint) == f"{path}: 1 tensors\nweight: F32 (3,)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", "cannot be read: embedded null byte"),
        ("x" * 5000, "cannot be read: File name too long"),
        ("gone.pt", "no such file or folder"),
        ("x.pt/inside", "no such file or folder"),
    ],
    ids=["NUL", "long", "missing", "below a file"],
)
@pytest.mark.parametrize("call", [open_checkpoint, mlxport.inspect], ids=["open", "inspect"])
def test_a_name_no_file_has_is_one_short_error(name, message, call, tmp_path) -> None:
    write(tmp_path, "x.pt")
    error: type[Exception] = CheckpointError
    if call is mlxport.inspect and "\0" in name:  # refused at the door
        error, message = OptionsError, r"source=: expected text or a path \(without NUL\)"
    with pytest.raises(error, match=message) as caught:
        call(str(tmp_path / name))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["pipe.pt", "pipe.safetensors", "folder"])
def test_a_pipe_is_refused_and_not_waited_for(name, tmp_path) -> None:
    if name == "folder":  # a shard
        (tmp_path / name).mkdir()
        os.mkfifo(tmp_path / name / ".metadata")
        with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
            open_checkpoint(tmp_path / name)
        return
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="a device, a pipe or a socket"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(device) -> None:
    with pytest.raises(CheckpointError, match="a device, a pipe or a socket"):
        open_checkpoint(device)


@pytest.mark.skipif(sys.platform == "darwin", reason="names on macOS's file systems are UTF-8")
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "safetensors"])
def test_a_file_whose_name_is_not_utf8_is_read(kind, tmp_path) -> None:
    path = tmp_path / os.fsdecode(b"n\xff.pt")
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
    write(tmp_path, "x.safetensors")
    state = {"weight": torch.ones(3)}
    writers = {
        "zip": lambda: torch.save(state, tmp_path / "x"),
        "legacy": lambda: torch.save(state, tmp_path / "x", _use_new_zipfile_serialization=False),
        "pickle": lambda: (tmp_path / "x").write_bytes(pickle.dumps(state)),
        "safetensors": lambda: (tmp_path / "x.safetensors").rename(tmp_path / "x"),
    }
    writers[kind]()
    (tmp_path / "x").rename(path)
    assert open_checkpoint(path).tensors["weight"].bits.tolist() == [1, 1, 1]
