"""What holds of causes: each record says who raised the event and why, and that is what really happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from shem.errors import HandlerTimeout, ProvisionError, ScriptError
from shem.lifecycle import Actor, Event, State
from shem.service.instance import HANDLER_OF
from shem.testing.invariants.reading import (
    TICKS,
    TOLERANCE,
    actions,
    activity_at,
    activity_fact,
    agreement_fact,
    faults,
    lied,
    reliable,
    stayed,
    stopped_at,
)
from shem.testing.life import InstanceLife, Life
from shem.testing.limits import Limits
from shem.testing.plan import ActionKind, FaultKind

_HURRIES: Final = (ActionKind.STOP_NOW, ActionKind.CANCEL)


def causes_are_true(life: Life, limits: Limits) -> Iterator[str]:
    """Each record names who raised the event and why, and that is what really happened."""
    for instance in life.instances:
        for place, record in enumerate(instance.records):
            judge = _JUDGES.get((record.event, record.cause.actor))
            objection = judge(life, limits, instance, place) if judge is not None else ""
            if objection:
                yield f"instance {instance.id}: {record}; but {objection}"


def why_names_the_cause(life: Life, _limits: Limits) -> Iterator[str]:
    """`why()` ends with the cause of the last move."""
    for instance in life.instances:
        cause = " ".join(str(instance.records[-1].cause).split()) if instance.records else ""
        if cause not in " ".join(instance.why.split()):
            yield f"instance {instance.id}: {cause} is not in {instance.why}"


Judge: TypeAlias = Callable[[Life, Limits, InstanceLife, int], str]


def _by_user(life: Life, _limits: Limits, instance: InstanceLife, place: int) -> str:
    stopped = stopped_at(life, instance)
    if stopped is None or stopped > instance.records[place].monotonic:
        return "the user had stopped nothing"
    return ""


def _by_handler(handler: str, *outcomes: str) -> Judge:
    def judge(life: Life, _limits: Limits, instance: InstanceLife, place: int) -> str:
        at, activity = instance.records[place].monotonic, activity_at(instance, place)
        for run in life.handlers:
            if run.instance == instance.id and run.handler == handler and run.activity == activity:
                if run.ended is None or run.ended > at:
                    return f"{handler}() was still running"
                return "" if run.outcome in outcomes else f"{handler}() ended as {run.outcome}"
        return f"{handler}() had not run"

    return judge


def _service_error(life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    handler = HANDLER_OF[instance.records[place].source]
    objection = _by_handler(handler, "raised", "cancelled", "closed")(life, limits, instance, place)
    return objection or _activity_had_ended(life, instance, place)


def _activity_had_ended(life: Life, instance: InstanceLife, place: int) -> str:
    """Objects where a script failed only because the activity had ended before, and that is not the cause."""
    record, activity = instance.records[place], activity_fact(life, instance, place)
    known = reliable(life) and not faults(life, FaultKind.VANISH, until=record.monotonic)
    if not isinstance(record.cause.error, ScriptError) or activity is None or not known:
        return ""
    if activity.said and activity.ended_at is not None and activity.ended_at < record.monotonic - TOLERANCE:
        return f"the first cause was that its activity ended at {activity.ended_at:g} s: {activity.said}"
    return ""


def _stop_overran(life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    record = instance.records[place]
    if any(at <= record.monotonic for at in actions(life, *_HURRIES)):
        return ""
    if stayed(instance.records, place) < limits.stop - TOLERANCE:
        return f"its {limits.stop:g} s were not over, and nobody was in a hurry"
    return ""


def _probe_failed(life: Life, _limits: Limits, _instance: InstanceLife, _place: int) -> str:
    return "" if life.plan.probe is not None else "there is no probe"


def _start_failed(life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    record = instance.records[place]
    if record.source is State.PENDING:
        known = isinstance(record.cause.error, ProvisionError)
        return "" if known or record.cause.reason == "reset() raised" else "nothing was tried in vain"
    if isinstance(record.cause.error, HandlerTimeout):
        early = stayed(instance.records, place) < limits.start - TOLERANCE
        return f"its {limits.start:g} s were not over" if early else ""
    objection = _by_handler("start", "raised", "cancelled", "closed")(life, limits, instance, place)
    return objection or _activity_had_ended(life, instance, place)


def _agreement_ended(life: Life, _limits: Limits, instance: InstanceLife, place: int) -> str:
    record, agreement = instance.records[place], agreement_fact(life, instance, place)
    if agreement is None or agreement.terminator != "Provider":
        return "the provider has not ended the agreement"
    if agreement.terminated_at is None or agreement.terminated_at > record.monotonic + TICKS:
        return f"the agreement was ended only at {agreement.terminated_at}"
    if agreement.reason not in record.cause.reason:
        return f"the provider said {agreement.reason!r}"
    return ""


def _activity_lost(life: Life, _limits: Limits, instance: InstanceLife, place: int) -> str:
    record = instance.records[place]
    activity, agreement = activity_fact(life, instance, place), agreement_fact(life, instance, place)
    if activity is None or agreement is None:
        return "there was no activity"
    if lied(life, activity.id, agreement.id):
        return ""
    ended = agreement.terminated_at
    if agreement.terminator == "Provider" and ended is not None and ended <= record.monotonic + TICKS:
        outlived = any(fault.seconds for fault in faults(life, FaultKind.TERMINATE))
        # Where the activity outlives its agreement, its own end is a cause of its own.
        if activity.said or outlived or not reliable(life):
            return ""
        return f"the first cause was that the provider ended the agreement: {agreement.reason}"
    if activity.ended_at is None or activity.ended_at > record.monotonic or not activity.said:
        return "the node knows nothing of that"
    return ""


def _unresponsive(life: Life, limits: Limits, _instance: InstanceLife, _place: int) -> str:
    if not reliable(life) or faults(life, FaultKind.VANISH, FaultKind.HANG):
        return ""
    if max(life.plan.latencies, default=0.0) >= limits.liveness.answer:
        # The node takes longer for an answer than is waited for.
        return ""
    return "nothing was silent"


def _expiry(life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    if life.plan.expires is None:
        return "nothing expires"
    early = instance.records[place].monotonic < life.plan.expires - 4 * limits.stop
    return "the end was far away" if early else ""


def _grace_is_over(_life: Life, limits: Limits, instance: InstanceLife, place: int) -> str:
    early = stayed(instance.records, place) < limits.grace - TOLERANCE
    return f"its {limits.grace:g} s were not over" if early else ""


_JUDGES: Final[dict[tuple[Event, Actor], Judge]] = {
    (Event.SHUTDOWN, Actor.USER): _by_user,
    (Event.SHUTDOWN, Actor.HANDLER): _by_handler("run", "exhausted"),
    (Event.SHUTDOWN, Actor.CLOCK): _expiry,
    (Event.START_SUCCESSFUL, Actor.HANDLER): _by_handler("start", "exhausted"),
    (Event.SERVICE_STOPPED, Actor.HANDLER): _by_handler("shutdown", "exhausted"),
    (Event.SERVICE_ERROR, Actor.HANDLER): _service_error,
    (Event.SERVICE_ERROR, Actor.CLOCK): _stop_overran,
    (Event.SERVICE_ERROR, Actor.PROBE): _probe_failed,
    (Event.RETRY_START, Actor.SUPERVISOR): _start_failed,
    (Event.START_FAILED, Actor.SUPERVISOR): _start_failed,
    (Event.AGREEMENT_TERMINATED, Actor.PROVIDER): _agreement_ended,
    (Event.ACTIVITY_LOST, Actor.PROVIDER): _activity_lost,
    (Event.PROVIDER_UNRESPONSIVE, Actor.PROBE): _unresponsive,
    (Event.UNRESPONSIVE_TIMEOUT, Actor.CLOCK): _grace_is_over,
}
