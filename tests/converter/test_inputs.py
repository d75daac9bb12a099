import pytest
import torch

from mlxport.converter.errors import OptionsError
from mlxport.converter.inputs import example_inputs


@pytest.mark.parametrize(
    ("spec", "shape", "dtype"),
    [
        ("1,1,32,48,40", (1, 1, 32, 48, 40), torch.float32),
        ("int64:2,16", (2, 16), torch.int64),
        ("bool:3", (3,), torch.bool),
        ("bfloat16:2,0,4", (2, 0, 4), torch.bfloat16),
        ("", (), torch.float32),
    ],
)
def test_a_spec_gives_shape_and_dtype(spec, shape, dtype):
    (tensor,) = example_inputs([spec])
    assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype)


def test_the_models_own_dtype_is_the_default():
    assert example_inputs(["2,2"], dtype=torch.float16)[0].dtype is torch.float16


def test_the_same_seed_gives_the_same_values():
    first, again = example_inputs(["2,3"], seed=1), example_inputs(["2,3"], seed=1)
    other = example_inputs(["2,3"], seed=2)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_all_unreadable_specs_are_listed():
    with pytest.raises(OptionsError) as caught:
        example_inputs(["1,2", "a,b", "float128:1", "1,-2"])
    message = str(caught.value)
    assert all(spec in message for spec in ("'a,b'", "'float128:1'", "'1,-2'"))
    assert "'1,2'" not in message
    assert caught.value.exit_code == 2
