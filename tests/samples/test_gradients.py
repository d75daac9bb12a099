"""The gradients of every sample's inputs and parameters are torch's."""

import pytest
from sample_database import Sample, samples
from sample_gradients import gradient_problems


@pytest.mark.parametrize("sample", list(samples()), ids=str)
def test_gradients(sample: Sample) -> None:
    problems = gradient_problems(*sample.build())
    assert not problems, "\n".join(problems)
