"""The lifecycle of an agreement, seen from the requestor.

Source: states and rules of the market API (contract 3.3.5, 3.3.6).
"""

from __future__ import annotations

import enum
from typing import Final

from shem.lifecycle.table import Actor, Move, Table


class AgreementState(enum.Enum):
    """Where an agreement is; the values are the node's words."""

    PROPOSAL = "Proposal"
    PENDING = "Pending"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    CANCELLED = "Cancelled"
    EXPIRED = "Expired"
    TERMINATED = "Terminated"


class AgreementEvent(enum.Enum):
    """What can happen to an agreement."""

    CONFIRM = "Confirm"
    APPROVE = "Approve"
    REJECT = "Reject"
    CANCEL = "Cancel"
    EXPIRE = "Expire"
    TERMINATE = "Terminate"


_S, _E = AgreementState, AgreementEvent
_ENDED = frozenset({_S.REJECTED, _S.CANCELLED, _S.EXPIRED, _S.TERMINATED})

AGREEMENT: Final[Table[AgreementState, AgreementEvent]] = Table(
    "agreement",
    initial=_S.PROPOSAL,
    final=_ENDED,
    raised_by={
        _E.CONFIRM: frozenset({Actor.ENGINE}),
        _E.APPROVE: frozenset({Actor.PROVIDER}),
        _E.REJECT: frozenset({Actor.PROVIDER}),
        _E.CANCEL: frozenset({Actor.ENGINE}),
        _E.EXPIRE: frozenset({Actor.CLOCK}),
        _E.TERMINATE: frozenset({Actor.ENGINE, Actor.PROVIDER}),
    },
    moves=(
        Move(_S.PROPOSAL, _E.CONFIRM, _S.PENDING),
        Move(_S.PENDING, _E.APPROVE, _S.APPROVED),
        Move(_S.PENDING, _E.REJECT, _S.REJECTED),
        Move(_S.PROPOSAL, _E.CANCEL, _S.CANCELLED),
        Move(_S.PENDING, _E.CANCEL, _S.CANCELLED),
        Move(_S.PROPOSAL, _E.EXPIRE, _S.EXPIRED),
        Move(_S.PENDING, _E.EXPIRE, _S.EXPIRED),
        Move(_S.APPROVED, _E.TERMINATE, _S.TERMINATED),
    ),
    # Both sides and the clock act on their own, so an ending can always be overtaken by another.
    ignored=frozenset(
        {
            *((state, _E.APPROVE) for state in (_S.APPROVED, *_ENDED)),
            *((state, _E.REJECT) for state in _ENDED),
            *((state, _E.CANCEL) for state in (_S.APPROVED, *_ENDED)),
            *((state, _E.EXPIRE) for state in (_S.APPROVED, *_ENDED)),
            *((state, _E.TERMINATE) for state in _ENDED),
        }
    ),
)
