"""Draw figures as SVG: horizontal bars, each with its goal as a line where it has one. Text is text, colours follow the
reader's light or dark theme, and nothing in a file depends on when it was drawn.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.figures import Figure

FOLDER = Path(__file__).parents[1] / "docs" / "charts"

_WIDTH: Final = 760
_LEFT: Final = 300
_ROOM: Final = 330
_ROW: Final = 34
_STYLE: Final = """text{font:13px system-ui,sans-serif;fill:#1f2328}.small{font-size:11px;fill:#59636e}
.bar{fill:#2f6f9f}.goal{stroke:#b3541e;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.bar{fill:#58a6d6}.goal{stroke:#f0883e}}"""


class Chart(NamedTuple):
    """One file. names: of the figures in it, top to bottom; those that were not measured leave it as it is."""

    file: str
    title: str
    names: tuple[str, ...]


CHARTS: Final = (
    Chart(
        "server-cpu.svg",
        "CPU, in bare aiohttp echoes or sends (lower is better)",
        ("lease 32 x 8", "fan-out", "client lease"),
    ),
    Chart(
        "latency.svg",
        "Durable lease at 30 % load, in echo + fdatasync (lower is better)",
        ("latency p50", "latency p99", "latency p99.9"),
    ),
    Chart(
        "peers.svg",
        "Server CPU of OpenBao, in durable leases (higher: ours costs less)",
        ("OpenBao KV v2 read", "OpenBao leased token"),
    ),
)


def draw(figures: list[Figure]) -> None:
    """Write each chart whose figures are all there."""
    known = {figure.name: figure for figure in figures}
    for chart in CHARTS:
        if all(name in known for name in chart.names):
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / chart.file).write_text(svg(chart.title, [known[name] for name in chart.names]))


def svg(title: str, figures: list[Figure]) -> str:
    """The chart as text."""
    most = max(max(figure.value, figure.goal or 0.0) for figure in figures)
    height = 44 + _ROW * len(figures) + 24
    shown = ", ".join(f"{figure.name} {figure.value:.2f}" for figure in figures)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}: {escape(shown)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text x="0" y="20">{escape(title)}</text>',
    ]
    for at, figure in enumerate(figures):
        top = 40 + _ROW * at
        length = figure.value / most * _ROOM
        lines.append(f'<text x="{_LEFT - 10}" y="{top + 15}" text-anchor="end">{escape(figure.name)}</text>')
        lines.append(f'<rect class="bar" x="{_LEFT}" y="{top}" width="{length:.1f}" height="22" rx="2"/>')
        label = max(length, (figure.goal or 0.0) / most * _ROOM) + _LEFT + 8
        lines.append(f'<text x="{label:.1f}" y="{top + 15}">{figure.value:.2f}</text>')
        if figure.goal is not None:
            x = _LEFT + figure.goal / most * _ROOM
            lines.append(f'<line class="goal" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 3}" y2="{top + 25}"/>')
    if any(figure.goal is not None for figure in figures):
        lines.append(f'<text class="small" x="{_LEFT}" y="{height - 8}">the line is the goal</text>')
    return "\n".join([*lines, "</svg>\n"])
