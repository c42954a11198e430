"""Plans: everything about one simulated life that can vary, drawn up front, as values.

A plan can be told as a story (`Plan.describe`), and its `repr` is the line that replays it (`Plan.replay`).
How a plan is carried out belongs to `drive`, `faults` and `subject`; what must hold whatever it says, to
`invariants`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from shem.errors import ConfigError
from shem.service.handlers import HANDLERS
from shem.service.policy import RestartPolicy
from shem.testing.link import ANY
from shem.testing.replay import Names, read_value


class FaultKind(enum.Enum):
    """What can go wrong at providers, at the node, and on the way there."""

    VANISH = "vanish"
    """The provider is cut off: calls to it fail, commands hang; for `seconds`, `times` times, or for good."""
    HANG = "hang"
    """The activity falls silent; for `seconds`, `times` times, or until the provider gives it up."""
    RECOVER = "recover"
    """The provider is connected again, and its activity is heard again."""
    TERMINATE = "terminate"
    """The provider ends the agreement for `reason`; the activity outlives it by `seconds`."""
    KILL = "kill"
    """The activity dies abruptly."""
    REFUSE = "refuse"
    """The provider refuses its next `times` agreements."""
    LATE = "late"
    """The provider takes `seconds` longer to decide about agreements, from now on."""
    PAD_BILLS = "pad_bills"
    """The provider bills twice what was used, from now on."""
    NO_INVOICE = "no_invoice"
    """The provider sends no invoices any more."""
    COMMAND_FAILS = "command_fails"
    """The program fails. `at_call` counts the programs that are run."""
    COMMAND_HANGS = "command_hangs"
    """The program does not end. `at_call` counts the programs that are run."""
    ANSWER_404 = "answer_404"
    """The node says that it knows no such thing, and does nothing; for `times` calls."""
    ANSWER_408 = "answer_408"
    """The node says that it ran out of time, and does nothing; for `times` calls."""
    ANSWER_410 = "answer_410"
    """The node says that the thing is gone, and does nothing; for `times` calls."""
    ANSWER_500 = "answer_500"
    """The node says that it failed, and does nothing; for `times` calls."""
    ANSWER_504 = "answer_504"
    """The node does it, and says all the same that it ran out of time; for `times` calls."""
    CUT_BEFORE = "cut_before"
    """The connection is cut before the call has any effect; for `times` calls."""
    CUT_AFTER = "cut_after"
    """The connection is cut after the effect and before the answer; for `times` calls."""
    SLOW_CALL = "slow_call"
    """The call takes `seconds` longer before its effect; for `times` calls."""
    SLOW_ANSWER = "slow_answer"
    """The call takes `seconds` longer after its effect; for `times` calls."""
    NODE_DOWN = "node_down"
    """No call gets through for `seconds`."""
    NODE_RESTART = "node_restart"
    """No call gets through for `seconds`, and the node forgets all demands."""

    def __repr__(self) -> str:
        return f"FaultKind.{self.name}"


#: Faults of a single call, or a few; without a name of a call they hit the next ones, whatever these are.
CALL_FAULTS = frozenset(
    {
        FaultKind.ANSWER_404,
        FaultKind.ANSWER_408,
        FaultKind.ANSWER_410,
        FaultKind.ANSWER_500,
        FaultKind.ANSWER_504,
        FaultKind.CUT_BEFORE,
        FaultKind.CUT_AFTER,
        FaultKind.SLOW_CALL,
        FaultKind.SLOW_ANSWER,
    }
)
#: Faults that come `times` times, with a short breath in between, if they last for some `seconds`.
REPEATED = frozenset({FaultKind.VANISH, FaultKind.HANG})
#: Faults of a program that is run on a provider.
COMMAND_FAULTS = frozenset({FaultKind.COMMAND_FAILS, FaultKind.COMMAND_HANGS})


class ActionKind(enum.Enum):
    """What the user does."""

    STOP = "stop"
    """Stops the cluster."""
    STOP_NOW = "stop_now"
    """Stops the cluster and waits for no `shutdown()`: what a second Ctrl-C does."""
    STOP_INSTANCE = "stop_instance"
    """Stops one instance."""
    SPAWN = "spawn"
    """Adds one instance."""
    EXIT = "exit"
    """Leaves the context of the `Golem`."""
    CANCEL = "cancel"
    """Cancels the task that holds the context of the `Golem`, wherever it is."""

    def __repr__(self) -> str:
        return f"ActionKind.{self.name}"


class HandlerFaultKind(enum.Enum):
    """What the user's own handlers do wrong, before script number `step` (the first is 0)."""

    RAISES = "raises"
    """Raises an error that is none of shem's."""
    RETURNS = "returns"
    """Comes to its end early."""
    YIELDS_NONE = "yields_none"
    """Yields None instead of a script."""
    YIELDS_TWICE = "yields_twice"
    """Yields that script once more."""
    SLOW = "slow"
    """Takes `seconds` longer."""
    WAITS = "waits"
    """Waits for ever."""
    SWALLOWS = "swallows"
    """Works on for `seconds`, whoever cancels it."""
    CANCELS = "cancels"
    """Raises CancelledError though nobody cancelled it."""
    SLOW_CLEANUP = "slow_cleanup"
    """Has a `finally` block that takes `seconds`."""
    CLEANUP_RAISES = "cleanup_raises"
    """Has a `finally` block that raises."""
    IGNORES_CLOSE = "ignores_close"
    """Yields another script when it is closed."""

    def __repr__(self) -> str:
        return f"HandlerFaultKind.{self.name}"


