"""What holds of the moves of instances, and of what the user and the policy want of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from shem.lifecycle import Event, State
from shem.testing.invariants.reading import (
    TOLERANCE,
    actions,
    activity_fact,
    all_stopped_at,
    is_users,
    reliable,
    states_at,
    stays,
    stopped_at,
)
from shem.testing.life import Life
from shem.testing.limits import Limits
from shem.testing.plan import ActionKind
from shem.testing.verify import faults_of_records

_BUYING: Final = ("create_agreement", "confirm_agreement", "create_activity")


def records_are_a_path(life: Life, _limits: Limits) -> Iterator[str]:
    """The records of each instance are a path of the table from Pending, each raised by who may raise it."""
    for instance in life.instances:
        yield from faults_of_records(instance.records)


def everything_ends_terminated(life: Life, _limits: Limits) -> Iterator[str]:
    """When the context of the Golem has been left, every instance is Terminated."""
    for instance in life.instances:
        if instance.state is not State.TERMINATED:
            yield f"it is not: {instance.why}"


def retries_come_before_running(life: Life, _limits: Limits) -> Iterator[str]:
    """No instance goes back to Pending once it was Running, or where `respawn_unstarted_instances` is off."""
    for instance in life.instances:
        ran = False
        for record in instance.records:
            ran = ran or record.dest is State.RUNNING
            if record.dest is State.PENDING and (ran or not life.plan.respawn):
                yield f"instance {instance.id}: {record}"


def stop_beats_restart(life: Life, _limits: Limits) -> Iterator[str]:
    """Once the user has stopped something, no activity is begun for it, and nothing takes its place."""
    for instance in life.instances:
        stopped = stopped_at(life, instance)
        if stopped is None:
            continue
        for record in instance.records:
            if record.event is Event.RUN_SERVICE and record.monotonic > stopped:
                yield f"instance {instance.id} was stopped at {stopped:g} s, and yet: {record}"
        heirs = [one for one in life.instances if one.replaces == instance.id]
        last = instance.records[-1].monotonic if instance.records else 0.0
        yield from (
            f"instance {heir.id} replaced {instance.id}, which the user had stopped"
            for heir in heirs
            if last >= stopped
        )


def stop_buys_nothing(life: Life, _limits: Limits) -> Iterator[str]:
    """Once the user has stopped everything, no agreement is made or sent, and no activity is asked for."""
    stopped = all_stopped_at(life)
    for call in life.calls:
        if stopped is not None and call.name in _BUYING and call.at > stopped + TOLERANCE:
            yield f"{call.name} was called at {call.at:g} s, and everything had been stopped at {stopped:g} s"


def halts_go_through_stopping(life: Life, _limits: Limits) -> Iterator[str]:
    """Whoever is halted while the activity is there goes to Stopping; whoever has lost it, never."""
    patience = 1.0 + 10 * max(life.plan.latencies, default=0.0)
    for instance in life.instances:
        for place, record in enumerate(instance.records):
            halted = record.dest is State.STOPPING
            match record.event:
                case Event.SHUTDOWN | Event.SERVICE_ERROR if record.source in (State.STARTING, State.RUNNING):
                    wrong = not halted
                case Event.ACTIVITY_LOST:
                    wrong = halted
                case Event.AGREEMENT_TERMINATED if record.source is State.RUNNING and reliable(life):
                    activity = activity_fact(life, instance, place)
                    ended = activity.ended_at if activity is not None else None
                    since = record.monotonic - (ended if ended is not None else float("inf"))
                    wrong = since > patience if halted else since < -patience
                case _:
                    wrong = False
            if wrong:
                yield f"instance {instance.id}: {record}"


def nothing_outlives_its_rent(life: Life, limits: Limits) -> Iterator[str]:
    """Where a service is rented for a time, its instances are stopped early enough before its end."""
    if life.plan.expires is None:
        return
    latest = life.plan.expires - limits.stop
    for instance in life.instances:
        for state, since, until in stays(instance.records):
            if state in (State.STARTING, State.RUNNING) and until > latest + TOLERANCE:
                yield f"instance {instance.id} was {state.value} from {since:g} s to {until:g} s"


def stops_take_effect_at_once(life: Life, _limits: Limits) -> Iterator[str]:
    """In the moment of the user's stop the instance moves, and of the second stop, it is Terminated."""
    for instance in life.instances:
        stopped = stopped_at(life, instance)
        if stopped is None:
            continue
        states = states_at(instance.records, stopped)
        if not states & {State.STOPPING, State.TERMINATED}:
            names = ", ".join(state.value for state in states)
            yield f"instance {instance.id} was stopped at {stopped:g} s and remained {names}"
        for hurried in actions(life, ActionKind.STOP_NOW):
            if hurried >= instance.made_at - TOLERANCE and State.TERMINATED not in states_at(
                instance.records, hurried
            ):
                yield f"nobody waited any more for instance {instance.id} at {hurried:g} s, but it went on"


def user_errors_stay_where_they_are(life: Life, _limits: Limits) -> Iterator[str]:
    """What is the fault of the user's code is not tried again elsewhere, unless the policy says so."""
    if life.plan.policy.user_errors:
        return
    for instance in life.instances:
        for record in instance.records:
            if record.dest is State.PENDING and is_users(record.cause.error):
                yield f"instance {instance.id}: {record}"
        if is_users(instance.error) and any(one.replaces == instance.id for one in life.instances):
            yield f"instance {instance.id} was replaced after {instance.error!r}"


def policy_is_kept(life: Life, _limits: Limits) -> Iterator[str]:
    """A slot is filled again only as the policy says, and no more often than it allows."""
    policy = life.plan.policy
    replaced = Counter(one.slot for one in life.instances if one.replaces is not None)
    for slot, count in replaced.items():
        if policy.on == "never":
            yield f"slot {slot} was filled again, though the policy is never"
        elif life.seconds <= policy.per and count > policy.attempts:
            yield f"slot {slot} was filled again {count} times within {policy.per:g} s"
