"""Where everything of a picture goes. Pure geometry, in pixels, y growing downwards.

The states of the spine stand one below the other. Arrows between neighbours run straight through the gap that
parts them; all other arrows between spine states leave to the right and run in lanes, inner lanes for those
that end first, so that lanes of one destination never cross. States beside the spine are as tall as the rows
they have arrows with, so that each of those arrows is one straight line.

Boxes grow with the arrows that end at their sides, every arrow owns a slot of a side, and labels stand in
slots or gaps. So nothing can overlap, whatever the table.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

from shem.diagrams.picture import Arrow, Node, Picture
from shem.diagrams.text import LINE_HEIGHT, NAME_SIZE, SMALL_SIZE, Line, block_size, lines_of, text_width

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]
Side = Literal["left", "right"]

MARGIN = 24.0
_TITLE = 34.0  # room for the title, where there is one
_MARKER = 44.0  # room for the initial marker above the first state
_LANE = 16.0  # from one lane to the next
_ABOVE = 7.0  # room above an arrow, beside its label
_UNDER = 5.0  # room under an arrow
_CORNER = 16.0  # room under the last arrow of a box, which keeps it off the rounded corner
_NEAR = 10.0  # from a vertical arrow to its label
_APART = 22.0  # half the distance of two opposite arrows


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        """x of the right edge."""
        return self.x + self.w

    @property
    def bottom(self) -> float:
        """y of the lower edge."""
        return self.y + self.h

    def overlaps(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (
            self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom
        )


@dataclass(frozen=True, slots=True)
class Label:
    """Lines of text in a box; `anchor` says to which side of the box they are set."""

    box: Box
    lines: tuple[Line, ...]
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class Wire:
    """An arrow as it is drawn: corner points, the last one being its tip, and its label."""

    arrow: Arrow
    points: tuple[Point, ...]
    label: Label


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole picture, laid out. `start` are the centre of the initial marker and the tip of its arrow."""

    width: float
    height: float
    boxes: dict[str, Box]
    wires: tuple[Wire, ...]
    start: tuple[Point, Point]


@dataclass(slots=True)
class _Slot:
    """A place on a side of a box where one arrow ends: room above it, its `y`, room under it."""

    lines: tuple[Line, ...]
    above: float
    under: float = _UNDER
    y: float = 0.0

    @property
    def height(self) -> float:
        return self.above + self.under

    @property
    def top(self) -> float:
        return self.y - self.above

    @property
    def bottom(self) -> float:
        return self.y + self.under


@dataclass(slots=True)
class _Row:
    """A spine state with the slots of both its sides, from top to bottom."""

    node: Node
    left: list[_Slot] = field(default_factory=list)
    right: list[_Slot] = field(default_factory=list)


def node_size(node: Node) -> tuple[float, float]:
    """Least width and height of a state's box."""
    facts = max((text_width(fact, SMALL_SIZE) for fact in node.lines), default=0.0)
    badge = 0.0 if node.count is None else 68.0
    width = max(132.0, text_width(node.name, NAME_SIZE, bold=True) + 36 + badge, facts + 28)
    return math.ceil(width), 48.0 + (LINE_HEIGHT - 1) * len(node.lines)


def lay_out(picture: Picture) -> Layout:
    """Give every state, arrow and label of a picture its place."""
    return _Builder(picture).build()


