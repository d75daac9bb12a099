import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.formats.recognise import Format, is_mappable, recognise
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError

STATE = {"weight": torch.arange(6.0).reshape(2, 3)}


def write_zip(path) -> None:
    torch.save(STATE, path)


def write_legacy(path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


def write_legacy_protocol_4(path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False, pickle_protocol=4)


def write_pickle(path) -> None:
    path.write_bytes(pickle.dumps(STATE))


def write_pickle_2(path) -> None:
    path.write_bytes(pickle.dumps(STATE, protocol=2))


def write_flat(path) -> None:
    write_safetensors(path, {})


FORMATS = {
    "zip": (write_zip, Format.TORCH_ZIP),
    "legacy": (write_legacy, Format.TORCH_LEGACY),
    "legacy protocol 4": (write_legacy_protocol_4, Format.TORCH_LEGACY),
    "pickle": (write_pickle, Format.PICKLE),
    "pickle protocol 2": (write_pickle_2, Format.PICKLE),
    "safetensors": (write_flat, Format.SAFETENSORS),
}
NAMES = ["x.pt", "x.pth", "x.bin", "x.ckpt", "x.pth.tar", "x.pkl", "x.pytorch", "x"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("write", "form"), FORMATS.values(), ids=FORMATS)
def test_tells_by_content_under_any_name(write, form, name, tmp_path) -> None:
    write(tmp_path / name)
    assert recognise(tmp_path / name) is form


@pytest.mark.parametrize("length", [60, 8508, 0x8B1F, 0x4B50], ids=hex)
def test_a_header_length_that_looks_like_another_format(length, write_raw) -> None:
    # 60 is "<", 8508 "<!", 0x8B1F the mark of gzip, 0x4B50 "PK"
    path = write_raw(b"{}".ljust(length), name="x.bin")
    assert recognise(path) is Format.SAFETENSORS


def write_script(path) -> None:
    # written by hand: torch.jit is deprecated and says so
    with zipfile.ZipFile(path, "w") as archive:
        for member in ("x/data.pkl", "x/code/__torch__.py", "x/constants.pkl", "x/version"):
            archive.writestr(member, b"")


def write_exported(path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getvalue())


def write_tar(path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("model/weights.pt"))


def write_torch_0_1(path) -> None:
    with tarfile.open(path, "w") as archive:
        for member in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(member))


def write_archive(path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "")


def write_cut(path) -> None:
    write_zip(path)
    path.write_bytes(path.read_bytes()[:-100])


def content(raw: bytes):
    return lambda path: path.write_bytes(raw)


OTHERS = {
    "TorchScript": (write_script, "TorchScript archive.*torch.jit.load"),
    "exported program": (write_exported, "exported program.*torch.export.load"),
    "tar": (write_tar, r"tar archive \(model/weights.pt\)"),
    "PyTorch 0.1": (write_torch_0_1, r"PyTorch 0\.1"),
    "zip of something": (write_archive, "torch.save did not write it.*readme.txt"),
    "npz": (lambda path: np.savez(path.open("wb"), a=np.ones(2)), "did not write it.*a.npy"),
    "cut zip": (write_cut, "cut short or damaged"),
    "beginning of a zip": (content(b"PK\3\4"), "cut short or damaged"),
    "empty": (content(b""), "is empty"),
    "LFS pointer": (content(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "web page": (content(b"<!DOCTYPE html><html>"), "web page.*fetch it again"),
    "gzip": (content(b"\x1f\x8b\x08\0"), "gzip: decompress"),
    "bzip2": (content(b"BZh9"), "bzip2: decompress"),
    "xz": (content(b"\xfd7zXZ\0"), "xz: decompress"),
    "zstd": (content(b"\x28\xb5\x2f\xfd"), "zstd: decompress"),
    "HDF5": (content(b"\x89HDF\r\n\x1a\n"), "HDF5"),
    "GGUF": (content(b"GGUF\3\0\0\0"), "GGUF"),
    "npy": (content(b"\x93NUMPY\1\0"), "NumPy array"),
    "text": (content(b"epoch,loss\n"), "not a checkpoint mlxport knows.*epoch,lo"),
    "zeros": (content(bytes(2000)), "not a checkpoint mlxport knows"),
    "one byte": (content(b"\x80"), "not a checkpoint mlxport knows"),
}


@pytest.mark.parametrize(("write", "message"), OTHERS.values(), ids=OTHERS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_other_files_are_answered_with_what_they_are(write, message, tmp_path) -> None:
    path = tmp_path / "model.pt"
    write(path)
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(path)
    assert str(path) in str(error.value)


def repack(path, compression: int) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)


REPACKED = {"compressed": zipfile.ZIP_DEFLATED, "stored": zipfile.ZIP_STORED}


@pytest.mark.parametrize("compression", REPACKED.values(), ids=REPACKED)
def test_an_archive_packed_again_is_read_right(compression, tmp_path) -> None:
    path = tmp_path / "model.pt"
    state = {f"layer{i}.weight": torch.arange(float(i), i + 100) for i in range(4)}
    torch.save(state, path)
    assert is_mappable(path)
    repack(path, compression)
    assert not is_mappable(path)
    tensors = open_checkpoint(path).tensors
    assert all((tensors[name].bits == state[name].numpy()).all() for name in state)
    assert all(tensor.bits.flags.aligned for tensor in tensors.values())
