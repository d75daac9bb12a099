"""Style sheet of a parity report's page, and the script that sorts its tables.

Colours can be distinguished by colour-blind eyes (blue and orange, after Okabe and Ito), and no
information is in colour alone. Without the script the page is complete, failing rows first.
"""

STYLE = """
:root { color-scheme: light dark; --good: #0060a0; --bad: #b34700; --line: #8884; --soft: #8881;
  --series-0: #0072b2; --series-1: #d55e00; --series-2: #009e73; --series-3: #b3609c; }
@media (prefers-color-scheme: dark) { :root { --good: #6cb8ec; --bad: #ff9a52;
  --series-0: #56b4e9; --series-1: #f0a050; --series-2: #2fc79b; --series-3: #dc9ac3; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 84rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .4rem solid var(--good); background: var(--soft); padding: .8rem 1rem;
  margin: 1rem 0; overflow-wrap: anywhere; white-space: pre-line; font-size: 1.1rem; }
.where { font-size: .9rem; overflow-wrap: anywhere; }
.verdict.bad { border-color: var(--bad); }
.wide { overflow-x: auto; } svg { display: block; width: 100%; height: auto; font-size: 13px; }
svg text { fill: currentColor; }
.grid { stroke: var(--line); } .noise { stroke: currentColor; stroke-width: 2; opacity: .7; }
.limit { stroke: var(--bad); stroke-width: 2; stroke-dasharray: 7 5; }
.mark { stroke: Canvas; stroke-width: 1; }
.legend { list-style: none; padding: 0; margin: .4rem 0 0; display: flex; flex-wrap: wrap;
  gap: .2rem 1.5rem; } .legend svg { display: inline; width: 30px; margin-right: .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.cells { font-size: .9rem; }
.cells :is(th, td) { padding: .25rem .4rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; font-weight: 400; }
.cells thead th { position: sticky; top: 0; background: Canvas; font-weight: 600; }
.cells :is(th, td):is(:nth-child(-n+4)):not(:first-child) { text-align: left; }
.cells tbody th { overflow-wrap: anywhere; white-space: normal; min-width: 9rem; }
.cells thead th, .cells td:nth-child(3) { white-space: normal; }
.cells td.good { color: var(--good); } .cells td.bad { color: var(--bad); font-weight: 700; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; text-decoration: underline dotted; text-underline-offset: .2em; }
[aria-sort=ascending] button::after { content: " ▲"; }
[aria-sort=descending] button::after { content: " ▼"; }
.problems { color: var(--bad); overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0 0 1.5rem; } figcaption { margin-bottom: .4rem; }
.slices { max-width: 44rem; table-layout: fixed; } .slices th { text-align: left; }
.slices td { padding: 0 .4rem .4rem 0; vertical-align: top; }
.slices tbody th { font-weight: 400; font-size: .85rem; }
.slices img { width: 100%; height: auto; image-rendering: pixelated; display: block; }
.bar { height: .8rem; }
.ends { display: flex; flex-wrap: wrap; font-size: .8rem; white-space: nowrap; }
.ends :last-child { margin-left: auto; }
.histogram { max-width: 40rem; } .stack tbody:not(.shown) { display: none; }
.stack label { display: flex; gap: .6rem; align-items: center; max-width: 44rem; }
.stack input { flex: 1; accent-color: var(--good); }
@media (max-width: 40rem) { body { padding: .8rem; } dl { grid-template-columns: 1fr; }
  .cells :is(th, td):is(:nth-child(1), :nth-child(3), :nth-child(4)), .detail { display: none; }
  .cells tbody th { min-width: 5rem; } .error { display: none; }
  .cells :is(th, td) { padding: .25rem .3rem; white-space: normal; }
  .chart text { font-size: 26px; } .chart circle { r: 7px; }
  .chart :is(.noise, .limit) { stroke-width: 4; } .chart .limit { stroke-dasharray: 14 10; }
  .histogram text { font-size: 17px; } }
@media (min-width: 40.01rem) and (max-width: 78rem) { .detail { display: none; } }
"""

SCRIPT = """
for (const head of document.querySelectorAll(".cells thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const table = head.closest("table"), body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = row => row.cells[head.cellIndex].dataset.value ?? "";
    const compare = (a, b) => a - b || String(a).localeCompare(String(b));
    const rows = [...body.rows].sort((a, b) => compare(key(a), key(b)));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...(down ? rows.reverse() : rows));
  });
}
for (const stack of document.querySelectorAll(".stack")) {
  const slices = [...stack.querySelectorAll("tbody")], label = document.createElement("label");
  const slider = Object.assign(document.createElement("input"),
    { type: "range", min: 0, max: slices.length - 1, value: slices.length >> 1 });
  const show = () => slices.forEach((s, k) => s.classList.toggle("shown", k === +slider.value));
  label.append("Slices", slider);
  stack.prepend(label);
  slider.addEventListener("input", show);
  show();
}
"""
