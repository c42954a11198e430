"""The fault space of a user's service: what can go wrong in its life, when, and what its user may do.

The moments come from the *usual life* of the service, in which nothing goes wrong until it is stopped. What
handlers do wrong is no part of it: they are what is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Any, Final, TypeVar

from shem.lifecycle import State
from shem.service.policy import RestartPolicy
from shem.testing.drive import HORIZON
from shem.testing.life import Life
from shem.testing.plan import CALL_FAULTS, DEFAULT_POLICY, Action, ActionKind, Fault, FaultKind, Plan
from shem.testing.sim import SimClock

T = TypeVar("T")
_F = FaultKind

#: How long a service is watched while it runs, and how many scripts of its own it shall have sent then.
_WATCHED, _SCRIPTS = 20.0, 3
#: No usual life lasts longer, in seconds.
LONGEST: Final = 0.8 * HORIZON

#: What comes about at a moment; the seconds are below, within, and beyond what shem waits for.
_AT_A_TIME: Final[tuple[Callable[..., Fault], ...]] = (
    lambda at: Fault(_F.KILL, at=at),
    lambda at: Fault(_F.VANISH, at=at),
    lambda at: Fault(_F.TERMINATE, at=at, reason="the provider has had enough"),
    lambda at: Fault(_F.HANG, at=at),
    lambda at: Fault(_F.VANISH, at=at, seconds=15.0),
    lambda at: Fault(_F.TERMINATE, at=at, seconds=30.0, reason="the provider has had enough"),
    lambda at: Fault(_F.HANG, at=at, seconds=15.0),
    lambda at: Fault(_F.VANISH, at=at, seconds=4.0),
    lambda at: Fault(_F.NODE_DOWN, at=at, seconds=10.0),
    lambda at: Fault(_F.NODE_RESTART, at=at, seconds=10.0),
    lambda at: Fault(_F.NODE_DOWN, at=at, seconds=70.0),
    lambda at: Fault(_F.REFUSE, at=at, times=2),
    lambda at: Fault(_F.LATE, at=at, seconds=25.0),
    lambda at: Fault(_F.PAD_BILLS, at=at),
    lambda at: Fault(_F.NO_INVOICE, at=at),
)
_SLOW: Final = frozenset({_F.SLOW_CALL, _F.SLOW_ANSWER})
_COMMANDS: Final = (_F.COMMAND_FAILS, _F.COMMAND_HANGS)
#: Seconds until agreements end, where that is before the user stops; no less is allowed.
_EXPIRES: Final = 301.0
_SECONDS: Final = (0.0, 2.0, 8.0, 15.0, 40.0, 130.0)


@dataclass(frozen=True, slots=True)
class Space:
    """What can vary around a usual life.

    Attributes:
        usual: the plan of that life.
        moments: times at which something may come about, in every state some.
        calls: its node calls by name, in order.
        programs: how many programs it ran.
        steps: how many steps the loop made.
        end: when it was over, in seconds.
    """

    usual: Plan
    moments: tuple[float, ...]
    calls: tuple[str, ...]
    programs: int
    steps: int
    end: float

    @classmethod
    def around(cls, life: Life, programs: int) -> Space:
        """The space around a usual life, in which so many programs were run."""
        times = sorted({0.0, *(round(record.monotonic, 3) for record in life.records)})
        moments = [
            round(since + (until - since) * share, 2)
            for since, until in pairwise(times)
            for share in ((0.3, 0.8) if until - since < _WATCHED / 2 else (0.05, 0.25, 0.5, 0.75, 0.95))
        ]
        end = times[-1]
        calls = tuple(call.name for call in life.calls if call.at <= end)
        steps = max(1, round(life.steps * end / life.seconds)) if life.seconds else 1
        return cls(life.plan, tuple(dict.fromkeys(moments)) or (0.5,), calls, programs, steps, end)

    # --- one thing at a time

    def singles(self) -> Iterator[Plan]:
        """Every kind of fault, and of what the user does, at a spread of moments; kind after kind in turn."""
        turns = zip_longest(*self._kinds())
        return (plan for turn in turns for plan in turn if plan is not None)

    def _kinds(self) -> Iterator[list[Plan]]:
        for number, make in enumerate(_AT_A_TIME):
            yield [self._with(make(at)) for at in _from(self.moments, number)]
        for kind in _COMMANDS:
            numbers = _spread(range(1, self.programs + 1), 8)
            # Those in the middle of a life first.
            half = len(numbers) // 2
            yield [self._with(Fault(kind, at_call=n)) for n in (*numbers[half:], *numbers[:half])]
        for number, kind in enumerate(sorted(CALL_FAULTS, key=repr)):
            seconds = 25.0 if kind in _SLOW else 0.0
            yield [self._with(Fault(kind, seconds=seconds, **where)) for where in self._calls(number)]
        for number, what in enumerate(ActionKind):
            yield [self._doing(Action(what, at=at)) for at in _from(self.moments, number)]
            yield [self._doing(Action(what, at_step=step)) for step in _spread(range(1, self.steps), 6)]

    def _calls(self, first: int) -> list[dict[str, Any]]:
        """Some calls: those that carry scripts, and a spread of all others."""
        scripts = max(1, self.calls.count("execute"))
        numbers = sorted({1, (scripts + 1) // 2, scripts})
        named = [{"call": name, "at_call": n} for n in numbers for name in ("execute", "batch_results")]
        others = _spread(range(1, len(self.calls) + 1), 6, first)
        return [one for pair in zip_longest(named, ({"at_call": n} for n in others)) for one in pair if one]

    def _with(self, fault: Fault) -> Plan:
        return replace(self.usual, faults=(fault,))

    def _doing(self, action: Action) -> Plan:
        return replace(self.usual, actions=(*self.usual.actions, action))

    # --- anything

    def samples(self, seed: int) -> Iterator[Plan]:
        """Plans with a few things at a time, without end; the same ones for the same seed."""
        chance = _Chance(seed)
        while True:
            yield self._sample(chance)

    def _sample(self, chance: _Chance) -> Plan:
        usual = self.usual.actions
        faults = tuple(self._fault(chance) for _ in range(chance.among((1, 1, 2, 2, 3, 0))))
        actions = tuple(self._action(chance) for _ in range(chance.among((0, 0, 0, 1, 1, 2))))
        expiring = chance.below(20) == 0
        if expiring or (actions and chance.below(4) == 0):
            usual = ()
        policy = chance.among((DEFAULT_POLICY, DEFAULT_POLICY, _FAILURE, _ALWAYS))
        return replace(
            self.usual,
            seed=chance.below(4),
            providers=chance.among((3, 3, 3, 2, 4, 1)),
            latencies=chance.among(((0.05,), (0.05,), (0.0,), (0.05, 0.3), (1.0, 0.0, 0.5))),
            faults=faults,
            actions=(*usual, *actions),
            deviations=self._deviations(chance),
            policy=policy,
            respawn=chance.below(6) > 0,
            expires=_EXPIRES if expiring else None,
        )

    def _fault(self, chance: _Chance) -> Fault:
        if chance.below(3) == 0 and self.programs:
            return Fault(chance.among(_COMMANDS), at_call=1 + chance.below(self.programs + 2))
        if chance.below(2) == 0:
            fault = replace(chance.among(_AT_A_TIME)(self._time(chance)), which=chance.below(3))
            varied = fault.seconds and chance.below(2)
            return replace(fault, seconds=chance.among(_SECONDS)) if varied else fault
        kind, times = chance.among(sorted(CALL_FAULTS, key=repr)), 1 + chance.below(4)
        seconds = chance.among(_SECONDS) if kind in _SLOW else 0.0
        number = chance.below(len(self.calls)) if self.calls else 0
        if not self.calls or chance.below(2):
            return Fault(kind, at_call=number + 1, seconds=seconds, times=times)
        name = self.calls[number]
        at = self.calls[: number + 1].count(name)
        return Fault(kind, call=name, at_call=at, seconds=seconds, times=times)

    def _action(self, chance: _Chance) -> Action:
        what = chance.among(tuple(ActionKind))
        if chance.below(2):
            return Action(what, at_step=1 + chance.below(self.steps), which=chance.below(2))
        return Action(what, at=self._time(chance), which=chance.below(2))

    def _time(self, chance: _Chance) -> float:
        if chance.below(2):
            return chance.among(self.moments)
        return round(chance.share() * (self.end + 5.0), 2)

    def _deviations(self, chance: _Chance) -> tuple[tuple[int, int], ...]:
        if chance.below(3):
            return ()
        chosen = {1 + chance.below(self.steps): 1 + chance.below(3) for _ in range(1 + chance.below(2))}
        return tuple(sorted(chosen.items()))


_FAILURE: Final = RestartPolicy(on="failure", attempts=2)
_ALWAYS: Final = RestartPolicy(on="always", attempts=2)


def usual_plan(long: Life) -> Plan:
    """The plan of the usual life: that of a long undisturbed one, stopped when enough has been seen of it."""
    runs = [record.monotonic for record in long.records if record.dest is State.RUNNING]
    if not runs:
        return long.plan
    since = max(runs)
    executed = [call.at for call in long.done if call.name == "execute" and call.at > since]
    enough = executed[min(_SCRIPTS, len(executed)) - 1] + 2.0 if executed else 0.0
    at = float(round(min(LONGEST, max(since + _WATCHED, enough))))
    return replace(long.plan, actions=(Action(ActionKind.STOP, at=at),))


class _Chance:
    """Chance that follows from a seed."""

    def __init__(self, seed: int) -> None:
        self._clock = SimClock(seed)

    def share(self) -> float:
        return self._clock.random()

    def below(self, number: int) -> int:
        return int(self._clock.random() * number)

    def among(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]


def _spread(items: Sequence[T], count: int, first: int = 0) -> list[T]:
    """At most `count` of the items, evenly spread, moved on a little by `first`."""
    if len(items) <= count:
        return list(items)
    stride = len(items) / count
    return [items[int((place + first % 7 / 7) * stride) % len(items)] for place in range(count)]


def _from(items: Sequence[T], first: int) -> list[T]:
    """All items, beginning with another one each time, so that also a few plans see many moments."""
    start = first * 5 % len(items)
    return [*items[start:], *items[:start]]
