import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxport.converter.checkpoint.keys.match import match_keys
from mlxport.converter.errors import StateDictError

MODEL = {
    "encoder.conv.weight": (4, 3, 3, 3),
    "encoder.conv.bias": (4,),
    "encoder.bn.weight": (4,),
    "encoder.bn.num_batches_tracked": (),
    "head.weight": (2, 4),
}


def with_prefix(prefix: str, shapes=MODEL):
    return {prefix + key: shape for key, shape in shapes.items()}


PREFIXES = {
    "none": "",
    "DataParallel": "module.",
    "Lightning": "model.",
    "compiled": "_orig_mod.",
    "twice": "module.module.",
    "compiled Lightning": "model._orig_mod.",
    "compiled DataParallel": "_orig_mod.module.",
    "FSDP": "_fsdp_wrapped_module.",
    "any name": "trainer.net_g.",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_one_prefix_is_taken_off(prefix) -> None:
    expected = {key: prefix + key for key in MODEL}
    assert match_keys(with_prefix(prefix), MODEL) == expected


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_a_wrapped_model_takes_a_plain_checkpoint(prefix) -> None:
    assert match_keys(MODEL, with_prefix(prefix)) == {prefix + key: key for key in MODEL}


def test_both_sides_may_be_wrapped() -> None:
    matched = match_keys(with_prefix("module."), with_prefix("_orig_mod."))
    assert matched == {f"_orig_mod.{key}": f"module.{key}" for key in MODEL}


def test_a_wrapper_inside_a_name_does_not_count() -> None:
    checkpoint = {key.replace("encoder.", "encoder._orig_mod."): s for key, s in MODEL.items()}
    matched = match_keys(checkpoint, MODEL)
    assert matched["encoder.conv.bias"] == "encoder._orig_mod.conv.bias"


def test_wrappers_count_where_names_would_clash() -> None:
    shapes = {"a._orig_mod.weight": (1,), "a.weight": (1,)}
    assert match_keys(shapes, shapes) == {key: key for key in shapes}


@pytest.mark.parametrize("where", ["missing", "left over"])
def test_num_batches_tracked_may_differ(where) -> None:
    without = {k: s for k, s in MODEL.items() if not k.endswith("num_batches_tracked")}
    pair = (without, MODEL) if where == "missing" else (MODEL, without)
    assert match_keys(*pair) == {key: key for key in without}


def test_an_averaged_model_is_taken() -> None:
    checkpoint = {"n_averaged": (), **with_prefix("module.")}
    assert match_keys(checkpoint, MODEL) == {key: f"module.{key}" for key in MODEL}


def test_weight_norm_matches_under_its_old_name() -> None:
    names = {"weight_g": "original0", "weight_v": "original1"}
    old = {f"up.{name}": (i,) for i, name in enumerate(names)}
    new = {f"up.parametrizations.weight.{name}": (i,) for i, name in enumerate(names.values())}
    assert match_keys(old, new) == dict(zip(new, old, strict=True))


def test_of_tied_keys_one_is_enough() -> None:
    model = {"embed.weight": (9, 4), "head.weight": (9, 4)}
    ties = {"embed.weight": 1, "head.weight": 1}
    for only in model:
        assert match_keys({only: (9, 4)}, model, ties=ties) == dict.fromkeys(model, only)
    with pytest.raises(StateDictError, match=re.escape("missing     head.weight (9, 4)")):
        match_keys({"embed.weight": (9, 4)}, model, ties={"embed.weight": 1, "head.weight": 2})


def test_tied_keys_take_each_its_own_where_both_are_there() -> None:
    model = {"embed.weight": (9, 4), "head.weight": (9, 4)}
    assert match_keys(model, model, ties=dict.fromkeys(model, 1)) == {k: k for k in model}


@pytest.mark.parametrize("prefix", ["model.", "model"])
def test_a_prefix_leaves_the_other_keys_out(prefix) -> None:
    checkpoint = {**with_prefix("model."), **with_prefix("teacher."), "loss.weight": (2,)}
    expected = {key: f"model.{key}" for key in MODEL}
    assert match_keys(checkpoint, MODEL, prefix=prefix) == expected


def test_keys_under_a_given_prefix_must_fit_too() -> None:
    with pytest.raises(StateDictError, match=r"unexpected  model\.extra \(1,\)"):
        match_keys({**with_prefix("model."), "model.extra": (1,)}, MODEL, prefix="model")


def message(checkpoint, model=MODEL, **options) -> str:
    with pytest.raises(StateDictError) as error:
        match_keys(checkpoint, model, **options)
    return str(error.value)


def test_all_problems_are_listed() -> None:
    checkpoint = {**MODEL, "head.weight": (3, 4), "extra.a": (1,), "extra.b": (2, 2)}
    del checkpoint["encoder.conv.bias"], checkpoint["encoder.bn.weight"]
    lines = message(checkpoint).splitlines()
    assert lines[0] == (
        "the checkpoint (5 keys) does not fit the model (5 keys): 2 missing, 2 unexpected, "
        "1 misshapen"
    )
    assert lines[1:6] == [
        "  missing     encoder.conv.bias (4,)",
        "  missing     encoder.bn.weight (4,)",
        "  unexpected  extra.a (1,)",
        "  unexpected  extra.b (2, 2)",
        "  misshapen   head.weight: expected (2, 4), got (3, 4)",
    ]


def test_problems_under_a_prefix_are_told_under_it() -> None:
    checkpoint = with_prefix("module.")
    del checkpoint["module.head.weight"]
    text = message(checkpoint)
    assert "1 missing, 0 unexpected" in text
    assert "'module.' is taken off" in text
    assert "  missing     head.weight (2, 4)" in text


def test_a_prefix_that_fits_beside_other_keys_is_a_hint_and_no_guess() -> None:
    checkpoint = {**with_prefix("model."), "loss.weight": (2,)}
    text = message(checkpoint)
    assert "unexpected  loss.weight (2,)" in text
    assert "under 'model.': prefix='model.' leaves the 1 other keys out" in text


PARTLY = {
    "one is missing": {"model.head.weight": None},
    "one has another shape": {"model.head.weight": (2, 5)},
}


@pytest.mark.parametrize("changes", PARTLY.values(), ids=PARTLY)
def test_a_prefix_that_does_not_fit_is_no_hint(changes) -> None:
    checkpoint = {**with_prefix("model."), "loss.weight": (2,), **changes}
    text = message({key: shape for key, shape in checkpoint.items() if shape is not None})
    assert "are there under" not in text


def test_two_prefixes_that_fit_are_both_hinted() -> None:
    text = message({**with_prefix("model."), **with_prefix("ema.")})
    assert "prefix='model.'" in text
    assert "prefix='ema.'" in text


def test_an_inconsistent_prefix_is_refused() -> None:
    checkpoint = {f"module.{k}" if "conv" in k else k: s for k, s in MODEL.items()}
    assert "missing" in message(checkpoint)


def test_a_rename_is_hinted() -> None:
    checkpoint = {("classifier.weight" if "head" in k else k): s for k, s in MODEL.items()}
    expected = "classifier.weight has the shape that head.weight should have"
    assert expected in message(checkpoint)


def test_permuted_axes_are_hinted() -> None:
    checkpoint = {**MODEL, "encoder.conv.weight": (4, 3, 3, 3)[::-1]}
    assert "converted already?" in message(checkpoint)
    assert "converted already?" not in message({**MODEL, "head.weight": (3, 4)})


def test_nothing_in_common_lists_both_sides() -> None:
    assert "5 keys): 4 missing, 1 unexpected" in message({"x": (1,)})


def test_an_empty_model_takes_an_empty_checkpoint_only() -> None:
    assert match_keys({}, {}) == {}
    assert "unexpected  x (1,)" in message({"x": (1,)}, {})
    assert "4 missing" in message({})


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in message({"a\x1b[2J": (1,)})


segments = st.sampled_from(["module", "model", "conv", "0", "1", "weight", "_orig_mod", "net"])
names = st.lists(segments, min_size=1, max_size=4).map(".".join)
shapes = st.dictionaries(names, st.tuples(st.integers(1, 3)), max_size=6)


@given(shapes, shapes)
def test_a_match_is_whole_and_of_equal_shapes(checkpoint, model) -> None:
    try:
        matched = match_keys(checkpoint, model)
    except StateDictError:
        assert checkpoint != model
        return
    assert set(matched) == set(model)
    assert set(matched.values()) == set(checkpoint)
    assert all(checkpoint[source] == model[key] for key, source in matched.items())


@given(shapes, names)
def test_any_prefix_is_found(model, prefix) -> None:
    checkpoint = {f"{prefix}.{key}": shape for key, shape in model.items()}
    matched = match_keys(checkpoint, model)
    assert {key: source.endswith(key) for key, source in matched.items()} == dict.fromkeys(
        model, True
    )
