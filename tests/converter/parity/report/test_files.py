"""The report as pages: HTML with its chart, and Markdown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlxport.converter.errors import OptionsError, ParityError
from mlxport.converter.parity.report.files import page as page_of
from mlxport.converter.parity.report.files import read_reports, write_page
from mlxport.converter.parity.report.html import html
from mlxport.converter.parity.report.markdown import markdown
from mlxport.converter.parity.report.pictures import pictured
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.report.style import SCRIPT
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import ALONE, COMPILED, IN_PLACE, WHOLE, ParityEntry
from mlxport.converter.parity.verdict.reference_data import ReferenceValue

# of the page's style, in the two schemes
LIGHT = {"good": (0x00, 0x60, 0xA0), "bad": (0xB3, 0x47, 0x00), "series": (0x00, 0x72, 0xB2)}
DARK = {"good": (0x6C, 0xB8, 0xEC), "bad": (0xFF, 0x9A, 0x52), "series": (0x56, 0xB4, 0xE9)}


def verdict(ratio: float, problem: str = "") -> Verdict:
    return Verdict(
        (problem,) if problem else (),
        (1, 8, 16, 16),
        "float32",
        compared=2048,
        error=ratio * 1e-7,
        noise=1e-7,
        ratio=ratio,
        max_abs=3e-7,
        snr_db=140.0,
    )


def report(layers: int = 5, fault: int | None = None, name: str = "block") -> ParityReport:
    """A report on some layers, one of which may be at fault with all that follow."""
    entries, problem = [], "error 1 is 1e+07 times PyTorch's own noise"
    for number in range(layers):
        off = fault is not None and number >= fault
        there = verdict(1e7, problem) if off else verdict(1.0 + number)
        alone = verdict(1e7, problem) if number == fault else verdict(0.5)
        entries.append(
            ParityEntry(f"{name}.{number}", 0, 0, "Conv2d", {IN_PLACE: there, ALONE: alone})
        )
    last = verdict(2.0) if fault is None else verdict(1e7, problem)
    output = ParityEntry("", 0, 0, "Net", dict.fromkeys((IN_PLACE, WHOLE, COMPILED), last))
    return ParityReport(
        entries=tuple(entries),
        outputs=(output,),
        environment={"backend": "cpu", "device": "a <chip> & more"},
    )


def depicted(shown: ParityReport) -> ParityReport:
    """The same report with slices of a volume, the histogram of its errors, and a long name."""
    random = np.random.default_rng(0)
    reference = random.standard_normal((1, 2, 8, 12, 10))
    native, mlx = (reference + 1e-7 * random.standard_normal(reference.shape) for _ in range(2))
    value = ReferenceValue(reference.shape, "float32", reference.reshape(-1), native.reshape(-1))
    pictures, histograms = pictured(["output"], [mlx], [value])
    output = replace(shown.outputs[0], layer="NetForSequenceClassification")
    return replace(shown, outputs=(output,), pictures=pictures, histograms=histograms)


class Page(HTMLParser):
    """Collects what the tests ask for, and that every element is closed where it should be."""

    VOID = ("meta", "line", "circle", "img", "polyline", "wbr", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.goes_on = False
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        self.goes_on = tag == "wbr"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.goes_on = False
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.goes_on:
            self.texts[self.open[-1]][-1] += data
        elif self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


@pytest.mark.parametrize("fault", [None, 2], ids=["passed", "failed"])
def test_html_says_what_the_report_says(fault: int | None) -> None:
    shown = report(fault=fault)
    page = Page(shown.to_html())
    said, where = page.texts["p"]
    assert said == f": {shown.verdict}"
    outcome = "PASS" if fault is None else "FAIL"
    assert page.texts["strong"] == [f"{outcome}, Net"]
    assert page.texts["title"][:1] == [f"{outcome}: Net, parity of MLX with PyTorch"]
    assert page.texts["h1"] == ["Net in MLX, held to PyTorch"]
    assert where == "backend cpu, device a <chip> & more"
    cells, order = page.texts["td"], [f"block.{n}" for n in range(5)]
    names = [text for text in page.texts["th"] if text.startswith("block.")]
    assert names == (order if fault is None else order[2:] + order[:2])
    assert "the model" in page.texts["th"]
    assert sum(cell.startswith("FAIL") for cell in cells) == (0 if fault is None else 3 + 1 + 3)
    marks = [attrs["fill"] for _, attrs in page.attributes if attrs.get("class") == "mark"]
    assert len(marks) == 6
    assert marks.count("var(--bad)") == (0 if fault is None else 4)
    assert "a <chip> & more" in page.texts["dd"]


def test_html_loads_nothing_and_runs_nothing_but_its_own_script() -> None:
    text = depicted(report(name="<script>alert(1)</script>")).to_html()
    page = Page(text)
    assert not {tag for tag, _ in page.attributes} & {"link", "iframe"}
    assert page.texts["script"] == [SCRIPT]
    sources = [attrs["src"] for tag, attrs in page.attributes if tag in ("img", "script") and attrs]
    assert len(sources) == 9 + 3 * 8
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?:|url\(|@import", text)


def test_all_is_there_without_the_script() -> None:
    page = Page(depicted(report(fault=1)).to_html().replace(f"<script>{SCRIPT}</script>", ""))
    assert "button" not in {tag for tag, _ in page.attributes}
    names = [text for text in page.texts["th"] if text.startswith("block.")]
    assert names == ["block.1", "block.2", "block.3", "block.4", "block.0"]


def test_html_has_headings_and_tables_that_say_what_is_what() -> None:
    page = Page(depicted(report(fault=1)).to_html())
    headings = [tag for tag, _ in page.attributes if re.fullmatch(r"h\d", tag)]
    assert headings[0] == "h1"
    assert set(headings[1:]) == {"h2"}
    assert all(attrs.get("scope") for tag, attrs in page.attributes if tag == "th")
    assert all(attrs.get("alt") for tag, attrs in page.attributes if tag == "img")
    drawn = [attrs for tag, attrs in page.attributes if tag == "svg"]
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in drawn)


def test_runs_at_other_inputs_are_listed_and_the_failing_one_is_shown() -> None:
    other = replace(report(fault=4), case="impulse inputs")
    page = Page(replace(report(), others=(other,)).to_html())
    assert page.texts["p"][0].endswith("(on impulse inputs)")
    assert [text for text in page.texts["li"] if "inputs: " in text] == [
        "example inputs: holds, worst 5x",
        "on impulse inputs: ",
    ]
    names = [text for text in page.texts["th"] if text.startswith("block.")]
    assert names[0] == "block.4"


def test_reports_stand_side_by_side() -> None:
    page = Page(html({"cpu": report(), "metal": report(fault=3)}))
    assert page.texts["strong"] == ["PASS, Net, cpu", "FAIL, Net, metal"]
    assert page.texts["td"].count("FAIL 1e+07x") == 3  # two layers and the output
    first = page.texts["td"].index("FAIL 1e+07x", 6)
    assert page.texts["td"][first - 4 : first] == ["4", "Conv2d", "1x8x16x16", "4x"]


def test_what_one_report_lacks_is_shown_as_missing() -> None:
    text = markdown({"cpu": report(6), "metal": report(5)})
    assert "| block.5 | Conv2d | 1x8x16x16 | 6x | - |" in text


@pytest.mark.parametrize("fault", [None, 2], ids=["passed", "failed"])
def test_markdown_says_what_the_report_says(fault: int | None) -> None:
    shown = report(fault=fault)
    text = shown.to_markdown()
    assert shown.verdict.splitlines()[0] in text.replace("\\", "")
    rows = [line for line in text.splitlines() if line.startswith("| block.")]
    assert len(rows) == 5
    assert len({line.count(" | ") for line in rows}) == 1
    assert text.count("FAIL") == (0 if fault is None else 7 + 1)


def test_markdown_names_reports_where_there_are_several() -> None:
    alone = markdown({"alpha": report()})
    assert "alpha" not in alone
    two = markdown({"alpha": report(), "beta": report()})
    assert [two.count(f"**{name}**: ") for name in ("alpha", "beta")] == [1, 1]
    assert [two.count(f"\n{name}: ") for name in ("alpha", "beta")] == [1, 1]


def test_markdown_keeps_names_apart_from_its_own_signs() -> None:
    assert "| a\\|b\\_c.0 |" in report(name="a|b_c").to_markdown()


# -- in a browser ----------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, BROWSERS) if path), "")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MEASURE = """<script>
addEventListener("load", () => {
  const seen = e => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0; };
  const count = q => [...document.querySelectorAll(q)].filter(seen).length;
  const slid = () => {
    const slider = document.querySelector(".stack input"), shown = () =>
      document.querySelector(".stack .shown th").textContent;
    const middle = shown();
    slider.value = 0;
    slider.dispatchEvent(new Event("input"));
    return [middle, shown(), count(".stack tbody")];
  };
  const first = document.querySelectorAll(".cells")[1].tBodies[0];
  const names = () => [...first.rows].map(row => row.cells[1].textContent);
  const failing_first = names();
  document.querySelectorAll(".cells")[1].tHead.rows[0].cells[0].querySelector("button").click();
  parent.document.title = JSON.stringify({
    verdicts: count(".verdict"), rows: count("tbody tr:has(td[data-value])"),
    marks: count(".mark"), bars: count(".histogram rect"), colour_bars: count(".bar"),
    images: [...document.images].filter(i => i.complete && i.naturalWidth && seen(i)).length,
    wide: document.documentElement.scrollWidth > innerWidth, width: innerWidth,
    legible: [...document.querySelectorAll("main svg text")].every(
      t => t.getBoundingClientRect().height > 9),
    cut: [...document.querySelectorAll(".wide")].map(
      w => w.scrollWidth - w.clientWidth).filter(more => more > 0),
    labels: [...document.querySelectorAll(".histogram text")].every(
      t => t.getBBox().x + t.getBBox().width <= 640),
    broken: [...document.querySelectorAll(".cells tbody th")].filter(seen).flatMap(
      th => [...th.childNodes]).filter(n => n.nodeType === 3 && !n.data.includes(" ")).some(n => {
        const range = document.createRange();
        range.selectNode(n);
        return new Set([...range.getClientRects()].map(r => r.top)).size > 1; }),
    sliced: slid(),
    failing_first, in_order: names(),
  });
});
</script>"""
# A window of Chromium's is never narrower than 500 pixels; a frame in it may be, and is a viewport.
FRAME = """<!doctype html><meta name="color-scheme" content="light dark">
<style>body {{ margin: 0 }} iframe {{ border: 0; display: block }}</style>
<iframe width="{width}" height="2500" srcdoc="{page}"></iframe>"""


def browse(tmp_path: Path, page: str, width: int, *arguments: str) -> str:
    framed = tmp_path / "framed.html"
    framed.write_text(FRAME.format(width=width, page=escape(page, quote=True)))
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={max(width, 500)},2700", *arguments, framed.as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def colours(picture: Path, width: int) -> dict[tuple[int, ...], int]:
    image = Image.open(picture).convert("RGB").crop((0, 0, width, 2500))
    found: Any = image.getcolors(image.width * image.height)
    return {colour: count for count, colour in found}


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium or Chrome on this machine")
@pytest.mark.parametrize("width", [1280, 390], ids=["wide", "narrow"])
@pytest.mark.parametrize("fault", [None, 2], ids=["passed", "failed"])
def test_the_page_is_seen_in_a_browser(tmp_path: Path, width: int, fault: int | None) -> None:
    text = depicted(report(fault=fault)).to_html()
    measured = browse(tmp_path, text.replace("</body>", MEASURE + "</body>"), width, "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", measured)
    assert title is not None
    seen = json.loads(unescape(title[1]))
    order = [f"block.{n}" for n in range(5)]
    assert seen.pop("failing_first") == (order if fault is None else order[2:] + order[:2])
    assert seen.pop("in_order") == order
    assert seen.pop("bars") > 3
    assert seen == {
        "verdicts": 1,
        "rows": 6,
        "marks": 6,
        "images": 12,
        "colour_bars": 2,
        "wide": False,
        "legible": True,
        "cut": [],
        "labels": True,
        "broken": False,
        "sliced": ["[4, :, :]", "[0, :, :]", 1],
        "width": width,
    }


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium or Chrome on this machine")
@pytest.mark.parametrize("width", [1280, 390], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("fault", [None, 2], ids=["passed", "failed"])
def test_a_screenshot_shows_it(tmp_path: Path, width: int, dark: bool, fault: int | None) -> None:
    text = depicted(report(fault=fault)).to_html()
    picture = tmp_path / "page.png"
    options = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(tmp_path, text, width, f"--screenshot={picture}", *options)
    shown = colours(picture, width)
    background = max(shown, key=lambda colour: shown[colour])
    assert sum(background) < 150 if dark else sum(background) > 700
    scheme = DARK if dark else LIGHT
    assert shown.get(scheme["good" if fault is None else "bad"], 0) > 100, "beside the verdict"
    assert shown.get(scheme["series"], 0) > 100, "dots of layers, bars of the histogram"
    for colour in ((0xFD, 0xE7, 0x25), (0x44, 0x01, 0x54)):  # the ends of the scale of values
        near = [
            n
            for c, n in shown.items()
            if all(abs(a - b) < 16 for a, b in zip(c, colour, strict=True))
        ]
        assert sum(near) > 20, "slices of the volume"


def test_a_notebook_shows_the_verdict_and_the_worst_layers() -> None:
    for shown, outcome in ((report(), "PASS"), (report(fault=2), "FAIL")):
        text = shown._repr_html_()
        page = Page(text)
        assert page.texts["strong"][0] == f"{outcome}, Net"
        assert len([t for t in page.texts["td"] if t.startswith("block.")]) == 5
        assert len(text) < 4000
    assert "<script" not in report(name="<script>x</script>")._repr_html_()


# -- on disk ---------------------------------------------------------------------------------------


def stored(path: Path, shown: ParityReport) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(shown.to_json()))
    return path


def test_reports_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    one = stored(tmp_path / "a" / "parity.json", report())
    two = stored(tmp_path / "b" / "parity.json", report())
    metal = stored(tmp_path / "b" / "parity-metal.json", report())
    assert [*read_reports([one.parent, metal])] == ["parity", "parity-metal"]
    assert [*read_reports([one, two])] == ["a", "b"]
    assert [*read_reports([one, two, metal])] == [str(path) for path in (one, two, metal)]


def test_every_unreadable_report_is_listed(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    good = stored(tmp_path / "good.json", report())
    with pytest.raises(ParityError) as caught:
        read_reports([tmp_path / "absent.json", good, other])
    assert "absent.json" in str(caught.value)
    assert "other.json" in str(caught.value)
    assert "good.json" not in str(caught.value)


def test_a_report_given_twice_is_refused(tmp_path: Path) -> None:
    one = stored(tmp_path / "parity.json", report())
    with pytest.raises(OptionsError, match="twice"):
        read_reports([one, tmp_path])


@pytest.mark.parametrize("suffix", [".html", ".md", ".json"])
def test_a_page_is_written_and_never_over_another(tmp_path: Path, suffix: str) -> None:
    path, reports = tmp_path / f"page{suffix}", {"cpu": report(), "metal": report(fault=1)}
    write_page(path, reports)
    assert path.read_text() == page_of(reports, suffix)
    with pytest.raises(OptionsError, match="exists"):
        write_page(path, {"cpu": report()})
    assert path.read_text() == page_of(reports, suffix)
    write_page(path, {"cpu": report()}, overwrite=True)
    assert path.read_text() == page_of({"cpu": report()}, suffix)
    assert [*tmp_path.iterdir()] == [path]


def test_one_report_written_as_json_is_read_again(tmp_path: Path) -> None:
    write_page(tmp_path / "parity-cpu.json", {"parity-cpu": report(fault=1)})
    (again,) = read_reports([tmp_path / "parity-cpu.json"]).values()
    assert again.to_json() == report(fault=1).to_json()


def test_an_unknown_kind_of_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"\.html, \.md, \.json, not as \.pdf"):
        write_page(tmp_path / "page.pdf", {"cpu": report()})
