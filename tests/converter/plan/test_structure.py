import json
import math

import pytest

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.json_data import from_data, to_data
from mlxport.converter.plan.structure import Signature, Structure

T = Structure("tensor")
NUMBER = Structure("number")


def constant(value):
    return Structure.constant(value)


def tuple_of(*items):
    return Structure.container("tuple", tuple(f"[{i}]" for i in range(len(items))), items)


def list_of(*items):
    return Structure.container("list", tuple(f"[{i}]" for i in range(len(items))), items)


def fields(**items):
    return Structure("dict", tuple(f".{k}" for k in items), tuple(items.values()), tuple(items))


def keyed(items):
    labels = tuple(f"[{json.dumps(key)}]" for key in items)
    return Structure("dict", labels, tuple(items.values()), tuple(items))


NESTED = list_of(T, keyed({"mask": tuple_of(T, constant(None)), 3: fields(logits=T)}), constant(2))

EVERY = {
    "a tensor": T,
    "None": constant(None),
    "a boolean": constant(True),
    "an integer": constant(-3),
    "a float": constant(0.1),
    "infinity": constant(-math.inf),
    "a string": constant('a "b"'),
    "an empty tuple": tuple_of(),
    "an empty dict": keyed({}),
    "nested": NESTED,
}


@pytest.mark.parametrize("structure", EVERY.values(), ids=EVERY)
def test_json_gives_it_back(structure):
    text = json.dumps(to_data(structure), allow_nan=False)
    assert from_data(Structure, json.loads(text)) == structure


def test_json_keeps_numbers():
    assert from_data(Structure, json.loads(json.dumps(to_data(NUMBER)))) == NUMBER


def test_json_keeps_nan():
    data = json.loads(json.dumps(to_data(constant(math.nan)), allow_nan=False))
    assert math.isnan(from_data(Structure, data).value)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "set"},
        {"kind": "constant"},
        {"kind": "constant", "value": 1, "float": "nan"},
        {"kind": "constant", "value": []},
        {"kind": "list", "items": [{}]},
        {"kind": "list"},
        {"kind": "tuple", "labels": ["[0]"], "items": []},
        {"kind": "dict", "labels": [], "items": [], "keys": ["a"]},
    ],
    ids=[
        "nothing",
        "an unknown kind",
        "no value",
        "two values",
        "a list as value",
        "a bad item",
        "no items",
        "too many labels",
        "too many keys",
    ],
)
def test_what_is_no_structure_is_refused(data):
    with pytest.raises(ConversionError):
        from_data(Structure, data)


def test_names_read_as_in_pytorch():
    assert NESTED.tensors("output") == [
        "output[0]",
        'output[1]["mask"][0]',
        "output[1][3].logits",
    ]
    assert NESTED.constants("output") == {'output[1]["mask"][1]': None, "output[2]": 2}


def test_build_puts_what_it_is_given_in_place_of_tensors():
    feed = iter("abc")
    assert NESTED.build(lambda: next(feed)) == ["a", {"mask": ("b", None), 3: {"logits": "c"}}, 2]


@pytest.mark.parametrize("structure", EVERY.values(), ids=EVERY)
def test_what_it_builds_does_not_differ(structure):
    assert structure.differences(structure.build(lambda: 1.5), "output") == []


@pytest.mark.parametrize(
    ("structure", "value", "difference"),
    [
        (T, None, "output: None instead of a tensor"),
        (T, (1.0,), "output: a tuple of 1 instead of a tensor"),
        (NUMBER, "3", "output: '3' instead of a number"),
        (constant(3), 4, "output: 4 instead of 3"),
        (constant(1), True, "output: True instead of 1"),
        (constant(None), 0, "output: 0 instead of None"),
        (tuple_of(T, T), [1.0, 2.0], "output: a list of 2 instead of a tuple of 2"),
        (tuple_of(T, T), (1.0,), "output: a tuple of 1 instead of a tuple of 2"),
        (list_of(T), {"a": 1.0}, "output: a dict of 1 instead of a list of 1"),
        (keyed({"a": T}), {"b": 1.0}, "output: keys ['b'] instead of ['a']"),
        (keyed({"a": T, "b": T}), {"b": 1.0, "a": 1.0}, "keys ['b', 'a'] instead of ['a', 'b']"),
        (keyed({"a": T}), 2.5, "output: 2.5 instead of a dict of 1"),
        (keyed({"a": tuple_of(constant(7))}), {"a": (8,)}, 'output["a"][0]: 8 instead of 7'),
    ],
)
def test_what_differs_is_said(structure, value, difference):
    (found,) = structure.differences(value, "output")
    assert difference in found


def test_every_difference_is_said():
    assert len(tuple_of(constant(1), constant(2), T).differences((2, 1, None), "output")) == 3


def test_nan_does_not_differ_from_nan():
    assert constant(math.nan).differences(math.nan, "output") == []
    assert constant(math.nan).differences(1.0, "output")


def test_a_signature_parts_tensors_from_what_is_fixed():
    batch = keyed({"image": T, "size": constant(4)})
    given = {"x": T, "mode": constant("a"), "batch": batch, "mask": constant(None)}
    signature = Signature(given, NESTED, keywords=("batch",))
    assert list(signature.taken()) == ["x", "batch"]
    assert signature.tensors() == ["x", 'batch["image"]']
    assert signature.constants() == {"mode": "a", 'batch["size"]': 4, "mask": None}
    assert from_data(Signature, json.loads(json.dumps(to_data(signature)))) == signature


@pytest.mark.parametrize(
    ("was", "given", "same"),
    [
        (math.nan, math.nan, True),
        (math.nan, 0.5, False),
        (0.5, math.nan, False),
        (0.0, -0.0, True),
        (1, True, False),
        (1, 1.0, False),
        (math.inf, -math.inf, False),
    ],
    ids=str,
)
def test_nan_is_the_constant_nan_and_no_other(was, given, same):
    assert (constant(was).differences(given, "x") == []) == same
