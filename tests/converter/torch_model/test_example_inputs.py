from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mlxport.converter.errors import OptionsError
from mlxport.converter.torch_model.example_inputs import Spec, example_call


class Net(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x, mask=None, *, mode="a"):
        return x


class Takes(nn.Module):
    def forward(self, *args, **kwargs):
        return args


def drawn(*specs, model=None):
    return example_call(model or Takes(), specs)


@pytest.mark.parametrize(
    ("spec", "shape", "dtype"),
    [
        ("1,1,32,48,40", (1, 1, 32, 48, 40), torch.float32),
        ("7", (7,), torch.float32),
        ("int64:2,16", (2, 16), torch.int64),
        ("bool:3", (3,), torch.bool),
        ("bfloat16:2,0,4", (2, 0, 4), torch.bfloat16),
        ("", (), torch.float32),
        ("int64:", (), torch.int64),
        ("int64::0..999", (), torch.int64),
        ("1,3,8,8:0..1", (1, 3, 8, 8), torch.float32),
        ("uint8:4:0..255", (4,), torch.uint8),
    ],
)
def test_a_spec_gives_shape_and_dtype(spec, shape, dtype):
    (tensor,), named = drawn(spec)
    assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype)
    assert named == {}


@pytest.mark.parametrize(
    "spec", ["mask=2,3", "mask=int64:2,3", "mask=2,3:0..1", "mask=float32:2,3"]
)
def test_a_name_makes_a_keyword_argument(spec):
    args, named = drawn("1,2", spec)
    assert [tuple(a.shape) for a in args] == [(1, 2)]
    assert {name: tuple(value.shape) for name, value in named.items()} == {"mask": (2, 3)}


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        ("int64:2000:0..9", 0, 9),
        ("int32:2000:-3..3", -3, 3),
        ("uint8:20000:0..255", 0, 255),
        ("int64:2000", 0, 1),
        ("int64:20:5..5", 5, 5),
        ("bool:2000", 0, 1),
    ],
)
def test_integers_fill_their_range_and_stay_in_it(spec, low, high):
    (tensor,), _ = drawn(spec)
    assert set(tensor.to(torch.int64).tolist()) == set(range(low, high + 1))


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [("2000:0..1", 0, 1), ("2000:-1.5..-0.5", -1.5, -0.5), ("float16:2000:1e-2..1e1", 0.01, 10)],
)
def test_floats_are_spread_over_their_range(spec, low, high):
    (tensor,), _ = drawn(spec)
    width = high - low
    assert low <= tensor.min() < low + 0.1 * width
    assert high - 0.1 * width < tensor.max() <= high
    assert abs(tensor.float().mean() - (low + high) / 2) < 0.05 * width


def test_floats_without_a_range_are_normal():
    (tensor,), _ = drawn("20000")
    assert abs(tensor.mean()) < 0.05
    assert abs(tensor.std() - 1) < 0.05


def test_the_models_own_dtype_is_the_default():
    (tensor, other), _ = drawn("2,2", "float32:1", model=Net(torch.float16))
    assert tensor.dtype is torch.float16
    assert other.dtype is torch.float32


def test_values_are_the_same_every_time_and_differ_between_inputs():
    first, again = drawn("2,3", "2,3")[0], drawn("2,3", "2,3")[0]
    assert all(map(torch.equal, first, again))
    assert not torch.equal(*first)


def test_values_keep_their_order_and_kind():
    x, y = torch.ones(1), torch.zeros(2)
    args, named = example_call(Takes(), [x, "3", None, y], {"mode": "3", "flag": False, "m": x})
    assert args[0] is x
    assert tuple(args[1].shape) == (3,)
    assert args[2:] == (None, y)
    assert named == {"mode": "3", "flag": False, "m": x}


