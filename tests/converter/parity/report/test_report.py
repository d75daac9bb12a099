import dataclasses
import json

import pytest

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.report.report import Outcome, ParityReport
from mlxport.converter.parity.report.text import render
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import ALONE, IN_PLACE, WHOLE, ParityEntry

INFINITY = float("inf")


def good(ratio=2.0, **changes):
    numbers = {
        "compared": 8,
        "error": ratio * 1e-7,
        "noise": 1e-7,
        "ratio": ratio,
        "max_abs": 3e-7,
        "max_ulp": 1.5,
        "cosine": 1.0,
        "snr_db": 140.0,
    }
    return Verdict((), (2, 4), "float32", **{**numbers, **changes})


def bad(problem="error 1 is 1e7 times"):
    return dataclasses.replace(good(1e7), problems=(problem,), first=(0, 3))


def layer(path, in_place, alone, call=0):
    return ParityEntry(path, call, 0, "Conv2d", {IN_PLACE: in_place, ALONE: alone})


def report(*entries, outputs=None, **options):
    if outputs is None:
        outputs = (ParityEntry("", layer="Net", verdicts={IN_PLACE: good(), WHOLE: good()}),)
    return ParityReport(entries=tuple(entries), outputs=tuple(outputs), **options)


FAILED_OUTPUT = (ParityEntry("", layer="Net", verdicts={IN_PLACE: bad(), WHOLE: bad()}),)


class TestPassed:
    def test_where_all_agree(self):
        assert report(layer("a", good(), good())).passed
        assert report().passed

    @pytest.mark.parametrize(
        "entry",
        [layer("a", bad(), good()), layer("a", good(), bad())],
        ids=["in place", "alone"],
    )
    def test_not_where_a_layer_fails(self, entry):
        assert not report(entry).passed

    @pytest.mark.parametrize("mode", [IN_PLACE, WHOLE])
    def test_not_where_an_output_fails(self, mode):
        verdicts = {IN_PLACE: good(), WHOLE: good(), mode: bad()}
        assert not report(outputs=[ParityEntry("", verdicts=verdicts)]).passed

    @pytest.mark.parametrize(
        "outputs",
        [
            (),
            (ParityEntry(""),),
            (ParityEntry("", verdicts={IN_PLACE: good()}),),
            (ParityEntry("", verdicts={WHOLE: good()}, skipped={IN_PLACE: "why"}),),
            (ParityEntry("", verdicts={IN_PLACE: good(compared=0), WHOLE: good(compared=0)}),),
        ],
        ids=["no output", "no verdict", "not whole", "not in place", "nothing compared"],
    )
    def test_not_where_no_output_was_compared(self, outputs):
        shown = report(layer("a", good(), good()), outputs=outputs)
        assert not shown.passed
        assert shown.culprit == ""
        assert shown.verdict.startswith("parity NOT SHOWN")

    def test_skipping_neither_passes_nor_fails(self):
        shown = report(ParityEntry("a", skipped={IN_PLACE: "why", ALONE: "why"}))
        assert shown.passed
        assert "0 layer calls within" in shown.verdict
        assert "1 layer call not judged" in shown.verdict


class TestCulprit:
    def test_is_the_first_to_fail_alone(self):
        found = report(
            layer("early", bad(), good()),
            layer("cause", bad(), bad()),
            layer("block", bad(), bad()),
            outputs=FAILED_OUTPUT,
        )
        assert found.culprit == "cause"
        assert "parity FAILED at cause" in found.verdict
        assert "or its weights are wrong" in found.verdict

    def test_else_the_first_to_fail_in_place(self):
        found = report(
            layer("fine", good(), good()), layer("fed", bad(), good()), outputs=FAILED_OUTPUT
        )
        assert found.culprit == "fed"
        assert "Look before it" in found.verdict

    def test_judged_in_place_only(self):
        entry = ParityEntry("a", verdicts={IN_PLACE: bad()}, skipped={ALONE: "no inputs"})
        found = report(entry, outputs=FAILED_OUTPUT)
        assert found.culprit == "a"
        assert "Not judged alone (no inputs)" in found.verdict

    def test_is_the_model_where_no_layer_fails(self):
        assert report(layer("a", good(), good()), outputs=FAILED_OUTPUT).culprit == ""

    def test_is_nobody_where_parity_holds(self):
        assert report(layer("a", good(), good())).culprit is None


