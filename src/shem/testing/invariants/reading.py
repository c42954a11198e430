"""Reading a life: what several invariants ask of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from shem.errors import Blame, blame_of
from shem.events import BusEvent, StepSkipped
from shem.lifecycle import Event, Record, State
from shem.service.instance import HANDLER_OF
from shem.testing.life import ActivityFact, AgreementFact, HandlerRun, InstanceLife, Life
from shem.testing.plan import CALL_FAULTS, Action, ActionKind, Fault, FaultKind
from shem.testing.sim import EPOCH

Moves: TypeAlias = Sequence[Record[State, Event]]

#: Virtual times are sums of floats.
TOLERANCE: Final = 1e-6
#: The node keeps the times of its events apart by microseconds.
TICKS: Final = 1e-3
#: Which state each handler is for.
STATE_OF: Final = {handler: state for state, handler in HANDLER_OF.items()}

_STOPS_ALL: Final = (ActionKind.STOP, ActionKind.STOP_NOW, ActionKind.EXIT, ActionKind.CANCEL)


def actions(life: Life, *kinds: ActionKind) -> list[float]:
    """When the user did something of these kinds."""
    return [one.at for one in life.happened if isinstance(one.what, Action) and one.what.what in kinds]


def faults(life: Life, *kinds: FaultKind, until: float = float("inf")) -> list[Fault]:
    """The faults of these kinds that came about up to a moment."""
    return [
        one.what
        for one in life.happened
        if isinstance(one.what, Fault) and one.what.kind in kinds and one.at <= until
    ]


def all_stopped_at(life: Life) -> float | None:
    """When the user first stopped everything."""
    times = actions(life, *_STOPS_ALL)
    if life.left_at is not None:
        times.append(life.left_at)
    return min(times, default=None)


def seconds_of(event: BusEvent) -> float:
    """When something was told, in virtual seconds."""
    return (event.at - EPOCH).total_seconds()


def is_users(error: BaseException | None) -> bool:
    """Whether an error is the fault of the user's code."""
    return error is not None and blame_of(error) is Blame.USER


def by_instance(runs: Sequence[HandlerRun]) -> dict[str, list[HandlerRun]]:
    """Runs of handlers by instance, in order."""
    found: dict[str, list[HandlerRun]] = defaultdict(list)
    for run in runs:
        found[run.instance].append(run)
    return found


def stopped_at(life: Life, instance: InstanceLife) -> float | None:
    """When the user first stopped an instance, alone or with all others, while there was one to stop."""
    times = [*actions(life, *_STOPS_ALL), *(one.at for one in life.happened if one.about == instance.id)]
    if life.left_at is not None:
        times.append(life.left_at)
    return min((at for at in times if at >= instance.made_at - TICKS), default=None)


def stays(records: Moves) -> Iterator[tuple[State, float, float]]:
    """Each state that was entered by a move, from when, until when."""
    for before, after in pairwise(records):
        yield before.dest, before.monotonic, after.monotonic
    if records:
        yield records[-1].dest, records[-1].monotonic, float("inf")


def stayed(records: Moves, place: int) -> float:
    """How long the instance was in the state that a record led out of; silences only interrupt it."""
    state, spent, until = records[place].source, 0.0, records[place].monotonic
    for record in reversed(records[:place]):
        if record.dest is state:
            spent += until - record.monotonic
        if record.event not in (Event.PROVIDER_UNRESPONSIVE, Event.PROVIDER_RECOVERED):
            break
        until = record.monotonic
    return spent


def states_at(records: Moves, at: float) -> set[State]:
    """The states that an instance had in a moment; several where it moved in it."""
    states = {State.PENDING} if not records or at <= records[0].monotonic + TOLERANCE else set()
    for state, since, until in stays(records):
        if since - TOLERANCE <= at <= until + TOLERANCE:
            states.add(state)
    return states


def left_at(records: Moves, run: HandlerRun) -> float | None:
    """When the instance left the state that a handler was for, for good."""
    suspensions = (Event.PROVIDER_UNRESPONSIVE, Event.PROVIDER_RECOVERED)
    for record in records:
        if record.monotonic >= run.began and record.event not in suspensions:
            if record.dest is not STATE_OF.get(run.handler):
                return record.monotonic
    return None


def activity_at(instance: InstanceLife, place: int) -> str | None:
    """The activity that the instance had when it made a move."""
    starts = sum(record.event is Event.RUN_SERVICE for record in instance.records[: place + 1])
    return instance.activities[starts - 1] if 0 < starts <= len(instance.activities) else None


def activity_fact(life: Life, instance: InstanceLife, place: int) -> ActivityFact | None:
    """What the node knows of the activity that the instance had when it made a move."""
    activity = activity_at(instance, place)
    return next((one for one in life.activities if one.id == activity), None)


def agreement_fact(life: Life, instance: InstanceLife, place: int) -> AgreementFact | None:
    """What the node knows of the agreement that the instance had when it made a move."""
    activity = activity_fact(life, instance, place)
    return next((one for one in life.agreements if activity and one.id == activity.agreement), None)


def skips(life: Life) -> str:
    """Everything that was reported as skipped, in one text."""
    return "\n".join(event.step for event in life.events if isinstance(event, StepSkipped))


def lied(life: Life, *about: str) -> bool:
    """Whether a call about one of these was answered as if there were no such thing."""
    return any(call.about in about for call in life.lies)


def reliable(life: Life) -> bool:
    """Whether the plan leaves calls alone, so that nothing is learnt late, twice, or never."""
    outages = (FaultKind.NODE_DOWN, FaultKind.NODE_RESTART)
    return not any(one.kind in CALL_FAULTS or one.kind in outages for one in life.plan.faults)
