"""Watching all activities of a run by one loop: do they still live?

Every `interval` seconds each activity that has not given a sign of life meanwhile is asked for its state. The
answer's value counts, not its arrival. One that cannot be asked for `silent_after` seconds is unresponsive;
it goes on being asked, and one answer makes it responsive again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shem.clock import Clock
from shem.engine.activity import Activity
from shem.errors import Gone, NodeError, NodeUnavailable, NotFound
from shem.lifecycle import ActivityState


@dataclass(frozen=True, slots=True)
class LivenessPace:
    """When silence becomes a finding, in seconds.

    A provider is found unresponsive between `silent_after` and `silent_after` + `interval` + `answer` seconds
    after its last sign of life.
    """

    interval: float = 5.0
    answer: float = 5.0
    silent_after: float = 20.0


class Liveness:
    """The watch over the activities of one run.

    A node that cannot be reached says nothing about providers: that time does not count as their silence.
    """

    def __init__(
        self, activities: Callable[[], Iterable[Activity]], *, clock: Clock, pace: LivenessPace | None = None
    ) -> None:
        self._activities, self._clock, self._pace = activities, clock, pace or LivenessPace()

    async def watch(self) -> None:
        """Watch, until cancelled."""
        while True:
            await asyncio.sleep(self._pace.interval)
            due = [activity for activity in self._activities() if self._is_due(activity)]
            await asyncio.gather(*(self._ask(activity) for activity in due))

    def _is_due(self, activity: Activity) -> bool:
        if activity.state is ActivityState.TERMINATED:
            return False
        return self._clock.monotonic() - activity.last_sign >= self._pace.interval

    async def _ask(self, activity: Activity) -> None:
        try:
            async with asyncio.timeout(self._pace.answer):
                await activity.observe()
            return
        except (NotFound, Gone) as error:
            activity.lose("the node does not know the activity any more", error)
            return
        except NodeUnavailable:
            activity.last_sign += self._pace.interval
            return
        except (NodeError, TimeoutError) as error:
            reason = str(error) or f"no answer within {self._pace.answer:g} s"
        silence = self._clock.monotonic() - activity.last_sign
        if silence >= self._pace.silent_after:
            activity.silent(f"no sign of life for {silence:.0f} s: {reason}")
