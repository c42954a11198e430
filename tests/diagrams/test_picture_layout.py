"""The picture can be read: nothing lies on anything else, whatever the table, and all is on the sheet."""

from __future__ import annotations

import enum
import itertools
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shem.diagrams import render
from shem.diagrams.layout import Box, Layout, lay_out
from shem.diagrams.picture import make_picture
from shem.diagrams.text import text_width
from shem.lifecycle import ACTIVITY, AGREEMENT, SERVICE, Actor, Move, Table

ids = pytest.mark.parametrize("table", [SERVICE, AGREEMENT, ACTIVITY], ids=lambda table: table.name)

Segment = tuple[tuple[float, float], tuple[float, float]]


def thin(segment: Segment) -> Box:
    """A straight line as a box, without its very ends, which may touch what they join."""
    (x0, y0), (x1, y1) = segment
    left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    if left == right:
        return Box(left - 0.01, top + 0.1, 0.02, bottom - top - 0.2)
    return Box(left + 0.1, top - 0.01, right - left - 0.2, 0.02)


def overlaps(layout: Layout) -> list[str]:
    """Everything in a layout that lies on something else, in words."""
    boxes = dict(layout.boxes)
    labels = {f"label {w.arrow.source}-{w.arrow.dest}": w.label.box for w in layout.wires}
    found = [
        f"{a} on {b}"
        for (a, first), (b, second) in itertools.combinations({**boxes, **labels}.items(), 2)
        if first.overlaps(second)
    ]
    lines = [
        (f"arrow {w.arrow.source}-{w.arrow.dest}", thin(segment))
        for w in layout.wires
        for segment in itertools.pairwise(w.points)
    ]
    found += [
        f"{name} through {other}"
        for name, line in lines
        for other, box in {**boxes, **labels}.items()
        if line.overlaps(box)
    ]
    # Crossings are unavoidable; two lines on top of each other are not.
    found += [
        f"{a} along {b}"
        for (a, first), (b, second) in itertools.combinations(lines, 2)
        if a != b and first.overlaps(second) and (first.w > first.h) == (second.w > second.h)
    ]
    return found


def off_the_sheet(layout: Layout) -> list[str]:
    sheet = [*layout.boxes.values(), *(wire.label.box for wire in layout.wires)]
    points = [point for wire in layout.wires for point in wire.points]
    return [
        str(box) for box in sheet if box.x < 0 or box.right > layout.width or box.bottom > layout.height
    ] + [
        str(point)
        for point in points
        if not (0 <= point[0] <= layout.width and 0 <= point[1] <= layout.height)
    ]


@ids
def test_nothing_lies_on_anything_else(table: Table[Any, Any]) -> None:
    layout = lay_out(make_picture(table))
    assert overlaps(layout) == []
    assert off_the_sheet(layout) == []


@ids
@given(data=st.data())
def test_notes_and_counts_make_room_for_themselves(table: Table[Any, Any], data: st.DataObject) -> None:
    words = st.text("abc WM…ß漢", min_size=1, max_size=90).filter(str.strip)
    notes = data.draw(st.dictionaries(st.sampled_from(table.states), st.lists(words, max_size=4)))
    counts = data.draw(st.dictionaries(st.sampled_from(table.states), st.integers(0, 10**6)))
    layout = lay_out(make_picture(table, notes=notes, counts=counts))
    assert overlaps(layout) == []
    assert off_the_sheet(layout) == []


def test_the_service_has_its_course_as_a_spine_with_one_state_beside_it() -> None:
    boxes = lay_out(make_picture(SERVICE)).boxes
    course = [boxes[name] for name in ("pending", "starting", "running", "stopping", "terminated")]
    assert {box.x for box in course} == {course[0].x}
    assert all(above.bottom < below.y for above, below in itertools.pairwise(course))
    aside = boxes["unresponsive"]
    assert aside.right < course[0].x
    assert aside.y < course[1].y
    assert aside.bottom > course[3].bottom


# --- any table


class Stop(enum.Enum):
    """States of made-up tables."""

    A = "a"
    BB = "bb"
    LONGER = "longer"
    MUCH_LONGER = "muchLongerName"
    END = "end"


class Turn(enum.Enum):
    """Events of made-up tables."""

    GO = "Go"
    SOMETHING_LONG = "SomethingLongHappened"


@st.composite
def tables(draw: st.DrawFn) -> Table[Stop, Turn]:
    """Tables with any arrows between any states, loops included."""
    pairs = draw(
        st.sets(st.tuples(st.sampled_from(Stop), st.sampled_from(Stop), st.sampled_from(Turn)), max_size=24)
    )
    moves = tuple(
        Move(source, event, dest, when=(f"to_{dest.value}",))
        for source, dest, event in sorted(pairs, key=lambda pair: [part.value for part in pair])
    )
    return Table(
        "made_up",
        initial=draw(st.sampled_from(Stop)),
        final=frozenset(),
        raised_by={Turn.GO: frozenset({Actor.USER}), Turn.SOMETHING_LONG: frozenset(Actor)},
        moves=moves,
        ignored=frozenset(),
    )


@given(tables())
def test_no_table_leads_to_an_overlap(table: Table[Stop, Turn]) -> None:
    layout = lay_out(make_picture(table))
    assert overlaps(layout) == []
    assert off_the_sheet(layout) == []


@given(tables())
def test_arrows_to_one_state_never_cross(table: Table[Stop, Turn]) -> None:
    wires = lay_out(make_picture(table)).wires
    crossings = [
        (a.arrow, b.arrow)
        for a, b in itertools.combinations(wires, 2)
        if a.arrow.dest == b.arrow.dest
        for first, second in itertools.product(itertools.pairwise(a.points), itertools.pairwise(b.points))
        if thin(first).overlaps(thin(second))
    ]
    assert crossings == []


@given(tables())
def test_the_svg_of_any_table_is_well_formed(table: Table[Stop, Turn]) -> None:
    ElementTree.fromstring(render(table, "svg"))


@given(title=st.text(max_size=20), note=st.text(max_size=20))
def test_whatever_users_write_stays_text(title: str, note: str) -> None:
    clean = "".join(c for c in title + note if c.isprintable())
    svg = ElementTree.fromstring(
        render(SERVICE, "svg", title=clean, notes={state: [clean] for state in SERVICE.states})
    )
    assert (svg.find("{http://www.w3.org/2000/svg}title") is not None) and svg.tag.endswith("svg")


@pytest.mark.parametrize("face", ["Regular", "Bold"])
def test_texts_are_at_least_as_wide_as_they_will_be_drawn(face: str) -> None:
    image_font = pytest.importorskip("PIL.ImageFont")
    resources = pytest.importorskip("font_lato")
    font = image_font.truetype(f"{resources.font_directory}/Lato-{face}.ttf", 100)
    words = [event.value for table in (SERVICE, AGREEMENT, ACTIVITY) for event in table.events]
    words += [state.value.capitalize() for table in (SERVICE, AGREEMENT, ACTIVITY) for state in table.states]
    words += ["user, handler, clock, budget", "[was_starting and may_retry]", "[not activity_available]"]
    for word in words:
        real = font.getlength(word)
        assert real <= text_width(word, 100, bold=face == "Bold") <= 1.6 * real, word