class _Value:
    """A value whose `repr` names only what differs from the defaults."""

    __slots__ = ()

    def __repr__(self) -> str:
        return short_repr(self)


def short_repr(value: Any) -> str:
    """A dataclass as a constructor call that leaves the defaults out; anything else by its own `repr`."""
    if isinstance(value, tuple):
        return f"({', '.join(map(short_repr, value))}{',' if len(value) == 1 else ''})"
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    given = []
    for one in dataclasses.fields(value):
        held = getattr(value, one.name)
        default = one.default_factory() if callable(one.default_factory) else one.default
        if held != default:
            given.append(f"{one.name}={short_repr(held)}")
    return f"{type(value).__name__}({', '.join(given)})"


@dataclass(frozen=True, slots=True, repr=False)
class Fault(_Value):
    """Something goes wrong: `at` a virtual time, at the n-th call, or at the loop's n-th step (from 1).

    Attributes:
        call: which calls `at_call` counts, and a fault of calls hits: a method of `YagnaApi`, or all (``*``).
        which: the provider, agreement or activity: that of the agreement with this number (from 0), or of the
            latest where there are not so many.
        seconds, times, reason: see `FaultKind`.

    Raises `ConfigError` unless exactly one of `at`, `at_call` and `at_step` is given.
    """

    kind: FaultKind
    at: float | None = None
    at_call: int | None = None
    at_step: int | None = None
    call: str = ANY
    which: int = 0
    seconds: float = 0.0
    times: int = 1
    reason: str = ""

    def __post_init__(self) -> None:
        _need_one(self, "at", "at_call", "at_step")
        if self.kind in COMMAND_FAULTS and self.at_call is None:
            raise ConfigError(f"{self!r}: a program is named by its number, at_call")

    def __str__(self) -> str:
        whose = f" of agreement {self.which}" if self.which else ""
        how_long = f" for {self.seconds:g} s" if self.seconds else ""
        how_often = f", {self.times} times" if self.times > 1 else ""
        calls = "the call" if self.call == ANY else f"{self.call}()"
        if self.kind in COMMAND_FAULTS:
            what = "fails" if self.kind is FaultKind.COMMAND_FAILS else "does not end"
            return f"the {nth(self.at_call or 0)} program that is run on a provider {what}"
        match self.kind:
            case FaultKind.VANISH:
                said = f"the provider{whose} vanishes{how_long or ' for good'}{how_often}"
            case FaultKind.HANG:
                said = f"the activity{whose} falls silent{how_long}{how_often}"
            case FaultKind.RECOVER:
                said = f"the provider{whose} and its activity are heard again"
            case FaultKind.TERMINATE:
                outlived = f", and lets the activity go on{how_long}" if self.seconds else ""
                reason = f", saying {self.reason!r}" if self.reason else ""
                said = f"the provider ends the agreement{whose}{reason}{outlived}"
            case FaultKind.KILL:
                said = f"the activity{whose} dies"
            case FaultKind.REFUSE:
                said = f"the provider{whose} refuses the next {self.times} agreement(s)"
            case FaultKind.LATE:
                said = f"the provider{whose} decides {self.seconds:g} s later than usual from now on"
            case FaultKind.PAD_BILLS:
                said = f"the provider{whose} bills twice what is right from now on"
            case FaultKind.NO_INVOICE:
                said = f"the provider{whose} sends no invoice any more"
            case FaultKind.CUT_BEFORE:
                said = f"the connection is cut before {calls} has an effect{how_often}"
            case FaultKind.CUT_AFTER:
                said = f"the connection is cut after {calls} had its effect{how_often}"
            case FaultKind.SLOW_CALL:
                said = f"{calls} takes {self.seconds:g} s longer before its effect{how_often}"
            case FaultKind.SLOW_ANSWER:
                said = f"{calls} takes {self.seconds:g} s longer before its answer{how_often}"
            case FaultKind.NODE_DOWN:
                said = f"the node is down{how_long}"
            case FaultKind.NODE_RESTART:
                said = f"the node restarts, which takes {self.seconds:g} s"
            case FaultKind.ANSWER_504:
                said = f"{calls} is answered with 504, though it had its effect{how_often}"
            case _:
                said = f"{calls} is answered with {self.kind.value.removeprefix('answer_')}{how_often}"
        return f"{_when(self.at, self.at_call, self.at_step, self.call)}: {said}"


