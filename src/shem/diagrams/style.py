"""How diagrams look: colours of states, kinds of actors, and which states form a table's backbone.

Everything is looked up by words (`Actor` aside), so a table that is not listed here is drawn too: its states
in their own order as the backbone, in neutral colours.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shem.lifecycle.table import Actor


class Kind(enum.Enum):
    """Actors of a kind share a colour. An event has the kind of the first of those who may raise it."""

    YOURS = "your program"
    SHEM = "shem"
    OTHER_SIDE = "the other side"
    WATCH = "watching"


KIND_OF: Final[Mapping[Actor, Kind]] = {
    Actor.USER: Kind.YOURS,
    Actor.HANDLER: Kind.YOURS,
    Actor.ENGINE: Kind.SHEM,
    Actor.SUPERVISOR: Kind.SHEM,
    Actor.PROVIDER: Kind.OTHER_SIDE,
    Actor.PROBE: Kind.WATCH,
    Actor.CLOCK: Kind.WATCH,
    Actor.BUDGET: Kind.WATCH,
}

KIND_COLOUR: Final[Mapping[Kind, str]] = {
    Kind.YOURS: "#15803d",
    Kind.SHEM: "#1d4ed8",
    Kind.OTHER_SIDE: "#c2410c",
    Kind.WATCH: "#7e22ce",
}

INK: Final = "#1e293b"
#: Arrows whose events are of several kinds.
MIXED: Final = "#475569"
#: Guards, actors, notes.
QUIET: Final = "#64748b"
PAPER: Final = "#ffffff"


@dataclass(frozen=True, slots=True)
class Tone:
    """Fill and border of a state, as ``#rrggbb``."""

    fill: str
    border: str


_SLATE = Tone("#f1f5f9", "#64748b")
_BLUE = Tone("#dbeafe", "#2563eb")
_AMBER = Tone("#fef3c7", "#d97706")
_GREEN = Tone("#dcfce7", "#16a34a")
_ORANGE = Tone("#ffedd5", "#ea580c")
_VIOLET = Tone("#f3e8ff", "#9333ea")
_RED = Tone("#fee2e2", "#dc2626")
_DARK = Tone("#e2e8f0", "#334155")

_TONES: Final[Mapping[tuple[str, str], Tone]] = {
    ("instance", "pending"): _SLATE,
    ("instance", "starting"): _AMBER,
    ("instance", "running"): _GREEN,
    ("instance", "stopping"): _ORANGE,
    ("instance", "terminated"): _DARK,
    ("instance", "unresponsive"): _VIOLET,
    ("agreement", "Proposal"): _SLATE,
    ("agreement", "Pending"): _AMBER,
    ("agreement", "Approved"): _GREEN,
    ("agreement", "Rejected"): _RED,
    ("agreement", "Cancelled"): _ORANGE,
    ("agreement", "Expired"): _VIOLET,
    ("agreement", "Terminated"): _DARK,
    ("activity", "New"): _SLATE,
    ("activity", "Initialized"): _BLUE,
    ("activity", "Deployed"): _AMBER,
    ("activity", "Ready"): _GREEN,
    ("activity", "Unresponsive"): _VIOLET,
    ("activity", "Terminated"): _DARK,
}


def tone_of(table: str, state: str, *, final: bool) -> Tone:
    """The colours of a state, given its table's name and its value."""
    return _TONES.get((table, state), _DARK if final else _SLATE)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where states stand: `spine` from top to bottom in the middle, the others tall beside it.

    Arrows between two states that both stand beside the spine cannot be drawn, so there must be none.
    """

    spine: tuple[str, ...]
    left: tuple[str, ...] = ()
    right: tuple[str, ...] = ()


_PLANS: Final[Mapping[str, Plan]] = {
    "instance": Plan(("pending", "starting", "running", "stopping", "terminated"), left=("unresponsive",)),
    "agreement": Plan(
        ("Proposal", "Pending", "Approved", "Terminated"),
        left=("Expired",),
        right=("Cancelled", "Rejected"),
    ),
    "activity": Plan(("New", "Initialized", "Deployed", "Ready", "Terminated"), left=("Unresponsive",)),
}


def plan_of(table: str, states: tuple[str, ...], initial: str) -> Plan:
    """The plan of a table: the listed one if it names exactly these states, else all of them as the spine."""
    plan = _PLANS.get(table)
    if plan is not None and {*plan.spine, *plan.left, *plan.right} == set(states):
        return plan
    return Plan((initial, *(state for state in states if state != initial)))


_TITLES: Final[Mapping[str, str]] = {
    "instance": "Lifecycle of a service instance",
    "agreement": "Lifecycle of an agreement",
    "activity": "Lifecycle of an activity",
}


def title_of(table: str) -> str:
    """The heading of a table's pictures."""
    return _TITLES.get(table, f"Lifecycle: {table}")
