"""Every sample that torch computes in half precision on the CPU, computed so by MLX."""

import copy
import warnings

import pytest
import torch
from sample_database import Sample, samples
from sample_parity import forward_problems

DTYPES = (torch.float16, torch.bfloat16)


def computes(sample: Sample, dtype: torch.dtype) -> bool:
    """Whether torch has kernels for the sample in this dtype."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        module, call = sample.build()
        try:
            call.to(dtype).run(copy.deepcopy(module.to(dtype)))
        except NotImplementedError:
            return False
    return True


COMPUTED = [(sample, dtype) for sample in samples() for dtype in DTYPES if computes(sample, dtype)]


@pytest.mark.parametrize(("sample", "dtype"), COMPUTED, ids=str)
def test_outputs(sample: Sample, dtype: torch.dtype) -> None:
    module, call = sample.build()
    problems = forward_problems(module.to(dtype), call.to(dtype))
    assert not problems, "\n".join(problems)
