"""The parts that pages are made of: skeleton and style, tables, figures. Every text is escaped here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from ._tables import Table

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5b6675; --line: #e1e5ea; --tint: #f5f7f9; --accent: #0072B2; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--tint); color: var(--ink); line-height: 1.5; font-size: 15px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 10px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 36px 0 12px; }
h3 { font-size: 15px; margin: 20px 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 10px; max-width: 75ch; }
.chips { display: flex; flex-wrap: wrap; gap: 6px 8px; list-style: none; margin: 0; padding: 0; }
.chips li { background: #fff; border: 1px solid var(--line); border-radius: 999px; padding: 2px 11px;
  font-size: 13px; color: var(--soft); }
.card { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; margin: 0 0 16px; }
.card > :last-child { margin-bottom: 0; }
.card > h3:first-child { margin-top: 0; }
.tiles { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 255px), 1fr));
  margin: 22px 0 16px; }
.tiles .card { margin: 0; }
.tile b { display: block; font-size: 30px; line-height: 1.15; color: var(--accent);
  font-variant-numeric: tabular-nums; }
.tile strong { display: block; }
.tile { overflow-wrap: anywhere; }
.tile span { color: var(--soft); font-size: 13.5px; }
.figures figure:last-child:nth-child(odd) { grid-column: 1 / -1; }
.figures figure:last-child:nth-child(odd) svg { max-width: 600px; }
.figures { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr));
  margin: 0 0 16px; }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; max-width: 540px; height: auto; margin: 0 auto; }
figure svg text { font-family: inherit !important; }
figcaption { color: var(--soft); font-size: 13px; margin: 8px 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: baseline; }
th { font-weight: 600; }
thead th { color: var(--soft); font-size: 12.5px; border-bottom: 2px solid var(--line); vertical-align: bottom;
  white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
th.key, td.key { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tbody th { max-width: 24em; overflow-wrap: anywhere; }
td { white-space: nowrap; }
.wide tbody th { min-width: 11em; }
td.long { white-space: normal; text-align: left; min-width: 15em; }
td.share { background: linear-gradient(to right, #cfe5f3 var(--share), transparent 0) no-repeat 0 50% / 100% 68%;
  min-width: 5em; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px; }
details { margin: 10px 0 0; }
summary { cursor: pointer; color: var(--accent); }
.warning { border-left: 4px solid #D55E00; }
.notes { color: var(--soft); font-size: 13.5px; margin: 0; padding-left: 18px; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  main { padding: 20px 12px 32px; }
  h1 { font-size: 21px; }
  .card { padding: 13px 13px; }
  table.stack, .stack tbody { display: block; }
  .stack thead { display: none; }
  .stack tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--line); }
  .stack tr:last-child { border-bottom: 0; }
  .stack th, .stack td { display: flex; justify-content: space-between; gap: 16px; border: 0; padding: 2px 0;
    max-width: none; text-align: right; white-space: normal; overflow-wrap: anywhere; }
  .stack th { display: block; text-align: left; font-size: 15px; }
  .stack td.long { display: block; text-align: left; }
  .stack [data-label]::before { content: attr(data-label); color: var(--soft); font-weight: 400; flex: none; }
  .stack .long[data-label]::before { display: none; }
  .stack .empty { display: none; }
}
@media print {
  body { background: #fff; font-size: 11pt; }
  main { max-width: none; padding: 0; }
  .card, figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page around `parts`."""
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *parts,
            "</main>",
            "</body>",
            "</html>",
            "",
        )
    )


def card(*parts: str, kind: str = "") -> str:
    """Parts that belong together, in a box."""
    inside = "\n".join(parts)
    return f'<section class="{f"card {kind}".strip()}">\n{inside}\n</section>'


def heading(level: int, text: str) -> str:
    """A heading of this level."""
    return f"<h{level}>{escape(text)}</h{level}>"


def bullets(texts: Sequence[str], kind: str) -> str:
    """A list; those that begin with blanks belong to the one before."""
    items = "\n".join(f"<li>{escape(text.strip())}</li>" for text in texts)
    return f'<ul class="{kind}">\n{items}\n</ul>'


def figure(drawing: str, caption: str = "") -> str:
    """A drawing in a box with a line under it."""
    below = f"\n<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="card">\n{drawing}{below}\n</figure>'


def table(
    content: Table, *, stack: bool = True, long: Sequence[str] = (), shares: Mapping[str, Sequence[float]] | None = None
) -> str:
    """A table.

    Args:
        content: its title is left to the caller.
        stack: on narrow screens every row becomes a block of lines; otherwise the table scrolls in its box.
        long: headers of columns that hold sentences.
        shares: by header, fractions of 1 that stand as bars behind the column's cells.
    """
    sides = ["key" if place < content.keys else "" for place in range(len(content.headers))]
    head = "".join(
        f'<th scope="col"{_class(side, "key" * (name in long))}>{escape(name)}</th>'
        for name, side in zip(content.headers, sides, strict=True)
    )
    rows = [
        "".join(
            _cell(
                name if stack else "",
                text,
                place < content.keys,
                place == 0,
                name in long,
                _share(shares, name, number),
            )
            for place, (name, text) in enumerate(zip(content.headers, cells, strict=True))
        )
        for number, cells in enumerate(content.rows)
    ]
    body = "\n".join(f"<tr>{cells}</tr>" for cells in rows)
    inside = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="scroll"><table{_class("stack" if stack else "wide")}>\n{inside}\n</table></div>'


def _share(shares: Mapping[str, Sequence[float]] | None, name: str, number: int) -> float | None:
    return shares[name][number] if shares is not None and name in shares else None


def _cell(name: str, text: str, key: bool, first: bool, long: bool, share: float | None) -> str:
    kinds = _class("key" * key, "long" * long, "share" * (share is not None), "empty" * (not text))
    style = "" if share is None else f' style="--share: {100 * share:.1f}%"'
    if first:
        return f'<th scope="row"{kinds}>{escape(text)}</th>'
    label = f' data-label="{escape(name)}"' if name else ""
    return f"<td{kinds}{style}{label}>{escape(text)}</td>"


def _class(*names: str) -> str:
    found = " ".join(name for name in names if name)
    return f' class="{found}"' if found else ""


def folded(summary: str, content: str) -> str:
    """Something to unfold."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{content}\n</details>"


def tile(number: str, title: str, text: str) -> str:
    """A figure that should be seen first."""
    return (
        f'<div class="card tile"><b>{escape(number)}</b><strong>{escape(title)}</strong>'
        f"<span>{escape(text)}</span></div>"
    )


def joined(pieces: Sequence[str], around: Callable[[str], str]) -> list[str]:
    """The pieces in one box, or nothing where there are none."""
    return [around("\n".join(pieces))] if pieces else []
