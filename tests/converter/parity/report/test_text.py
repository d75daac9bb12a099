"""The summary on a terminal: 80 columns, no broken word, the verdict last."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import ParityEntry
from mlxport.converter.terminal import shortened


def verdict(ratio: float = 1.0, *problems: str) -> Verdict:
    return Verdict(
        problems=problems,
        shape=(1, 197, 768),
        dtype="float32",
        compared=151296,
        error=ratio * 1e-7,
        noise=1e-7,
        ratio=ratio,
    )


def entry(path: str, **verdicts: Verdict) -> ParityEntry:
    return ParityEntry(path=path, layer="BertSelfAttention", verdicts=verdicts)


def report(count: int = 12, **changed: Verdict) -> ParityReport:
    layers = [
        entry(
            f"bert.encoder.layer.{k}.attention.output.LayerNorm",
            in_place=verdict(k / 10),
            alone=changed.get(f"at_{k}", verdict(0.5)),
        )
        for k in range(count)
    ]
    return ParityReport(
        outputs=(entry("", in_place=verdict(), whole=verdict(), compiled=verdict()),),
        entries=tuple(layers),
        notes=("a note about bert.encoder.layer.11.attention.output.LayerNorm.weight, " * 3,),
    )


FAILED = report(at_3=verdict(900.0, "error 9e-5 where 8e-7 passes"))


@pytest.mark.parametrize("full", [False, True], ids=["worst", "full"])
@pytest.mark.parametrize("one", [report(), FAILED], ids=["holds", "failed"])
@pytest.mark.parametrize("width", [80, 100])
def test_no_line_is_wider_and_no_word_broken(one: ParityReport, width: int, full: bool) -> None:
    page = "/somewhere/very/far/away/from/here/in/a/folder/of/folders/out/parity.html"
    lines = one.summary(width, full=full, page=page).splitlines()
    assert max(map(len, lines)) <= width
    names = [line.split()[0] for line in lines if re.search(r"e-0\d.*e-0\d.*x$", line)][:-1]
    assert len(names) == (12 if full else 5)
    for name in names:
        assert re.fullmatch(r"bert\.(…\.)?(\w+\.)*\d+\.(…\.)?(\w+\.)*LayerNorm", name)
    assert len({*names}) == len(names)
    assert any(line.startswith("as a page: /") and line.endswith("parity.html") for line in lines)


def test_the_worst_stand_first_and_the_verdict_last() -> None:
    lines = FAILED.summary(None).splitlines()
    assert lines[0] == "The worst 5 of 12 layer calls"
    assert lines[2].startswith("bert.encoder.layer.3.attention.output.LayerNorm ")
    assert "FAIL 9e+02x" in lines[2]
    assert [line.split(".")[3] for line in lines[3:7]] == ["11", "10", "9", "8"]
    first = next(line for line in lines if line.startswith("parity FAILED"))
    assert lines[-len(FAILED.verdict.split("\n")) :][0] == first
    assert "\n".join(lines).count("error 9e-5 where 8e-7 passes") >= 1


@pytest.mark.parametrize(
    ("one", "code"), [(report(), "1;32"), (FAILED, "1;31")], ids=["green", "red"]
)
def test_the_verdict_has_a_colour(one: ParityReport, code: str) -> None:
    last = one.summary(None, color=True).splitlines()[-1]
    assert last.startswith(f"\x1b[{code}m")
    assert "\x1b" not in one.summary(None)


def test_all_layers_where_there_are_few() -> None:
    few = replace(report(), entries=report().entries[:3])
    assert few.summary(80).startswith("Layers\n")


def test_where_it_ran_is_told_in_full() -> None:
    one = replace(report(), environment={"mlx": "0.1"})
    assert "mlx 0.1" not in one.summary(None)
    assert "mlx 0.1" in one.summary(None, full=True)


def test_a_stranger_s_names_do_nothing_to_the_terminal() -> None:
    one = replace(report(), entries=(entry("a\x1b[2Jb", in_place=verdict()),))
    assert "\x1b" not in one.summary(80)


NAMES = {
    "short enough": ("a.b.c", 5, "a.b.c"),
    "a name": ("bert.encoder.layer.11.attention.output.dense", 30, "bert.….11.….output.dense"),
    "a long last word": (
        "bert.encoder.layer.0.intermediate.intermediate_act_fn",
        25,
        "….0.….intermediate_act_fn",
    ),
    "numbers go before a word is broken": ("a.layers.0.attention", 11, "….attention"),
    "a path": ("/home/someone/work/out/parity.html", 24, "/…/work/out/parity.html"),
    "one long word": ("x" * 30, 9, "xxxx…xxxx"),
    "two long words": ("a" * 20 + "." + "b" * 20, 11, "aaaaa…bbbbb"),
}


@pytest.mark.parametrize(("text", "width", "expected"), NAMES.values(), ids=NAMES)
def test_the_middle_goes(text: str, width: int, expected: str) -> None:
    assert shortened(text, width) == expected
    assert len(expected) <= width
