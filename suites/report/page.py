"""The frame of every HTML report: one file that asks for nothing from outside, and is read without its script.

All content is escaped text. A content security policy lets in the one style sheet and the one script that stand here, by
their digests, and nothing else: no image, no font, no connection, no form.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence

_NOT_SHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]"
)
_SPELT = {
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord('"'): "&quot;",
    ord("'"): "&#39;",
    ord("`"): "&#96;",
}

STYLE = """\
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5b646d; --paper: #fff; --raised: #f5f7f9; --line: #d5dbe1;
  --good: #12703a; --good-paper: #e3f6ea; --bad: #b3201f; --bad-paper: #fdeaea; --doubt: #7a5200; --doubt-paper: #fdf3da;
  --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --dim: #9aa5b1; --paper: #14181c; --raised: #1d2329;
  --line: #37414b; --good: #6fd39a; --good-paper: #153424; --bad: #ff9a95; --bad-paper: #45201f; --doubt: #f0c36a;
  --doubt-paper: #3d300f; --link: #7db8f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem; max-width: 84rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
p, ul { margin: .4rem 0; }
ul { padding-left: 1.2rem; }
code, pre { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.dim { color: var(--dim); }
.mark { display: inline-block; padding: 0 .5rem; border-radius: .7rem; font-size: .85rem; font-weight: 600;
  white-space: nowrap; background: var(--raised); }
.good { color: var(--good); background: var(--good-paper); }
.bad { color: var(--bad); background: var(--bad-paper); }
.doubt { color: var(--doubt); background: var(--doubt-paper); }
td.good, td.bad { font-weight: 600; }
details.case { border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0; }
details.case > summary { padding: .4rem .7rem; cursor: pointer; overflow-wrap: anywhere; }
details.case > div { padding: 0 .7rem .7rem; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: .7rem; }
.sides > div { min-width: 0; }
pre { margin: .2rem 0; padding: .5rem .7rem; background: var(--raised); border-radius: .3rem; white-space: pre-wrap;
  unicode-bidi: isolate; max-height: 30rem; overflow-y: auto; }
.filters { display: flex; flex-wrap: wrap; gap: .5rem; margin: .6rem 0; }
.filters[hidden] { display: none; }
.filters input, .filters select { font: inherit; color: inherit; background: var(--raised); border: 1px solid var(--line);
  border-radius: .3rem; padding: .25rem .5rem; max-width: 100%; }
svg { max-width: 100%; height: auto; }
svg .line { fill: none; stroke: var(--link); stroke-width: 1.5; }
svg .band { fill: var(--link); opacity: .18; }
svg .dot { fill: var(--link); }
footer { margin-top: 2.5rem; color: var(--dim); font-size: .9rem; }
@media (max-width: 40rem) { body { padding: .8rem; } th, td { padding: .3rem .4rem; } }
@media print { .filters { display: none; } pre { max-height: none; } }
"""

SCRIPT = """\
for (const bar of document.querySelectorAll(".filters")) {
  const cases = [...bar.parentElement.querySelectorAll("details.case")];
  const [words, kind, told] = [bar.querySelector("input"), bar.querySelector("select"), bar.querySelector("output")];
  const apply = () => {
    const wanted = words.value.toLowerCase();
    let shown = 0;
    for (const each of cases) {
      const fits = !kind.value || each.dataset.kinds.split(" ").includes(kind.value);
      each.hidden = !(fits && (!wanted || each.textContent.toLowerCase().includes(wanted)));
      shown += each.hidden ? 0 : 1;
    }
    told.textContent = shown + " of " + cases.length;
  };
  words.addEventListener("input", apply);
  kind.addEventListener("change", apply);
  bar.hidden = false;
  apply();
}
"""


def page(title: str, body: Iterable[str]) -> str:
    """The document. `title` is text; `body` is HTML whose every text went through `esc`."""
    head = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{esc(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
    ]
    return "\n".join([*head, *body, f"<script>{SCRIPT}</script>", "</body>", "</html>", ""])


def esc(text: object, limit: int | None = None) -> str:
    """`text` as HTML that shows exactly it, in an element or a quoted attribute; cut to `limit` characters.

    What no page may hold, and what turns the direction of the text around it, is replaced.
    """
    plain = str(text)
    cut = plain if limit is None or len(plain) <= limit else plain[: limit - 1] + "…"
    return _NOT_SHOWN.sub("�", cut.replace("\r\n", "\n").replace("\r", "\n")).translate(_SPELT)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """A table; cells are HTML, the columns of `numeric` stand at the right. One that is too wide scrolls by itself."""
    right = set(numeric)

    def cells(tag: str, texts: Sequence[str]) -> str:
        shown = ((' class="n"' if place in right else "", text) for place, text in enumerate(texts))
        return "<tr>" + "".join(f"<{tag}{about}>{text}</{tag}>" for about, text in shown) + "</tr>"

    lines = [cells("td", row) for row in rows]
    return f'<div class="wide" tabindex="0"><table><thead>{cells("th", heads)}</thead><tbody>{"".join(lines)}</tbody></table></div>'


def mark(text: str, kind: str = "") -> str:
    """A short word in a coloured field: `good`, `bad`, `doubt` or none of these."""
    return f'<span class="mark{" " + kind if kind else ""}">{esc(text)}</span>'


def _policy() -> str:
    style, script = (_digest(text) for text in (STYLE, SCRIPT))
    return f"default-src 'none'; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
