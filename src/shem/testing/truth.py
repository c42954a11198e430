"""Looking, again and again, whether what the instances say is true.

Every few seconds the states of all instances are held against what the node knows of their activities. A
state may be out of date for as long as finding out may take, and no longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from shem.devnet.node import Node
from shem.lifecycle import ActivityState, State
from shem.service.instance import Instance
from shem.testing.limits import Limits
from shem.testing.link import Link
from shem.testing.plan import CALL_FAULTS, FaultKind, Plan

#: Seconds between two looks.
PERIOD: Final = 5.0

_AT_WORK: Final = (State.STARTING, State.RUNNING, State.STOPPING)
#: What a fault of a call can cost at most, besides what it says: the call is repeated after some waiting.
_REPEATED: Final = 20.0


class Truth:
    """Watches the instances of one life.

    Attributes:
        lies: what was found to be untrue for too long.
    """

    def __init__(
        self, plan: Plan, node: Node, link: Link, instances: Callable[[], Iterable[Instance]], limits: Limits
    ) -> None:
        self._node, self._link, self._instances, self._limits = node, link, instances, limits
        self._slack = slack_of(plan)
        self._since: dict[tuple[str, str], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.lies: list[str] = []

    def begin(self) -> None:
        """Look from now on."""
        self._timer = asyncio.get_running_loop().call_later(PERIOD, self._look)

    def end(self) -> None:
        """Do not look any more."""
        if self._timer is not None:
            self._timer.cancel()

    def begin_anew(self) -> None:
        """Somebody is heard again, perhaps only for a moment between two looks: all waiting begins anew."""
        self._since.clear()

    def _look(self) -> None:
        self.begin()
        if not self._link.up:
            # Nobody can know anything now.
            self.begin_anew()
            return
        for instance in self._instances():
            self._judge(instance)

    def _judge(self, instance: Instance) -> None:
        if instance.lease is None or instance.state not in (*_AT_WORK, State.UNRESPONSIVE):
            self._forget(instance)
            return
        activity = self._node.activities.find(instance.lease.activity_id)
        assert activity is not None, "activities are never forgotten by the node"
        reachable = self._node.provider(activity.agreement.provider).reachable
        gone = not activity.alive and (activity.end_known or reachable)
        silent = not gone and (not reachable or activity.state is ActivityState.UNRESPONSIVE)
        heard = not gone and not silent and not activity.silent
        at_work = instance.state in _AT_WORK
        limits = self._limits
        self._hold(instance, "gone", gone, limits.detection)
        self._hold(instance, "silent", silent and at_work, limits.silence)
        self._hold(instance, "heard", heard and not at_work, limits.recovery)

    def _hold(self, instance: Instance, what: str, wrong: bool, allowed: float) -> None:
        key = (instance.id, what)
        if not wrong:
            self._since.pop(key, None)
            return
        now = asyncio.get_running_loop().time()
        since = self._since.setdefault(key, now)
        if now - since > allowed + self._slack:
            self._since[key] = float("inf")
            self.lies.append(
                f"instance {instance.id} reads {instance.state.value} at {now:g} s, "
                f"though its activity was {what} since {since:g} s or before"
            )

    def _forget(self, instance: Instance) -> None:
        for what in ("gone", "silent", "heard"):
            self._since.pop((instance.id, what), None)


def slack_of(plan: Plan) -> float:
    """By how many seconds a plan can delay everything that the engine learns."""
    calls = sum(one.times * (one.seconds + _REPEATED) for one in plan.faults if one.kind in CALL_FAULTS)
    outages = sum(
        one.seconds + _REPEATED
        for one in plan.faults
        if one.kind in (FaultKind.NODE_DOWN, FaultKind.NODE_RESTART)
    )
    return calls + outages + 10 * max(plan.latencies, default=0.0)
