"""Counts, a path and notes laid over a table: the same writers serve what is live."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from typing import Any

import pytest

from shem.diagrams import Format, render
from shem.diagrams.picture import duration
from shem.errors import ConfigError
from shem.lifecycle import SERVICE, Actor, AgreementState, Cause, Event, Record, State

SVG = "{http://www.w3.org/2000/svg}"


def record(
    seq: int, at: float, source: State, event: Event, dest: State, reason: str = ""
) -> Record[State, Event]:
    actor = next(actor for actor in Actor if actor in SERVICE.raised_by[event])
    return Record(
        seq, "instance 1", datetime(2026, 1, 1, tzinfo=UTC), at, source, event, dest, Cause(actor, reason)
    )


PATH = [
    record(1, 100.0, State.PENDING, Event.RUN_SERVICE, State.STARTING),
    record(2, 104.0, State.STARTING, Event.AGREEMENT_TERMINATED, State.PENDING, "no more disk"),
    record(3, 110.0, State.PENDING, Event.RUN_SERVICE, State.STARTING),
    record(4, 111.5, State.STARTING, Event.START_SUCCESSFUL, State.RUNNING),
]


def groups(svg: str, kind: str) -> dict[str, set[str]]:
    """Id and classes of the picture's groups of a kind."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        classes = group.get("class", "").split()
        if kind in classes:
            found[group.get("id", "").removeprefix("instance-")] = set(classes)
    return found


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(text.itertext()) for text in element.iter(f"{SVG}text"))


def test_states_and_moves_of_the_path_stand_out() -> None:
    svg = render(SERVICE, "svg", path=PATH)
    states = groups(svg, "state")
    assert {name for name, classes in states.items() if "visited" in classes} == {
        "pending",
        "starting",
        "running",
    }
    assert {name for name, classes in states.items() if "current" in classes} == {"running"}
    moves = groups(svg, "move")
    assert {name for name, classes in moves.items() if "taken" in classes} == {
        "pending-starting",
        "starting-pending",
        "starting-running",
    }


def test_of_several_events_on_one_arrow_only_the_one_that_came_is_marked() -> None:
    svg = render(SERVICE, "svg", path=PATH)
    bold = re.findall(r'font-weight="bold">(\w+)</tspan><tspan', svg)
    assert sorted(bold) == ["AgreementTerminated", "RunService", "StartSuccessful"]
    assert render(SERVICE, "mermaid", path=PATH).count("✓") == 3


def test_without_a_path_nothing_fades() -> None:
    assert "opacity" not in render(SERVICE, "svg")
    assert "opacity" in render(SERVICE, "svg", path=PATH)


def test_the_time_in_each_state_is_told_as_far_as_it_is_known() -> None:
    text = render(SERVICE, "markdown", path=PATH)
    assert "- **Starting**: 5.5 s\n" in text
    assert "- **Pending**: 6.0 s\n" in text
    assert "- **Running**" not in text
    assert "- **Running**: 48 s\n" in render(SERVICE, "markdown", path=PATH, now=160.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (119.0, "119 s"), (600.0, "10 min"), (9000.0, "2.5 h")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_path_is_listed_with_its_causes() -> None:
    text = render(SERVICE, "markdown", path=PATH)
    assert "1. Starting → **Pending** by `AgreementTerminated`: provider: no more disk\n" in text
    assert text.count("\n1. ") == len(PATH)


@pytest.mark.parametrize("format", ["svg", "dot", "mermaid", "markdown"])
def test_counts_are_shown_and_states_without_one_count_as_none(format: str) -> None:
    text = render(SERVICE, format, counts={State.RUNNING: 417})
    assert isinstance(text, str)
    assert text.count("417") == 1
    assert "417" not in render(SERVICE, format)


def test_an_empty_count_is_zero_everywhere() -> None:
    svg = ElementTree.fromstring(render(SERVICE, "svg", counts={}))
    shown = [words(group) for group in svg.iter(f"{SVG}g") if "state" in group.get("class", "").split()]
    assert [text.split()[-1] for text in shown] == ["0"] * len(SERVICE.states)


@pytest.mark.parametrize("format", ["svg", "dot", "mermaid", "markdown"])
def test_notes_are_shown_with_their_state(format: str) -> None:
    text = render(SERVICE, format, notes={State.STARTING: ["two words"]})
    assert "two words" in text


@pytest.mark.parametrize(
    "arguments",
    [
        {"counts": {AgreementState.PENDING: 1}},
        {"notes": {"running": ["x"]}},
        {"path": [record(1, 0.0, State.PENDING, Event.RUN_SERVICE, State.RUNNING)]},
    ],
    ids=["counts", "notes", "path"],
)
def test_what_does_not_fit_the_table_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="instance table"):
        render(SERVICE, Format.SVG, **arguments)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="gif"):
        render(SERVICE, "gif")
