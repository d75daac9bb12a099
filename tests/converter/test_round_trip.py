"""A checkpoint that was converted and restored is the same to the bit, whatever is in it."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxport.converter import api
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.checkpoint.writing.torch_file import write_torch
from mlxport.converter.plan.tensor import MLX_DTYPE, STORAGE, Tensor, same_bits, to_float64
from mlxport.converter.plan.torch_tensor import tensor_to_torch

EXAMPLES = int(os.environ.get("MLXPORT_ROUND_TRIPS", "40"))
FLOAT8 = [name for name in STORAGE if name.startswith("F8")]
FORMATS = ("safetensors", "pt", "legacy.pt")


class Drawn(NamedTuple):
    """A weight: what ``--layer`` says of it, its dtype and PyTorch's shape."""

    kind: str
    dtype: str
    shape: tuple[int, ...]
    seed: int

    def tensor(self) -> Tensor:
        """Return random bits; of float8 no NaN, as the decoded one is always the same."""
        storage = STORAGE[self.dtype]
        random = np.random.default_rng(self.seed)
        if self.dtype == "BOOL":
            return Tensor(random.integers(0, 2, self.shape).astype(bool), "BOOL")
        count = int(np.prod(self.shape))
        raw = np.frombuffer(random.bytes(count * storage.itemsize), storage).reshape(self.shape)
        tensor = Tensor(raw, self.dtype)
        if self.dtype in FLOAT8:
            raw = np.where(np.isnan(to_float64(tensor)), np.uint8(1), raw)
        return tensor.with_bits(raw)


@st.composite
def weights(draw: st.DrawFn) -> Drawn:
    rank = draw(st.integers(0, 3))
    kernel = draw(st.tuples(*[st.integers(1, 4)] * rank))
    groups, inner, outer = (draw(st.integers(1, 5)) for _ in range(3))
    kind = draw(st.sampled_from(["Conv", f"ConvTranspose:{groups}"])) if rank else "Linear"
    kind = "Bilinear" if rank == 1 and draw(st.booleans()) else kind
    shape = (groups * inner, outer, *kernel)
    dtype = draw(st.sampled_from([*MLX_DTYPE, *FLOAT8]))
    return Drawn(kind, dtype, shape, draw(st.integers(0, 2**32)))


def save(state: dict[str, Tensor], path: Path, form: str) -> None:
    if form == "safetensors":
        write_safetensors(path, state, {"format": "pt"})
    elif form == "pt":
        write_torch(path, state.items(), {})
    else:
        content = {key: tensor_to_torch(tensor) for key, tensor in state.items()}
        torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=EXAMPLES)
@given(
    drawn=st.lists(weights(), min_size=1, max_size=5),
    size=st.sampled_from([1, 200, None]),
    ending=st.sampled_from(["safetensors", "pt"]),
)
def test_any_weights_come_back(
    form: str,
    drawn: list[Drawn],
    size: int | None,
    ending: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    if form == "legacy.pt":  # torch itself cannot read its newest dtypes from its oldest format
        drawn = [one._replace(dtype="U8") if one.dtype in FLOAT8 else one for one in drawn]
    state = {f"{number}.weight": one.tensor() for number, one in enumerate(drawn)}
    source, out, back = folder / f"x.{form}", folder / "out", folder / f"back.{ending}"
    save(state, source, form)
    layers = [f"{number}.weight={one.kind}" for number, one in enumerate(drawn)]
    layers = [layer for layer, one in zip(layers, drawn, strict=True) if len(one.shape) > 2]
    api.convert_checkpoint(source, out, layers=layers, max_shard_size=size)
    assert api.verify_weights(out).passed
    api.restore(out, back)
    found = open_checkpoint(back).tensors
    assert set(found) == set(state)
    for key, tensor in state.items():
        assert same_bits(found[key], tensor), (key, drawn)
    if ending == "safetensors":
        assert safetensors.safe_open(back, "pt").metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", FLOAT8)
def test_float8_is_decoded_and_told(dtype: str, tmp_path: Path) -> None:
    codes = Tensor(np.arange(256, dtype=np.uint8), dtype)
    one = Tensor(np.array([1.1], np.float32), "F32")
    write_safetensors(tmp_path / "x.safetensors", {"a.weight": codes, "b.weight": one})
    result = api.convert_checkpoint(tmp_path / "x.safetensors", tmp_path / "out")
    assert (
        "MLX has no float8: decoded to bfloat16, which holds every value: a.weight"
        in (result.warnings[-1])
    )
    written = open_checkpoint(tmp_path / "out" / "weights.safetensors").tensors
    assert {name: tensor.dtype for name, tensor in written.items()} == {
        "a.weight": "BF16",
        "b.weight": "F32",
    }
    expected = tensor_to_torch(codes).to(torch.float64).numpy()
    assert np.array_equal(to_float64(written["a.weight"]), expected, equal_nan=True)
