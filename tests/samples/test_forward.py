"""Every sample of `torch.testing` converts, and computes what torch computes.

None is refused; a sample that is has to be answered here, with its reason.
"""

from collections.abc import Callable

import pytest
from sample_database import Sample, samples
from sample_parity import forward_problems


@pytest.mark.parametrize("sample", list(samples()), ids=str)
def test_outputs(sample: Sample, record_property: Callable[[str, object], None]) -> None:
    problems, notes = forward_problems(*sample.build())
    for note in notes:
        record_property("note", note)
    assert not problems, "\n".join(problems)