class TestJson:
    full = report(
        layer("a", good(), bad()),
        ParityEntry("b", 1, 2, "LSTM", {IN_PLACE: good(0.0, snr_db=INFINITY)}, {ALONE: "why"}),
        layer("c", dataclasses.replace(bad(), ratio=INFINITY), Verdict(("shape",), (0,), "bool")),
        fallback="float64 failed",
        reference_dtype="float32",
        noise_multiple=16.0,
        seed=3,
        environment={"mlx": "0.32"},
    )

    def test_round_trip(self):
        text = json.dumps(self.full.to_json(), allow_nan=False)  # NaN and infinity would raise
        assert ParityReport.from_json(json.loads(text)) == self.full

    def test_says_what_follows(self):
        data = self.full.to_json()
        assert (data["format"], data["version"]) == ("mlxport-parity", 1)
        assert data["passed"] is False
        assert data["culprit"] == "a"
        assert data["verdict"] == self.full.verdict
        assert data["entries"][1]["verdicts"][IN_PLACE]["snr_db"] == "inf"
        assert data["entries"][0]["verdicts"][ALONE]["passed"] is False

    def test_passing_cannot_be_written_into_it(self):
        data = {**self.full.to_json(), "passed": True, "culprit": None}
        assert not ParityReport.from_json(data).passed

    @pytest.mark.parametrize(
        "data", [{}, {"format": "mlxport-parity", "version": 2}, {"format": "x", "version": 1}]
    )
    def test_anything_else_is_refused(self, data):
        with pytest.raises(ParityError, match="expected mlxport-parity version 1"):
            ParityReport.from_json(data)