@dataclass(frozen=True, slots=True, repr=False)
class Action(_Value):
    """The user does something: `at` a virtual time, at the n-th node call, or at the loop's n-th step.

    `which` is the instance to stop, counted modulo their number.

    Raises `ConfigError` unless exactly one of `at`, `at_call` and `at_step` is given.
    """

    what: ActionKind
    at: float | None = None
    at_call: int | None = None
    at_step: int | None = None
    which: int = 0

    def __post_init__(self) -> None:
        _need_one(self, "at", "at_call", "at_step")

    def __str__(self) -> str:
        said = {
            ActionKind.STOP: "the user stops the cluster",
            ActionKind.STOP_NOW: "the user stops the cluster and will not wait",
            ActionKind.STOP_INSTANCE: f"the user stops instance {self.which}",
            ActionKind.SPAWN: "the user adds an instance",
            ActionKind.EXIT: "the user's program leaves the context",
            ActionKind.CANCEL: "the user's program is cancelled",
        }[self.what]
        return f"{_when(self.at, self.at_call, self.at_step, ANY)}: {said}"


#: What the user writes besides handlers, in which something can go wrong.
BESIDE_HANDLERS = ("reset", "on_starting", "on_running", "on_stopping", "on_terminated", "on_unresponsive")


@dataclass(frozen=True, slots=True, repr=False)
class HandlerFault(_Value):
    """A handler of the user's does something wrong, in its first `times` runs.

    `handler` is one of ``start``, ``run``, ``shutdown``; or ``reset`` or an ``on_<state>`` hook, for which
    only RAISES, SLOW, WAITS, SWALLOWS and CANCELS make sense, with step 0.

    Raises `ConfigError` for a handler that does not exist.
    """

    kind: HandlerFaultKind
    handler: str = "run"
    step: int = 0
    seconds: float = 0.0
    times: int = 1

    def __post_init__(self) -> None:
        if self.handler not in (*HANDLERS, *BESIDE_HANDLERS):
            raise ConfigError(f"{self!r}: the handler is none of {', '.join((*HANDLERS, *BESIDE_HANDLERS))}")

    def __str__(self) -> str:
        said = {
            HandlerFaultKind.RAISES: "raises an error",
            HandlerFaultKind.RETURNS: "comes to its end",
            HandlerFaultKind.YIELDS_NONE: "yields None",
            HandlerFaultKind.YIELDS_TWICE: "decides to yield the same script twice",
            HandlerFaultKind.SLOW: f"takes {self.seconds:g} s longer",
            HandlerFaultKind.WAITS: "waits for ever",
            HandlerFaultKind.SWALLOWS: f"works on for {self.seconds:g} s, whoever cancels it",
            HandlerFaultKind.CANCELS: "raises CancelledError",
            HandlerFaultKind.SLOW_CLEANUP: f"gets a `finally` block that takes {self.seconds:g} s",
            HandlerFaultKind.CLEANUP_RAISES: "gets a `finally` block that raises",
            HandlerFaultKind.IGNORES_CLOSE: "decides to yield once more when it is closed",
        }[self.kind]
        where = f" before its {nth(self.step + 1)} script" if self.handler in HANDLERS else ""
        how_often = f", in its first {self.times} runs" if self.times > 1 else ""
        return f"{self.handler}() {said}{where}{how_often}"


