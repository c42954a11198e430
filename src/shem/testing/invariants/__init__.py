"""What holds in every life, whatever the plan. Each invariant is a function whose first sentence says it.

They compare what instances say of themselves with what really happened (see `shem.testing.life`), and excuse
only what could not be otherwise: a node that lied, or something that was left over and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from shem.testing.invariants import causes, handlers, leases, moves
from shem.testing.life import Life
from shem.testing.limits import Limits

Invariant: TypeAlias = Callable[[Life, Limits], Iterator[str]]

#: All of them, in the order in which they are reported.
INVARIANTS: Final[tuple[Invariant, ...]] = (
    moves.records_are_a_path,
    moves.everything_ends_terminated,
    moves.retries_come_before_running,
    moves.stop_beats_restart,
    moves.stops_take_effect_at_once,
    moves.stop_buys_nothing,
    moves.halts_go_through_stopping,
    moves.nothing_outlives_its_rent,
    moves.user_errors_stay_where_they_are,
    moves.policy_is_kept,
    handlers.handlers_run_once,
    handlers.ends_are_heard,
    handlers.scripts_are_sent_once,
    handlers.handlers_begin_in_their_state,
    handlers.handlers_never_overlap,
    handlers.shutdown_belongs_to_stopping,
    handlers.unresponsive_suspends,
    leases.leases_end_once,
    leases.everything_is_given_back,
    leases.bills_are_paid_as_owed,
    leases.exit_is_bounded,
    leases.stops_are_bounded,
    causes.causes_are_true,
    causes.why_names_the_cause,
    leases.nothing_is_noticed,
)


def check(life: Life, limits: Limits) -> tuple[str, ...]:
    """Which invariants a life violates, in words: the invariant's name, and what was found."""
    return tuple(
        f"{invariant.__name__}: {found}" for invariant in INVARIANTS for found in invariant(life, limits)
    )
