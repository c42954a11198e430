"""A picture as SVG: self-contained, the same text for the same input, readable without any font of its own.

Groups carry ``id`` and ``class`` (``state running current``, ``move shem taken``), so that a page can style
and address them; hovering over a label or a state tells what it means.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from shem.diagrams.layout import MARGIN, Box, Label, Layout, Point, Wire, lay_out
from shem.diagrams.legend import Entry, legend
from shem.diagrams.picture import Node, Picture
from shem.diagrams.style import INK, KIND_COLOUR, MIXED, PAPER, QUIET
from shem.diagrams.text import LINE_HEIGHT, NAME_SIZE, SMALL_SIZE, Run, text_width

#: Preferred fonts; `text` measures generously enough for any of them.
FONTS: Final = "Lato, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

_FADED: Final = ' opacity="0.28"'
_HEAD: Final = 9.0
_KEY: Final = 27.0  # from the start of a legend entry's mark to its text


def write_svg(picture: Picture) -> str:
    """The picture as an SVG document."""
    layout = lay_out(picture)
    key = _legend_lines(legend(picture), layout.width - 2 * MARGIN)
    width, height = _n(layout.width), _n(layout.height + 22 * len(key) + 12)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{FONTS}">',
        f"<title>{escape(picture.title or picture.table)}</title>",
        f'<rect width="100%" height="100%" rx="10" fill="{PAPER}"/>',
    ]
    if picture.title:
        parts.append(_text(MARGIN, 38, [Run(picture.title, INK, 20, bold=True)]))
    parts += _start(layout)
    # Lines that are drawn later bridge the earlier ones; boxes and labels lie on top of all lines.
    for wire in sorted(layout.wires, key=lambda wire: wire.arrow.taken):
        parts += _wire(wire, picture)
    for node in picture.nodes:
        parts += _state(node, layout.boxes[node.key], picture)
    for wire in layout.wires:
        parts += _label(wire.label)
    parts += _legend(key, layout.height + 8)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _n(value: float) -> str:
    return f"{round(value, 1):.10g}"


def _text(x: float, y: float, runs: Iterable[Run], *, anchor: str = "start", extra: str = "") -> str:
    spans = "".join(
        f'<tspan fill="{run.colour}" font-size="{_n(run.size)}"'
        + (' font-style="italic"' if run.italic else "")
        + (' font-weight="bold"' if run.bold else "")
        + f">{escape(run.text)}</tspan>"
        for run in runs
    )
    align = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{align} xml:space="preserve"{extra}>{spans}</text>'


def _start(layout: Layout) -> list[str]:
    (x, y), tip = layout.start
    return [
        f'<circle cx="{_n(x)}" cy="{_n(y)}" r="7" fill="{INK}"/>',
        f'<path d="M{_n(x)},{_n(y)} V{_n(tip[1] - _HEAD)}" stroke="{INK}" stroke-width="2" fill="none"/>',
        _head((x, y), tip, INK, 1.0),
    ]


def _wire(wire: Wire, picture: Picture) -> list[str]:
    arrow, kind = wire.arrow, wire.arrow.kind
    colour = MIXED if kind is None else KIND_COLOUR[kind]
    width = (3.2 if picture.on_spine(arrow) else 1.8) + (1.6 if arrow.taken else 0.0)
    scale = 1.0 + width / 12
    faded = _FADED if picture.steps_taken and not arrow.taken else ""
    names = ["move", kind.name.lower().replace("_", "-") if kind else "mixed"]
    names += ["taken"] if arrow.taken else []
    path = _path(wire.points, _HEAD * scale)
    return [
        f'<g id={_id(picture, arrow.source, arrow.dest)} class="{" ".join(names)}" fill="none">',
        f'<path d="{path}" stroke="{PAPER}" stroke-width="{_n(width + 4)}"/>',
        f'<g{faded}><path d="{path}" stroke="{colour}" stroke-width="{_n(width)}"/>',
        _head(wire.points[-2], wire.points[-1], colour, scale) + "</g></g>",
    ]


def _id(picture: Picture, *names: str) -> str:
    return quoteattr("-".join((picture.table, *names)))


def _step(start: Point, towards: Point, length: float) -> Point:
    """The point some way along a horizontal or vertical line, at most half of it."""
    dx, dy = towards[0] - start[0], towards[1] - start[1]
    whole = max(abs(dx), abs(dy)) or 1.0
    part = min(length, whole / 2) / whole
    return start[0] + dx * part, start[1] + dy * part


def _path(points: tuple[Point, ...], head: float) -> str:
    """The line from the first point to just before the last, with its corners rounded."""
    end = _step(points[-1], points[-2], head)
    parts = [f"M{_n(points[0][0])},{_n(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], (*points[2:-1], end), strict=False):
        a, b = _step(corner, before, 9.0), _step(corner, after, 9.0)
        parts.append(f"L{_n(a[0])},{_n(a[1])} Q{_n(corner[0])},{_n(corner[1])} {_n(b[0])},{_n(b[1])}")
    parts.append(f"L{_n(end[0])},{_n(end[1])}")
    return " ".join(parts)


def _head(before: Point, tip: Point, colour: str, scale: float) -> str:
    length = max(abs(tip[0] - before[0]), abs(tip[1] - before[1])) or 1.0
    dx, dy = (tip[0] - before[0]) / length, (tip[1] - before[1]) / length
    long, half = _HEAD * scale + 1, _HEAD * scale * 0.48
    x, y = tip[0] - dx * long, tip[1] - dy * long
    corners = (tip, (x - dy * half, y + dx * half), (x + dy * half, y - dx * half))
    return f'<polygon points="{" ".join(f"{_n(px)},{_n(py)}" for px, py in corners)}" fill="{colour}"/>'


def _state(node: Node, box: Box, picture: Picture) -> list[str]:
    names = ["state", node.ident.lower()]
    names += [word for word in ("initial", "final", "visited", "current") if getattr(node, word)]
    faded = bool(picture.steps_taken) and not node.visited
    parts = [
        f'<g id={_id(picture, node.key)} class="{" ".join(names)}">',
        f"<title>{escape(' · '.join((node.name, *node.facts)))}</title>",
        _rect(box, node.tone.fill, node.tone.border, 4.5 if node.current else 2.0, radius=12, faded=faded),
    ]
    if node.final:
        inner = Box(box.x + 5, box.y + 5, box.w - 10, box.h - 10)
        parts.append(_rect(inner, "none", node.tone.border, 1.2, radius=8, faded=faded))
    extra = _FADED if faded else ""
    centre = box.x + box.w / 2
    y = box.y + (box.h - (LINE_HEIGHT - 1) * len(node.lines)) / 2 + NAME_SIZE * 0.35
    parts.append(_text(centre, y, [Run(node.name, INK, NAME_SIZE, bold=True)], anchor="middle", extra=extra))
    for number, fact in enumerate(node.lines, 1):
        run = Run(fact, MIXED, SMALL_SIZE)
        at = y + 2 + (LINE_HEIGHT - 1) * number
        parts.append(_text(centre, at, [run], anchor="middle", extra=extra))
    if node.count is not None:
        parts += _badge(node, node.count, box)
    parts.append("</g>")
    return parts


def _rect(box: Box, fill: str, stroke: str, width: float, *, radius: float, faded: bool = False) -> str:
    extra = ' stroke-opacity="0.35" fill-opacity="0.5"' if faded else ""
    return (
        f'<rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.w)}" height="{_n(box.h)}" rx="{_n(radius)}"'
        f' fill="{fill}" stroke="{stroke}" stroke-width="{_n(width)}"{extra}/>'
    )


def _badge(node: Node, count: int, box: Box) -> list[str]:
    run = Run(str(count), PAPER if count else QUIET, 12, bold=True)
    width = max(24.0, run.width + 12)
    pill = Box(box.right - width - 9, box.y + 9, width, 20)
    return [
        _rect(pill, node.tone.border if count else PAPER, node.tone.border, 1.2, radius=10),
        _text(pill.x + width / 2, pill.y + 14.3, [run], anchor="middle"),
    ]


def _label(label: Label) -> list[str]:
    box = label.box
    x = {"start": box.x, "middle": box.x + box.w / 2, "end": box.right}[label.anchor]
    parts = []
    for number, line in enumerate(label.lines):
        y = box.y + LINE_HEIGHT * number + 12
        text = _text(x, y, line.runs, anchor=label.anchor, extra=_FADED if line.faded else "")
        parts.append(f"<g><title>{escape(line.meaning)}</title>{text}</g>" if line.meaning else text)
    return parts


def _legend_lines(entries: list[Entry], width: float) -> list[list[Entry]]:
    """Entries broken into lines that fit."""
    lines: list[list[Entry]] = [[]]
    x = 0.0
    for entry in entries:
        if lines[-1] and x + _entry_width(entry) > width:
            lines.append([])
            x = 0.0
        lines[-1].append(entry)
        x += _entry_width(entry)
    return lines


def _entry_width(entry: Entry) -> float:
    return (_KEY if entry.colour else 0.0) + text_width(entry.text, SMALL_SIZE) + 14


def _legend(lines: list[list[Entry]], y: float) -> list[str]:
    parts = ['<g class="legend">']
    for number, line in enumerate(lines):
        x, at = MARGIN, y + 22 * number
        for entry in line:
            shift = 0.0
            if entry.colour:
                shift = _KEY
                parts.append(f'<path d="M{_n(x)},{_n(at)} h20" stroke="{entry.colour}" stroke-width="3"/>')
            run = Run(entry.text, QUIET, SMALL_SIZE, italic=not entry.colour)
            parts.append(_text(x + shift, at + 4, [run]))
            x += _entry_width(entry)
    parts.append("</g>")
    return parts