class TestFiles:
    def test_npy_is_positional(self, tmp_path):
        np.save(tmp_path / "x.npy", np.arange(6.0, dtype=np.float32).reshape(2, 3).T)
        (first, x), named = example_call(Takes(), ["1", tmp_path / "x.npy"])
        assert x.dtype is torch.float32
        assert x.tolist() == [[0, 3], [1, 4], [2, 5]]
        assert (tuple(first.shape), named) == ((1,), {})

    def test_npy_of_a_number_has_no_axes(self, tmp_path):
        np.save(tmp_path / "t.npy", np.array(7))
        (t,), _ = example_call(Takes(), [tmp_path / "t.npy"])
        assert (t.dtype, t.shape, t.item()) == (torch.int64, (), 7)

    def test_npz_goes_by_name(self, tmp_path):
        np.savez(tmp_path / "x.npz", mask=np.array([True, False]), x=np.ones(2, np.float16))
        args, named = example_call(Net(), [tmp_path / "x.npz"])
        assert args == ()
        assert named["mask"].tolist() == [True, False]
        assert named["x"].dtype is torch.float16

    def test_npz_without_names_is_positional(self, tmp_path):
        np.savez(tmp_path / "x.npz", np.ones(2), np.zeros(3))
        args, named = example_call(Net(), [tmp_path / "x.npz"])
        assert [a.tolist() for a in args] == [[1, 1], [0, 0, 0]]
        assert named == {}

    def test_safetensors_goes_by_name(self, tmp_path):
        tensors = {"x": torch.ones(2, dtype=torch.bfloat16), "mask": torch.arange(3)}
        save_file(tensors, tmp_path / "x.safetensors")
        args, named = example_call(Net(), [tmp_path / "x.safetensors"])
        assert args == ()
        assert all(torch.equal(named[name], value) for name, value in tensors.items())

    def test_every_file_that_cannot_be_read_is_listed(self, tmp_path):
        np.save(tmp_path / "object.npy", np.array([None]), allow_pickle=True)
        np.save(tmp_path / "text.npy", np.array(["a"]))
        for name in ("broken.npy", "broken.npz", "broken.safetensors", "x.txt"):
            (tmp_path / name).write_bytes(b"abc")
        names = ["object.npy", "text.npy", "broken.npy", "broken.npz", "broken.safetensors"]
        names += ["x.txt", "missing.npy", "missing.safetensors"]
        with pytest.raises(OptionsError) as caught:
            example_call(Takes(), [tmp_path / name for name in names])
        lines = str(caught.value).splitlines()[1:]
        assert len(lines) == len(names)
        assert all(str(tmp_path / name) in line for name, line in zip(names, lines, strict=True))
        assert "x.txt: expected one of .npy, .npz, .safetensors" in str(caught.value)

    def test_nothing_in_a_file_runs(self, tmp_path):
        np.save(tmp_path / "x.npy", np.array([Path], dtype=object), allow_pickle=True)
        with pytest.raises(OptionsError, match="allow_pickle=False"):
            example_call(Takes(), [tmp_path / "x.npy"])


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("a,b", "expected"),
        ("1,,2", "expected"),
        ("1.5", "expected"),
        ("float128:1", "no dtype 'float128'"),
        ("1,-2", "a size is negative"),
        ("int64:1:5..2", "the range 5..2 is empty"),
        ("1:-1e400..1", "the range -1e400..1 is not finite"),
        ("float16:1:0..1e6", "is beyond -65504"),
        ("99999,99999", "it has 9,999,800,001 elements, of at most 2,147,483,647"),
        ("int64:1:0..1.5", "the range of int64 has whole limits"),
        ("uint8:1:0..256", "beyond 0..255"),
        ("bool:1:0..1", "bool takes no range"),
        ("1:0..", "expected"),
        ("1:0-5", "expected"),
        ("2x=1,2", "expected"),
        ("=1,2", "expected"),
        ("int64[0..9]:1", "expected"),
    ],
)
def test_a_spec_that_makes_no_sense_says_why(spec, reason):
    with pytest.raises(ValueError, match=reason):
        Spec.parse(spec)


def test_everything_wrong_is_listed_at_once():
    with pytest.raises(OptionsError) as caught:
        example_call(
            Net(),
            ["1,2", "a,b", "x=float128:1", "mask=1", "mask=2", "mode=1", "other=3"],
            {"mode": "b", "flag": True},
        )
    assert str(caught.value).splitlines()[1:] == [
        "  'a,b': expected [name=][dtype:]sizes[:low..high], such as 1,1,32,48,40 or "
        "ids=int64:1,16:0..29999",
        "  'x=float128:1': no dtype 'float128'; there are float32, float16, bfloat16, int64, "
        "int32, uint8, bool",
        "  'mask=2': mask is given twice",
        "  kwargs: mode is given twice",
        "  other: Net takes x, mask, mode",
        "  flag: Net takes x, mask, mode",
    ]
    assert caught.value.exit_code == 2
