"""The lifecycle of an activity: one exe-unit on a provider.

Source: states of the activity API (contract 3.4.2). Commands move it as well as its supervision on the
provider's side; `terminate` leads back to Initialized, so that a runtime can be deployed anew.
"""

from __future__ import annotations

import enum
from typing import Final

from shem.lifecycle.table import Actor, Move, Table


class ActivityState(enum.Enum):
    """Where an activity is; the values are the node's words."""

    NEW = "New"
    INITIALIZED = "Initialized"
    DEPLOYED = "Deployed"
    READY = "Ready"
    UNRESPONSIVE = "Unresponsive"
    TERMINATED = "Terminated"


class ActivityEvent(enum.Enum):
    """What can happen to an activity."""

    INITIALIZE = "Initialize"
    DEPLOY = "Deploy"
    START = "Start"
    TERMINATE = "Terminate"
    LOSE_CONTACT = "LoseContact"
    REGAIN_CONTACT = "RegainContact"
    DESTROY = "Destroy"


_S, _E = ActivityState, ActivityEvent
_LIVE = (_S.INITIALIZED, _S.DEPLOYED, _S.READY)

ACTIVITY: Final[Table[ActivityState, ActivityEvent]] = Table(
    "activity",
    initial=_S.NEW,
    final=frozenset({_S.TERMINATED}),
    raised_by={
        _E.INITIALIZE: frozenset({Actor.PROVIDER}),
        _E.DEPLOY: frozenset({Actor.HANDLER, Actor.PROVIDER}),
        _E.START: frozenset({Actor.HANDLER, Actor.PROVIDER}),
        _E.TERMINATE: frozenset({Actor.HANDLER, Actor.PROVIDER}),
        _E.LOSE_CONTACT: frozenset({Actor.PROBE}),
        _E.REGAIN_CONTACT: frozenset({Actor.PROBE}),
        _E.DESTROY: frozenset({Actor.ENGINE, Actor.PROVIDER}),
    },
    moves=(
        Move(_S.NEW, _E.INITIALIZE, _S.INITIALIZED),
        Move(_S.INITIALIZED, _E.DEPLOY, _S.DEPLOYED),
        Move(_S.DEPLOYED, _E.START, _S.READY),
        Move(_S.READY, _E.TERMINATE, _S.INITIALIZED),
        Move(_S.DEPLOYED, _E.TERMINATE, _S.INITIALIZED),
        *(Move(state, _E.LOSE_CONTACT, _S.UNRESPONSIVE) for state in _LIVE),
        Move(_S.UNRESPONSIVE, _E.REGAIN_CONTACT, _S.INITIALIZED, when=("was_initialized",)),
        Move(_S.UNRESPONSIVE, _E.REGAIN_CONTACT, _S.DEPLOYED, when=("was_deployed",)),
        Move(_S.UNRESPONSIVE, _E.REGAIN_CONTACT, _S.READY, when=("was_ready",)),
        *(Move(state, _E.DESTROY, _S.TERMINATED) for state in _S if state is not _S.TERMINATED),
    ),
    ignored=frozenset(
        {
            (_S.TERMINATED, _E.DESTROY),
            *((state, _E.LOSE_CONTACT) for state in _S if state not in _LIVE),
            *((state, _E.REGAIN_CONTACT) for state in _S if state is not _S.UNRESPONSIVE),
        }
    ),
)
