"""The report of ``proof.py`` as one page, which loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from timing import milliseconds, times

STYLE = """
:root { color-scheme: light dark; --bad: #b34700; --line: #8884; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff9a52; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
:is(th, td) { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
:is(th, td):first-child, td.text { text-align: left; overflow-wrap: anywhere; }
.bad { color: var(--bad); font-weight: 700; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
"""
HEADS = {
    "verify": ("network", "parity", "worst", "verdict"),
    "time": (
        "layer",
        "dtype",
        "mlx.nn, ms",
        "ours",
        "ours, compiled",
        "torch",
        "mlx.nn / ours",
        "torch / ours",
        "",
    ),
}
TITLES = {"verify": "Held to PyTorch", "time": "Time of one call"}


def page(data: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        data: what ``proof.py`` writes as JSON.
        kinds: name of a step -> ``"verify"`` or ``"time"``.
    """
    steps, left = data["steps"], data["left"]
    title = escape(f"mlxport on {data['device']}: {data['machine']['device']}")
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>",
        f"<p>{escape(_summary(steps, left, kinds))}</p>",
    ]
    for kind, make in (("verify", _verified), ("time", _timed)):
        rows = [make(name, step) for name, step in steps.items() if kinds[name] == kind]
        parts += [f"<h2>{TITLES[kind]}</h2>", *_table(HEADS[kind], rows)]
    if left:
        parts.append(f"<p>Not run yet: {escape(', '.join(left))}.</p>")
    facts = {**data["machine"], "written": data["written"]}
    terms = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return "\n".join([*parts, f"<h2>Machine</h2><dl>{terms}</dl></body></html>\n"])


def _summary(steps: Mapping[str, Any], left: Sequence[str], kinds: Mapping[str, str]) -> str:
    verified = [step for name, step in steps.items() if kinds[name] == "verify"]
    holds = sum(step.get("passed") is True for step in verified)
    failed = sum("failed to run" in step for step in steps.values())
    said = f"Parity holds for {holds} of {len(verified)}; {len(steps)} steps were run"
    return (
        said
        + (f", {failed} failed to run" if failed else "")
        + (f", {len(left)} are left." if left else ".")
    )


def _table(heads: Sequence[str], rows: Sequence[str]) -> Iterator[str]:
    cells = "".join(f"<th>{escape(head)}</th>" for head in heads)
    yield f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>'
    yield from rows
    yield "</tbody></table></div>"


def _cell(text: str, style: str = "") -> str:
    return f'<td class="{style}">{escape(text)}</td>'


def _verified(name: str, step: Mapping[str, Any]) -> str:
    if "failed to run" in step:
        said = [_cell("not shown", "bad"), _cell("-"), _cell(step["failed to run"], "text")]
    else:
        worst = step.get("worst")
        state = _cell("holds") if step["passed"] else _cell("FAILS", "bad")
        text = "; ".join([step["verdict"], *step.get("failed", [])])
        said = [state, _cell(times(worst) if worst is not None else "-"), _cell(text, "text")]
    return f"<tr><td>{escape(name)}</td>{''.join(said)}</tr>"


def _timed(name: str, step: Mapping[str, Any]) -> str:
    took = step.get("seconds", {})
    ways = ("native", "ours", "compiled", "torch")
    cells = [step.get("dtype", "-"), *(milliseconds(took[w]) if w in took else "-" for w in ways)]
    for way in ("native", "torch"):
        both = way in took and "ours" in took
        cells.append(times(took[way] / took["ours"]) if both else "-")
    notes = [step.get(key, "") for key in ("failed to run", "skipped", "remark")]
    notes += [f"{way}: {error}" for way, error in step.get("errors", {}).items()]
    if "torch on" in step:
        notes.append(f"torch on {step['torch on']}")
    row = "".join(map(_cell, cells))
    return f"<tr><td>{escape(name)}</td>{row}{_cell('; '.join(filter(None, notes)), 'text')}</tr>"
