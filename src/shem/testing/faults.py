"""Carrying out what a plan says about providers, node and calls.

Faults of single calls are carried out by the `PlannedLink`, all others by `Faults`, which arms them: at their
time, or at their call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, Final

from shem.devnet.activity import Activity
from shem.devnet.agreements import Agreement
from shem.devnet.node import Node
from shem.errors import Gone, NodeError, NodeFailure, NodeUnavailable, NotFound, RequestTimeout
from shem.ids import DemandId
from shem.testing.life import Call, Happening
from shem.testing.link import ANY, Link
from shem.testing.plan import CALL_FAULTS, COMMAND_FAULTS, REPEATED, Fault, FaultKind
from shem.testing.runtime import Reply, Respond
from shem.testing.sim import SimLoop

_K = FaultKind

#: Answers in place of the call's effect.
_INSTEAD: dict[FaultKind, tuple[type[NodeError], int | None]] = {
    _K.ANSWER_404: (NotFound, 404),
    _K.ANSWER_408: (RequestTimeout, 408),
    _K.ANSWER_410: (Gone, 410),
    _K.ANSWER_500: (NodeFailure, 500),
    _K.CUT_BEFORE: (NodeUnavailable, None),
}
#: Answers in place of the right one, when the call has had its effect.
_AFTERWARDS: dict[FaultKind, tuple[type[NodeError], int | None]] = {
    _K.ANSWER_504: (RequestTimeout, 504),
    _K.CUT_AFTER: (NodeUnavailable, None),
}
_SAID = "so ordered by the plan"

#: How long a program of the plan that does not end would run, in seconds.
ENDLESS = 1e6
#: How long a provider that comes and goes is there in between, in seconds.
BREATH: Final = 4.0
#: What bills are multiplied with by a provider that pads them.
PADDING = Decimal(2)


@dataclass(slots=True)
class _Trouble:
    """A fault of calls, for the next `left` of them."""

    fault: Fault
    left: int

    def takes(self, name: str) -> bool:
        if self.left <= 0 or self.fault.call not in (ANY, name):
            return False
        self.left -= 1
        return True


class PlannedLink(Link):
    """A link that delays every call, notes it down, and hits single calls with what a plan says.

    Attributes:
        made: every call, when it was made.
        done: every call that had its effect, when it had.
        lies: calls that were answered as if the thing did not exist.
    """

    def __init__(self, latencies: Sequence[float]) -> None:
        super().__init__()
        self.made: list[Call] = []
        self.done: list[Call] = []
        self.lies: list[Call] = []
        self._latencies = tuple(latencies)
        self._counts: Counter[str] = Counter()
        self._planned: dict[tuple[str, int], list[Callable[[], object]]] = {}
        self._troubles: list[_Trouble] = []
        self._afterwards: dict[asyncio.Task[Any] | None, list[Fault]] = {}

    def on_call(self, call: str, number: int, action: Callable[[], object]) -> None:
        """Call `action` when the call of a name (or of any) with this number, from 1, is about to be made."""
        self._planned.setdefault((call, number), []).append(action)

    def trouble(self, fault: Fault) -> None:
        """Hit the next calls."""
        self._troubles.append(_Trouble(fault, fault.times))

    def heal(self) -> None:
        """Hit no calls any more; the link is up again."""
        super().heal()
        self._troubles.clear()

    async def before_call(self, name: str, args: tuple[Any, ...]) -> None:
        """See `Link.before_call`."""
        call = self._note(self.made, name, args)
        self._counts[name] += 1
        if self._planned:
            for key in ((ANY, len(self.made)), (name, self._counts[name])):
                for action in self._planned.pop(key, ()):
                    action()
        hits = [one.fault for one in self._troubles if one.takes(name)] if self._troubles else []
        if self._latencies and (latency := self._latencies[len(self.made) % len(self._latencies)]):
            await asyncio.sleep(latency)
        if hits:
            await self._hit(call, hits)
        await super().before_call(name, args)

    async def _hit(self, call: Call, hits: list[Fault]) -> None:
        self._afterwards[asyncio.current_task()] = hits
        for fault in hits:
            if fault.kind is _K.SLOW_CALL:
                await asyncio.sleep(fault.seconds)
            elif fault.kind in _INSTEAD:
                kind, status = _INSTEAD[fault.kind]
                if kind in (NotFound, Gone):
                    self.lies.append(call)
                self._afterwards.pop(asyncio.current_task(), None)
                raise kind(call.name, status, _SAID)

    async def after_call(self, name: str, args: tuple[Any, ...]) -> None:
        """See `Link.after_call`."""
        self._note(self.done, name, args)
        if self._afterwards:
            for fault in self._afterwards.pop(asyncio.current_task(), ()):
                if fault.kind is _K.SLOW_ANSWER:
                    await asyncio.sleep(fault.seconds)
                elif fault.kind in _AFTERWARDS:
                    kind, status = _AFTERWARDS[fault.kind]
                    raise kind(name, status, _SAID)
        await super().after_call(name, args)

    def _note(self, calls: list[Call], name: str, args: tuple[Any, ...]) -> Call:
        about = args[0] if args and isinstance(args[0], str) else ""
        call = Call(asyncio.get_running_loop().time(), name, about)
        calls.append(call)
        return call


class Faults:
    """The faults of one life.

    Attributes:
        happened: those that came about, when.
        on_recovery: called whenever a provider, an activity or the node is heard again.
    """

    def __init__(self, faults: Sequence[Fault], link: PlannedLink) -> None:
        self._faults, self._link = faults, link
        self.happened: list[Happening] = []
        self.on_recovery: Callable[[], object] = lambda: None

    def arm(self, node: Node, loop: SimLoop) -> None:
        """Let each fault come about on this node when it is due."""
        self._node = node
        for fault in self._faults:
            if fault.kind in COMMAND_FAULTS:
                continue
            if fault.at is not None:
                loop.call_at(max(fault.at, loop.time()), self._come_about, fault)
            elif fault.at_step is not None:
                loop.at_step(fault.at_step, partial(self._come_about, fault))
            elif fault.at_call is not None:
                self._link.on_call(fault.call, fault.at_call, partial(self._come_about, fault))

    def responding(self, respond: Respond) -> Respond:
        """Programs behave as `respond` says, but for those that a plan lets fail or hang."""
        planned = {fault.at_call: fault for fault in self._faults if fault.kind in COMMAND_FAULTS}
        if not planned:
            return respond
        runs = 0

        def reply(program: str, args: Sequence[str]) -> Reply:
            nonlocal runs
            runs += 1
            fault = planned.get(runs)
            if fault is None:
                return respond(program, args)
            self._note(fault)
            if fault.kind is _K.COMMAND_HANGS:
                return Reply(seconds=ENDLESS)
            return Reply(stderr=_SAID, exit_code=1, seconds=fault.seconds)

        return reply

    def heal(self) -> None:
        """Nothing is wrong any more: the node is there, and all providers are heard."""
        self._link.heal()
        for provider in self._node.providers:
            self._node.faults.recover(provider.name)
        for activity in self._node.activities.all():
            self._node.faults.resume_activity(activity.id)

    def _note(self, fault: Fault) -> None:
        self.happened.append(Happening(asyncio.get_running_loop().time(), fault))

    def _come_about(self, fault: Fault) -> None:
        self._note(fault)
        if fault.kind in CALL_FAULTS:
            self._link.trouble(fault)
        elif fault.kind in (_K.NODE_DOWN, _K.NODE_RESTART):
            self._node_goes(fault)
        else:
            self._provider_does(fault)

    def _node_goes(self, fault: Fault) -> None:
        self._link.up = False
        self._link.break_off()
        self._later(fault, partial(setattr, self._link, "up", True))
        if fault.kind is _K.NODE_RESTART:
            for demand in list(self._node.market.subscribed()):
                self._node.market.unsubscribe(demand.owner, DemandId(demand.id))

    def _provider_does(self, fault: Fault) -> None:
        if fault.times > 1 and fault.kind in REPEATED and fault.seconds:
            again = replace(fault, times=fault.times - 1)
            asyncio.get_running_loop().call_later(fault.seconds + BREATH, self._provider_does, again)
        if not self._node.providers:
            return
        order, agreement = self._node.faults, self._agreement(fault.which)
        provider = self._provider(fault.which, agreement)
        activity = self._activity(agreement)
        match fault.kind:
            case _K.VANISH:
                order.vanish(provider)
                self._later(fault, partial(order.recover, provider))
            case _K.RECOVER:
                order.recover(provider)
                if activity is not None:
                    order.resume_activity(activity.id)
                self.on_recovery()
            case _K.REFUSE:
                order.refuse_next_agreements(provider, fault.times)
            case _K.LATE:
                order.hesitate(provider, fault.seconds)
            case _K.PAD_BILLS:
                order.pad_bills(provider, PADDING)
            case _K.NO_INVOICE:
                order.withhold_invoices(provider)
            case _K.HANG if activity is not None:
                order.hang_activity(activity.id)
                self._later(fault, partial(order.resume_activity, activity.id))
            case _K.KILL if activity is not None:
                order.kill_activity(activity.id, fault.reason or "killed by the plan")
            case _K.TERMINATE if agreement is not None:
                order.linger(provider, fault.seconds)
                order.terminate_agreement(agreement.id, fault.reason or "ended by the plan")

    def _later(self, fault: Fault, undo: Callable[[], object]) -> None:
        def recover() -> None:
            undo()
            self.on_recovery()

        if fault.seconds:
            asyncio.get_running_loop().call_later(fault.seconds, recover)

    def _agreement(self, which: int) -> Agreement | None:
        agreements = self._node.agreements.all()
        return agreements[min(which, len(agreements) - 1)] if agreements else None

    def _provider(self, which: int, agreement: Agreement | None) -> str:
        if agreement is not None:
            return agreement.provider
        return self._node.providers[which % len(self._node.providers)].name

    def _activity(self, agreement: Agreement | None) -> Activity | None:
        found = [one for one in self._node.activities.all() if one.agreement is agreement]
        return found[-1] if found else None
