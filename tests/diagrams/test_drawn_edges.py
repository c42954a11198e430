"""What is drawn is the table: every move once, and nothing else. Pictures are read back to prove it."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.diagrams import render
from shem.diagrams.meaning import MEANINGS
from shem.lifecycle import ACTIVITY, AGREEMENT, SERVICE, Actor, Machine, Move, Table, Verdict
from shem.lifecycle import service as service_table

TABLES = [SERVICE, AGREEMENT, ACTIVITY]
ids = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)

#: source, event, guard, who may raise it, dest
Drawn = tuple[str, str, str, str, str]


def capital(state: enum.Enum) -> str:
    return str(state.value)[:1].upper() + str(state.value)[1:]


def in_table(table: Table[Any, Any]) -> Counter[Drawn]:
    """The moves as they have to be drawn, straight from the table."""
    moves: Counter[Drawn] = Counter()
    for move in table.moves:
        others = [m for m in table.moves if (m.source, m.event) == (move.source, move.event)]
        guard = move.condition or ("else" if len(others) > 1 else "")
        actors = ", ".join(actor.value for actor in Actor if actor in table.raised_by[move.event])
        moves[capital(move.source), move.event.value, guard, actors, capital(move.dest)] += 1
    return moves


def read_labels(source: str, dest: str, lines: Iterable[str]) -> Counter[Drawn]:
    """A label: lines of events, each under the guard that was named last."""
    moves: Counter[Drawn] = Counter()
    guard = ""
    for line in lines:
        if header := re.fullmatch(r"\[(.+)\]", line.strip()):
            guard = header[1]
            continue
        event = re.fullmatch(r"(?:✓ )?(\w+) \((.+)\)", line.strip())
        assert event, line
        moves[source, event[1], guard, event[2], dest] += 1
    return moves


def read_mermaid(text: str) -> tuple[Counter[Drawn], set[str], set[str]]:
    """Moves, initial and final states of a mermaid diagram."""
    moves: Counter[Drawn] = Counter()
    for source, dest, label in re.findall(r"^    (\w+) --> (\w+) : (.+)$", text, re.MULTILINE):
        moves += read_labels(source, dest, label.split("<br/>"))
    initial = set(re.findall(r"^    \[\*\] --> (\w+)$", text, re.MULTILINE))
    final = set(re.findall(r"^    (\w+) --> \[\*\]$", text, re.MULTILINE))
    arrows = [line for line in text.splitlines() if "-->" in line]
    assert len(arrows) == len(initial) + len(final) + len(
        re.findall(r"^    \w+ --> \w+ :", text, re.MULTILINE)
    )
    return moves, initial, final


def read_dot(text: str) -> tuple[Counter[Drawn], set[str], set[str]]:
    """Moves, initial and final states of a dot graph."""
    moves: Counter[Drawn] = Counter()
    for source, dest, label in re.findall(r'^    "(\w+)" -> "(\w+)" \[label="([^"]*)"', text, re.MULTILINE):
        moves += read_labels(source, dest, label.removesuffix(r"\l").split(r"\l"))
    initial = set(re.findall(r'^    __start__ -> "(\w+)"', text, re.MULTILINE))
    final = {
        name
        for name, rest in re.findall(r'^    "(\w+)" \[(.*)\];$', text, re.MULTILINE)
        if "peripheries=2" in rest
    }
    return moves, initial, final


@ids
def test_mermaid_and_dot_draw_every_move_of_the_table_once(table: Table[Any, Any]) -> None:
    expected = (in_table(table), {capital(table.initial)}, {capital(state) for state in table.final})
    assert read_mermaid(render(table, "mermaid")) == expected
    assert read_dot(render(table, "dot")) == expected


@ids
def test_the_svg_names_every_event_guard_and_actor_as_often_as_the_table(table: Table[Any, Any]) -> None:
    svg = render(table, "svg")
    shown = Counter(
        re.sub(r"<[^>]+>", "", line) for line in re.findall(r"<text.*?</text>", svg) if "<tspan" in line
    )
    expected: Counter[str] = Counter()
    for (_, event, _, actors, _), times in in_table(table).items():
        expected[f"{event}  {actors}"] += times
    assert {text: shown[text] for text in expected} == dict(expected)
    assert sum(shown.values()) > expected.total()
    arrows = set(re.findall(rf'<g id="{table.name}-(\w+)-(\w+)" class="move', svg))
    assert arrows == {(move.source.value, move.dest.value) for move in table.moves}


@ids
def test_markdown_tells_of_every_pair(table: Table[Any, Any]) -> None:
    lines = render(table, "markdown").splitlines()
    header = next(line for line in lines if line.startswith("|"))
    names = [cell.strip() for cell in header.strip("|").split("|")][1:]
    assert names == [capital(state) for state in table.states]
    rows = {
        cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]]
        for cells in (line.strip("|").split("|") for line in lines)
        if len(cells) == len(table.states) + 1
    }
    for state, event, cell in table.cells():
        text = rows[event.value][table.states.index(state)]
        assert re.findall(r"\*\*(\w+)\*\*", text) == [capital(move.dest) for move in cell.moves]
        assert re.findall(r"\[([\w ]+)\]", text) == [move.condition for move in cell.moves if move.guarded]
        otherwise = not cell.moves or cell.moves[-1].guarded
        assert ("✗" in text) == (otherwise and cell.otherwise is Verdict.ILLEGAL)
        assert ("·" in text) == (otherwise and cell.otherwise is Verdict.IGNORE)


@ids
def test_markdown_lists_every_event_with_its_meaning_and_who_raises_it(table: Table[Any, Any]) -> None:
    text = render(table, "markdown")
    for event in table.events:
        actors = ", ".join(actor.value for actor in Actor if actor in table.raised_by[event])
        assert f"| `{event.value}` | {MEANINGS[event]} | {actors} |" in text


def test_the_meanings_are_those_of_the_lifecycle_itself() -> None:
    said = " ".join((service_table.__doc__ or "").split())
    for event in SERVICE.events:
        assert f"{event.value} {MEANINGS[event]}" in said


@ids
def test_the_librarys_transitions_are_the_tables_moves(table: Table[Any, Any]) -> None:
    machine = Machine(table).library_machine
    names = {state.name: state for state in table.states}
    found = [
        Move(
            names[transition.source],
            event,
            names[transition.dest],
            tuple(check.func for check in transition.conditions if check.target),
            tuple(check.func for check in transition.conditions if not check.target),
        )
        for event in table.events
        if event.value in machine.events
        for transitions in machine.events[event.value].transitions.values()
        for transition in transitions
    ]
    assert sorted(found, key=table.moves.index) == list(table.moves)
    for state in table.states:
        for event in table.events:
            in_order = [m for m in found if (m.source, m.event) == (state, event)]
            assert tuple(in_order) == table.cell(state, event).moves


def test_the_title_stands_in_mermaids_front_matter() -> None:
    assert render(SERVICE, "mermaid").startswith(
        "---\ntitle: Lifecycle of a service instance\n---\nstateDiagram-v2\n"
    )
    assert 'title: "A: \\"b\\""' in render(SERVICE, "mermaid", title='A: "b"')


# --- any table


class Word(enum.Enum):
    """Events of made-up tables."""

    GO = "Go"
    STAY = "Stay"
    TURN_BACK = "TurnBack"
    GIVE_UP_ALTOGETHER = "GiveUpAltogether"


class Place(enum.Enum):
    """States of made-up tables."""

    HERE = "here"
    THERE = "there"
    ELSEWHERE = "elsewhere"
    FAR = "far"
    FAR_OUT = "farOut"
    LOST = "lost"


@st.composite
def tables(draw: st.DrawFn) -> Table[Place, Word]:
    """Consistent tables of any shape: loops, skips, several guards per pair, several final states."""
    places = list(Place)
    initial = draw(st.sampled_from(places))
    final = draw(st.sets(st.sampled_from([place for place in places if place is not initial]), max_size=2))
    moves: list[Move[Place, Word]] = []
    for source in places:
        for event in Word:
            if source in final or draw(st.booleans()):
                continue
            for guard in draw(st.sets(st.sampled_from(["first", "second_guard"]), max_size=2)):
                negated = draw(st.booleans())
                dest = draw(st.sampled_from(places))
                when, unless = ((), (guard,)) if negated else ((guard,), ())
                moves.append(Move(source, event, dest, when, unless))
            if draw(st.booleans()):
                moves.append(Move(source, event, draw(st.sampled_from(places))))
    return Table(
        "made_up",
        initial=initial,
        final=frozenset(final),
        raised_by={
            event: frozenset(draw(st.sets(st.sampled_from(list(Actor)), min_size=1, max_size=5)))
            for event in Word
        },
        moves=tuple(moves),
        ignored=frozenset(),
    )


@given(tables())
def test_any_table_is_drawn_exactly(table: Table[Place, Word]) -> None:
    expected = (in_table(table), {capital(table.initial)}, {capital(state) for state in table.final})
    assert read_mermaid(render(table, "mermaid")) == expected
    assert read_dot(render(table, "dot")) == expected