class TestText:
    entries = (
        layer("stem", good(), good()),
        layer("up2.conv", bad("error 1 is large"), bad("error 2 is large")),
        ParityEntry("lstm", 1, 2, "LSTM", {IN_PLACE: good(4.1)}, {ALONE: "takes an int"}),
    )

    def lines(self, *entries, **options):
        return report(*entries).to_text(**options).splitlines()

    def test_the_verdict_comes_first(self):
        holds = self.lines(self.entries[0], self.entries[2])[0]
        assert holds == (
            "parity holds: 1 output and 2 layer calls within 8x of PyTorch's own float32 noise; "
            "worst 4.1x at lstm call 1 output 2"
        )
        fails = self.lines(*self.entries)[0]
        assert fails == "parity FAILED at up2.conv: error 2 is large"

    def test_without_float64_it_says_so(self):
        text = report(reference_dtype="float32", fallback="float64 failed: no kernel").verdict
        assert "of one float32 rounding (float64 failed: no kernel)" in text

    def test_rows(self):
        lines = self.lines(*self.entries, width=120)
        row = next(line for line in lines if line.startswith("up2.conv "))
        assert row.split() == [
            *("up2.conv", "Conv2d", "2x4", "1.0e+00", "1.0e-07"),
            *("FAIL", "1e+07x", "FAIL", "1e+07x"),
        ]
        row = next(line for line in lines if line.startswith("lstm call 1 output 2"))
        assert row.split()[-3:] == ["1.0e-07", "4.1x", "skipped"]
        assert "not judged alone, takes an int: lstm call 1 output 2" in lines
        assert "up2.conv, in place: error 1 is large" in lines

    def test_no_colour_codes_unless_asked_for(self, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert "\x1b" not in report(*self.entries).to_text()
        assert "\x1b[" in report(*self.entries).to_text(color=True)

    @pytest.mark.parametrize(("passed", "color"), [(True, "32"), (False, "31")])
    def test_whether_it_passed_says_the_colour_not_what_the_verdict_reads(self, passed, color):
        shown = render("parity FAILED", [], [], passed=passed, width=80, color=True)
        assert shown.startswith(f"\x1b[1;{color}m")

    def test_failing_first_and_no_more_than_asked_for(self):
        text = report(*self.entries).to_text(failing_first=True, limit=1)
        assert "up2.conv " in text
        assert "stem" not in text
        assert "2 more layers" in text

    def test_a_cascade_is_cut(self):
        text = report(*[layer(f"l{k}", bad(), bad()) for k in range(50)]).to_text()
        assert text.count("error 1 is 1e7 times") <= 10
        assert "and 92 more problems" in text

    def test_names_are_not_read_as_markup_or_codes(self):
        text = report(layer("[red]x[/red]", good(), good()), layer("\x1b[31m", good(), good()))
        shown = text.to_text()
        assert "[red]x[/red]" in shown
        assert "\x1b" not in shown

    @pytest.mark.parametrize("width", [40, 80, 200])
    def test_the_table_keeps_to_the_width(self, width):
        table = [line for line in self.lines(*self.entries, width=width) if "Conv2d" in line]
        assert all(len(line) <= width for line in table)

    def test_a_report_of_nothing_is_a_sentence(self):
        assert report(outputs=()).to_text().startswith("parity NOT SHOWN")


OUTCOMES = {
    "holds": (report(layer("a", good(), good())), Outcome.HOLDS, []),
    "a layer fails": (report(layer("a", bad(), good())), Outcome.FAILED, ["a"]),
    "an output fails": (report(outputs=FAILED_OUTPUT), Outcome.FAILED, ["the model"]),
    "another run fails": (
        report(others=(report(layer("b", bad(), bad())),)),
        Outcome.FAILED,
        ["b"],
    ),
    "nothing compared": (report(outputs=()), Outcome.NOT_SHOWN, []),
}


@pytest.mark.parametrize(("found", "outcome", "labels"), OUTCOMES.values(), ids=OUTCOMES)
def test_the_outcome_is_a_value_and_begins_the_verdict(found, outcome, labels):
    assert found.outcome is outcome
    assert found.verdict.startswith(outcome.value)
    assert found.passed is (outcome is Outcome.HOLDS)
    assert [entry.label for entry in found.decisive.failed_entries] == labels


def test_an_entry_prints_its_outcome_in_each_mode():
    entry = dataclasses.replace(layer("up.0", good(), bad(), call=1), skipped={WHOLE: "reason"})
    assert str(entry) == "up.0 call 1: in_place 2x, alone FAILED 1e+07x, whole not judged"
    assert repr(entry) == f"<ParityEntry {entry}>"
    assert str(ParityEntry("", name="output.logits")) == "output.logits: not judged"


def test_a_report_prints_its_verdict_and_the_first_failures():
    assert str(report()) == report().verdict
    found = report(*(layer(f"l{k}", bad(), bad()) for k in range(7)))
    lines = str(found).splitlines()
    assert "\n".join(lines[:2]) == found.verdict
    assert lines[2] == "  l0: in_place FAILED 1e+07x, alone FAILED 1e+07x"
    assert lines[-1] == "  and 2 more that failed"
    assert len(lines) == 8


@pytest.mark.parametrize("full", [False, True], ids=["worst", "full"])
@pytest.mark.parametrize("count", [4, 5, 6, 7])
def test_the_summary_is_of_the_worst_five_and_says_of_how_many(count, full):
    found = report(*(layer(f"l{i}", good(), good()) for i in range(count)))
    first, *lines = found.summary(None, full=full).splitlines()
    fewer = count > 5 and not full
    assert first == (f"The worst 5 of {count} layer calls" if fewer else "Layers")
    shown = [i for i in range(count) for line in lines if line.startswith(f"l{i} ")]
    assert len(shown) == (5 if fewer else count)


@pytest.mark.parametrize("count", [4, 5, 6, 7])
def test_printed_are_five_that_failed_and_how_many_more(count):
    found = report(*(layer(str(i), bad(), good()) for i in range(count)), outputs=FAILED_OUTPUT)
    lines = [line for line in str(found).splitlines() if line.startswith("  ")]
    count += 1  # the output fails, too
    assert len(lines) == min(count, 5) + (count > 5)
    assert (lines[-1] == f"  and {count - 5} more that failed") == (count > 5)


@pytest.mark.parametrize("count", [5, 6, 7, 8])
def test_dynamo_names_five_that_fail_and_how_many_more(count):
    failing = [layer(f"l{i}", good(dynamo=False), good(dynamo=True)) for i in range(count)]
    text = report(*failing).dynamo
    assert f"fails {count} of {2 * count} tensors" in text
    assert [f"l{i} in place" in text for i in range(count)] == [i < 5 for i in range(count)]
    assert " alone" not in text
    assert (f" and {count - 5} more" in text) == (count > 5)
    assert ("more" in text) == (count > 5)


@pytest.mark.parametrize("count", [7, 8, 9, 10])
def test_eight_problems_are_listed_and_how_many_more(count):
    rows = [layer(f"l{i}", bad(f"fault {i}."), good()) for i in range(count)]
    text = report(*rows).to_text()
    assert [f"fault {i}." in text for i in range(count)] == [i < 8 for i in range(count)]
    assert (f"and {count - 8} more problem" in text) == (count > 8)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_three_places_of_a_reason_are_named_and_how_many_more(count):
    rows = [ParityEntry(f"l{i}", skipped={ALONE: "no inputs"}) for i in range(count)]
    (line,) = [x for x in report(*rows).to_text().splitlines() if "not judged alone" in x]
    assert [f"l{i}" in line for i in range(count)] == [i < 3 for i in range(count)]
    assert (f" and {count - 3} more" in line) == (count > 3)
    assert ("more" in line) == (count > 3)
