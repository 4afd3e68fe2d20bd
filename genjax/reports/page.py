"""Self-contained HTML pages: styles, pictures and charts are embedded in the file."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --card: #f5f6f8; --line: #d5d9de; --soft: #5b6570; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --paper: #14171a; --card: #1d2125; --line: #363c43; --soft: #9aa5b1; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 1.2rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
p, figcaption { color: var(--soft); margin: .3rem 0; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
thead th { background: var(--card); font-weight: 600; }
thead th:first-child { background: var(--card); }
td.best { font-weight: 700; text-decoration: underline; }
.cards, .charts { display: grid; gap: 1rem; margin: .6rem 0; }
.cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); }
figure { margin: 0; padding: .7rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
figure img { width: 100%; height: auto; border-radius: 4px; display: block; }
figcaption b { color: var(--ink); }
svg { width: 100%; max-width: 760px; height: auto; display: block; color: var(--ink); }
svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .front { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .bar { stroke-width: 2; }
svg .curve { fill: none; stroke-width: 1.6; }
@media (max-width: 600px) { svg text { font-size: 19px; } svg text.name { display: none; } }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1rem; margin: .4rem 0; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%; margin-right: .35rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
"""


def table(names: Sequence[str], rows: Sequence[Sequence[str]], best: Sequence[Sequence[bool]]) -> str:
    """A table that scrolls horizontally if it is wider than the page.

    Args:
        names: column headers.
        rows: text of each cell.
        best: cells to highlight.

    Returns:
        HTML.
    """
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = []
    for row, marks in zip(rows, best, strict=True):
        cells = zip(row, marks, strict=True)
        body.append(
            "".join(f"<td{' class=best' if mark else ''}>{html.escape(cell)}</td>" for cell, mark in cells)
        )
    lines = "".join(f"<tr>{line}</tr>" for line in body)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def figure(caption: str, picture: Image.Image | str, note: str = "") -> str:
    """A figure with a picture or a chart below its caption.

    Args:
        caption: bold caption; "" for none.
        picture: a picture to embed as PNG, or a chart's SVG.
        note: text after the caption.

    Returns:
        HTML.
    """
    if isinstance(picture, str):
        shown = picture
    else:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        size = f'width="{picture.width}" height="{picture.height}"'
        shown = f'<img alt="{html.escape(caption)}" {size} src="data:image/png;base64,{data}">'
    words = f"<b>{html.escape(caption)}</b> {html.escape(note)}"
    head = f"<figcaption>{words}</figcaption>" if caption or note else ""
    return f"<figure>{head}{shown}</figure>"


def key(names: Sequence[tuple[str, str]]) -> str:
    """A legend of (name, colour) pairs."""
    marks = (f'<span><i style="background:{colour}"></i>{html.escape(name)}</span>' for name, colour in names)
    return f'<div class="key">{"".join(marks)}</div>'


def charts(figures: Sequence[str]) -> str:
    """A grid of charts, each at least 480 px wide where the screen allows."""
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def cards(figures: Sequence[str]) -> str:
    """A grid of figures, each at least 320 px wide where the screen allows."""
    return f'<div class="cards">{"".join(figures)}</div>'


def section(title: str, words: str, *parts: str) -> str:
    """A section of the page.

    Args:
        title: heading.
        words: paragraph below the heading.
        *parts: HTML of the section's contents.

    Returns:
        HTML.
    """
    return f"<section><h2>{html.escape(title)}</h2><p>{html.escape(words)}</p>{''.join(parts)}</section>"


def page(title: str, words: str, *sections: str) -> str:
    """The complete HTML document.

    Args:
        title: title and main heading.
        words: paragraph below the heading.
        *sections: HTML of each section.

    Returns:
        HTML.
    """
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    icon = '<link rel="icon" href="data:,">'
    head = f'<meta charset="utf-8">{view}{icon}<title>{html.escape(title)}</title><style>{STYLE}</style>'
    body = f"<h1>{html.escape(title)}</h1><p>{html.escape(words)}</p>{''.join(sections)}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
