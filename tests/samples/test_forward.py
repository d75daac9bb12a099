"""Every sample of `torch.testing` converts, and computes what torch computes.

None is refused; a sample that is has to be answered here, with its reason.
"""

import pytest
from sample_database import Sample, samples
from sample_parity import forward_problems


@pytest.mark.parametrize("sample", list(samples()), ids=str)
def test_outputs(sample: Sample) -> None:
    problems = forward_problems(*sample.build())
    assert not problems, "\n".join(problems)
