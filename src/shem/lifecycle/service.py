"""The lifecycle of a service instance: six states, twelve events, seventy-two pairs.

=====================  =============================================================================
event                  meaning
=====================  =============================================================================
RunService             an activity is ready for this instance
StartSuccessful        `start()` is exhausted
RetryStart             start failed, and policy allows another provider
StartFailed            start failed for good, or provisioning is impossible
Shutdown               end it gracefully
ServiceError           `run()` or `shutdown()` raised, `shutdown()` overran its budget, or the service's
                       own liveness probe failed
ServiceStopped         `shutdown()` is exhausted
AgreementTerminated    the agreement ended from the other side
ActivityLost           the activity is gone, abruptly
ProviderUnresponsive   no sign of life for longer than allowed
ProviderRecovered      signs of life again
UnresponsiveTimeout    unresponsive for longer than the grace period
=====================  =============================================================================

Source: the service model of the Golem Network's documentation ("Service lifecycle"); the last five events are
what it calls external phenomena.
"""

from __future__ import annotations

import enum
from functools import cache
from typing import Final

from shem.lifecycle.table import Actor, Move, Table


class State(enum.Enum):
    """Where an instance is.

    What each state guarantees:

    ============  =====================  ==============================  =================================
    state         activity               handler                         can be left by
    ============  =====================  ==============================  =================================
    PENDING       none, or being made    none                            an activity, a stop, giving up
    STARTING      available              `start` runs                    its end, a stop, a loss
    RUNNING       available              `run` runs                      its end, a stop, a loss
    STOPPING      available              `shutdown` runs                 its end, its budget, a loss
    UNRESPONSIVE  does not answer        suspended at its `yield`        recovery, its grace, a stop, a loss
    TERMINATED    gone, or being undone  none                            never: it is final
    ============  =====================  ==============================  =================================
    """

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    TERMINATED = "terminated"
    UNRESPONSIVE = "unresponsive"


class Event(enum.Enum):
    """What can happen to an instance (meanings: see the module)."""

    RUN_SERVICE = "RunService"
    START_SUCCESSFUL = "StartSuccessful"
    RETRY_START = "RetryStart"
    START_FAILED = "StartFailed"
    SHUTDOWN = "Shutdown"
    SERVICE_ERROR = "ServiceError"
    SERVICE_STOPPED = "ServiceStopped"
    AGREEMENT_TERMINATED = "AgreementTerminated"
    ACTIVITY_LOST = "ActivityLost"
    PROVIDER_UNRESPONSIVE = "ProviderUnresponsive"
    PROVIDER_RECOVERED = "ProviderRecovered"
    UNRESPONSIVE_TIMEOUT = "UnresponsiveTimeout"


class Guard:
    """Names of the guards; the instance has a bool property of each name."""

    MAY_RETRY: Final = "may_retry"
    """Policy allows another start on another provider."""
    ACTIVITY_AVAILABLE: Final = "activity_available"
    """The activity can still be talked to."""
    WAS_STARTING: Final = "was_starting"
    WAS_RUNNING: Final = "was_running"
    WAS_STOPPING: Final = "was_stopping"
    """From which state the instance became Unresponsive."""


_S, _E, _G = State, Event, Guard
_RETRY = (_G.MAY_RETRY,)
_RETRY_LATE = (_G.WAS_STARTING, _G.MAY_RETRY)

_RAISED_BY: Final = {
    _E.RUN_SERVICE: frozenset({Actor.ENGINE}),
    _E.START_SUCCESSFUL: frozenset({Actor.HANDLER}),
    _E.RETRY_START: frozenset({Actor.SUPERVISOR}),
    _E.START_FAILED: frozenset({Actor.SUPERVISOR}),
    _E.SHUTDOWN: frozenset({Actor.USER, Actor.HANDLER, Actor.CLOCK, Actor.BUDGET}),
    _E.SERVICE_ERROR: frozenset({Actor.HANDLER, Actor.CLOCK, Actor.PROBE}),
    _E.SERVICE_STOPPED: frozenset({Actor.HANDLER}),
    _E.AGREEMENT_TERMINATED: frozenset({Actor.PROVIDER}),
    _E.ACTIVITY_LOST: frozenset({Actor.PROVIDER}),
    _E.PROVIDER_UNRESPONSIVE: frozenset({Actor.PROBE}),
    _E.PROVIDER_RECOVERED: frozenset({Actor.PROBE}),
    _E.UNRESPONSIVE_TIMEOUT: frozenset({Actor.CLOCK}),
}

