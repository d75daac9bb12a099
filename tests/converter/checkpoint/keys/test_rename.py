"""Patterns that rename keys."""

import re
from pathlib import Path

import pytest

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.keys.rename import (
    new_names,
    parse_renames,
    rename_keys,
    without_dropped,
)
from mlxport.converter.errors import OptionsError
from mlxport.converter.plan.tensor import TensorSpec

CASES = {
    "a module": ({"enc": "down"}, "enc.0.weight", "down.0.weight"),
    "a star": ({"enc.*.conv": "down.*"}, "enc.3.conv.weight", "down.3.weight"),
    "two stars": ({"enc.**.w": "b.**.v"}, "enc.3.a.w", "b.3.a.v"),
    "in order": ({"*.x.*": "*.*"}, "a.x.b.c", "a.b.c"),
    "dropped": ({"net.**": "**"}, "net.a.b", "a.b"),
    "backslash": ({"a": r"\1"}, "a", r"\1"),
    "the first counts": ({"a.b": "first", "a": "second", "x": "y"}, "a.b", "first"),
    "regex text": ({r"re:l(\d+)\.(\w+)": r"\2.\1"}, "l3.weight", "weight.3"),
    "regex": ({re.compile(r"l(?P<n>\d+)"): r"x\g<n>"}, "l3", "x3"),
    "regex fits all of it": ({"re:l": "m", "x": "y"}, "l3", "l3"),
}


@pytest.mark.parametrize(("patterns", "key", "name"), CASES.values(), ids=CASES)
def test_a_key_gets_its_name(patterns: dict[str, str], key: str, name: str) -> None:
    others = ["x", "a", "l"]  # so that every pattern has something to do
    assert rename_keys([key, *(o for o in others if o != key)], patterns)[key] == name


NO_FIT = {
    "a part of a name": ("enc", "encoder.weight"),
    "a star for two names": ("enc.*.w", "enc.3.a.w"),
    "a dot for a letter": ("a.b", "aXb"),
    "a part of a regex": ("re:l", "l3"),
}


@pytest.mark.parametrize(("pattern", "key"), NO_FIT.values(), ids=NO_FIT)
def test_a_key_that_does_not_fit(pattern: str, key: str) -> None:
    with pytest.raises(OptionsError, match="rename no key"):
        rename_keys([key], {pattern: "b"})


def test_a_pattern_whose_keys_another_took_says_which() -> None:
    keys = ["encoder.0.weight", "encoder.1.weight", "head.weight"]
    patterns = {
        "encoder.*": "enc.*",
        "encoder.0": "first",
        "re:head.*": "h",
        "head": "top",
        "x": "y",
    }
    with pytest.raises(OptionsError) as raised:
        rename_keys(keys, patterns)
    assert str(raised.value).splitlines()[1:] == [
        "  encoder.0: encoder.0.weight is renamed by encoder.* already",
        "  head: head.weight is renamed by re:head.* already",
        "  x",
    ]


CHAINS = {
    "from name to name": ({"a": "b", "b": "c"}, ["a.w"], ["c.w"]),
    "three": ({"net": "body", "body.*.q": "body.*.query", "body": "m"}, ["net.0.q"], ["m.0.query"]),
    "exchanged": ({"a": "b", "b": "a"}, ["a", "b"], ["b", "a"]),
    "what stands in the file first": ({"a": "b", "b": "c"}, ["a", "b"], ["b", "c"]),
    "not backwards": ({"b": "c", "a": "b"}, ["a", "b"], ["b", "c"]),
    "no new name": ({"a": "b"}, ["a", "x"], ["b", "x"]),
}


@pytest.mark.parametrize(("patterns", "keys", "names"), CHAINS.values(), ids=CHAINS)
def test_rules_chain(patterns: dict[str, str], keys: list[str], names: list[str]) -> None:
    assert list(rename_keys(keys, patterns).values()) == names


REFUSED = {
    "clash": ({"x": "a"}, "several keys one name"),
    "bad regex": ({"re:(": "a"}, "not a regular expression"),
    "too many stars": ({"*": "*.*"}, "has 1 stars"),
    "too many groups": ({"re:(a)": r"\2"}, "has 1 groups"),
}


@pytest.mark.parametrize(("patterns", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused(patterns: dict[str, str], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        rename_keys(["a", "x"], patterns)


def test_options() -> None:
    assert parse_renames(["qkv = q + k + v", "a + b=c"]) == {"qkv": "q + k + v", "a + b": "c"}
    assert parse_renames(["a.*=b.*", "re:(?=x)y=z"]) == {"a.*": "b.*", "re:(?=x)y": "z"}
    with pytest.raises(OptionsError, match="expected OLD=NEW"):
        parse_renames(["a"])


def test_a_key_goes_into_one_joined_tensor_alone() -> None:
    with pytest.raises(OptionsError, match=r"a\.b: joined or split already \(a\.\* \+ \*\.b\)"):
        new_names(["a.b", "b.b", "a.a"], {"a.* + *.b": "c.*"})


def test_what_is_joined_or_split_stands_where_it_stood() -> None:
    apart = ["x", "0.q.w", "1.q.w", "0.k.w", "y", "1.k.w"]
    joined = new_names(apart, {"*.q + *.k": "*.qk"})
    assert [*joined] == ["x", "0.qk.w", "1.qk.w", "y"]
    assert joined["1.qk.w"].keys == ("1.q.w", "1.k.w")
    split = new_names([*joined], {"*.qk": "*.q + *.k"})
    assert [*split] == ["x", "0.q.w", "0.k.w", "1.q.w", "1.k.w", "y"]
    assert split["1.k.w"].parts == ("1.q.w", "1.k.w")


def test_what_is_dropped_is_kept_aside_in_the_order_of_the_file() -> None:
    spec = TensorSpec("F32", (1,)).outline()
    names = ("b.w", "a.w", "a.x", "c.w")
    whole = Checkpoint(
        Path("x"), dict.fromkeys(names, spec), {n: n for n in names}, others={"b": 1}
    )
    once = without_dropped(whole, ["a.w", "b"])
    assert ([*once.tensors], [*once.storage], [*once.others]) == (["a.x", "c.w"],) * 2 + ([],)
    assert (set(once.dropped), once.order) == ({"b.w", "a.w"}, names)
    twice = without_dropped(once, ["c"])
    assert ([*twice.tensors], set(twice.dropped), twice.order) == (
        ["a.x"],
        {"b.w", "a.w", "c.w"},
        names,
    )
    assert without_dropped(whole, []) is whole
    with pytest.raises(OptionsError, match="drop no key of the checkpoint:\n  d"):
        without_dropped(whole, ["a", "d"])
