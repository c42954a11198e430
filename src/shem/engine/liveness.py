"""Watching all activities of a run by one loop: do they still live?

Every `interval` seconds each activity that has not given a sign of life meanwhile is asked for its state. The
answer's value counts, not its arrival. One that cannot be asked for `silent_after` seconds is unresponsive;
it goes on being asked, and one answer makes it responsive again.

How soon the instance on an activity knows, while the node answers (the parameters are `LivenessPace`'s, but
for the grace, which is `run_service`'s):

===========================================  ==========================================  =====================
what happens                                 it is known within                          by default
===========================================  ==========================================  =====================
the provider ends the agreement              the time the node takes to tell             at once
the activity ends, while a script runs       the time the node takes to tell             at once
the activity ends, otherwise                 2 × `interval`                              10 s, mostly 5 s
the provider falls silent                    max(`silent_after`, `interval`) +           25 s, not before 20 s
                                             `interval`, not before `silent_after`
it is heard again                            `interval`                                  5 s
it stays silent                              `unresponsive_grace` from then on           120 s
===========================================  ==========================================  =====================

Providers that answer slowly or not at all delay each look: by at most 2 × `answer`, and `SigningPace.news`
more where an activity is found gone, since the end of its agreement is given the first word. That is what a
look can add to these times, and the one before it, too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shem.clock import Clock
from shem.engine.activity import Activity
from shem.errors import ConfigError, Gone, NodeError, NodeUnavailable, NotFound
from shem.lifecycle import ActivityState
from shem.log import get_logger
from shem.yagna.api import IdentityApi

_log = get_logger("engine")


@dataclass(frozen=True, slots=True)
class LivenessPace:
    """When silence becomes a finding, in seconds.

    A provider is found unresponsive not before `silent_after` seconds after its last sign of life, and at
    most `interval` + 2 × `answer` seconds later (counted from `interval`, where that is longer; and
    `SigningPace.news` more where another one is found gone in the same look). Give it to
    `Golem(liveness=…)`. Raises `ConfigError` unless all are more than 0.

    Attributes:
        interval: from one look at all activities to the next; whoever was heard meanwhile is not asked.
        answer: how long the node may take for an answer.
        silent_after: how long nothing may be heard.
    """

    interval: float = 5.0
    answer: float = 5.0
    silent_after: float = 20.0

    def __post_init__(self) -> None:
        for name in ("interval", "answer", "silent_after"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"LivenessPace: {name} must be a number of seconds above 0, not {value!r}")

    @property
    def found_within(self) -> float:
        """After how many seconds of silence it is found at the latest."""
        return max(self.silent_after, self.interval) + self.interval + 2 * self.answer


@dataclass(frozen=True, slots=True)
class _Silence:
    """An activity that could not be asked. `by_node`: whether the node is why; None where that is open."""

    activity: Activity
    reason: str
    by_node: bool | None


class Liveness:
    """The watch over the activities of one run.

    A node that does not answer says nothing about providers: that time does not count as their silence.
    """

    def __init__(
        self,
        node: IdentityApi,
        activities: Callable[[], Iterable[Activity]],
        *,
        clock: Clock,
        pace: LivenessPace | None = None,
    ) -> None:
        self._node, self._activities = node, activities
        self._clock, self._pace = clock, pace or LivenessPace()

    async def watch(self) -> None:
        """Watch, until cancelled."""
        looked_at = self._clock.monotonic()
        while True:
            await asyncio.sleep(self._pace.interval)
            try:
                await self._look(looked_at)
            except Exception as error:  # a bug, or an answer nobody thought of: a blind engine would be worse
                _log.error("liveness_failed_by_a_bug", error=repr(error), exc_info=True)
            looked_at = self._clock.monotonic()

    async def _look(self, looked_at: float) -> None:
        due = [activity for activity in self._activities() if self._is_due(activity)]
        answers = await asyncio.gather(*(self._ask(activity) for activity in due))
        await self._judge([answer for answer in answers if answer is not None], looked_at)

    def _is_due(self, activity: Activity) -> bool:
        if activity.state is ActivityState.TERMINATED:
            return False
        return self._clock.monotonic() - activity.last_sign >= self._pace.interval

    async def _ask(self, activity: Activity) -> _Silence | None:
        try:
            async with asyncio.timeout(self._pace.answer):
                await activity.observe()
        except (NotFound, Gone) as error:
            await activity.found_gone("the node does not know the activity any more", error)
        except NodeUnavailable as error:
            return _Silence(activity, str(error), by_node=True)
        except TimeoutError:
            return _Silence(activity, f"no answer within {self._pace.answer:g} s", by_node=None)
        except NodeError as error:
            return _Silence(activity, str(error), by_node=False)
        return None

    async def _judge(self, silences: list[_Silence], looked_at: float) -> None:
        doubtful = any(silence.by_node is None for silence in silences)
        node_is_down = doubtful and not await self._node_answers()
        now = self._clock.monotonic()
        for silence in silences:
            activity = silence.activity
            if silence.by_node or (silence.by_node is None and node_is_down):
                activity.last_sign += now - max(activity.last_sign, looked_at)
            elif (seconds := now - activity.last_sign) >= self._pace.silent_after:
                activity.silent(f"no sign of life for {seconds:.0f} s: {silence.reason}")

    async def _node_answers(self) -> bool:
        try:
            async with asyncio.timeout(self._pace.answer):
                await self._node.me()
        except (NodeUnavailable, TimeoutError):
            return False
        except NodeError:
            # A refusal is an answer, too.
            return True
        return True