_MOVES: Final = (
    Move(_S.PENDING, _E.RUN_SERVICE, _S.STARTING),
    Move(_S.STARTING, _E.START_SUCCESSFUL, _S.RUNNING),
    Move(_S.STARTING, _E.RETRY_START, _S.PENDING),
    Move(_S.PENDING, _E.START_FAILED, _S.TERMINATED),
    Move(_S.STARTING, _E.START_FAILED, _S.TERMINATED),
    Move(_S.PENDING, _E.SHUTDOWN, _S.TERMINATED),
    Move(_S.STARTING, _E.SHUTDOWN, _S.STOPPING),
    Move(_S.RUNNING, _E.SHUTDOWN, _S.STOPPING),
    Move(_S.UNRESPONSIVE, _E.SHUTDOWN, _S.TERMINATED),
    Move(_S.RUNNING, _E.SERVICE_ERROR, _S.STOPPING),
    Move(_S.STOPPING, _E.SERVICE_ERROR, _S.TERMINATED),
    Move(_S.STOPPING, _E.SERVICE_STOPPED, _S.TERMINATED),
    Move(_S.STARTING, _E.AGREEMENT_TERMINATED, _S.PENDING, when=_RETRY),
    Move(_S.STARTING, _E.AGREEMENT_TERMINATED, _S.TERMINATED),
    Move(_S.RUNNING, _E.AGREEMENT_TERMINATED, _S.STOPPING, when=(_G.ACTIVITY_AVAILABLE,)),
    Move(_S.RUNNING, _E.AGREEMENT_TERMINATED, _S.TERMINATED),
    Move(_S.STOPPING, _E.AGREEMENT_TERMINATED, _S.TERMINATED, unless=(_G.ACTIVITY_AVAILABLE,)),
    Move(_S.UNRESPONSIVE, _E.AGREEMENT_TERMINATED, _S.PENDING, when=_RETRY_LATE),
    Move(_S.UNRESPONSIVE, _E.AGREEMENT_TERMINATED, _S.TERMINATED),
    Move(_S.STARTING, _E.ACTIVITY_LOST, _S.PENDING, when=_RETRY),
    Move(_S.STARTING, _E.ACTIVITY_LOST, _S.TERMINATED),
    Move(_S.RUNNING, _E.ACTIVITY_LOST, _S.TERMINATED),
    Move(_S.STOPPING, _E.ACTIVITY_LOST, _S.TERMINATED),
    Move(_S.UNRESPONSIVE, _E.ACTIVITY_LOST, _S.PENDING, when=_RETRY_LATE),
    Move(_S.UNRESPONSIVE, _E.ACTIVITY_LOST, _S.TERMINATED),
    Move(_S.STARTING, _E.PROVIDER_UNRESPONSIVE, _S.UNRESPONSIVE),
    Move(_S.RUNNING, _E.PROVIDER_UNRESPONSIVE, _S.UNRESPONSIVE),
    Move(_S.STOPPING, _E.PROVIDER_UNRESPONSIVE, _S.UNRESPONSIVE),
    Move(_S.UNRESPONSIVE, _E.PROVIDER_RECOVERED, _S.STARTING, when=(_G.WAS_STARTING,)),
    Move(_S.UNRESPONSIVE, _E.PROVIDER_RECOVERED, _S.RUNNING, when=(_G.WAS_RUNNING,)),
    Move(_S.UNRESPONSIVE, _E.PROVIDER_RECOVERED, _S.STOPPING, when=(_G.WAS_STOPPING,)),
    Move(_S.UNRESPONSIVE, _E.UNRESPONSIVE_TIMEOUT, _S.PENDING, when=_RETRY_LATE),
    Move(_S.UNRESPONSIVE, _E.UNRESPONSIVE_TIMEOUT, _S.TERMINATED),
)

#: Events that can come too late, or at the wrong moment, through nobody's fault.
_IGNORED: Final = frozenset(
    {
        (_S.STOPPING, _E.SHUTDOWN),
        (_S.TERMINATED, _E.SHUTDOWN),
        *((state, _E.SERVICE_ERROR) for state in _S if state not in (_S.RUNNING, _S.STOPPING)),
        *((state, _E.AGREEMENT_TERMINATED) for state in (_S.PENDING, _S.STOPPING, _S.TERMINATED)),
        *((state, _E.ACTIVITY_LOST) for state in (_S.PENDING, _S.TERMINATED)),
        *((state, _E.PROVIDER_UNRESPONSIVE) for state in (_S.PENDING, _S.UNRESPONSIVE, _S.TERMINATED)),
        *((state, _E.PROVIDER_RECOVERED) for state in _S if state is not _S.UNRESPONSIVE),
        *((state, _E.UNRESPONSIVE_TIMEOUT) for state in _S if state is not _S.UNRESPONSIVE),
    }
)

SERVICE: Final[Table[State, Event]] = Table(
    "instance",
    initial=State.PENDING,
    final=frozenset({State.TERMINATED}),
    raised_by=_RAISED_BY,
    moves=_MOVES,
    ignored=_IGNORED,
)

_ORIGINS: Final = {_G.WAS_STARTING: _S.STARTING, _G.WAS_RUNNING: _S.RUNNING, _G.WAS_STOPPING: _S.STOPPING}


@cache
def reachable(state: State, origin: State | None = None) -> frozenset[State]:
    """States that an instance can still enter by some course of events.

    `origin` is the state from which it became Unresponsive, where it is so. Policy and the activity's
    availability are taken to be open.
    """
    entered: set[tuple[State, State | None]] = set()
    ahead = [(state, origin)]
    while ahead:
        source, came_from = ahead.pop()
        for move in SERVICE.moves:
            if move.source is not source or any(
                _ORIGINS.get(guard, came_from) is not came_from for guard in move.when
            ):
                continue
            then = (move.dest, source if move.dest is State.UNRESPONSIVE else None)
            if then not in entered:
                entered.add(then)
                ahead.append(then)
    return frozenset(dest for dest, _origin in entered)
