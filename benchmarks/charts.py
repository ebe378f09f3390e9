"""Draw figures as SVG: horizontal bars on a card of their own, each with its goal as a line where it has one.

Text is text; colours follow the reader's light or dark setting, background included, so that a page of the other kind
makes nothing unreadable; what is missed is told by colour and in words. Nothing in a file depends on when it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.figures import Figure

FOLDER = Path(__file__).parents[1] / "docs" / "charts"

_WIDTH: Final = 760
_EDGE: Final = 24
_LEFT: Final = 304
"""Where bars begin; labels end a little before."""
_ROOM: Final = 204
"""The longest bar; the rest of the width is for what is said behind it."""
_VALUE: Final = 48
"""What a number takes."""
_HEAD: Final = 74
_ROW: Final = 36
_BAR: Final = 20
_STYLE: Final = """text{font-family:system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;font-size:13px}
text{fill:#1f2328}.title{font-size:16px;font-weight:600}.small{font-size:12px;fill:#59636e}.value{font-weight:600}
.card{fill:#ffffff;stroke:#d1d9e0}.axis{stroke:#d1d9e0}
.bar{fill:#2f6f9f}.missed{fill:#c9762b}.goal{stroke:#1f2328;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.card{fill:#0d1117;stroke:#3d444d}
.axis{stroke:#3d444d}.bar{fill:#58a6d6}.missed{fill:#d9924e}.goal{stroke:#e6edf3}}"""


class Chart(NamedTuple):
    """One file. rows: names of figures, top to bottom, with labels. It stays as it is unless all were measured."""

    file: str
    title: str
    unit: str
    rows: tuple[tuple[str, str], ...]


CHARTS: Final = (
    Chart(
        "server-cpu.svg",
        "What a durable lease costs the server",
        "CPU, in bare aiohttp WebSocket echoes (a push: in bare sends); less is better",
        (
            ("lease 32 x 8", "32 connections, 8 in flight on each"),
            ("lease 1000 x 1", "1000 connections, 1 in flight on each"),
            ("lease 10 tokens", "10 tokens, asked for again and again"),
            ("lease new tokens", "tokens nobody asked for before"),
            ("lease 1 x 1", "1 connection, 1 in flight: a commit each"),
            ("fan-out", "one rotation pushed, for each worker"),
        ),
    ),
    Chart(
        "latency.svg",
        "How soon a durable lease is answered at 30 % load",
        "in one bare echo and one fdatasync; less is better",
        (("latency p50", "median"), ("latency p99", "99 of 100"), ("latency p99.9", "999 of 1000")),
    ),
    Chart(
        "growth.svg",
        "What growth costs a lease",
        "times the CPU where there is a thousandth of it; 1 is no difference",
        (
            ("lease among many", "one of 1000 tokens, a million on disk"),
            ("lease of any of many", "any of a million tokens, once"),
            ("policy, new token", "its policy, with 10 000 grants"),
        ),
    ),
    Chart(
        "peers.svg",
        "What OpenBao costs the same machine",
        "server CPU for one operation, in durable leases of ours; the more, the cheaper ours is",
        (
            ("OpenBao KV v2 read", "KV v2 read, file audit on"),
            ("OpenBao leased token", "leased token, file audit on"),
        ),
    ),
)


def draw(figures: Sequence[Figure]) -> None:
    """Write each chart whose figures are all there."""
    known = {figure.name: figure for figure in figures}
    for chart in CHARTS:
        if all(name in known for name, _ in chart.rows):
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / chart.file).write_text(svg(chart, known))


def svg(chart: Chart, known: dict[str, Figure]) -> str:
    """The chart as text."""
    figures = [known[name] for name, _ in chart.rows]
    most = max(max(figure.value, figure.goal or 0.0) for figure in figures)
    bottom = _HEAD + _ROW * len(figures)
    height = bottom + 16
    shown = ", ".join(f"{label} {figure.value:.2f}" for (_, label), figure in zip(chart.rows, figures, strict=True))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
        f"<title>{escape(f'{chart.title}, {chart.unit}: {shown}')}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="{_EDGE}" y="32">{escape(chart.title)}</text>',
        f'<text class="small" x="{_EDGE}" y="52">{escape(chart.unit)}</text>',
    ]
    for at, ((_, label), figure) in enumerate(zip(chart.rows, figures, strict=True)):
        lines += _row(_HEAD + _ROW * at, label, figure, _ROOM / most)
    lines.append(f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{_HEAD - 6}" y2="{bottom - 6}"/>')
    return "\n".join([*lines, "</svg>\n"])


def _row(top: int, label: str, figure: Figure, scale: float) -> list[str]:
    """Label, bar, goal, and in words how the two compare. scale: pixels for each of the unit."""
    length, goal = figure.value * scale, (figure.goal or 0.0) * scale
    kind, behind, baseline = "bar" if figure.met else "missed", _LEFT + max(length, goal) + 10, top + 15
    words = "" if figure.goal is None else f"goal {'≥' if figure.at_least else '≤'} {figure.goal:g}, {figure.verdict}"
    lines = [
        f'<text x="{_LEFT - 12}" y="{baseline}" text-anchor="end">{escape(label)}</text>',
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2"/>',
        f'<text class="value" x="{behind:.1f}" y="{baseline}">{figure.value:.2f}</text>',
        f'<text class="small" x="{behind + _VALUE:.1f}" y="{baseline}">{escape(words)}</text>',
    ]
    if figure.goal is not None:
        x = _LEFT + goal
        lines.append(f'<line class="goal" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{top + _BAR + 4}"/>')
    return lines