class _Builder:
    """The state of one layout: first slots, then rows (y), then columns (x), then wires."""

    def __init__(self, picture: Picture) -> None:
        self.nodes = {node.key: node for node in picture.nodes}
        self.title = picture.title
        plan = picture.plan
        self.row_of = {key: number for number, key in enumerate(plan.spine)}
        self.rows = [_Row(self.nodes[key]) for key in plan.spine]
        self.side_of: dict[str, Side] = dict.fromkeys(plan.left, "left")
        self.side_of.update(dict.fromkeys(plan.right, "right"))
        self.arrows = picture.arrows
        self.lines = {
            arrow: lines_of(arrow, path_shown=bool(picture.steps_taken)) for arrow in picture.arrows
        }
        self.beside = [a for a in self.arrows if a.source in self.side_of or a.dest in self.side_of]
        inner = [a for a in self.arrows if a not in self.beside]
        self.straight = [a for a in inner if abs(self._from(a) - self._to(a)) == 1]
        self.lanes = sorted(
            (a for a in inner if a not in self.straight),
            key=lambda a: (max(self._from(a), self._to(a)), -min(self._from(a), self._to(a)), self._from(a)),
        )
        # Straight arrows by the number of the gap they run through: those that go down, those that go up.
        self.down = {self._from(a): a for a in self.straight if self._from(a) < self._to(a)}
        self.up = {self._to(a): a for a in self.straight if self._from(a) > self._to(a)}
        self.side_slots: dict[str, dict[Arrow, _Slot]] = {state: {} for state in self.side_of}
        self.lane_slots: dict[Arrow, tuple[_Slot, _Slot]] = {}

    def _from(self, arrow: Arrow) -> int:
        return self.row_of[arrow.source]

    def _to(self, arrow: Arrow) -> int:
        return self.row_of[arrow.dest]

    def _beside_row(self, arrow: Arrow) -> int:
        """The row that an arrow from or to a state beside the spine stands in."""
        return self._to(arrow) if arrow.source in self.side_of else self._from(arrow)

    def build(self) -> Layout:
        self._make_slots()
        boxes, bottom = self._place_rows()
        boxes = self._place_columns(boxes)
        wires = tuple(self._wire(arrow, boxes) for arrow in self.arrows)
        right = max(
            *(box.right for box in boxes.values()),
            *(x for wire in wires for x, _ in wire.points),
            *(wire.label.box.right for wire in wires),
        )
        first = boxes[self.rows[0].node.key]
        x = first.x + first.w / 2
        return Layout(
            width=math.ceil(right + MARGIN),
            height=math.ceil(bottom),
            boxes=boxes,
            wires=wires,
            start=((x, first.y - _MARKER + 14), (x, first.y)),
        )

    def _make_slots(self) -> None:
        # A lane's upper end goes down from its slot, its lower end goes up. Lower ends stand above, inner
        # lanes first; upper ends below, outer lanes first: then no lane crosses another's way to its box.
        lower: dict[int, list[_Slot]] = defaultdict(list)
        upper: dict[int, list[_Slot]] = defaultdict(list)
        loops: dict[int, list[_Slot]] = defaultdict(list)
        for arrow in self.lanes:
            lines = self.lines[arrow]
            start, end = _Slot(lines, block_size(lines)[1] + _ABOVE), _Slot((), _ABOVE + 4)
            self.lane_slots[arrow] = (start, end)
            if arrow.source == arrow.dest:
                loops[self._from(arrow)] += [end, start]
                continue
            goes_down = self._from(arrow) < self._to(arrow)
            (upper if goes_down else lower)[self._from(arrow)].append(start)
            (lower if goes_down else upper)[self._to(arrow)].append(end)
        beside: dict[tuple[int, Side], list[_Slot]] = defaultdict(list)
        for state, side in self.side_of.items():
            arrows = [a for a in self.beside if state in (a.source, a.dest)]
            for arrow in arrows:
                slot = _Slot(self.lines[arrow], block_size(self.lines[arrow])[1] + _ABOVE)
                self.side_slots[state][arrow] = slot
                beside[self._beside_row(arrow), side].append(slot)
            last = self.side_slots[state][max(reversed(arrows), key=self._beside_row)]
            last.under = _CORNER
            if len(arrows) == 1:
                # The box must still have room for its own name; the arrow points at its middle.
                last.under = node_size(self.nodes[state])[1] / 2 + 4
                last.above = max(last.above, last.under)
        for number, row in enumerate(self.rows):
            row.left = beside[number, "left"]
            row.right = [
                *lower[number],
                *beside[number, "right"],
                *loops[number],
                *reversed(upper[number]),
            ]

    def _place_rows(self) -> tuple[dict[str, Box], float]:
        """Vertical places of spine states and slots, and where the drawing ends."""
        boxes: dict[str, Box] = {}
        y = MARGIN + (_TITLE if self.title else 0.0) + _MARKER
        for number, row in enumerate(self.rows):
            stacks = [(side, sum(slot.height for slot in side)) for side in (row.left, row.right)]
            height = max(node_size(row.node)[1], *(stack + 2 * _UNDER for _, stack in stacks))
            for side, stack in stacks:
                at = y + (height - stack) / 2
                for slot in side:
                    slot.y = at + slot.above
                    at += slot.height
            boxes[row.node.key] = Box(0.0, y, 0.0, height)
            y += height
            if number < len(self.rows) - 1:
                through = [gap[number] for gap in (self.down, self.up) if number in gap]
                y += max([24.0, *(block_size(self.lines[arrow])[1] for arrow in through)]) + 26
        return boxes, y + MARGIN

    def _place_columns(self, rows: dict[str, Box]) -> dict[str, Box]:
        """Boxes of all states, given the spine's vertical places."""
        spine_w = max(node_size(row.node)[0] for row in self.rows)
        side_w: dict[Side, float] = {"left": 0.0, "right": 0.0}
        for state, side in self.side_of.items():
            side_w[side] = max(side_w[side], node_size(self.nodes[state])[0])
        left = [block_size(slot.lines)[0] + 44 for row in self.rows for slot in row.left]
        left += [self._overhang(arrow, spine_w) for arrow in self.up.values()]
        right = [block_size(slot.lines)[0] + 34 for row in self.rows for slot in row.right]
        right += [self._overhang(arrow, spine_w) for arrow in self.down.values()]
        spine_x = MARGIN + side_w["left"] + max([0.0, *left])
        self.lane_x = spine_x + spine_w + max([0.0, *right])
        right_x = self.lane_x + _LANE * len(self.lanes)
        boxes = {key: Box(spine_x, box.y, spine_w, box.h) for key, box in rows.items()}
        for state, side in self.side_of.items():
            slots = self.side_slots[state].values()
            top = min(slot.top for slot in slots) + 4
            height = max(slot.bottom for slot in slots) - 4 - top
            spare = max(0.0, node_size(self.nodes[state])[1] - height)
            x = MARGIN if side == "left" else right_x
            boxes[state] = Box(x, top - spare / 2, side_w[side], height + spare)
        return boxes

    def _overhang(self, arrow: Arrow, spine_w: float) -> float:
        """How far the label of a straight arrow reaches beyond the spine's boxes, with some room after it."""
        return self._shift(arrow) + _NEAR + block_size(self.lines[arrow])[0] + 16 - spine_w / 2

    def _shift(self, arrow: Arrow) -> float:
        gap = min(self._from(arrow), self._to(arrow))
        return _APART if gap in self.down and gap in self.up else 0.0

    def _wire(self, arrow: Arrow, boxes: dict[str, Box]) -> Wire:
        if arrow in self.lane_slots:
            return self._lane(arrow, boxes)
        return self._straight(arrow, boxes) if arrow in self.straight else self._horizontal(arrow, boxes)

    def _straight(self, arrow: Arrow, boxes: dict[str, Box]) -> Wire:
        source, dest = boxes[arrow.source], boxes[arrow.dest]
        lines = self.lines[arrow]
        width, height = block_size(lines)
        centre = source.x + source.w / 2
        if self._from(arrow) < self._to(arrow):
            x = centre + self._shift(arrow)
            box = Box(x + _NEAR, (source.bottom + dest.y - height) / 2 - 2, width, height)
            return Wire(arrow, ((x, source.bottom), (x, dest.y)), Label(box, lines, "start"))
        x = centre - self._shift(arrow)
        box = Box(x - _NEAR - width, (dest.bottom + source.y - height) / 2 + 2, width, height)
        return Wire(arrow, ((x, source.y), (x, dest.bottom)), Label(box, lines, "end"))

    def _horizontal(self, arrow: Arrow, boxes: dict[str, Box]) -> Wire:
        state, other = arrow.source, arrow.dest
        if state not in self.side_of:
            state, other = other, state
        slot, box, spine = self.side_slots[state][arrow], boxes[state], boxes[other]
        width, height = block_size(slot.lines)
        if self.side_of[state] == "left":
            near, far, x = spine.x, box.right, (spine.x + box.right - width) / 2
        else:
            near, far, x = spine.right, box.x, spine.right + 14
        label = Label(
            Box(x, slot.y - height - 3, width, height),
            slot.lines,
            "middle" if self.side_of[state] == "left" else "start",
        )
        there, here = (far, slot.y), (near, slot.y)
        return Wire(arrow, (there, here) if arrow.source == state else (here, there), label)

    def _lane(self, arrow: Arrow, boxes: dict[str, Box]) -> Wire:
        start, end = self.lane_slots[arrow]
        x = boxes[arrow.source].right
        lane = self.lane_x + _LANE * self.lanes.index(arrow)
        width, height = block_size(start.lines)
        label = Label(Box(x + 14, start.y - height - 3, width, height), start.lines, "start")
        return Wire(arrow, ((x, start.y), (lane, start.y), (lane, end.y), (x, end.y)), label)
