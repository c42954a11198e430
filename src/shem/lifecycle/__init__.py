"""The state machines of shem, as data: which states there are, which events, and what each does in each.

`table` is the form all machines are written in, `service`, `agreement` and `activity` are the three tables,
`machine` turns a table into a `transitions` machine behind one typed gate, `record` is what a move leaves
behind, `story` tells of the moves in words. Nothing here does I/O, starts tasks or knows what the events mean
to the outside; drawing the tables belongs to `shem.diagrams`.
"""

from shem.lifecycle.activity import ACTIVITY, ActivityEvent, ActivityState
from shem.lifecycle.agreement import AGREEMENT, AgreementEvent, AgreementState
from shem.lifecycle.machine import Machine, Stateful
from shem.lifecycle.record import Cause, Record
from shem.lifecycle.service import SERVICE, Event, Guard, State, reachable
from shem.lifecycle.story import Expectation, Step, Story
from shem.lifecycle.table import Actor, Cell, Move, Table, Verdict

__all__ = [
    "ACTIVITY",
    "AGREEMENT",
    "SERVICE",
    "ActivityEvent",
    "ActivityState",
    "Actor",
    "AgreementEvent",
    "AgreementState",
    "Cause",
    "Cell",
    "Event",
    "Expectation",
    "Guard",
    "Machine",
    "Move",
    "Record",
    "State",
    "Stateful",
    "Step",
    "Story",
    "Table",
    "Verdict",
    "reachable",
]