#: Plans restart nothing unless they say so, and soon where they do.
DEFAULT_POLICY = RestartPolicy()


@dataclass(frozen=True, slots=True, repr=False)
class Plan(_Value):
    """One simulated life. The default is one in which nothing goes wrong.

    Attributes:
        seed: of all chance: ids, jitter.
        providers, instances: how many.
        rounds: how many scripts `run()` of the standard service sends before it ends.
        latencies: seconds that node calls take, used round robin.
        faults, actions, handlers: what goes wrong out there, what the user does, what the handlers do wrong.
        deviations: pairs (n, k): at the n-th choice (from 1) between tasks that could run next, the k-th in
            line runs (modulo their number), instead of the first.
        policy, respawn: as for `Golem.run_service`.
        probe: how often the service's own liveness probe says yes before it says no; None for no probe.
        expires: for how many seconds the service is rented, at least 300; None for longer than a life lasts.

    Raises `ConfigError` for numbers that make no life.
    """

    seed: int = 0
    providers: int = 3
    instances: int = 1
    rounds: int = 2
    latencies: tuple[float, ...] = (0.05,)
    faults: tuple[Fault, ...] = ()
    actions: tuple[Action, ...] = ()
    handlers: tuple[HandlerFault, ...] = ()
    deviations: tuple[tuple[int, int], ...] = ()
    policy: RestartPolicy = field(default=DEFAULT_POLICY)
    respawn: bool = True
    probe: int | None = None
    expires: float | None = None

    def __post_init__(self) -> None:
        for name in ("providers", "instances", "rounds"):
            value, least = getattr(self, name), 1 if name == "instances" else 0
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"Plan: {name} must be a number from {least} up, not {value!r}")

    def describe(self) -> list[str]:
        """The plan as a story, one sentence a line."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.instances} instance(s) on a node with {self.providers} provider(s)"
        if self.latencies and any(self.latencies):
            yield f"node calls take {', '.join(f'{one:g}' for one in self.latencies)} s in turn"
        yield from map(str, self.faults)
        yield from map(str, self.handlers)
        yield from map(str, self.actions)
        if self.policy != DEFAULT_POLICY:
            yield f"after failures: {short_repr(self.policy)}"
        if not self.respawn:
            yield "a start that fails is not tried again"
        if self.probe is not None:
            yield f"the liveness probe says yes {self.probe} times, and then no"
        if self.expires is not None:
            yield f"the service is rented for {self.expires:g} s"
        for choice, place in self.deviations:
            yield f"the {nth(choice)} time that several tasks could run, the {nth(place + 1)} in line does"

    @property
    def weight(self) -> int:
        """How much there is to it; of two failing plans the lighter one tells more."""
        return len(self.faults) + len(self.actions) + len(self.handlers) + len(self.deviations)

    @classmethod
    def replay(cls, line: str) -> Self:
        """The plan of a replay line, which is what `repr` gives. Nothing of it is executed.

        Raises `ConfigError` where the line is no plan.
        """
        value = read_value(line, _NAMES)
        if not isinstance(value, cls):
            raise ConfigError(f"{line!r:.200} is no plan; a replay line begins with Plan(")
        return value


_NAMES = Names(
    {kind.__name__: kind for kind in (Plan, Fault, Action, HandlerFault, RestartPolicy)},
    {kind.__name__: kind for kind in (FaultKind, ActionKind, HandlerFaultKind)},
)


def nth(number: int) -> str:
    """1st, 2nd, 3rd …"""
    if number % 100 not in (11, 12, 13) and (ending := {1: "st", 2: "nd", 3: "rd"}.get(number % 10)):
        return f"{number}{ending}"
    return f"{number}th"


def _need_one(value: object, *names: str) -> None:
    if sum(getattr(value, name) is not None for name in names) != 1:
        raise ConfigError(f"{value!r}: give exactly one of {', '.join(names)}")


def _when(at: float | None, at_call: int | None, at_step: int | None, call: str) -> str:
    if at is not None:
        return f"at {at:g} s"
    if at_call is None:
        return f"before step {at_step} of the loop"
    return f"at the {nth(at_call)} node call" if call == ANY else f"at the {nth(at_call)} {call}()"
