"""What the sizes that a model takes have in common."""

import pytest

from mlxport.converter.graph.capture.size_guards import pattern_of, satisfied

# the last size that was tried
LAST = 12


@pytest.mark.parametrize(
    ("accepted", "example", "said"),
    [
        ([4], 4, ["n == 4"]),
        ([3, 4], 4, ["n >= 3", "n <= 4"]),
        ([1, 2, 3, 4], 4, ["n <= 4"]),
        (range(3, 13), 4, ["n >= 3"]),
        (range(1, 13), 4, []),
        (range(2, 13, 2), 4, ["n % 2 == 0"]),
        (range(4, 13, 2), 4, ["n % 2 == 0", "n >= 4"]),
        ([1, 2, 4, 5, 7, 8, 10, 11], 4, ["n % 3 in (1, 2)"]),
    ],
)
def test_what_is_said_of_sizes_is_true_of_them_alone(accepted, example, said):
    pattern = pattern_of(list(accepted), example, LAST)
    assert list(pattern.conditions("n")) == said
    tried = range(1, LAST + 1)
    assert [n for n in tried if satisfied(said, {"n": n})] == list(accepted)
