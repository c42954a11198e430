"""Plans by enumeration: everything that can go wrong once, everywhere, and combinations of it.

The bounds are taken from a *base life*, in which nothing goes wrong: its node calls, the steps of its loop,
and the choices between tasks in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import gcd
from typing import Final, TypeVar

from shem.service.handlers import HANDLERS
from shem.service.policy import RestartPolicy
from shem.testing.life import Life
from shem.testing.plan import (
    BESIDE_HANDLERS,
    Action,
    ActionKind,
    Fault,
    FaultKind,
    HandlerFault,
    HandlerFaultKind,
    Plan,
)

T = TypeVar("T")
_F, _H = FaultKind, HandlerFaultKind

#: The life that is varied: as short as one can be that needs a second provider when it fails.
BASE: Final = Plan(providers=2, rounds=1)

#: Every fault that comes about at a node call, in the variants that lead to different ends.
FAULTS: Final = (
    Fault(_F.VANISH, at_call=1),
    Fault(_F.VANISH, at_call=1, seconds=40.0),
    Fault(_F.HANG, at_call=1),
    Fault(_F.HANG, at_call=1, seconds=9.0),
    Fault(_F.TERMINATE, at_call=1, reason="it has had enough"),
    Fault(_F.TERMINATE, at_call=1, seconds=30.0),
    Fault(_F.KILL, at_call=1),
    Fault(_F.REFUSE, at_call=1),
    Fault(_F.LATE, at_call=1, seconds=70.0),
    Fault(_F.PAD_BILLS, at_call=1),
    Fault(_F.NO_INVOICE, at_call=1),
    Fault(_F.ANSWER_404, at_call=1),
    Fault(_F.ANSWER_408, at_call=1),
    Fault(_F.ANSWER_410, at_call=1),
    Fault(_F.ANSWER_500, at_call=1),
    Fault(_F.ANSWER_504, at_call=1),
    Fault(_F.CUT_BEFORE, at_call=1),
    Fault(_F.CUT_AFTER, at_call=1),
    Fault(_F.SLOW_CALL, at_call=1, seconds=40.0),
    Fault(_F.SLOW_ANSWER, at_call=1, seconds=40.0),
    Fault(_F.NODE_DOWN, at_call=1, seconds=20.0),
    Fault(_F.NODE_DOWN, at_call=1, seconds=90.0),
    Fault(_F.NODE_RESTART, at_call=1, seconds=20.0),
)

#: Below, and above, the time that a clean-up has; and above that of a start or a stop.
_DELAYS: Final = (2.0, 8.0, 70.0)
_TIMED: Final = (_H.SLOW, _H.SWALLOWS, _H.SLOW_CLEANUP)
_BESIDE: Final = (_H.RAISES, _H.SLOW, _H.WAITS, _H.SWALLOWS, _H.CANCELS)
#: How many programs a base life runs, and how many scripts the longest of its handlers sends.
_PROGRAMS, _SCRIPTS = 4, 2


def faults_everywhere(base: Life) -> Iterator[Fault]:
    """Every fault at every node call of a base life, and every program failing and hanging."""
    for fault, number in product(FAULTS, range(1, len(base.calls) + 1)):
        yield replace(fault, at_call=number)
    for kind, number in product((_F.COMMAND_FAILS, _F.COMMAND_HANGS), range(1, _PROGRAMS + 1)):
        yield Fault(kind, at_call=number)


def ends_everywhere(base: Life) -> Iterator[Fault]:
    """The end of the activity, and of the agreement, before every step that the loop of a base life makes."""
    for kind, step in product((_F.KILL, _F.TERMINATE), range(1, base.steps + 1)):
        yield Fault(kind, at_step=step)


def actions_everywhere(base: Life) -> Iterator[Action]:
    """Every action before every step that the loop of a base life makes."""
    for kind, step in product(ActionKind, range(1, base.steps + 1)):
        yield Action(kind, at_step=step)


def deviations_everywhere(base: Life) -> Iterator[tuple[int, int]]:
    """Every choice between tasks in a base life, decided for the second and for the third in line."""
    yield from product(range(1, base.choices + 1), (1, 2))


def handler_faults_everywhere() -> Iterator[HandlerFault]:
    """Everything that handlers can do wrong, before each of their scripts."""
    for kind in HandlerFaultKind:
        for seconds in _DELAYS if kind in _TIMED else (0.0,):
            for handler, step in product(HANDLERS, range(_SCRIPTS + 1)):
                yield HandlerFault(kind, handler, step, seconds)
            for name in BESIDE_HANDLERS if kind in _BESIDE else ():
                yield HandlerFault(kind, name, 0, seconds)


def singles(base: Life) -> Iterator[Plan]:
    """Every plan with one fault, one action, one deviation, or one wrong handler."""
    plan = base.plan
    yield plan
    for fault in (*faults_everywhere(base), *ends_everywhere(base)):
        yield replace(plan, faults=(fault,))
    for action in actions_everywhere(base):
        yield replace(plan, actions=(action,))
    for deviation in deviations_everywhere(base):
        yield replace(plan, deviations=(deviation,))
    for wrong in handler_faults_everywhere():
        yield replace(plan, handlers=(wrong,))


class Combinations(Sequence[Plan]):
    """Every plan with a fault or a wrong handler, an action before a step, and a deviation or none.

    There are very many. `spread` picks some of them so that each part of the space has its share.
    """

    def __init__(self, base: Life) -> None:
        self._plan = base.plan
        self._faults: list[Fault | HandlerFault] = [
            *faults_everywhere(base),
            *ends_everywhere(base),
            *handler_faults_everywhere(),
        ]
        self._actions = list(actions_everywhere(base))
        self._deviations = [(), *((one,) for one in deviations_everywhere(base))]

    def __len__(self) -> int:
        return len(self._faults) * len(self._actions) * len(self._deviations)

    def __getitem__(self, place: int) -> Plan:  # type: ignore[override]  # slices are not needed
        rest, fault = divmod(place % len(self), len(self._faults))
        deviation, action = divmod(rest, len(self._actions))
        one = self._faults[fault]
        return replace(
            self._plan,
            faults=(one,) if isinstance(one, Fault) else (),
            handlers=(one,) if isinstance(one, HandlerFault) else (),
            actions=(self._actions[action],),
            deviations=self._deviations[deviation],
        )


def spread(items: Sequence[T], count: int, start: int = 0) -> Iterator[T]:
    """`count` of the items, evenly spread whatever the count: in steps of the golden ratio, round and round.

    No item comes twice before all have come. `start` is how many of the sequence to leave out first.
    """
    size = len(items)
    stride = max(1, round(size * 0.6180339887498949))
    while gcd(stride, size) != 1:
        stride += 1
    for number in range(start, start + count):
        yield items[number * stride % size]


def landmarks() -> Iterator[Plan]:
    """Plans that take the arrows of the table which need two things to come together."""
    plan = Plan(providers=2)
    yield replace(plan, providers=0)
    slow_stop = (HandlerFault(_H.SLOW, "shutdown", 1, 12.0),)
    moments: tuple[tuple[float, tuple[HandlerFault, ...]], ...] = ((2.0, ()), (6.0, ()), (20.6, slow_stop))
    for (at, handlers), respawn in product(moments, (True, False)):
        yield replace(plan, faults=(Fault(_F.VANISH, at=at),), handlers=handlers, respawn=respawn)
        for end, later in product((_F.TERMINATE, _F.KILL, _F.RECOVER, _F.VANISH), (0.0, 5.0, 9.0)):
            faults = (Fault(_F.HANG, at=at), Fault(end, at=at + later))
            yield replace(plan, faults=faults, handlers=handlers, respawn=respawn)
        for kind, later in product(ActionKind, (0.0, 5.0, 9.0)):
            yield replace(
                plan,
                faults=(Fault(_F.HANG, at=at),),
                actions=(Action(kind, at=at + later),),
                handlers=handlers,
                respawn=respawn,
            )
    for wrong in (_H.WAITS, _H.SWALLOWS):
        yield replace(plan, handlers=(HandlerFault(wrong, "run", 0, 8.0),), expires=300.0)
    policies = (RestartPolicy(on="failure", attempts=2), RestartPolicy(on="always", attempts=2))
    for fault, policy in product((_F.KILL, _F.TERMINATE, _F.VANISH), policies):
        yield replace(plan, faults=tuple(Fault(fault, at=at, which=9) for at in (6.0, 60.0)), policy=policy)
