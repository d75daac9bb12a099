"""The report as pages: HTML with its chart, and Markdown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mlxport.converter.errors import OptionsError, ParityError
from mlxport.converter.parity.compare import Verdict
from mlxport.converter.parity.entry import ALONE, COMPILED, IN_PLACE, WHOLE, Entry
from mlxport.converter.parity.html import html
from mlxport.converter.parity.markdown import markdown
from mlxport.converter.parity.pages import page as page_of
from mlxport.converter.parity.pages import read_reports, write_page
from mlxport.converter.parity.report import ParityReport

GREEN, RED, BLUE = (0x1A, 0x7F, 0x37), (0xCF, 0x22, 0x2E), (0x09, 0x69, 0xDA)


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
        entries.append(Entry(f"{name}.{number}", 0, 0, "Conv2d", {IN_PLACE: there, ALONE: alone}))
    last = verdict(2.0) if fault is None else verdict(1e7, problem)
    output = Entry("", 0, 0, "Net", dict.fromkeys((IN_PLACE, WHOLE, COMPILED), last))
    return ParityReport(
        tuple(entries), (output,), environment={"backend": "cpu", "device": "a <chip> & more"}
    )


class Page(HTMLParser):
    """Collects what the tests ask for, and that every element is closed where it should be."""

    VOID = ("meta", "line", "circle")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("circle",):
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


@pytest.mark.parametrize("fault", [None, 2], ids=["passed", "failed"])
def test_html_says_what_the_report_says(fault: int | None) -> None:
    shown = report(fault=fault)
    page = Page(shown.to_html())
    (said,) = page.texts["p"]
    assert said == shown.verdict
    cells = page.texts["td"]
    assert [cell for cell in cells if cell.startswith("block.")] == [f"block.{n}" for n in range(5)]
    assert "the model" in cells
    assert sum(cell.startswith("FAIL") for cell in cells) == (0 if fault is None else 3 + 1 + 3)
    dots = [attrs for tag, attrs in page.attributes if tag == "circle"]
    assert len(dots) == 6
    assert sum(dot["fill"] == "var(--bad)" for dot in dots) == (0 if fault is None else 4)
    assert "a <chip> & more" in page.texts["dd"]


def test_html_loads_nothing_and_runs_nothing() -> None:
    text = report(name="<script>alert(1)</script>").to_html()
    page = Page(text)
    assert not {tag for tag, _ in page.attributes} & {"script", "link", "img", "iframe"}
    assert not re.search(r"https?:|url\(|@import", text)


def test_reports_stand_side_by_side() -> None:
    page = Page(html({"cpu": report(), "metal": report(fault=3)}))
    assert page.texts["strong"] == ["cpu", "metal"]
    cells = page.texts["td"]
    row = cells.index("block.3")
    assert cells[row + 3 : row + 5] == ["4x", "FAIL 1e+07x"]


def test_what_one_report_lacks_is_shown_as_missing() -> None:
    text = markdown({"cpu": report(6), "metal": report(5)})
    assert "| block.5 | Conv2d | 1 x 8 x 16 x 16 | 6x | - |" in text


@pytest.mark.parametrize("fault", [None, 2], ids=["passed", "failed"])
def test_markdown_says_what_the_report_says(fault: int | None) -> None:
    shown = report(fault=fault)
    text = shown.to_markdown()
    assert shown.verdict.splitlines()[0] in text.replace("\\", "")
    rows = [line for line in text.splitlines() if line.startswith("| block.")]
    assert len(rows) == 5
    assert len({line.count(" | ") for line in rows}) == 1
    assert text.count("FAIL") == (0 if fault is None else 7 + 1)


def test_markdown_keeps_names_apart_from_its_own_signs() -> None:
    assert "| a\\|b\\_c.0 |" in report(name="a|b_c").to_markdown()


# -- in a browser ----------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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
const seen = e => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0; };
const count = q => [...document.querySelectorAll(q)].filter(seen).length;
document.title = JSON.stringify({verdicts: count(".verdict"), rows: count("tbody tr"),
  dots: count("circle"), wide: document.documentElement.scrollWidth > window.innerWidth});
</script>"""


def browse(tmp_path: Path, page: Path, width: int, *arguments: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},900", *arguments, page.as_uri()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def colours(picture: Path) -> dict[tuple[int, ...], int]:
    image = Image.open(picture).convert("RGB")
    found: Any = image.getcolors(image.width * image.height)
    return {colour: count for count, colour in found}


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1200, 500], ids=["wide", "narrow"])
@pytest.mark.parametrize("fault", [None, 2], ids=["passed", "failed"])
def test_the_page_is_seen_in_a_browser(tmp_path: Path, width: int, fault: int | None) -> None:
    text = report(fault=fault).to_html()
    page, measured = tmp_path / "page.html", tmp_path / "measured.html"
    page.write_text(text)
    measured.write_text(text.replace("</body>", MEASURE + "</body>"))
    title = re.search(r"<title>(.*?)</title>", browse(tmp_path, measured, width, "--dump-dom"))
    assert title is not None
    seen = json.loads(title[1])
    assert seen == {"verdicts": 1, "rows": 6, "dots": 6, "wide": False}
    picture = tmp_path / "page.png"
    browse(tmp_path, page, width, f"--screenshot={picture}")
    shown = colours(picture)
    assert shown[BLUE] > 10, "dots of layers that pass"
    assert shown[GREEN if fault is None else RED] > 100, "the bar beside the verdict"


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
