"""What holds of the runs of handlers, and of the scripts they send."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from shem.events import ScriptFinished, ScriptSent
from shem.lifecycle import State
from shem.testing.invariants.reading import (
    STATE_OF,
    TICKS,
    TOLERANCE,
    by_instance,
    left_at,
    seconds_of,
    states_at,
    stays,
)
from shem.testing.life import Life
from shem.testing.limits import Limits


def handlers_run_once(life: Life, _limits: Limits) -> Iterator[str]:
    """`start` runs once per activity, `run` and `shutdown` at most once per instance."""
    starts = Counter((run.instance, run.activity) for run in life.handlers if run.handler == "start")
    others = Counter(
        (run.instance, run.handler) for run in life.handlers if run.handler in ("run", "shutdown")
    )
    yield from (f"start() of {one} ran {n} times on {on}" for (one, on), n in starts.items() if n > 1)
    yield from (f"{name}() of {one} ran {n} times" for (one, name), n in others.items() if n > 1)


def ends_are_heard(life: Life, limits: Limits) -> Iterator[str]:
    """When a handler has come to its end, its instance leaves the state that the handler was for."""
    finished: dict[str, list[float]] = defaultdict(list)
    for event in life.events:
        if isinstance(event, ScriptFinished):
            finished[event.instance].append(seconds_of(event))
    records = {instance.id: instance.records for instance in life.instances}
    for run in life.handlers:
        if run.handler not in STATE_OF or run.outcome not in ("exhausted", "raised") or run.ended is None:
            continue
        moves = records[run.instance]
        left = left_at(moves, run)
        until = float("inf") if left is None else left
        # Scripts that run beside the handler are waited for; while it is suspended, its end is held back.
        ended = max([run.ended, *(at for at in finished[run.instance] if at < until)])
        held_back = sum(
            max(0.0, min(to, until) - max(since, ended))
            for state, since, to in stays(moves)
            if state is State.UNRESPONSIVE
        )
        if until - ended - held_back > limits.cleanup + TICKS:
            yield f"{run.handler}() of {run.instance} ended at {run.ended:g} s, and nothing came of that"


def scripts_are_sent_once(life: Life, _limits: Limits) -> Iterator[str]:
    """No script is sent twice."""
    sent = Counter(
        event.instance
        for event in life.events
        # What the older form of scripts leaves out is sent as a script of its own.
        if isinstance(event, ScriptSent) and event.commands != ("deploy", "start")
    )
    for instance in life.instances:
        if sent[instance.id] > instance.scripts:
            yield f"instance {instance.id} sent {sent[instance.id]} scripts, but had only {instance.scripts}"


def handlers_begin_in_their_state(life: Life, _limits: Limits) -> Iterator[str]:
    """A handler begins only while its instance is in the state that the handler is for."""
    records = {instance.id: instance.records for instance in life.instances}
    for run in life.handlers:
        state = STATE_OF.get(run.handler)
        if state is not None and state not in states_at(records[run.instance], run.began):
            yield f"{run.handler}() of {run.instance} began at {run.began:g} s, and it was not {state.value}"


def handlers_never_overlap(life: Life, limits: Limits) -> Iterator[str]:
    """No handler begins while another of the same instance runs, unless that one overran its clean-up."""
    records = {instance.id: instance.records for instance in life.instances}
    for runs in by_instance(life.handlers).values():
        for place, later in enumerate(runs):
            for earlier in runs[:place]:
                ended = earlier.ended is not None and earlier.ended <= later.began
                if ended or later.handler.startswith("on_") or earlier.handler.startswith("on_"):
                    continue
                left = left_at(records[later.instance], earlier)
                if left is None or later.began < left + limits.cleanup - TOLERANCE:
                    yield (
                        f"{later.handler}() of {later.instance} began at {later.began:g} s, while "
                        f"{earlier.handler}() was not done"
                    )


def shutdown_belongs_to_stopping(life: Life, limits: Limits) -> Iterator[str]:
    """`shutdown` runs exactly where Stopping was entered, and stayed in long enough to begin it."""
    shutdowns = {run.instance for run in life.handlers if run.handler == "shutdown"}
    for instance in life.instances:
        stops = [stay for stay in stays(instance.records) if stay[0] is State.STOPPING]
        if instance.id in shutdowns and not stops:
            yield f"shutdown() of {instance.id} ran, and it was never stopping"
        longest = max((until - since for _state, since, until in stops), default=0.0)
        if instance.id not in shutdowns and longest > limits.cleanup + TOLERANCE:
            yield f"instance {instance.id} was stopping for {longest:g} s, and shutdown() never began"


def unresponsive_suspends(life: Life, _limits: Limits) -> Iterator[str]:
    """While an instance is Unresponsive, none of its handlers begins and none of its scripts is sent."""
    sent: dict[str, list[float]] = defaultdict(list)
    for event in life.events:
        if isinstance(event, ScriptSent):
            sent[event.instance].append(seconds_of(event))
    for instance in life.instances:
        for state, since, until in stays(instance.records):
            if state is not State.UNRESPONSIVE:
                continue
            yield from (
                f"instance {instance.id} sent a script at {at:g} s, though it was unresponsive"
                for at in sent[instance.id]
                if since + TICKS < at < until - TICKS
            )
            yield from (
                f"{run.handler}() of {instance.id} began at {run.began:g} s, though it was unresponsive"
                for run in life.handlers
                if run.instance == instance.id
                and run.handler in STATE_OF
                and since + TICKS < run.began < until - TICKS
            )
