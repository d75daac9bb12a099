"""Every sample that torch computes in half precision on the CPU, computed so by MLX."""

import copy
from collections.abc import Callable

import pytest
import torch
from sample_database import Sample, samples
from sample_parity import forward_problems


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sample", list(samples()), ids=str)
def test_outputs(
    sample: Sample, dtype: torch.dtype, record_property: Callable[[str, object], None]
) -> None:
    module, call = sample.build()
    module, call = module.to(dtype), call.to(dtype)
    try:
        call.run(copy.deepcopy(module))
    except NotImplementedError as error:
        record_property("note", f"{sample.layer}: torch has it not: {error}")
        pytest.skip(f"torch: {error}")
    problems, notes = forward_problems(module, call)
    for note in notes:
        record_property("note", note)
    assert not problems, "\n".join(problems)
