"""A table in Markdown, whole: every pair of state and event, every event in words, and what is live."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TypeVar

from shem.diagrams.meaning import meaning_of
from shem.diagrams.picture import Picture, actors_of, display
from shem.lifecycle.record import Record
from shem.lifecycle.table import Cell, Table, Verdict

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)

_OTHERWISE = {Verdict.IGNORE: "·", Verdict.ILLEGAL: "✗"}


def write_markdown(table: Table[S, E], picture: Picture, path: Sequence[Record[S, E]] = ()) -> str:
    """The table as Markdown; `picture` contributes the title and what is shown with the states."""
    final = ", ".join(f"**{display(state)}**" for state in table.states if state in table.final)
    pairs = len(table.states) * len(table.events)
    lines = [
        f"# {_clean(picture.title or picture.table)}",
        "",
        f"{len(table.states)} states × {len(table.events)} events = {pairs} pairs, {len(table.moves)} moves.",
        f"Initial: **{display(table.initial)}**. Final: {final}.",
        "",
        "**Bold**: moves to that state, under the guard in brackets if there is one.",
        "`·`: ignored, because late but harmless. `✗`: illegal, a bug if it ever happens.",
        "",
        *matrix(table, picture),
        "",
        "## Events",
        "",
        _row(("event", "meaning", "raised by")),
        _row("---" for _ in range(3)),
    ]
    for event in table.events:
        raised_by = ", ".join(actor.value for actor in actors_of(table, event))
        lines.append(_row((f"`{event.value}`", meaning_of(event), raised_by)))
    told = [node for node in picture.nodes if node.facts]
    if told:
        lines += ["", "## States", ""]
        lines += [f"- **{node.name}**: {'; '.join(_clean(fact) for fact in node.facts)}" for node in told]
    if path:
        lines += ["", "## Path", "", *(f"1. {_clean(_record(record))}" for record in path)]
    return "\n".join(lines) + "\n"


def matrix(table: Table[S, E], picture: Picture) -> list[str]:
    """The lines of the matrix alone: a row per event, a column per state."""
    lines = [
        _row(("", *(display(state) for state in table.states))),
        _row("---" for _ in range(len(table.states) + 1)),
    ]
    if any(node.count is not None for node in picture.nodes):
        lines.append(_row(("*now*", *(f"*{node.count}*" for node in picture.nodes))))
    for event in table.events:
        cells = (_cell(table.cell(state, event)) for state in table.states)
        lines.append(_row((f"`{event.value}`", *cells)))
    return lines


def _cell(cell: Cell[S, E]) -> str:
    parts = [
        f"**{display(move.dest)}**" + (f" [{move.condition}]" if move.guarded else "") for move in cell.moves
    ]
    if not cell.moves or cell.moves[-1].guarded:
        parts.append(_OTHERWISE[cell.otherwise])
    return " else ".join(parts)


def _record(record: Record[S, E]) -> str:
    source, dest = display(record.source), display(record.dest)
    return f"{source} → **{dest}** by `{record.event.value}`: {record.cause}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_clean(cell) for cell in cells)} |"


def _clean(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
